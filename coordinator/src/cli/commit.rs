//! `commit`: one operation by flags, many from a file, or many commits from a file of lines.

mod bulk;
mod operations;
pub(super) mod participant;

use std::time::Duration;

use clap::{ArgGroup, Args, ValueEnum};
use proto::v1;
use uuid::Uuid;

use self::participant::participant;
use super::connection::{Connection, Server};
use super::output::{Output, note};
use super::receipt;
use super::schemas::document;
use crate::duration;
use crate::failure::Failure;

const EXAMPLES: &str = r#"Examples:
  coordinator commit --create notes --row n1 --input '{"text":"hello"}'
  coordinator commit --update notes --row n1 --input '{"text":"bye"}' --as user:ada --id tx-17
  coordinator commit --file operations.json      a JSON array of operations, applied together
  coordinator commit --each commits.jsonl        a commit a line, many in flight

An operation in a file is {"type":"CREATE","model":"notes","id":"n1","input":{"text":"hello"}}, and
may carry transactionId, readAt and onStale. A line is one operation, an array of them, or
{"clientTxId":"…","operations":[…]}. Sending a commit again with its id is safe: it applies once."#;

/// `coordinator commit …`
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
#[command(group(ArgGroup::new("what").required(true)
    .args(["create", "update", "delete", "archive", "unarchive", "file", "each"])))]
pub(super) struct CommitArgs {
    #[command(flatten)]
    pub connection: Connection,

    /// Add a row of this model.
    #[arg(long, value_name = "MODEL")]
    create: Option<String>,
    /// Replace fields of a row of this model.
    #[arg(long, value_name = "MODEL", requires = "row")]
    update: Option<String>,
    /// Remove a row of this model.
    #[arg(long, value_name = "MODEL", requires = "row")]
    delete: Option<String>,
    /// Hide a row of this model.
    #[arg(long, value_name = "MODEL", requires = "row")]
    archive: Option<String>,
    /// Show a row of this model again.
    #[arg(long, value_name = "MODEL", requires = "row")]
    unarchive: Option<String>,
    /// A JSON file of operations that apply together; `-` is standard input.
    #[arg(long, value_name = "FILE")]
    file: Option<String>,
    /// A file of JSON lines, each a commit of its own; `-` is standard input.
    #[arg(long, value_name = "FILE")]
    each: Option<String>,

    /// The row's id; assigned to a new row when absent.
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    row: String,
    /// The row's fields, a JSON object.
    #[arg(long, value_name = "JSON", conflicts_with_all = ["file", "each", "delete", "archive"])]
    input: Option<String>,
    /// The sync id that your view of the row rests on.
    #[arg(long, value_name = "SYNC_ID")]
    read_at: Option<i64>,
    /// What to do when the row has changed since.
    #[arg(long, value_enum, requires = "read_at")]
    on_stale: Option<OnStale>,

    /// The commit's `client_tx_id`; generated and shown when absent. With `--each`: the beginning
    /// of the ids of lines that carry none, so that the same file may be sent again.
    #[arg(long, value_name = "CLIENT_TX_ID")]
    id: Option<String>,
    /// Who writes: `user:ID`, `agent:ID` or `system:ID`.
    #[arg(long = "as", default_value = "system:cli", value_parser = participant)]
    writer: v1::Participant,
    /// A sync group that the writer must belong to; repeatable.
    #[arg(long = "group", value_name = "GROUP")]
    groups: Vec<String>,
    /// Until when to wait.
    #[arg(long, value_enum, default_value_t = Wait::Confirmed)]
    wait: Wait,
    /// How long to wait; the commit is durable all the same.
    #[arg(long, value_parser = duration::parse, default_value = "30s", value_name = "SPAN")]
    timeout: Duration,
    /// Commits in flight at once, with `--each`.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1024))]
    in_flight: u16,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum OnStale {
    /// Refuse the commit.
    Reject,
    /// Apply all the same.
    Force,
    /// Apply, and mark it.
    Flag,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Wait {
    /// Until it is durable.
    Queued,
    /// Until it is confirmed or rejected.
    Confirmed,
}

/// Runs `commit`.
pub(super) async fn run(
    server: &Server,
    args: &CommitArgs,
    output: &mut Output,
) -> Result<(), Failure> {
    let client_tx_id = args
        .id
        .clone()
        .unwrap_or_else(|| Uuid::new_v4().to_string());
    if let Some(file) = &args.each {
        return bulk::each(server, args, (file, &client_tx_id), output).await;
    }
    let operations = match &args.file {
        Some(file) => operations::parse(&document(file)?).map_err(Failure::input)?,
        None => vec![args.operation()],
    };
    if args.id.is_none() && !output.is_json() {
        note(&format!("id {client_tx_id}"));
    }
    let receipt = send(server, args, args.request(client_tx_id, operations)).await?;
    receipt::show(&receipt, output)
}

/// Makes the call once.
async fn send(
    server: &Server,
    args: &CommitArgs,
    message: v1::CommitRequest,
) -> Result<v1::Receipt, Failure> {
    let mut request = server.request(message);
    request.set_timeout(args.timeout);
    Ok(server.coordinator().commit(request).await?.into_inner())
}

impl CommitArgs {
    /// The one operation that the flags describe.
    fn operation(&self) -> v1::Operation {
        let kinds = [
            (v1::OperationType::Create, self.create.as_ref()),
            (v1::OperationType::Update, self.update.as_ref()),
            (v1::OperationType::Delete, self.delete.as_ref()),
            (v1::OperationType::Archive, self.archive.as_ref()),
            (v1::OperationType::Unarchive, self.unarchive.as_ref()),
        ];
        let chosen = kinds
            .into_iter()
            .find_map(|(kind, model)| Some((kind, model?.clone())));
        let (kind, model) = chosen.expect("the command line requires one of them");
        let takes_input = matches!(kind, v1::OperationType::Create | v1::OperationType::Update);
        let input = self
            .input
            .as_deref()
            .unwrap_or(if takes_input { "{}" } else { "" });
        v1::Operation {
            r#type: kind.into(),
            model,
            id: self.row.clone(),
            input_json: input.to_owned().into(),
            transaction_id: String::new(),
            read_at: self.read_at,
            on_stale: match self.on_stale {
                None => v1::OnStale::Unspecified,
                Some(OnStale::Reject) => v1::OnStale::Reject,
                Some(OnStale::Force) => v1::OnStale::Force,
                Some(OnStale::Flag) => v1::OnStale::Flag,
            }
            .into(),
        }
    }

    fn request(&self, client_tx_id: String, operations: Vec<v1::Operation>) -> v1::CommitRequest {
        let wait = match self.wait {
            Wait::Queued => v1::Wait::Queued,
            Wait::Confirmed => v1::Wait::Confirmed,
        };
        v1::CommitRequest {
            client_tx_id,
            participant: Some(self.writer.clone()),
            operations,
            required_sync_groups: self.groups.clone(),
            wait: wait.into(),
            ..v1::CommitRequest::default()
        }
    }
}
