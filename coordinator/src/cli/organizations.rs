//! `org` and `key`: the operator's commands.

use clap::{Args, Subcommand, ValueEnum};
use proto::v1;
use serde_json::{Value, json};

use super::connection::{Connection, Server, every_page};
use super::output::{Output, note};
use super::status::moment;
use crate::failure::Failure;

/// `coordinator org …`
#[derive(Args, Debug)]
pub(super) struct OrgArgs {
    #[command(flatten)]
    pub connection: Connection,
    #[command(subcommand)]
    pub command: OrgCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum OrgCommand {
    /// Add an organization.
    Create {
        /// 1 to 63 of a-z, 0-9, - and _, starting with a letter.
        id: String,
        /// Its name, for people; the id when absent.
        #[arg(long)]
        name: Option<String>,
        /// Whether its data is real; for good.
        #[arg(long, value_enum, default_value_t = Mode::Test)]
        mode: Mode,
    },
    /// List the organizations.
    List,
    /// Show one organization.
    Show {
        /// Its id.
        id: String,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Mode {
    /// Keys begin with `sk_live_`.
    Live,
    /// Keys begin with `sk_test_`.
    Test,
}

/// `coordinator key …`
#[derive(Args, Debug)]
pub(super) struct KeyArgs {
    #[command(flatten)]
    pub connection: Connection,
    #[command(subcommand)]
    pub command: KeyCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum KeyCommand {
    /// Make an API key; this is the only time that it is shown.
    Create {
        /// Its organization.
        organization: String,
        /// Its name, for people.
        #[arg(long, default_value = "")]
        name: String,
    },
    /// List an organization's keys, newest first.
    List {
        /// Their organization.
        organization: String,
    },
    /// End a key; every node refuses it within 5 s.
    Revoke {
        /// Its organization.
        organization: String,
        /// Its id, as `key list` shows it.
        id: String,
        /// Although Data Sources need it: they refuse every request until they are given another.
        #[arg(long)]
        force: bool,
    },
}

/// Runs `org`.
pub(super) async fn org(
    server: &Server,
    command: &OrgCommand,
    output: &mut Output,
) -> Result<(), Failure> {
    let mut admin = server.admin();
    let organization = match command {
        OrgCommand::Create { id, name, mode } => {
            let mode = match mode {
                Mode::Live => v1::Mode::Live,
                Mode::Test => v1::Mode::Test,
            };
            let request = v1::CreateOrganizationRequest {
                organization_id: id.clone(),
                organization: Some(v1::Organization {
                    display_name: name.as_ref().unwrap_or(id).clone(),
                    mode: mode.into(),
                    ..v1::Organization::default()
                }),
            };
            admin.create_organization(server.request(request)).await?
        }
        OrgCommand::Show { id } => {
            let request = v1::GetOrganizationRequest {
                name: format!("organizations/{id}"),
            };
            admin.get_organization(server.request(request)).await?
        }
        OrgCommand::List => return list_organizations(server, output).await,
    };
    let organization = organization.into_inner();
    output.record(
        || organization_json(&organization),
        &[
            ("id", short(&organization.name).to_owned()),
            ("name", organization.display_name.clone()),
            ("mode", mode_word(&organization).to_owned()),
            ("created", moment(organization.create_time)),
        ],
    )
}

async fn list_organizations(server: &Server, output: &mut Output) -> Result<(), Failure> {
    let mut admin = server.admin();
    let all = every_page(async |page_token| {
        let request = v1::ListOrganizationsRequest {
            page_size: 1_000,
            page_token,
        };
        let page = admin
            .list_organizations(server.request(request))
            .await?
            .into_inner();
        Ok((page.organizations, page.next_page_token))
    });
    let all = all.await?;
    output.rows(
        &all,
        organization_json,
        &["id", "name", "mode", "created"],
        |one| {
            vec![
                short(&one.name).to_owned(),
                one.display_name.clone(),
                mode_word(one).to_owned(),
                moment(one.create_time),
            ]
        },
    )
}

/// Runs `key`.
pub(super) async fn key(
    server: &Server,
    command: &KeyCommand,
    output: &mut Output,
) -> Result<(), Failure> {
    let mut admin = server.admin();
    match command {
        KeyCommand::Create { organization, name } => {
            let request = v1::CreateApiKeyRequest {
                parent: format!("organizations/{organization}"),
                display_name: name.clone(),
            };
            let made = admin
                .create_api_key(server.request(request))
                .await?
                .into_inner();
            let record = made.api_key.unwrap_or_default();
            output.record(
                || {
                    let mut json = key_json(&record);
                    json["key"] = made.key.clone().into();
                    json
                },
                &[
                    ("id", short(&record.name).to_owned()),
                    ("key", made.key.clone()),
                ],
            )?;
            note("Keep the key now: it is not shown again.");
            Ok(())
        }
        KeyCommand::List { organization } => list_keys(server, organization, output).await,
        KeyCommand::Revoke {
            organization,
            id,
            force,
        } => {
            if !force {
                refuse_if_needed(server, organization, id).await?;
            }
            let name = format!("organizations/{organization}/apiKeys/{id}");
            let request = v1::RevokeApiKeyRequest { name };
            let key = admin
                .revoke_api_key(server.request(request))
                .await?
                .into_inner();
            output.record(
                || key_json(&key),
                &[
                    ("id", short(&key.name).to_owned()),
                    ("revoked", moment(key.revoke_time)),
                ],
            )
        }
    }
}

/// Says which sources would be cut off.
async fn refuse_if_needed(server: &Server, parent: &str, id: &str) -> Result<(), Failure> {
    let all = keys(server, parent).await?;
    let key = all.iter().find(|key| short(&key.name) == id);
    let needed = key.map(needed_by).unwrap_or_default();
    if needed.is_empty() {
        return Ok(());
    }
    let message = format!(
        "when they were last verified, {} took this key and no newer one: give their endpoints a \
         newer key, `source verify` them, then revoke this one; or --force",
        needed.join(", ")
    );
    Err(Failure::refused(message).because("key_needed"))
}

async fn keys(server: &Server, parent: &str) -> Result<Vec<v1::ApiKey>, Failure> {
    let mut admin = server.admin();
    every_page(async |page_token| {
        let parent = format!("organizations/{parent}");
        let request = v1::ListApiKeysRequest {
            parent,
            page_size: 1_000,
            page_token,
        };
        let page = admin
            .list_api_keys(server.request(request))
            .await?
            .into_inner();
        Ok((page.api_keys, page.next_page_token))
    })
    .await
}

async fn list_keys(server: &Server, parent: &str, output: &mut Output) -> Result<(), Failure> {
    output.rows(
        &keys(server, parent).await?,
        key_json,
        &["id", "prefix", "name", "created", "revoked", "needed by"],
        |key| {
            vec![
                short(&key.name).to_owned(),
                format!("{}…", key.prefix),
                key.display_name.clone(),
                moment(key.create_time),
                moment(key.revoke_time),
                needed_by(key).join(", "),
            ]
        },
    )
}

/// Ids of the sources that need a key.
fn needed_by(key: &v1::ApiKey) -> Vec<&str> {
    key.needed_by.iter().map(|name| short(name)).collect()
}

/// A resource name's last part.
fn short(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

fn mode_word(organization: &v1::Organization) -> &'static str {
    match organization.mode() {
        v1::Mode::Live => "live",
        v1::Mode::Test => "test",
        v1::Mode::Unspecified => "unknown",
    }
}

fn organization_json(organization: &v1::Organization) -> Value {
    json!({
        "id": short(&organization.name),
        "name": organization.display_name,
        "mode": mode_word(organization),
        "createTime": moment(organization.create_time),
    })
}

fn key_json(key: &v1::ApiKey) -> Value {
    json!({
        "id": short(&key.name),
        "prefix": key.prefix,
        "name": key.display_name,
        "createTime": moment(key.create_time),
        "revokeTime": key.revoke_time.map(|time| time.to_string()),
        "neededBy": needed_by(key),
    })
}
