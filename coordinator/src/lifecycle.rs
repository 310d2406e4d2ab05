//! The end of the process: asked for once, it drains; asked for twice, or at the deadline, it stops.
//!
//! Every task of the process runs on the tracker here and watches one of two tokens. *Soft* says:
//! take no new work, finish what has begun. *Hard* says: stop now; what was acknowledged is durable
//! and its recovery is the ordinary path.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What tasks may take to notice the hard token.
const HARD_GRACE: Duration = Duration::from_secs(1);

/// The two stages of a stop, and the tasks that it waits for. Clones are the same lifecycle.
#[derive(Clone, Debug)]
pub struct Lifecycle {
    soft: CancellationToken,
    hard: CancellationToken,
    tasks: TaskTracker,
    panicked: Arc<AtomicBool>,
}

/// How a process came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Everything that had begun was finished.
    Drained,
    /// Everything was finished, but a task had panicked on the way.
    Panicked,
    /// The deadline passed, or a second signal came; the rest is recovered at the next start.
    CutShort,
}

impl Ending {
    /// The exit code: 0, 70 (software fault) or 75 (try again), as in `sysexits.h`.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Drained => 0,
            Self::Panicked => 70,
            Self::CutShort => 75,
        }
    }
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self::new()
    }
}

impl Lifecycle {
    /// A lifecycle that nobody has asked to end.
    pub fn new() -> Self {
        let hard = CancellationToken::new();
        Self {
            soft: hard.child_token(),
            hard,
            tasks: TaskTracker::new(),
            panicked: Arc::default(),
        }
    }

    /// Cancelled when no new work may begin.
    pub fn soft(&self) -> &CancellationToken {
        &self.soft
    }

    /// Cancelled when everything must end; the soft token is cancelled by then.
    pub fn hard(&self) -> &CancellationToken {
        &self.hard
    }

    /// The tasks that a stop waits for, for rooms that spawn their own.
    pub fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    /// Runs a task that a stop waits for. Its panic marks the ending; the process goes on.
    #[expect(clippy::disallowed_methods, reason = "this is the tracker")]
    pub fn spawn<F>(&self, name: &'static str, task: F) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let panicked = Arc::clone(&self.panicked);
        tokio::spawn(self.tasks.track_future(async move {
            if AssertUnwindSafe(task).catch_unwind().await.is_err() {
                panicked.store(true, Ordering::Relaxed);
                tracing::error!(task = name, "task {name} was ended by a panic");
            }
        }))
    }

    /// The same of a task without which the process is of no use: when it ends, however it does, the
    /// process stops, for its supervisor to start anew.
    pub fn spawn_vital<F>(&self, name: &'static str, task: F) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let soft = self.soft.clone();
        self.spawn(name, async move {
            let _stop = soft.drop_guard();
            task.await;
        })
    }

    /// From now on SIGTERM and SIGINT stop the process: the first softly, the second hard.
    pub fn obey_signals(&self) -> std::io::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let (soft, hard) = (self.soft.clone(), self.hard.clone());
        let obey = async move {
            let name = either(&mut terminate, &mut interrupt).await;
            tracing::info!("{name}: draining; a second signal stops at once");
            soft.cancel();
            let name = either(&mut terminate, &mut interrupt).await;
            tracing::warn!("{name} again: stopping at once");
            hard.cancel();
        };
        // Not tracked: it listens until the process is gone.
        #[expect(
            clippy::disallowed_methods,
            reason = "a stop must not wait for its own cause"
        )]
        let _listening = tokio::spawn(obey);
        Ok(())
    }

    /// Stops: softly at first, hard after the deadline. Returns when every task has ended, or a
    /// moment after the hard token.
    pub async fn drain(&self, deadline: Duration) -> Ending {
        self.soft.cancel();
        self.tasks.close();
        tokio::select! {
            () = self.tasks.wait() => return self.ending(),
            () = self.hard.cancelled() => {}
            () = tokio::time::sleep(deadline) => {
                tracing::warn!(tasks = self.tasks.len(), "the drain deadline has passed");
                self.hard.cancel();
            }
        }
        if tokio::time::timeout(HARD_GRACE, self.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!(tasks = self.tasks.len(), "tasks are still running");
        }
        Ending::CutShort
    }

    fn ending(&self) -> Ending {
        if self.panicked.load(Ordering::Relaxed) {
            Ending::Panicked
        } else {
            Ending::Drained
        }
    }
}

async fn either(terminate: &mut Signal, interrupt: &mut Signal) -> &'static str {
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_drain_waits_for_what_has_begun() {
        let lifecycle = Lifecycle::new();
        let finished = Arc::new(AtomicBool::new(false));
        let (soft, flag) = (lifecycle.soft().clone(), Arc::clone(&finished));
        lifecycle.spawn("slow", async move {
            soft.cancelled().await;
            tokio::task::yield_now().await;
            flag.store(true, Ordering::Relaxed);
        });
        assert_eq!(
            lifecycle.drain(Duration::from_mins(1)).await,
            Ending::Drained
        );
        assert!(finished.load(Ordering::Relaxed));
        assert!(!lifecycle.hard().is_cancelled());
    }

    #[tokio::test]
    async fn a_task_that_goes_on_is_cut_short_at_the_deadline() {
        let lifecycle = Lifecycle::new();
        let hard = lifecycle.hard().clone();
        lifecycle.spawn("endless", async move { hard.cancelled().await });
        assert_eq!(
            lifecycle.drain(Duration::from_millis(1)).await,
            Ending::CutShort
        );
        assert!(lifecycle.hard().is_cancelled());
    }

    #[tokio::test]
    async fn a_panic_ends_its_task_alone_and_marks_the_ending() {
        let lifecycle = Lifecycle::new();
        lifecycle
            .spawn("faulty", async { panic!("broken") })
            .await
            .unwrap();
        let (send, receive) = tokio::sync::oneshot::channel();
        lifecycle.spawn("sound", async move { send.send("alive").unwrap() });
        assert_eq!(receive.await.unwrap(), "alive");
        assert!(!lifecycle.soft().is_cancelled());
        assert_eq!(
            lifecycle.drain(Duration::from_secs(1)).await,
            Ending::Panicked
        );
    }

    #[tokio::test]
    async fn the_process_stops_when_a_vital_task_panics() {
        let lifecycle = Lifecycle::new();
        lifecycle
            .spawn_vital("couriers", async { panic!("broken") })
            .await
            .unwrap();
        assert!(lifecycle.soft().is_cancelled());
        assert_eq!(
            lifecycle.drain(Duration::from_secs(1)).await,
            Ending::Panicked
        );
    }

    #[tokio::test]
    async fn the_first_signal_drains_and_the_second_stops() {
        let lifecycle = Lifecycle::new();
        lifecycle.obey_signals().unwrap();
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGTERM).unwrap();
        lifecycle.soft().cancelled().await;
        assert!(!lifecycle.hard().is_cancelled());
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGINT).unwrap();
        lifecycle.hard().cancelled().await;
    }
}
