//! `schema`: push, read, list versions.

use std::io::Read;

use clap::{Args, Subcommand};
use proto::v1;
use serde_json::{Value, json};

use super::connection::{Connection, Server, every_page};
use super::output::Output;
use super::status::moment;
use crate::failure::Failure;

const EXAMPLE: &str = r#"Example of a document:
  {"models": {"notes": {"backing": "managed", "schema": {
     "type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}}}}"#;

/// `coordinator schema …`
#[derive(Args, Debug)]
pub(super) struct SchemaArgs {
    #[command(flatten)]
    pub connection: Connection,
    #[command(subcommand)]
    pub command: SchemaCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum SchemaCommand {
    /// Make a document the organization's schema; an equal one is a no-op.
    #[command(after_help = EXAMPLE)]
    Push {
        /// A JSON file; `-` is standard input.
        file: String,
        /// Drop or move models although they have rows.
        #[arg(long)]
        force: bool,
    },
    /// Print a version's document.
    Get {
        /// Which; the active one when absent.
        #[arg(long, default_value_t = 0)]
        version: i32,
    },
    /// List the versions, newest first.
    Versions,
}

/// Runs `schema`.
pub(super) async fn run(
    server: &Server,
    command: &SchemaCommand,
    output: &mut Output,
) -> Result<(), Failure> {
    let mut schemas = server.schemas();
    match command {
        SchemaCommand::Push { file, force } => {
            let document_json = document(file)?.into();
            let request = v1::PushSchemaRequest {
                document_json,
                force: *force,
            };
            let schema = schemas.push(server.request(request)).await?.into_inner();
            output.record(
                || schema_json(&schema),
                &[
                    ("version", schema.version.to_string()),
                    ("active", schema.active.to_string()),
                    ("pushed", moment(schema.create_time)),
                ],
            )
        }
        SchemaCommand::Get { version } => {
            let request = v1::GetSchemaRequest { version: *version };
            let schema = schemas.get(server.request(request)).await?.into_inner();
            if output.is_json() {
                return output.line(&schema_json(&schema).to_string());
            }
            let document = parsed(&schema.document_json);
            output.line(&format!("{document:#}"))
        }
        SchemaCommand::Versions => versions(server, output).await,
    }
}

async fn versions(server: &Server, output: &mut Output) -> Result<(), Failure> {
    let mut schemas = server.schemas();
    let all = every_page(async |page_token| {
        let request = v1::ListSchemaVersionsRequest {
            page_size: 1_000,
            page_token,
        };
        let page = schemas
            .list_versions(server.request(request))
            .await?
            .into_inner();
        Ok((page.schemas, page.next_page_token))
    });
    let all = all.await?;
    output.rows(&all, schema_json, &["version", "active", "pushed"], |one| {
        vec![
            one.version.to_string(),
            one.active.to_string(),
            moment(one.create_time),
        ]
    })
}

/// A file's text, or standard input's for `-`.
pub(super) fn document(file: &str) -> Result<String, Failure> {
    let text = if file == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(file)
    };
    text.map_err(|error| Failure::input(format!("{file}: {error}")))
}

/// A server's JSON; what is not JSON is shown as text.
pub(super) fn parsed(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes)
        .unwrap_or_else(|_| Value::from(String::from_utf8_lossy(bytes).into_owned()))
}

fn schema_json(schema: &v1::Schema) -> Value {
    let mut json = json!({
        "version": schema.version,
        "active": schema.active,
        "createTime": moment(schema.create_time),
    });
    if !schema.document_json.is_empty() {
        json["document"] = parsed(&schema.document_json);
    }
    json
}
