//! A coordinator in a process of its own, which can be killed, frozen and asked to stop.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::{Flags, PATIENCE};
use crate::process::Role;

/// Precedes a node's address in its log.
const SERVING: &str = "serving on ";

/// Ends the node if this process is gone before it: waits for the end of its input.
const REAPER: &str = "cat >/dev/null; kill -KILL \"$1\"";

/// A running node. Dropping it kills it.
#[derive(Debug)]
pub struct TestNode {
    executable: String,
    database_url: String,
    flags: Flags,
    environment: Vec<(&'static str, String)>,
    address: String,
    child: Option<Child>,
    reaper: Option<Child>,
    log: Arc<Mutex<String>>,
}

impl TestNode {
    /// Starts a node over a migrated database, with more in its environment; `executable` calls
    /// [`crate::process::role`] first.
    ///
    /// # Panics
    /// When it does not serve.
    pub async fn start(
        executable: &str,
        database_url: &str,
        flags: Flags,
        environment: Vec<(&'static str, String)>,
    ) -> Self {
        let mut node = Self {
            executable: executable.to_owned(),
            database_url: database_url.to_owned(),
            flags,
            environment,
            address: String::new(),
            child: None,
            reaper: None,
            log: Arc::default(),
        };
        if let Err(why) = node.launch().await {
            panic!("{why}");
        }
        node
    }

    /// Starts the program again, at the same address.
    ///
    /// # Panics
    /// When it does not serve.
    pub async fn restart(&mut self) {
        if let Err(why) = self.try_restart().await {
            panic!("{why}");
        }
    }

    /// As [`Self::restart`]; why it does not serve, if it does not.
    pub async fn try_restart(&mut self) -> Result<(), String> {
        self.kill();
        self.flags = self.flags.clone().with("listen", self.address.clone());
        self.launch().await
    }

    /// Starts it without anything special in its environment from now on.
    pub fn disarm(&mut self) {
        self.environment.clear();
    }

    /// Starts it with this in its environment from now on; without it when there is no value.
    pub fn set_variable(&mut self, name: &'static str, value: Option<String>) {
        self.environment.retain(|(other, _)| *other != name);
        self.environment.extend(value.map(|value| (name, value)));
    }

    /// Where it serves.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// What it has logged since its first start.
    pub fn log(&self) -> String {
        let log = self.log.lock();
        log.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends it as a crash would.
    pub fn kill(&mut self) {
        drop(self.reaper.take().map(end));
        drop(self.child.take().map(end));
    }

    /// The process.
    ///
    /// # Panics
    /// When it does not run.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// The most memory that it ever had resident, in bytes.
    ///
    /// # Panics
    /// When it does not run.
    pub fn peak_memory(&self) -> u64 {
        self.status("VmHWM:")
    }

    /// The memory that it has resident, in bytes.
    ///
    /// # Panics
    /// When it does not run.
    pub fn memory(&self) -> u64 {
        self.status("VmRSS:")
    }

    fn status(&self, field: &str) -> u64 {
        let child = self.child.as_ref().expect("it runs");
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id()));
        let status = status.expect("a running process has a status");
        let peak = status.lines().find_map(|line| line.strip_prefix(field));
        let kibibytes = peak.and_then(|it| it.trim().trim_end_matches(" kB").parse::<u64>().ok());
        kibibytes.expect("the kernel tells it in kB") * 1_024
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// When it does not run.
    pub fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("it runs");
        kill(pid(child), signal).expect("the child is ours");
    }

    /// Asks it to stop, and waits until it has.
    ///
    /// # Panics
    /// When it does not run.
    pub async fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.ended().await
    }

    /// Waits until it has ended.
    ///
    /// # Panics
    /// When it does not run, or goes on.
    pub async fn ended(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("it runs");
        let pid = pid(&child);
        drop(self.reaper.take().map(end));
        let ended = tokio::task::spawn_blocking(move || child.wait());
        let Ok(status) = timeout(PATIENCE, ended).await else {
            // Nobody would end the wait for it.
            kill(pid, Signal::SIGKILL).expect("it runs");
            panic!("the node goes on, {:?}: {}", self.environment, self.log());
        };
        status
            .expect("waiting does not panic")
            .expect("the child is ours")
    }

    async fn launch(&mut self) -> Result<(), String> {
        let mut child = Command::new(&self.executable)
            .arg0(Role::Coordinator.name())
            .arg("serve")
            .args(self.flags.arguments(&self.database_url))
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the executable runs");
        self.reaper = Some(reaper(&child));
        let stderr = child.stderr.take().expect("it is piped");
        self.child = Some(child);
        let address = timeout(PATIENCE, follow(stderr, Arc::clone(&self.log))).await;
        let Ok(Ok(address)) = address else {
            return Err(format!("the node does not serve: {}", self.log()));
        };
        self.address = address;
        Ok(())
    }
}

impl Drop for TestNode {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Keeps the log, and tells the address when it is in it.
fn follow(stderr: ChildStderr, log: Arc<Mutex<String>>) -> oneshot::Receiver<String> {
    let (tell, address) = oneshot::channel();
    thread::spawn(move || {
        let mut tell = Some(tell);
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
            log.push_str(&line);
            log.push('\n');
            if let Some((_, rest)) = line.split_once(SERVING)
                && let Some(tell) = tell.take()
            {
                let end = rest.find(|it: char| !it.is_ascii_digit() && it != '.' && it != ':');
                // Whoever gave up waiting needs no address.
                drop(tell.send(rest[..end.unwrap_or(rest.len())].to_owned()));
            }
        }
    });
    address
}

fn reaper(child: &Child) -> Child {
    Command::new("sh")
        .args(["-c", REAPER, "reaper", &child.id().to_string()])
        .stdin(Stdio::piped())
        .process_group(0)
        .spawn()
        .expect("there is a shell")
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).expect("process ids fit pid_t"))
}

fn end(mut child: Child) -> std::io::Result<ExitStatus> {
    child.kill()?;
    child.wait()
}
