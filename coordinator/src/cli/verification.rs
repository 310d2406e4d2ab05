//! `source verify`: what an endpoint shows when it is asked.

use proto::v1;
use serde_json::{Value, json};

use super::connection::Server;
use super::output::Output;
use super::status::{moment, span};
use crate::failure::Failure;

pub(super) const EXIT_CODE: &str = "Exit code: 0 when every check passed, 1 when one did not.";

/// Runs `source verify`.
pub(super) async fn run(server: &Server, id: &str, output: &mut Output) -> Result<(), Failure> {
    let request = v1::VerifyDataSourceRequest {
        name: format!("dataSources/{id}"),
    };
    let answer = server
        .data_sources()
        .verify(server.request(request))
        .await?;
    let found = answer.into_inner();
    if output.is_json() {
        output.line(&found_json(&found).to_string())?;
    } else {
        show(&found, output)?;
    }
    let failed = found.checks.iter().filter(|check| !check.ok).count();
    if found.ok {
        return Ok(());
    }
    let message = format!("{failed} of {} checks did not pass", found.checks.len());
    Err(Failure::refused(message).because("verification_failed"))
}

fn show(found: &v1::VerifyDataSourceResponse, output: &mut Output) -> Result<(), Failure> {
    output.rows(
        &found.checks,
        check_json,
        &["check", "", "took", "seen"],
        |check| {
            vec![
                check.name.clone(),
                if check.ok { "ok" } else { "FAILED" }.to_owned(),
                span(check.latency),
                check.message.clone(),
            ]
        },
    )?;
    for key in &found.keys {
        let taken = if key.accepted { "taken" } else { "not taken" };
        output.line(&format!("key {} is {taken} alone", key.api_key_id))?;
    }
    Ok(())
}

fn found_json(found: &v1::VerifyDataSourceResponse) -> Value {
    let key = |key: &v1::KeyCheck| json!({"id": key.api_key_id, "accepted": key.accepted});
    let skew = found.clock_skew.map(|skew| {
        #[expect(
            clippy::cast_precision_loss,
            reason = "a difference of clocks is no sum of money"
        )]
        let seconds = skew.seconds as f64;
        seconds + f64::from(skew.nanos) / 1e9
    });
    json!({
        "ok": found.ok,
        "checks": found.checks.iter().map(check_json).collect::<Vec<_>>(),
        "keys": found.keys.iter().map(key).collect::<Vec<_>>(),
        "clockSkewSeconds": skew,
        "certificateExpireTime": found.certificate_expire_time.map(|time| moment(Some(time))),
    })
}

fn check_json(check: &v1::VerificationCheck) -> Value {
    json!({
        "name": check.name,
        "ok": check.ok,
        "message": check.message,
        "latency": check.latency.map(|took| span(Some(took))),
    })
}
