//! What a check found that is not as it should be.

use backends::data_source::classify::Outcome;

/// Why a check did not pass.
#[derive(Debug)]
pub(super) enum Finding {
    /// The endpoint does something else; the text says what.
    Wrong(String),
    /// The check needs something that is not there.
    Untried(String),
}

/// The endpoint does something else.
pub(super) fn wrong<T>(seen: impl Into<String>) -> Result<T, Finding> {
    Err(Finding::Wrong(seen.into()))
}

/// Fails a check unless a condition holds.
pub(super) fn ensure(holds: bool, seen: impl FnOnce() -> String) -> Result<(), Finding> {
    if holds { Ok(()) } else { wrong(seen()) }
}

/// An outcome, for a person.
pub(super) fn describe(outcome: &Outcome) -> String {
    match outcome.error() {
        None => "it was applied".to_owned(),
        Some(error) => error.message,
    }
}
