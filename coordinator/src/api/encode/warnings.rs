//! What an operator should see to, beside what the state of a source says.

use crate::courier::READ_AHEAD;
use crate::store::sources::Status;
use crate::verify::certificate_ending;

/// Warnings, for a person.
pub(super) fn of(status: &Status) -> Vec<String> {
    let certificate = status
        .certificate_expires_at
        .and_then(|ends| certificate_ending(ends, status.seen_at));
    [
        queue_nearly_full(status),
        not_read_ahead(status),
        certificate,
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// From nine tenths of what may wait.
fn queue_nearly_full(status: &Status) -> Option<String> {
    let (pending, most) = (status.pending, status.max_pending);
    (i128::from(pending) * 10 >= i128::from(most) * 9)
        .then(|| format!("{pending} commits wait; at {most} new ones are refused"))
}

/// Only the owner's courier knows how many rows the commits that wait touch: at least one each.
fn not_read_ahead(status: &Status) -> Option<String> {
    let most = READ_AHEAD;
    let more = usize::try_from(status.pending).is_ok_and(|pending| pending > most);
    more.then(|| {
        format!("more than {most} commits wait: those behind wait also when their rows are free")
    })
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::*;
    use crate::domain::SourceState;

    fn warnings(pending: i64, max_pending: i64) -> usize {
        let status = Status {
            state: SourceState::Enabled,
            state_reason: String::new(),
            attempts_by_outcome: Vec::new(),
            retries_by_outcome: Vec::new(),
            pending,
            max_pending,
            dead: 0,
            oldest_pending: None,
            backoff_until: None,
            failing_since: None,
            certificate_expires_at: None,
            seen_at: OffsetDateTime::UNIX_EPOCH,
            requests: Vec::new(),
            feed: None,
            pushed: 0,
        };
        of(&status).len()
    }

    #[test]
    fn a_queue_is_nearly_full_from_nine_tenths_on() {
        let told = [(0, 1), (8, 10), (9, 10), (10, 10), (89, 99), (90, 99)];
        let told = told.map(|(pending, most)| warnings(pending, most));
        assert_eq!(told, [0, 0, 1, 1, 0, 1]);
    }

    #[test]
    fn a_queue_beyond_what_is_read_ahead_is_told_of() {
        let most = i64::try_from(READ_AHEAD).unwrap();
        assert_eq!(warnings(most, i64::MAX), 0);
        assert_eq!(warnings(most + 1, i64::MAX), 1);
        assert_eq!(warnings(most + 1, most + 1), 2);
    }
}
