//! An ear for the one answer that the service never gives: every test fails that hears `UNKNOWN`.
//!
//! It tells a caller nothing about what to do next. What the transport makes up by itself, when a
//! connection breaks for example, is not meant.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use http_body_util::BodyExt;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::{HeaderMap, Request, Response};
use tonic::transport::{Channel, Error};

/// A connection whose answers are listened to.
#[derive(Clone, Debug)]
pub struct Attentive(Channel);

impl Attentive {
    /// Listens to what comes back on a connection.
    pub fn new(channel: Channel) -> Self {
        Self(channel)
    }
}

impl Service<Request<Body>> for Attentive {
    type Response = Response<Body>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let path = request.uri().path().to_owned();
        let answer = self.0.call(request);
        Box::pin(async move {
            let answer = answer.await?;
            listen(&path, answer.headers());
            Ok(answer.map(|body| {
                Body::new(body.map_frame(move |frame| {
                    if let Some(trailers) = frame.trailers_ref() {
                        listen(&path, trailers);
                    }
                    frame
                }))
            }))
        })
    }
}

/// # Panics
/// When the status is `UNKNOWN`.
fn listen(path: &str, headers: &HeaderMap) {
    let status = headers.get("grpc-status");
    assert!(
        status.is_none_or(|status| status != "2"),
        "{path} answered UNKNOWN: {headers:?}"
    );
}

#[cfg(test)]
mod tests {
    use tonic::{Code, Status};

    use super::listen;

    fn heard(code: Code) {
        listen(
            "/a.Service/Method",
            Status::new(code, "").into_http::<()>().headers(),
        );
    }

    #[test]
    fn other_answers_pass() {
        for code in [
            Code::Ok,
            Code::Internal,
            Code::Unavailable,
            Code::Unauthenticated,
        ] {
            heard(code);
        }
    }

    #[test]
    #[should_panic(expected = "/a.Service/Method answered UNKNOWN")]
    fn unknown_fails_the_test() {
        heard(Code::Unknown);
    }
}
