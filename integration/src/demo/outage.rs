//! The customer's app, and its crash.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use coordinator::cluster::Cluster;
use tokio::time::sleep;

use super::front_end::FrontEnd;
use crate::process::{Launch, Process, Role};

const LOOK_EVERY: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub(super) struct CustomerApp {
    process: Process,
    database_url: String,
    key: String,
    log: PathBuf,
}

impl CustomerApp {
    pub(super) fn start(folder: &Path, cluster: &Cluster, key: &str) -> anyhow::Result<Self> {
        let database_url = cluster.url("customer");
        let log = folder.join("customer-app.log");
        let process = launch("127.0.0.1:0", &database_url, key, &log)?;
        Ok(Self {
            process,
            database_url,
            key: key.to_owned(),
            log,
        })
    }

    pub(super) fn url(&self) -> anyhow::Result<String> {
        Ok(format!("http://{}/ablo", self.process.ready("listen")?))
    }

    /// Kills the app once a moment has come, starts it again after the coordinator has noticed, and
    /// tells what happened.
    pub(super) async fn crash_when(
        &mut self,
        moment: impl Fn() -> bool,
        front_end: &FrontEnd,
    ) -> anyhow::Result<String> {
        while !moment() {
            sleep(LOOK_EVERY).await;
        }
        let pid = self.process.pid();
        self.process.kill()?;
        let trouble = loop {
            if let Some(trouble) = front_end.trouble().await? {
                break trouble;
            }
            sleep(LOOK_EVERY).await;
        };
        let address = self.process.ready("listen")?.to_owned();
        self.process = launch(&address, &self.database_url, &self.key, &self.log)?;
        Ok(format!(
            "the customer's app (process {pid}) was killed half-way ({trouble}) and is back as \
             process {}",
            self.process.pid()
        ))
    }

    pub(super) fn stop(self) -> anyhow::Result<()> {
        self.process.stop().context("the customer's app")
    }
}

fn launch(address: &str, database_url: &str, key: &str, log: &Path) -> anyhow::Result<Process> {
    let arguments = ["--listen", address, "--database-url", database_url];
    Process::start(&Launch {
        executable: std::env::current_exe()?,
        role: Role::CustomerApp,
        arguments: &arguments.map(OsStr::new),
        environment: &[("ABLO_API_KEY", key)],
        log,
    })
}
