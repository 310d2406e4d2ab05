//! `coordinator dev`: everything included. A private Postgres, an organization, a key: made at the
//! first start, found again at the next, all in one folder.

mod folder;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, FromArgMatches};
use proto::v1;
use serde_json::json;
use tonic::Code;
use tonic::transport::Endpoint;

use self::folder::DataFolder;
use crate::app::{self, App};
use crate::cli::{Output, Server};
use crate::cluster::{Cluster, ClusterOptions, Durability};
use crate::config::{Config, Secret, Settings};
use crate::failure::Failure;
use crate::lifecycle::{Ending, Lifecycle};

/// The organization that is made.
const ORGANIZATION: &str = "dev";
/// The database in the private cluster.
const DATABASE: &str = "coordinator";
/// Where Data Sources of a developer live.
const LOOPBACK: &str = "127.0.0.0/8,::1/128";
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// `coordinator dev …`
#[derive(Args, Debug)]
#[command(after_help = "Data Sources may live on the loopback, over http and on any port.")]
pub(crate) struct DevArgs {
    /// Where everything is kept.
    #[arg(long, env = "COORDINATOR_DATA_DIR", default_value = "coordinator-data")]
    data_dir: PathBuf,
    /// Where gRPC is served; port 0 picks a free one.
    #[arg(
        long,
        env = "COORDINATOR_LISTEN",
        default_value = "127.0.0.1:7654",
        value_name = "ADDR"
    )]
    listen: String,
    /// Where the `Admin` service is served; beside the others when absent.
    #[arg(long, env = "COORDINATOR_ADMIN_LISTEN", value_name = "ADDR")]
    admin_listen: Option<String>,
    /// The folder of `initdb` and `postgres`; looked for when absent.
    #[arg(long, env = "COORDINATOR_POSTGRES_BIN", value_name = "DIR")]
    postgres_bin: Option<PathBuf>,
    /// Print one JSON line when ready, for programs.
    #[arg(long)]
    json: bool,
    /// Any other setting of `serve`, after `--`.
    #[arg(last = true, value_name = "SERVE FLAGS")]
    settings: Vec<String>,
}

/// Runs everything until a signal, and stops Postgres last.
pub(crate) async fn dev(args: &DevArgs) -> Result<Ending, Failure> {
    let folder = DataFolder::open(&args.data_dir)?;
    let lifecycle = Lifecycle::new();
    lifecycle
        .obey_signals()
        .map_err(|error| Failure::internal(format!("no signals: {error}")))?;
    let cluster = cluster(args, &folder).await?;
    let ending = with_cluster(args, &folder, &cluster, &lifecycle).await;
    let stopped = cluster.stop().await;
    let ending = ending?;
    stopped.map_err(|error| Failure::internal(format!("Postgres did not stop: {error}")))?;
    Ok(ending)
}

async fn cluster(args: &DevArgs, folder: &DataFolder) -> Result<Cluster, Failure> {
    let options = ClusterOptions {
        folder: folder.cluster(),
        binaries: args.postgres_bin.clone(),
        durability: Durability::Kept,
        settings: Vec::new(),
    };
    let failed = |error| Failure::unavailable(format!("Postgres does not start: {error}"));
    let cluster = Cluster::start(options).await.map_err(failed)?;
    cluster.create_database(DATABASE).await.map_err(failed)?;
    crate::migrate::migrate(&cluster.connect_options(DATABASE))
        .await
        .map_err(Failure::from_schema)?;
    Ok(cluster)
}

async fn with_cluster(
    args: &DevArgs,
    folder: &DataFolder,
    cluster: &Cluster,
    lifecycle: &Lifecycle,
) -> Result<Ending, Failure> {
    let config = config(args, folder, cluster)?;
    let telemetry = app::announce(&config)?;
    let app = App::start(&config, lifecycle, telemetry.metrics().clone()).await?;
    let key = match key(&app, folder, &config.credentials.operator_token).await {
        Ok(key) => key,
        Err(failure) => {
            lifecycle.soft().cancel();
            app.until_stopped(&config, lifecycle).await;
            return Err(failure);
        }
    };
    say_ready(args, &app, folder, (&key, &cluster.url(DATABASE)))?;
    // Without its Postgres there is nothing left to serve.
    tokio::select! {
        () = lifecycle.soft().cancelled() => {}
        status = cluster.ended() => {
            tracing::error!(%status, "Postgres ended: stopping");
            lifecycle.soft().cancel();
        }
    }
    let ending = app.until_stopped(&config, lifecycle).await;
    telemetry.shutdown().await;
    Ok(ending)
}

/// The settings of `serve`, with what the folder holds in the places of what an operator gives.
fn config(args: &DevArgs, folder: &DataFolder, cluster: &Cluster) -> Result<Config, Failure> {
    let command = Settings::augment_args(clap::Command::new("serve").no_binary_name(true));
    let given = [
        format!("--listen={}", args.listen),
        format!("--allow-subnet={LOOPBACK}"),
        // A person who presses Ctrl-C has no load balancer in front.
        "--drain-grace=0s".to_owned(),
    ];
    let matches = command
        .args_override_self(true)
        .try_get_matches_from(given.iter().chain(&args.settings))
        .map_err(|error| Failure::config(error.to_string()))?;
    let mut settings =
        Settings::from_arg_matches(&matches).map_err(|error| Failure::config(error.to_string()))?;
    settings.database_url = Some(Secret::new("postgres://localhost"));
    settings.admin_listen.clone_from(&args.admin_listen);
    settings.operator_token = Some(folder.operator_token()?);
    settings.master_keys = Some(folder.master_keys()?);
    settings.operator_token_file = None;
    settings.master_keys_file = None;
    let mut config =
        Config::read(&settings).map_err(|mistakes| Failure::config(mistakes.to_string()))?;
    config.database.options = cluster.connect_options(DATABASE);
    Ok(config)
}

/// The key that is kept in the folder, made the first time by asking the coordinator itself, as any
/// operator would.
async fn key(app: &App, folder: &DataFolder, token: &Secret) -> Result<Secret, Failure> {
    if let Some(key) = folder.key()? {
        return Ok(key);
    }
    let address = app.admin_address().unwrap_or_else(|| app.address());
    let channel = Endpoint::from_shared(format!("http://{address}"))
        .expect("an address makes a URL")
        .connect_timeout(CONNECT_WITHIN)
        .connect()
        .await
        .map_err(|error| Failure::internal(format!("the own server does not answer: {error}")))?;
    let server = Server::new(channel, token)?;
    let mut admin = server.admin();
    let organization = v1::CreateOrganizationRequest {
        organization_id: ORGANIZATION.to_owned(),
        organization: Some(v1::Organization {
            display_name: "Development".to_owned(),
            mode: v1::Mode::Test.into(),
            ..v1::Organization::default()
        }),
    };
    match admin
        .create_organization(server.request(organization))
        .await
    {
        Ok(_) => {}
        // A start before this one was stopped in between.
        Err(status) if status.code() == Code::AlreadyExists => {}
        Err(status) => return Err(status.into()),
    }
    let request = v1::CreateApiKeyRequest {
        parent: format!("organizations/{ORGANIZATION}"),
        display_name: "made by coordinator dev".to_owned(),
    };
    let made = admin
        .create_api_key(server.request(request))
        .await?
        .into_inner();
    folder.keep_key(&made.key)
}

/// Says how to call it: one JSON line for a program, calls to paste for a person.
fn say_ready(
    args: &DevArgs,
    app: &App,
    folder: &DataFolder,
    (key, database_url): (&Secret, &str),
) -> Result<(), Failure> {
    let mut output = Output::standard(args.json);
    let listen = app.address().to_string();
    let admin_listen = app
        .admin_address()
        .map_or_else(|| listen.clone(), |one| one.to_string());
    let token = folder.operator_token()?;
    if args.json {
        let ready = json!({
            "listen": listen,
            "admin_listen": admin_listen,
            "organization": ORGANIZATION,
            "key": key.expose(),
            "operator_token": token.expose(),
            "database_url": database_url,
            "data_dir": folder.path(),
            "pid": std::process::id(),
        });
        return output.line(&ready.to_string());
    }
    output.line(&welcome(&listen, key.expose(), folder))
}

fn welcome(listen: &str, key: &str, folder: &DataFolder) -> String {
    let folder = folder.path().display();
    format!(
        r#"The coordinator serves on {listen} for organization `{ORGANIZATION}`; everything is kept in {folder}.

In another terminal:

  export COORDINATOR_SERVER=http://{listen} COORDINATOR_KEY={key}
  echo '{{"models":{{"notes":{{"backing":"managed","schema":{{"type":"object","properties":{{"text":{{"type":"string"}}}}}}}}}}}}' | coordinator schema push -
  coordinator commit --create notes --row n1 --input '{{"text":"hello"}}'
  coordinator load notes n1

or, from any gRPC client:

  grpcurl -plaintext -H 'authorization: Bearer {key}' \
    -d '{{"client_tx_id":"tx-1","participant":{{"id":"ada","kind":"PARTICIPANT_KIND_USER"}},"operations":[{{"type":"OPERATION_TYPE_CREATE","model":"notes","id":"n2","input_json":"eyJ0ZXh0IjoiaGVsbG8ifQ=="}}]}}' \
    {listen} ablo.coordinator.v1.Coordinator/Commit

The operator token, for `coordinator org` and `coordinator key`, is in {folder}/operator-token.
Ctrl-C stops it; the next start finds everything again."#
    )
}
