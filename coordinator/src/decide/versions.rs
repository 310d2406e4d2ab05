//! Rows in Data Sources, as far as staleness asks: when each last changed, and whether a commit on
//! it is pending. Whoever appends a delta of such a row, or accepts or settles a commit on it, says
//! so here; none of it needs the row to have been read.

use backends::operation::RowKey;

use super::append::Append;
use super::state::State;

/// What a batch tells of a row; 0 where it tells nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VersionChange {
    /// Position of its last change in the log.
    pub sync_id: i64,
    /// Newest commit that was accepted for it.
    pub accepted: i64,
    /// Newest commit on it that was settled.
    pub settled: i64,
}

impl VersionChange {
    /// Whether the row is to be remembered for it. What was settled without a change is not.
    pub fn tells(&self) -> bool {
        self.sync_id > 0 || self.accepted > 0
    }
}

/// A commit on these rows was accepted, or took a new place: it is pending from now on.
pub(super) fn accepted(
    state: &mut State,
    append: &mut Append,
    rows: impl IntoIterator<Item = RowKey>,
    sequence: i64,
) {
    for key in rows {
        let version = state.versions.entry(key.clone()).or_default();
        version.pending_sequence = Some(sequence);
        append.versions.entry(key).or_default().accepted = sequence;
    }
}

/// A row changed, at this position of the log.
pub(super) fn changed(state: &mut State, append: &mut Append, key: RowKey, sync_id: i64) {
    state.versions.entry(key.clone()).or_default().sync_id = sync_id;
    append.versions.entry(key).or_default().sync_id = sync_id;
}

/// A commit on these rows was confirmed or rejected: it is not pending any more. Where it was the
/// newest one, the row has none.
pub(super) fn settled(
    state: &mut State,
    append: &mut Append,
    rows: impl IntoIterator<Item = RowKey>,
    sequence: i64,
) {
    for key in rows {
        if let Some(version) = state.versions.get_mut(&key) {
            version.pending_sequence = version.pending_sequence.filter(|newest| *newest > sequence);
        }
        let change = append.versions.entry(key).or_default();
        change.settled = change.settled.max(sequence);
    }
}
