//! Who Postgres runs as.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::unistd::{Gid, Uid, User};

use super::ClusterError;

/// The account that owns the cluster's files and runs its programs.
#[derive(Debug)]
pub(super) struct Account {
    /// Absent when it is the account of this process.
    other: Option<User>,
    setpriv: bool,
}

impl Account {
    /// This process's account, or an unprivileged one when that is root.
    pub(super) fn find() -> Result<Self, ClusterError> {
        let setpriv = Command::new("setpriv")
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
        if !Uid::effective().is_root() {
            return Ok(Self {
                other: None,
                setpriv,
            });
        }
        if !setpriv {
            return Err(ClusterError::SetprivMissing);
        }
        let other = ["postgres", "nobody"]
            .iter()
            .find_map(|name| User::from_name(name).ok().flatten())
            .ok_or(ClusterError::NoAccount)?;
        Ok(Self {
            other: Some(other),
            setpriv,
        })
    }

    /// For a person.
    pub(super) fn name(&self) -> String {
        self.other
            .as_ref()
            .map_or_else(|| Uid::effective().to_string(), |user| user.name.clone())
    }

    /// Whose a new file must be, when not this process's.
    pub(super) fn owner(&self) -> Option<(Uid, Gid)> {
        self.other.as_ref().map(|user| (user.uid, user.gid))
    }

    /// A program run as this account in a folder, out of reach of the terminal's Ctrl-C.
    ///
    /// One that is `bound` is asked to stop (SIGINT) when the thread that started it dies, and with
    /// it this process: so the thread has to live as long as the program.
    pub(super) fn command(
        &self,
        program: impl AsRef<OsStr>,
        folder: &Path,
        bound: bool,
    ) -> Command {
        let mut command = if self.setpriv {
            Command::new("setpriv")
        } else {
            Command::new(&program)
        };
        if let Some((uid, gid)) = self.owner() {
            command
                .arg(format!("--reuid={uid}"))
                .arg(format!("--regid={gid}"));
            command.arg("--clear-groups");
        }
        if self.setpriv {
            command.arg(if bound {
                "--pdeathsig=INT"
            } else {
                "--pdeathsig=keep"
            });
            command.arg("--").arg(program);
        }
        command
            .current_dir(folder)
            .stdin(Stdio::null())
            .process_group(0);
        command
    }
}
