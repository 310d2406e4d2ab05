//! Verification as its caller sees it.

use proto::v1;

use super::{DataSourcesApi, NAME};
use crate::api::{encode, names};
use crate::domain::{Caller, SourceSettings};
use crate::refusal::{Class, Refusal};
use crate::verify::Verification;

impl DataSourcesApi {
    /// What a source's endpoint shows.
    pub(super) async fn verified(
        &self,
        caller: &Caller,
        name: &str,
    ) -> Result<v1::VerifyDataSourceResponse, Refusal> {
        let id = names::parse_source(NAME, name)?;
        let found = self.rooms.verifier.source(caller, &id).await?;
        Ok(encoded(found))
    }

    /// What the endpoint of a source to be shows, if every check passes.
    pub(super) async fn passed(
        &self,
        caller: &Caller,
        settings: &SourceSettings,
    ) -> Result<Verification, Refusal> {
        let verifier = &self.rooms.verifier;
        let found = verifier
            .candidate(caller, &settings.url, settings.request_timeout)
            .await?;
        if found.is_ok() {
            return Ok(found);
        }
        let reason = "verification_failed";
        Err(Refusal::new(Class::Precondition, reason, found.faults()))
    }
}

fn encoded(found: Verification) -> v1::VerifyDataSourceResponse {
    let ok = found.is_ok();
    let checks = found.checks.into_iter().map(|check| v1::VerificationCheck {
        name: check.name.to_owned(),
        ok: check.ok,
        message: check.message,
        latency: check.latency.map(encode::duration),
    });
    let keys = found.keys.into_iter().map(|key| v1::KeyCheck {
        api_key_id: key.id.to_string(),
        accepted: key.accepted == Some(true),
    });
    v1::VerifyDataSourceResponse {
        ok,
        checks: checks.collect(),
        keys: keys.collect(),
        clock_skew: found.skew.map(|skew| {
            let by = encode::duration(skew.by);
            let sign = if skew.ahead { 1 } else { -1 };
            prost_types::Duration {
                seconds: sign * by.seconds,
                nanos: i32::try_from(sign).unwrap_or(1) * by.nanos,
            }
        }),
        certificate_expire_time: found.certificate_expires_at.map(encode::timestamp),
    }
}
