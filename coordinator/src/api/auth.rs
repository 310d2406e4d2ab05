//! Who calls: an API key for an organization's own services, the operator's token for Admin.

use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use tonic::Status;
use tonic::codegen::http::{HeaderMap, header};

use super::status::status;
use crate::domain::Caller;
use crate::keys::unauthenticated;
use crate::refusal::{Class, Refusal};

/// Who may call a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Whoever has a live API key.
    Organization,
    /// The operator.
    Operator,
    /// Anybody: health and reflection say nothing about anyone. Unknown methods too.
    Anybody,
}

impl Access {
    /// By the path of a call, `/package.Service/Method`.
    pub(super) fn of(path: &str) -> Self {
        match path
            .strip_prefix("/ablo.coordinator.v1.")
            .and_then(|rest| rest.split_once('/'))
        {
            Some(("Admin", _)) => Self::Operator,
            Some(_) => Self::Organization,
            None => Self::Anybody,
        }
    }
}

/// The token of `authorization: Bearer <token>`, if there is exactly one such header.
pub(super) fn bearer(headers: &HeaderMap) -> Result<&str, Refusal> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(unauthenticated());
    };
    let text = value.to_str().map_err(|_| unauthenticated())?;
    match text.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(token.trim()),
        _ => Err(unauthenticated()),
    }
}

/// Whether the token is the operator's. Digests are compared, so that the time it takes tells
/// nothing about the token, not even its length.
pub(super) fn operator(token: &str, expected: Option<&SecretString>) -> Result<(), Refusal> {
    let expected = expected.ok_or_else(unauthenticated)?;
    let given = Sha256::digest(token.as_bytes());
    let wanted = Sha256::digest(expected.expose_secret().as_bytes());
    let difference = given
        .iter()
        .zip(wanted.iter())
        .fold(0, |sum, (a, b)| sum | (a ^ b));
    if difference == 0 {
        Ok(())
    } else {
        Err(unauthenticated())
    }
}

/// Who calls, as the edge found before the message was read.
pub(super) fn caller<T>(request: &tonic::Request<T>) -> Result<Caller, Status> {
    request.extensions().get().cloned().ok_or_else(|| {
        status(Refusal::new(
            Class::Internal,
            "internal",
            "a call came past the edge",
        ))
    })
}

#[cfg(test)]
mod tests {
    use tonic::codegen::http::HeaderValue;

    use super::*;

    fn headers(values: &[&[u8]]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(
                header::AUTHORIZATION,
                HeaderValue::from_bytes(value).unwrap(),
            );
        }
        headers
    }

    #[test]
    fn a_bearer_token_is_read_whatever_the_case_of_its_scheme() {
        assert_eq!(bearer(&headers(&[b"Bearer sk_test_a"])), Ok("sk_test_a"));
        assert_eq!(bearer(&headers(&[b"bearer sk_test_a"])), Ok("sk_test_a"));
    }

    #[test]
    fn everything_else_is_refused_with_one_text() {
        let refused: [&[&[u8]]; 7] = [
            &[],
            &[b""],
            &[b"Bearer"],
            &[b"Basic abc"],
            &[b"sk_test_a"],
            &[b"Bearer \xff\xfe"],
            &[b"Bearer a", b"Bearer b"],
        ];
        for values in refused {
            assert_eq!(
                bearer(&headers(values)),
                Err(unauthenticated()),
                "{values:?}"
            );
        }
    }

    #[test]
    fn the_operator_is_told_by_the_whole_token() {
        let expected = SecretString::from("operator-token");
        assert_eq!(operator("operator-token", Some(&expected)), Ok(()));
        for token in ["", "operator", "operator-token-and-more", "operator-tokem"] {
            assert_eq!(operator(token, Some(&expected)), Err(unauthenticated()));
        }
    }

    #[test]
    fn nobody_is_the_operator_when_no_token_is_set() {
        assert_eq!(operator("", None), Err(unauthenticated()));
    }

    #[test]
    fn access_goes_by_the_service() {
        let of = Access::of;
        assert_eq!(
            of("/ablo.coordinator.v1.Coordinator/Commit"),
            Access::Organization
        );
        assert_eq!(
            of("/ablo.coordinator.v1.Admin/CreateApiKey"),
            Access::Operator
        );
        assert_eq!(
            of("/ablo.coordinator.v1.Adminx/CreateApiKey"),
            Access::Organization
        );
        assert_eq!(of("/grpc.health.v1.Health/Check"), Access::Anybody);
    }
}
