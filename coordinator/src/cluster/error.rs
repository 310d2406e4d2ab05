//! What can go wrong with a cluster, said so that a person can mend it.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use super::READY_WITHIN;

/// Why there is no running cluster.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// No server is installed where it is looked for.
    #[error(
        "no PostgreSQL server was found ({looked}); install one, for example with `apt-get install \
         postgresql`, or say in which folder `initdb` and `postgres` are"
    )]
    BinariesMissing {
        /// Where it was looked for.
        looked: String,
    },
    /// The cluster was made by a PostgreSQL that is not installed.
    #[error(
        "{} was made by PostgreSQL {wanted}, but only {found} is installed; install it, for \
         example with `apt-get install postgresql-{wanted}`", folder.display()
    )]
    VersionMissing {
        /// The cluster's folder.
        folder: PathBuf,
        /// The major version that made it.
        wanted: u32,
        /// The major versions at hand.
        found: String,
    },
    /// Root has no account to run the server as.
    #[error(
        "PostgreSQL refuses to run as root, and there is neither an account `postgres` nor `nobody` \
         to run it as; make one, for example with `useradd --system postgres`"
    )]
    NoAccount,
    /// The program that changes the account is not installed.
    #[error("PostgreSQL refuses to run as root, and `setpriv` (util-linux) is not installed")]
    SetprivMissing,
    /// The server's account cannot reach the folder.
    #[error(
        "the account `{account}`, which PostgreSQL runs as, cannot write in {}; choose a folder \
         whose parents are open to it", folder.display()
    )]
    FolderClosed {
        /// The cluster's folder.
        folder: PathBuf,
        /// The server's account.
        account: String,
    },
    /// Another process has this cluster running.
    #[error("{} is in use by another process", folder.display())]
    InUse {
        /// The cluster's folder.
        folder: PathBuf,
    },
    /// The server that an earlier process left behind would not stop.
    #[error("an earlier PostgreSQL (process {pid}) still runs in {} and does not stop", folder.display())]
    StaleServer {
        /// The cluster's folder.
        folder: PathBuf,
        /// The server's process.
        pid: i32,
    },
    /// A file or a process could not be had.
    #[error("could not {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With which file or program.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// `initdb` failed.
    #[error("initdb failed: {output}")]
    Init {
        /// What it printed.
        output: String,
    },
    /// The server ended before it took connections.
    #[error("PostgreSQL ended ({status}) before it took connections: {log}")]
    Ended {
        /// How.
        status: ExitStatus,
        /// The end of its log.
        log: String,
    },
    /// The server takes no connections.
    #[error("PostgreSQL took no connection within {} s: {log}", READY_WITHIN.as_secs())]
    NotReady {
        /// Why the last connection failed.
        source: sqlx::Error,
        /// The end of its log.
        log: String,
    },
    /// The server did not end when asked to.
    #[error("PostgreSQL (process {pid}) does not stop")]
    Stuck {
        /// The server's process.
        pid: i32,
    },
    /// A statement failed.
    #[error("a statement failed")]
    Sql(#[from] sqlx::Error),
}

impl ClusterError {
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            action,
            path: path.to_owned(),
            source,
        }
    }
}
