//! `watch`: changes as they happen. It resumes by itself, wherever the stream broke off.

use std::time::Duration;

use clap::Args;
use proto::v1;
use proto::v1::subscribe_request::Start;
use proto::v1::subscribe_response::Frame;
use serde_json::{Value, json};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::connection::{Connection, Server};
use super::output::{Colour, Output, note};
use super::receipt::type_word;
use super::schemas::parsed;
use super::status::moment;
use crate::failure::Failure;

/// The first pause before it subscribes again, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// `coordinator watch …`
#[derive(Args, Debug)]
pub(super) struct WatchArgs {
    #[command(flatten)]
    pub connection: Connection,

    /// Only changes of this model; may be repeated.
    #[arg(long = "model", value_name = "MODEL")]
    models: Vec<String>,

    /// Only changes of rows in this sync group; may be repeated.
    #[arg(long = "group", value_name = "GROUP")]
    groups: Vec<String>,

    /// Start behind this cursor; with what is confirmed from now on when absent.
    #[arg(long, value_name = "CURSOR", conflicts_with_all = ["snapshot", "oldest"])]
    cursor: Option<String>,

    /// Start with the managed rows as they stand.
    #[arg(long, conflicts_with = "oldest")]
    snapshot: bool,

    /// Start with the oldest change that is kept.
    #[arg(long)]
    oldest: bool,

    /// End after so many changes.
    #[arg(long, value_name = "N")]
    count: Option<u64>,
}

/// Where a watch stands.
struct Watch<'a> {
    args: &'a WatchArgs,
    start: Option<Start>,
    left: Option<u64>,
    pause: Duration,
}

/// Runs `watch`, until it has shown what it should, or the stream cannot be resumed.
pub(super) async fn run(args: &WatchArgs, output: &mut Output) -> Result<(), Failure> {
    let server = args.connection.as_caller().await?;
    let start = match &args.cursor {
        Some(cursor) => Some(Start::Cursor(cursor.clone())),
        None if args.snapshot => Some(Start::Snapshot(true)),
        None if args.oldest => Some(Start::Oldest(true)),
        None => None,
    };
    let mut watch = Watch {
        args,
        start,
        left: args.count,
        pause: PAUSE.0,
    };
    loop {
        let Err(status) = watch.follow(&server, output).await? else {
            return Ok(());
        };
        if !passes(&status) {
            return Err(status.into());
        }
        note(&format!("{}; resuming", status.message()));
        tokio::time::sleep(watch.pause).await;
        watch.pause = (2 * watch.pause).min(PAUSE.1);
    }
}

impl Watch<'_> {
    /// Shows what a stream sends, until there is no more to show, or until it breaks off.
    async fn follow(
        &mut self,
        server: &Server,
        output: &mut Output,
    ) -> Result<Result<(), Status>, Failure> {
        let request = v1::SubscribeRequest {
            start: self.start.clone(),
            models: self.args.models.clone(),
            sync_groups: self.args.groups.clone(),
        };
        let stream = server.log().subscribe(server.request(request)).await;
        let mut stream = match stream {
            Ok(stream) => stream.into_inner(),
            Err(status) => return Ok(Err(status)),
        };
        while self.left != Some(0) {
            let frame = match stream.message().await {
                Ok(Some(message)) => message.frame,
                Ok(None) => return Ok(Err(Status::unavailable("the stream ended"))),
                Err(status) => return Ok(Err(status)),
            };
            self.pause = PAUSE.0;
            if let Some(frame) = frame {
                self.show(frame, output)?;
            }
        }
        Ok(Ok(()))
    }

    fn show(&mut self, frame: Frame, output: &mut Output) -> Result<(), Failure> {
        match frame {
            Frame::Change(change) => {
                show_change(&change, output)?;
                self.left = self.left.map(|left| left - 1);
                self.passed(change.cursor);
            }
            Frame::Heartbeat(heartbeat) => {
                if output.is_json() {
                    let json = json!({
                        "frame": "heartbeat",
                        "caughtUpTo": heartbeat.caught_up_to,
                        "cursor": heartbeat.cursor,
                    });
                    output.line(&json.to_string())?;
                }
                self.passed(heartbeat.cursor);
            }
            Frame::SnapshotRow(row) => show_row(&row, output)?,
            Frame::SnapshotEnd(end) => {
                if output.is_json() {
                    let json = json!({
                        "frame": "snapshotEnd",
                        "syncId": end.sync_id,
                        "cursor": end.cursor,
                    });
                    output.line(&json.to_string())?;
                } else {
                    note(&format!("the rows as they stood at {}", end.sync_id));
                }
                self.passed(end.cursor);
            }
            Frame::Reset(reset) => {
                if output.is_json() {
                    let json = json!({"frame": "reset", "reason": reset.reason});
                    output.line(&json.to_string())?;
                }
            }
        }
        Ok(())
    }

    fn passed(&mut self, cursor: String) {
        if !cursor.is_empty() {
            self.start = Some(Start::Cursor(cursor));
        }
    }
}

/// Whether a stream that ended so is worth resuming.
fn passes(status: &Status) -> bool {
    let reason = status.get_details_error_info().map(|info| info.reason);
    match status.code() {
        Code::Unavailable | Code::Cancelled | Code::Unknown | Code::ResourceExhausted => true,
        // Without a reason it is not the coordinator that speaks, but a connection that broke.
        Code::Internal => reason.is_none(),
        _ => false,
    }
}

fn show_change(change: &v1::Change, output: &mut Output) -> Result<(), Failure> {
    if output.is_json() {
        return output.line(&change_json(change).to_string());
    }
    let (word, colour) = match change.r#type() {
        _ if change.left => ("LEFT", Colour::Grey),
        kind @ v1::OperationType::Create => (type_word(kind), Colour::Green),
        kind @ v1::OperationType::Update => (type_word(kind), Colour::Yellow),
        kind @ v1::OperationType::Delete => (type_word(kind), Colour::Red),
        kind => (type_word(kind), Colour::Magenta),
    };
    let who = match &change.participant {
        Some(who) => format!("{} {}", kind_word(who.kind()), who.id),
        None => "outside".to_owned(),
    };
    let line = format!(
        "{} {} {} {}/{} {} {}",
        output.paint(Colour::Grey, &moment(change.time)),
        output.paint(Colour::Grey, &format!("#{}", change.sync_id)),
        output.paint(colour, &format!("{word:<9}")),
        change.model,
        change.id,
        String::from_utf8_lossy(&change.row_json),
        output.paint(Colour::Grey, &format!("by {who} {}", change.client_tx_id)),
    );
    output.line(line.trim_end())
}

fn show_row(row: &v1::SnapshotRow, output: &mut Output) -> Result<(), Failure> {
    if output.is_json() {
        let json = json!({
            "frame": "row",
            "model": row.model,
            "id": row.id,
            "row": parsed(&row.row_json),
            "archived": row.archived,
            "syncId": row.sync_id,
            "syncGroups": row.sync_groups,
        });
        return output.line(&json.to_string());
    }
    let line = format!(
        "{} {} {}/{} {}",
        output.paint(Colour::Grey, &format!("#{}", row.sync_id)),
        output.paint(Colour::Cyan, "ROW      "),
        row.model,
        row.id,
        String::from_utf8_lossy(&row.row_json),
    );
    output.line(&line)
}

/// For a program.
fn change_json(change: &v1::Change) -> Value {
    let row = (!change.row_json.is_empty()).then(|| parsed(&change.row_json));
    let participant = change.participant.as_ref();
    let participant = participant.map(|who| json!({"id": who.id, "kind": kind_word(who.kind())}));
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    json!({
        "frame": "change",
        "syncId": change.sync_id,
        "cursor": change.cursor,
        "type": type_word(change.r#type()),
        "model": change.model,
        "id": change.id,
        "row": row,
        "clientTxId": text(&change.client_tx_id),
        "operationIndex": change.operation_index,
        "transactionId": text(&change.transaction_id),
        "participant": participant,
        "origin": if change.origin() == v1::Origin::External { "external" } else { "sdk" },
        "syncGroups": change.sync_groups,
        "leftSyncGroups": change.left_sync_groups,
        "left": change.left,
        "stale": change.stale,
        "time": moment(change.time),
    })
}

fn kind_word(kind: v1::ParticipantKind) -> &'static str {
    match kind {
        v1::ParticipantKind::User => "user",
        v1::ParticipantKind::Agent => "agent",
        v1::ParticipantKind::System => "system",
        v1::ParticipantKind::Unspecified => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_resumed_unless_the_caller_must_do_something() {
        for passing in [
            Status::unavailable("the node stops"),
            Status::resource_exhausted("slow"),
            Status::unknown("h2 protocol error"),
            Status::internal("connection reset"),
        ] {
            assert!(passes(&passing), "{passing}");
        }
        for lasting in [
            Status::out_of_range("expired"),
            Status::failed_precondition("diverged"),
            Status::unauthenticated("no key"),
            Status::invalid_argument("no such model"),
        ] {
            assert!(!passes(&lasting), "{lasting}");
        }
    }
}
