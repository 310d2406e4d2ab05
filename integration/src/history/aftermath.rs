//! When the faults are over everything comes to rest.

use super::{Fault, History, Rule};

/// A node may take so much more memory while it drains than it had when the faults ended.
const ROOM: u64 = 32 << 20;

impl History {
    pub(super) fn aftermath(&self) -> Vec<Fault> {
        let left = &self.aftermath;
        let counts = [
            (left.queued, "commits are queued"),
            (
                left.idle_in_transaction,
                "sessions are idle in a transaction",
            ),
            (left.waiting, "sessions wait for a lock"),
        ];
        let counts = counts.into_iter().filter(|(count, _)| *count > 0);
        let counts = counts.map(|(count, what)| format!("{count} {what}"));
        let grown = left
            .resident
            .iter()
            .filter(|(before, after)| *after > before + before / 5 + ROOM);
        let grown =
            grown.map(|(before, after)| format!("a node grew from {before} to {after} bytes"));
        let all = counts.chain(grown);
        all.map(|it| Fault::new(Rule::Stuck, it)).collect()
    }
}
