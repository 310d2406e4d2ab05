//! Rows in Data Sources, as far as staleness asks: when each last changed, and how many commits on
//! it are unsettled. Whoever appends a delta of such a row, or accepts or settles a commit on it, says
//! so here; none of it needs the row to have been read.

use std::collections::BTreeSet;

use backends::operation::RowKey;

use super::append::Append;
use super::state::State;

/// What a batch tells of a row; 0 where it tells nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VersionChange {
    /// Position of its last change in the log.
    pub sync_id: i64,
    /// How many more commits on it are unsettled afterwards than before.
    pub unsettled: i64,
}

impl VersionChange {
    /// Whether the row is to be remembered for it. What was settled without a change is not.
    pub fn tells(&self) -> bool {
        self.sync_id > 0 || self.unsettled > 0
    }
}

/// A commit on these rows was accepted: it is unsettled from now on, dead or alive, wherever it
/// stands, until it is [`settled`].
pub(super) fn accepted(
    state: &mut State,
    append: &mut Append,
    rows: impl IntoIterator<Item = RowKey>,
) {
    count(state, append, rows, 1);
}

/// A row changed, at this position of the log.
pub(super) fn changed(state: &mut State, append: &mut Append, key: RowKey, sync_id: i64) {
    state.versions.entry(key.clone()).or_default().sync_id = sync_id;
    append.versions.entry(key).or_default().sync_id = sync_id;
}

/// A commit on these rows was confirmed or rejected.
pub(super) fn settled(
    state: &mut State,
    append: &mut Append,
    rows: impl IntoIterator<Item = RowKey>,
) {
    count(state, append, rows, -1);
}

/// One commit counts once on each of its rows, however many of its operations touch it.
fn count(
    state: &mut State,
    append: &mut Append,
    rows: impl IntoIterator<Item = RowKey>,
    more: i64,
) {
    for key in rows.into_iter().collect::<BTreeSet<_>>() {
        state.versions.entry(key.clone()).or_default().unsettled += more;
        append.versions.entry(key).or_default().unsettled += more;
    }
}
