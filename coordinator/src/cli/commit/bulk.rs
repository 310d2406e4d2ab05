//! `commit --each`: a file of commits, many in flight, each once however often the file is sent.

use std::time::Duration;

use futures_util::StreamExt;
use indicatif::{ProgressBar, ProgressStyle};
use proto::v1;

use super::{CommitArgs, operations, send};
use crate::cli::connection::Server;
use crate::cli::output::{Output, note};
use crate::cli::receipt::{receipt_json, verdict};
use crate::cli::schemas::document;
use crate::failure::Failure;

/// How often a commit that meets a busy or absent server is sent again; its id makes that safe.
const TRIES: u32 = 6;
/// The longest pause before it is.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// What became of the lines.
#[derive(Debug, Default)]
struct Tally {
    confirmed: u64,
    queued: u64,
    failed: u64,
}

/// Sends every line of a file as a commit and says what became of them. The whole file is read, and
/// its faults reported, before anything is sent.
pub(super) async fn each(
    server: &Server,
    args: &CommitArgs,
    (file, prefix): (&str, &str),
    output: &mut Output,
) -> Result<(), Failure> {
    let requests = requests(args, file, prefix)?;
    if args.id.is_none() {
        note(&format!(
            "ids begin with {prefix}: give --id {prefix} to send the file again"
        ));
    }
    let bar = progress(requests.len());
    let mut tally = Tally::default();
    let sent = requests.into_iter().map(|request| {
        let id = request.client_tx_id.clone();
        async { (id, persist(server, args, request).await) }
    });
    let mut answers = futures_util::stream::iter(sent).buffer_unordered(args.in_flight.into());
    while let Some((id, answer)) = answers.next().await {
        bar.inc(1);
        let judged = answer.and_then(|receipt| verdict(&receipt).map(|()| receipt));
        match judged {
            Ok(receipt) => {
                tally.count(&receipt);
                if output.is_json() {
                    output.line(&receipt_json(&receipt).to_string())?;
                }
            }
            Err(failure) => {
                tally.failed += 1;
                bar.suspend(|| note(&format!("{id}: {}", failure.text())));
            }
        }
    }
    bar.finish_and_clear();
    tally.report(output)
}

fn requests(
    args: &CommitArgs,
    file: &str,
    prefix: &str,
) -> Result<Vec<v1::CommitRequest>, Failure> {
    let text = document(file)?;
    let lines = text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty());
    let read = |(index, line)| {
        let number = index + 1;
        let (id, operations) = operations::parse_line(line)
            .map_err(|rule| Failure::input(format!("{file}:{number}: {rule}")))?;
        Ok(args.request(
            id.unwrap_or_else(|| format!("{prefix}-{number}")),
            operations,
        ))
    };
    lines.map(read).collect()
}

/// Sends a commit until it is answered, while sending again may help.
async fn persist(
    server: &Server,
    args: &CommitArgs,
    request: v1::CommitRequest,
) -> Result<v1::Receipt, Failure> {
    let mut tries = 1;
    loop {
        let failure = match send(server, args, request.clone()).await {
            Ok(receipt) => return Ok(receipt),
            Err(failure) => failure,
        };
        let Some(pause) = failure.retry_after().filter(|_| tries < TRIES) else {
            return Err(failure);
        };
        tokio::time::sleep((pause * tries).min(PAUSE_MAX)).await;
        tries += 1;
    }
}

/// Shown when standard error is a terminal.
fn progress(count: usize) -> ProgressBar {
    let style = "{bar:32} {pos}/{len} commits, {per_sec}, {eta} left";
    let style = ProgressStyle::with_template(style).expect("the template is well formed");
    ProgressBar::new(count as u64).with_style(style)
}

impl Tally {
    fn count(&mut self, receipt: &v1::Receipt) {
        match receipt.state() {
            v1::CommitState::Confirmed => self.confirmed += 1,
            _ => self.queued += 1,
        }
    }

    fn report(&self, output: &mut Output) -> Result<(), Failure> {
        let Self {
            confirmed,
            queued,
            failed,
        } = self;
        let text = format!("{confirmed} confirmed, {queued} queued, {failed} failed");
        if !output.is_json() {
            output.line(&text)?;
        }
        if *failed == 0 {
            Ok(())
        } else {
            Err(Failure::refused(text))
        }
    }
}
