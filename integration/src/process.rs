//! Programs under test, each a process of its own that can be killed.
//!
//! A test or the demo has to run the coordinator that was built with it. So its executable plays
//! every part: it looks at the name that it was called by ([`role`]), as a multi-call binary does.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitCode, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};

/// Starting includes making a cluster, migrating it, and whatever else the machine is busy with.
const READY_WITHIN: Duration = Duration::from_mins(2);

const LOG_END: usize = 2_000;

/// A part that an executable can play.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The coordinator, with its own command line.
    Coordinator,
    /// The example of a customer's app.
    CustomerApp,
}

impl Role {
    const ALL: [Self; 2] = [Self::Coordinator, Self::CustomerApp];

    /// The name that it is called by.
    pub fn name(self) -> &'static str {
        match self {
            Self::Coordinator => "coordinator",
            Self::CustomerApp => "customer-app",
        }
    }
}

/// Plays the part that this process was started for; none when it was started as itself.
pub fn role() -> Option<ExitCode> {
    let called = std::env::args_os().next()?;
    let name = Path::new(&called).file_name()?.to_owned();
    match Role::ALL.into_iter().find(|role| name == role.name())? {
        Role::Coordinator => Some(coordinator::main()),
        Role::CustomerApp => Some(crate::customer::main()),
    }
}

/// A running program. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    child: Child,
    ready: Value,
}

/// What to run.
#[derive(Debug)]
pub struct Launch<'a> {
    /// One that calls [`role`] first of all.
    pub executable: PathBuf,
    /// The part that it plays.
    pub role: Role,
    /// Its arguments.
    pub arguments: &'a [&'a OsStr],
    /// Variables on top of this process's.
    pub environment: &'a [(&'a str, &'a str)],
    /// Where its log goes; appended to.
    pub log: &'a Path,
}

impl Process {
    /// Starts a program and waits for the line of JSON by which it says that it is ready.
    pub fn start(launch: &Launch<'_>) -> anyhow::Result<Self> {
        let name = launch.role.name();
        let log = File::options()
            .create(true)
            .append(true)
            .open(launch.log)
            .with_context(|| format!("could not open {}", launch.log.display()))?;
        let mut child = Command::new(&launch.executable)
            .arg0(name)
            .args(launch.arguments)
            .envs(launch.environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .with_context(|| format!("could not start {name}"))?;
        let stdout = child.stdout.take().context("its output is piped")?;
        let mut process = Self {
            child,
            ready: Value::Null,
        };
        let line = first_line(stdout)
            .recv_timeout(READY_WITHIN)
            .with_context(|| {
                format!(
                    "{name} did not say that it is ready: {}",
                    last_lines(launch.log)
                )
            })?;
        process.ready = serde_json::from_str(&line)
            .with_context(|| format!("{name} said {line:?} instead of what it is ready for"))?;
        Ok(process)
    }

    /// What the program said when it was ready.
    pub fn ready(&self, field: &str) -> anyhow::Result<&str> {
        self.ready[field]
            .as_str()
            .with_context(|| format!("{field} is missing in {}", self.ready))
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills the program as a crash would.
    pub fn kill(&mut self) -> anyhow::Result<ExitStatus> {
        self.child.kill()?;
        Ok(self.child.wait()?)
    }

    /// Asks the program to stop, and waits until it has.
    pub fn stop(mut self) -> anyhow::Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.pid()).context("process ids fit pid_t")?);
        kill(pid, Signal::SIGTERM)?;
        let status = self.child.wait()?;
        if !status.success() {
            bail!("process {pid} ended with {status}");
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.kill());
    }
}

/// Waits until somebody asks this process to stop.
pub async fn interrupted() {
    let (Ok(mut interrupt), Ok(mut terminate)) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    ) else {
        return;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

/// Reads on for as long as the program writes, so that it is never held up.
fn first_line(stdout: ChildStdout) -> mpsc::Receiver<String> {
    let (tell, first) = mpsc::channel();
    thread::spawn(move || {
        // Lines after the first have no receiver.
        BufReader::new(stdout)
            .lines()
            .map_while(Result::ok)
            .for_each(|line| drop(tell.send(line)));
    });
    first
}

/// The end of a log, for a person.
fn last_lines(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    String::from_utf8_lossy(&text[text.len().saturating_sub(LOG_END)..])
        .trim()
        .to_owned()
}
