//! `source conformance`: checks a customer's endpoint.

use std::process::{Command, Stdio};

use backends::json;
use clap::Args;
use futures_util::FutureExt;
use serde_json::{Map, Value};

use super::connection::Connection;
use super::output::Output;
use crate::conformance::{self, CheckReport, Error, Target, Verdict, WriteOutside};
use crate::failure::Failure;

pub(super) const EXAMPLE: &str = "\
Rows are written under fresh ids and removed at the end; use a test database all the same.

Example: coordinator source conformance http://127.0.0.1:8080/ablo --key sk_test_demo_key \\
           --model airports --row '{\"name\": \"Thigpen\", \"country\": \"USA\", \"latitude\": 31.95, …}'

Exit code: 0 when no check failed, 1 when one did.";

/// What an endpoint is checked with.
#[derive(Args, Debug)]
pub(super) struct ConformanceArgs {
    /// The endpoint of the customer's app.
    pub url: String,
    /// A model that the endpoint serves.
    #[arg(long)]
    pub model: String,
    /// A row that the model accepts, as the endpoint would answer it. A second one says what an
    /// update may write.
    #[arg(long = "row", required = true, value_name = "JSON", value_parser = row)]
    pub rows: Vec<Map<String, Value>>,
    /// A shell command that changes the row `$ROW_ID` past the endpoint, to see that the feed tells
    /// of it.
    #[arg(long, value_name = "COMMAND")]
    pub outside: Option<String>,
}

/// Runs `source conformance`.
pub(super) async fn run(
    connection: &Connection,
    args: &ConformanceArgs,
    output: &mut Output,
) -> Result<(), Failure> {
    let missing = || Failure::config("--key (COORDINATOR_KEY): is required");
    let target = Target {
        url: args.url.clone(),
        key: connection.key.clone().ok_or_else(missing)?,
        model: args.model.clone(),
        rows: args.rows.clone(),
        write_outside: args.outside.clone().map(shell),
    };
    let reports = conformance::run(target).await;
    let reports = reports.map_err(|error| match error {
        Error::Unreachable(_) => Failure::unavailable(error.to_string()),
        Error::NoRow | Error::Url(_) | Error::Client(_) => Failure::config(error.to_string()),
    })?;
    output.rows(
        &reports,
        CheckReport::json,
        &["outcome", "check"],
        |report| vec![report.verdict.as_str().to_owned(), report.name.to_owned()],
    )?;
    if !output.is_json() {
        explain(&reports, output)?;
    }
    let failed = |report: &&CheckReport| matches!(report.verdict, Verdict::Failed { .. });
    match reports.iter().filter(failed).count() {
        0 => Ok(()),
        count => Err(
            Failure::refused(format!("{count} of {} checks failed", reports.len()))
                .because("endpoint_nonconforming"),
        ),
    }
}

/// What to do about each check that did not pass.
fn explain(reports: &[CheckReport], output: &mut Output) -> Result<(), Failure> {
    for report in reports {
        match &report.verdict {
            Verdict::Passed => {}
            Verdict::Failed { seen, mend } => output.line(&format!(
                "\nfailed: {}\n  seen: {seen}\n  mend: {mend}",
                report.name
            ))?,
            Verdict::Skipped(reason) => {
                output.line(&format!("\nskipped: {}\n  {reason}", report.name))?;
            }
        }
    }
    Ok(())
}

fn row(text: &str) -> Result<Map<String, Value>, json::JsonError> {
    json::parse_object(text.as_bytes())
}

fn shell(command: String) -> WriteOutside {
    Box::new(move |id| {
        let mut shell = Command::new("sh");
        shell
            .args(["-c", &command])
            .env("ROW_ID", id)
            .stdin(Stdio::null());
        async move {
            let ended = tokio::task::spawn_blocking(move || shell.output()).await;
            let ended = ended
                .map_err(|error| error.to_string())?
                .map_err(|error| error.to_string())?;
            if ended.status.success() {
                return Ok(());
            }
            let said = String::from_utf8_lossy(&ended.stderr).trim().to_owned();
            Err(format!("{}: {said}", ended.status))
        }
        .boxed()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_outside_command_is_told_the_row_and_its_complaint_is_kept() {
        let write = shell(r#"test "$ROW_ID" = a || { echo no "$ROW_ID" >&2; exit 3; }"#.to_owned());
        assert_eq!(write("a".to_owned()).await, Ok(()));
        assert_eq!(
            write("b".to_owned()).await,
            Err("exit status: 3: no b".to_owned())
        );
    }

    #[test]
    fn a_row_is_a_json_object_with_exact_numbers() {
        assert_eq!(row(r#"{"n": 1.10}"#).unwrap()["n"].to_string(), "1.10");
        assert!(row("[]").is_err());
    }
}
