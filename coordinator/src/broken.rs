//! Ways to break the coordinator on purpose, for tests that must notice.
//!
//! A *control* breaks one promise, to show that the judge of a run sees it. A *point* is a named
//! place where the process dies or freezes; and the wall clock can be off. All are chosen by the
//! environment, and none exists unless the feature `broken` is on: without it [`is`] is constantly
//! false, [`crash_point!`] nothing, and [`WallClock`] the machine's own.

#[cfg(not(feature = "broken"))]
pub(crate) use backends::data_source::clock::SystemClock as WallClock;

#[cfg(feature = "broken")]
pub use switches::{CLOCK_OFFSET, CONTROL, CONTROLS, CRASHPOINT};
#[cfg(feature = "broken")]
pub(crate) use switches::{WallClock, is, kinds, point};

/// A promise to break, and how.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Control {
    /// A reader of the log moves past what it has not seen, as behind a plain sequence.
    SkipUnseen,
    /// The next commit of a row leaves when the answer is there, before it is recorded.
    SettleLater,
    /// A receipt leaves before its append.
    AcknowledgeEarly,
    /// A retry has another `webhook-id`.
    FreshId,
    /// An answer is recorded whoever owns the source by now, and whatever attempt is open.
    NoEpoch,
    /// Commits do not wait for others of their rows.
    NoLanes,
    /// Commits are read in transactions and appended on the futures of calls, which are dropped, over
    /// connections that nobody heals.
    RequestFuture,
    /// A refusal is final although an earlier copy of the request may still be executed.
    RefuseEarly,
    /// The feed is not swept.
    NoSweep,
    /// Attempts are not on record.
    OffRecord,
}

/// Whether the coordinator is to be broken in this way.
#[cfg(not(feature = "broken"))]
pub(crate) const fn is(_control: Control) -> bool {
    false
}

/// A named place where the process dies or freezes if its environment says so; on the way of a batch, one
/// for each kind of command in it.
macro_rules! crash_point {
    ($name:expr) => {{
        #[cfg(feature = "broken")]
        $crate::broken::point($name);
    }};
    ($stage:expr, $commands:expr) => {{
        #[cfg(feature = "broken")]
        for kind in $crate::broken::kinds($commands) {
            $crate::broken::point(&format!("{}.{kind}", $stage));
        }
    }};
}
pub(crate) use crash_point;

#[cfg(feature = "broken")]
mod switches {
    use std::collections::BTreeSet;
    use std::env::VarError;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::{Duration, SystemTime};

    use backends::data_source::clock::{Clock, SystemClock};
    use nix::sys::signal::{Signal, raise};

    use super::Control;
    use crate::decide::Command;

    /// The variable that names a control.
    pub const CONTROL: &str = "COORDINATOR_BROKEN";

    /// The variable that names a point: `name[:nth][:freeze]`.
    pub const CRASHPOINT: &str = "CRASHPOINT";

    /// The variable that says by how many seconds the wall clock is ahead; behind if negative.
    pub const CLOCK_OFFSET: &str = "COORDINATOR_CLOCK_OFFSET";

    /// The controls, by name.
    pub const CONTROLS: [&str; 10] = [
        "skip-unseen",
        "settle-later",
        "acknowledge-early",
        "fresh-id",
        "no-epoch",
        "no-lanes",
        "request-future",
        "refuse-early",
        "no-sweep",
        "off-record",
    ];

    /// Whether the environment names this control.
    pub(crate) fn is(control: Control) -> bool {
        static CHOSEN: OnceLock<Option<String>> = OnceLock::new();
        let chosen = CHOSEN.get_or_init(|| variable(CONTROL));
        chosen.as_deref() == Some(CONTROLS[control as usize])
    }

    /// The wall clock, as far off as the environment says.
    #[derive(Clone, Copy, Debug)]
    pub(crate) struct WallClock;

    impl Clock for WallClock {
        fn now(&self) -> SystemTime {
            static OFFSET: OnceLock<i64> = OnceLock::new();
            let read = || variable(CLOCK_OFFSET).and_then(|it| it.parse().ok());
            let offset = *OFFSET.get_or_init(|| read().unwrap_or_default());
            let by = Duration::from_secs(offset.unsigned_abs());
            let now = SystemClock.now();
            if offset < 0 { now - by } else { now + by }
        }
    }

    struct Armed {
        name: String,
        left: AtomicU32,
        signal: Signal,
    }

    /// Dies or freezes here if the environment says so, as often as it says.
    pub(crate) fn point(name: &str) {
        static ARMED: OnceLock<Option<Armed>> = OnceLock::new();
        let Some(armed) = ARMED.get_or_init(armed) else {
            return;
        };
        if name == armed.name && armed.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            raise(armed.signal).expect("a process may signal itself");
        }
    }

    /// The kinds of a batch's commands, each once.
    pub(crate) fn kinds(commands: &[Command]) -> BTreeSet<&'static str> {
        commands.iter().map(Command::name).collect()
    }

    fn armed() -> Option<Armed> {
        let text = variable(CRASHPOINT)?;
        let mut parts = text.split(':');
        let name = parts.next()?.to_owned();
        let parts: Vec<_> = parts.collect();
        let nth = parts.iter().find_map(|it| it.parse().ok()).unwrap_or(1);
        let freezes = parts.contains(&"freeze");
        Some(Armed {
            name,
            left: AtomicU32::new(nth),
            signal: if freezes {
                Signal::SIGSTOP
            } else {
                Signal::SIGKILL
            },
        })
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "no setting, and not in what is released"
    )]
    fn variable(name: &str) -> Option<String> {
        std::env::var(name).map_err(|_: VarError| ()).ok()
    }
}
