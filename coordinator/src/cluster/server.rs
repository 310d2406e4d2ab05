//! The server's process.

use std::io;
use std::process::{Command, ExitStatus};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, mpsc};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::watch;

use super::ClusterError;

/// A fast shutdown writes a checkpoint, which may have much to write.
const FAST_WITHIN: Duration = Duration::from_secs(30);
/// Postgres itself kills what outlives an immediate shutdown by five seconds.
const IMMEDIATE_WITHIN: Duration = Duration::from_secs(10);

/// A child process that stops when this is dropped, or when the parent dies.
#[derive(Debug)]
pub(super) struct Server {
    pid: Pid,
    end: Arc<End>,
    ended: watch::Receiver<Option<ExitStatus>>,
}

/// How the process ended, once it has.
#[derive(Debug, Default)]
struct End {
    status: Mutex<Option<ExitStatus>>,
    reached: Condvar,
}

impl Server {
    /// Starts the process from a thread of its own, which lives as long: the kernel's "parent died"
    /// is really "the thread that started it died".
    pub(super) fn spawn(mut command: Command) -> io::Result<Self> {
        let end = Arc::new(End::default());
        let (announce, ended) = watch::channel(None);
        let (tell_pid, pid) = mpsc::channel();
        let thread_end = Arc::clone(&end);
        thread::Builder::new()
            .name("postgres".to_owned())
            .spawn(move || {
                let mut child = match command.spawn() {
                    Ok(child) => child,
                    Err(error) => return tell_pid.send(Err(error)),
                };
                let told = tell_pid.send(Ok(child.id()));
                let status = child.wait().expect("only this thread waits for the child");
                *thread_end.lock() = Some(status);
                thread_end.reached.notify_all();
                announce.send_replace(Some(status));
                told
            })?;
        let pid = pid.recv().expect("the thread tells one or the other")?;
        let pid = Pid::from_raw(i32::try_from(pid).expect("process ids fit pid_t"));
        Ok(Self { pid, end, ended })
    }

    pub(super) fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// How the process ended, if it has.
    pub(super) fn status(&self) -> Option<ExitStatus> {
        *self.end.lock()
    }

    pub(super) async fn ended(&self) -> ExitStatus {
        let mut ended = self.ended.clone();
        let status = *ended
            .wait_for(Option::is_some)
            .await
            .expect("the thread announces the end before it goes");
        status.expect("waited for it")
    }

    /// Asks the process to cut its connections and stop, then tells it to; blocks until it has.
    pub(super) fn stop(&self) -> Result<(), ClusterError> {
        for (signal, patience) in [
            (Signal::SIGINT, FAST_WITHIN),
            (Signal::SIGQUIT, IMMEDIATE_WITHIN),
        ] {
            if self.end.stops_by(self.pid, signal, patience) {
                return Ok(());
            }
        }
        Err(ClusterError::Stuck { pid: self.pid() })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            tracing::error!("{error}");
        }
    }
}

impl End {
    fn lock(&self) -> MutexGuard<'_, Option<ExitStatus>> {
        self.status
            .lock()
            .expect("nothing panics while it holds this lock")
    }

    /// Sends a signal unless the process has ended, and waits for its end.
    fn stops_by(&self, pid: Pid, signal: Signal, patience: Duration) -> bool {
        let status = self.lock();
        if status.is_none()
            && let Err(error) = kill(pid, signal)
        {
            tracing::debug!("no {signal} for PostgreSQL: {error}");
        }
        let (status, _) = self
            .reached
            .wait_timeout_while(status, patience, |status| status.is_none())
            .expect("nothing panics while it holds this lock");
        status.is_some()
    }
}
