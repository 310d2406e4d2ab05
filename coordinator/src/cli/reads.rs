//! `load`, `list`, `receipt`: questions that change nothing.

use std::collections::BTreeSet;

use clap::Args;
use proto::v1;
use serde_json::{Value, json};

use super::commit::participant::participant;
use super::condition;
use super::connection::{Connection, Server};
use super::output::{Output, note};
use super::schemas::parsed;
use crate::failure::Failure;

/// `coordinator load …`
#[derive(Args, Debug)]
#[command(after_help = "Example: coordinator load airports SEA")]
pub(super) struct LoadArgs {
    #[command(flatten)]
    pub connection: Connection,
    /// The row's model.
    pub model: String,
    /// The row's id.
    pub id: String,
    /// Who reads: `user:ID`, `agent:ID` or `system:ID`.
    #[arg(long = "as", default_value = "system:cli", value_parser = participant)]
    pub reader: v1::Participant,
}

/// `coordinator list …`
#[derive(Args, Debug)]
#[command(after_help = "\
Example: coordinator list airports --where 'country = US' --where 'elevation > 1000' \\
           --order 'elevation desc' --limit 10")]
pub(super) struct ListArgs {
    #[command(flatten)]
    pub connection: Connection,
    /// The rows' model.
    pub model: String,
    /// A condition, `field op value`; all must hold. The value is JSON, or a text as it is.
    #[arg(long = "where", value_parser = condition::parse, value_name = "CONDITION")]
    pub conditions: Vec<v1::Condition>,
    /// A field, optionally followed by ` desc`; by id when absent.
    #[arg(long, default_value = "", value_name = "FIELD")]
    pub order: String,
    /// At most so many rows.
    #[arg(long, default_value_t = 100, conflicts_with = "all")]
    pub limit: usize,
    /// Every row.
    #[arg(long)]
    pub all: bool,
    /// Also rows that are archived.
    #[arg(long)]
    pub archived: bool,
    /// Who reads: `user:ID`, `agent:ID` or `system:ID`.
    #[arg(long = "as", default_value = "system:cli", value_parser = participant)]
    pub reader: v1::Participant,
}

/// `coordinator receipt …`
#[derive(Args, Debug)]
pub(super) struct ReceiptArgs {
    #[command(flatten)]
    pub connection: Connection,
    /// The commit's `client_tx_id`.
    pub client_tx_id: String,
}

/// Runs `load`.
pub(super) async fn load(
    server: &Server,
    args: &LoadArgs,
    output: &mut Output,
) -> Result<(), Failure> {
    let request = v1::LoadRequest {
        model: args.model.clone(),
        id: args.id.clone(),
        participant: Some(args.reader.clone()),
        required_sync_groups: Vec::new(),
    };
    let answer = server
        .coordinator()
        .load(server.request(request))
        .await?
        .into_inner();
    let row = answer.row_json.as_deref().map(parsed);
    if output.is_json() {
        let json = json!({"row": row, "readAt": answer.read_at, "archived": answer.archived});
        return output.line(&json.to_string());
    }
    let Some(row) = row else {
        let message = format!("there is no row `{}` in {}", args.id, args.model);
        return Err(Failure::refused(message).because("entity_not_found"));
    };
    output.line(&format!("{row:#}"))?;
    let archived = if answer.archived { ", archived" } else { "" };
    note(&format!("read at {}{archived}", answer.read_at));
    Ok(())
}

/// Runs `list`. Rows are shown page by page, as they come.
pub(super) async fn list(
    server: &Server,
    args: &ListArgs,
    output: &mut Output,
) -> Result<(), Failure> {
    let mut client = server.coordinator();
    let mut left = if args.all { usize::MAX } else { args.limit };
    let mut page_token = String::new();
    let mut rows = Vec::new();
    let mut incomplete = false;
    loop {
        let request = v1::ListRequest {
            model: args.model.clone(),
            r#where: args.conditions.clone(),
            order_by: args.order.clone(),
            page_size: i32::try_from(left.clamp(1, 1_000)).expect("it was clamped"),
            page_token,
            include_archived: args.archived,
            participant: Some(args.reader.clone()),
            required_sync_groups: Vec::new(),
        };
        let page = client.list(server.request(request)).await?.into_inner();
        let mut fresh: Vec<_> = page.rows_json.iter().map(|row| parsed(row)).collect();
        fresh.truncate(left);
        left -= fresh.len();
        if output.is_json() {
            for row in &fresh {
                output.line(&row.to_string())?;
            }
        } else {
            rows.append(&mut fresh);
        }
        page_token = page.next_page_token;
        incomplete |= page.incomplete;
        if left == 0 || page_token.is_empty() {
            break;
        }
    }
    if !output.is_json() {
        table(&rows, output)?;
        if !page_token.is_empty() {
            note("There are more rows: give --limit or --all.");
        }
    }
    if incomplete {
        note(
            "There may be more rows, or rows that belong before these: the Data Source gave a full \
             page and no cursor, or pages in another order.",
        );
    }
    Ok(())
}

/// Runs `receipt`.
pub(super) async fn receipt(
    server: &Server,
    args: &ReceiptArgs,
    output: &mut Output,
) -> Result<(), Failure> {
    let request = v1::GetCommitRequest {
        client_tx_id: args.client_tx_id.clone(),
    };
    let receipt = server
        .coordinator()
        .get_commit(server.request(request))
        .await?
        .into_inner();
    super::receipt::show(&receipt, output)
}

/// Rows with a column per field, `id` first.
fn table(rows: &[Value], output: &mut Output) -> Result<(), Failure> {
    let fields = rows
        .iter()
        .filter_map(Value::as_object)
        .flat_map(serde_json::Map::keys);
    let others: BTreeSet<_> = fields
        .map(String::as_str)
        .filter(|field| *field != "id")
        .collect();
    let columns: Vec<_> = std::iter::once("id").chain(others).collect();
    output.rows(rows, Value::clone, &columns, |row| {
        let cell = |column: &&str| match row.get(column) {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(value) => value.to_string(),
        };
        columns.iter().map(cell).collect()
    })
}
