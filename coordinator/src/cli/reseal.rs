//! `reseal`: the second half of exchanging the master key.

use clap::Args;

use super::Output;
use crate::config::{Database, Secret};
use crate::failure::Failure;
use crate::keys::{KeyFault, KeyRing, MasterKeys};
use crate::migrate;
use crate::store::Store;

pub(super) const EXAMPLE: &str = "\
To exchange the master key `k1` for `k2`:
  1. restart every node with the keys `k1:…,k2:…`, so that each can open what `k2` seals
  2. restart every node with `k2:…,k1:…`: from now on `k2` seals
  3. coordinator reseal, with the same keys
  4. restart every node with `k2:…` alone

It may be stopped and run again at any time, also while nodes serve.";

/// The database and the keys.
#[derive(Args, Debug)]
pub(super) struct ResealArgs {
    /// The Postgres that holds the keys.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    database_url: Secret,
    /// The master keys: the one to seal with first, then those that are to be given up.
    #[arg(
        long,
        env = "COORDINATOR_MASTER_KEYS",
        hide_env_values = true,
        value_name = "KEYS",
        required_unless_present = "master_keys_file",
        conflicts_with = "master_keys_file"
    )]
    master_keys: Option<Secret>,
    /// A file that holds the master keys.
    #[arg(long, env = "COORDINATOR_MASTER_KEYS_FILE", value_name = "FILE")]
    master_keys_file: Option<std::path::PathBuf>,
}

impl ResealArgs {
    fn master_keys(&self) -> Result<MasterKeys, Failure> {
        let wrong = |problem: String| Failure::config(format!("--master-keys: {problem}"));
        let text = match (&self.master_keys, &self.master_keys_file) {
            (Some(keys), _) => keys.clone(),
            (None, Some(path)) => match std::fs::read_to_string(path) {
                Ok(text) => Secret::new(text),
                Err(error) => return Err(wrong(format!("{}: {error}", path.display()))),
            },
            (None, None) => return Err(wrong("this or its file is required".to_owned())),
        };
        MasterKeys::parse(text.expose()).map_err(|fault| wrong(fault.to_string()))
    }
}

/// Runs `reseal`.
pub(super) async fn run(args: &ResealArgs, output: &mut Output) -> Result<(), Failure> {
    let master = args.master_keys()?;
    let options = Database::parse_url(args.database_url.expose())
        .map_err(|problem| Failure::config(format!("--database-url (DATABASE_URL): {problem}")))?;
    let store = Store::open(options, 1, 1);
    migrate::check(&store.reads)
        .await
        .map_err(Failure::from_schema)?;
    let keys = KeyRing::new(store.clone(), master);
    let resealed = keys.reseal().await.map_err(|fault| match fault {
        KeyFault::Master(fault) => Failure::config(format!("--master-keys: {fault}")),
        KeyFault::Store(error) => Failure::unavailable(error.to_string()),
    })?;
    store.close().await;
    output.line(&match resealed {
        0 => "nothing to do: the first master key seals every API key".to_owned(),
        count => format!("{count} API keys are sealed under the first master key now"),
    })
}
