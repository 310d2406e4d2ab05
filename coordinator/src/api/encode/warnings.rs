//! What an operator should see to, beside what the state of a source says.

use time::format_description::well_known::Rfc3339;

use crate::courier::READ_AHEAD;
use crate::domain::RequestKind;
use crate::feed::TOO_LARGE;
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
        feed_stands_still(status),
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

/// Polls meet an event that is too large to be read, and nothing else can be asked for.
fn feed_stands_still(status: &Status) -> Option<String> {
    let polls = status
        .requests
        .iter()
        .find(|requests| requests.kind == RequestKind::Events)?;
    let error = polls.last_error.as_ref()?;
    let stuck = error.class == TOO_LARGE && polls.last_success.is_none_or(|at| at < error.at);
    stuck.then(|| {
        let since = polls
            .last_success
            .and_then(|at| at.format(&Rfc3339).ok())
            .unwrap_or_else(|| "its beginning".to_owned());
        format!("the feed stands still since {since}: {}", error.message)
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use time::OffsetDateTime;

    use super::*;
    use crate::domain::{RequestError, SourceState};
    use crate::store::sources::Requests;

    fn warnings(pending: i64, max_pending: i64) -> usize {
        of(&status(pending, max_pending)).len()
    }

    fn status(pending: i64, max_pending: i64) -> Status {
        Status {
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
        }
    }

    #[test]
    fn a_feed_that_stands_still_at_an_event_is_told_of_until_a_poll_succeeds() {
        let begun = OffsetDateTime::UNIX_EPOCH;
        let polls = |success: Option<u64>, class: &str| {
            let requests = vec![Requests {
                kind: RequestKind::Events,
                last_success: success.map(|at| begun + Duration::from_secs(at)),
                last_error: Some(RequestError {
                    at: begun + Duration::from_secs(9),
                    class: class.to_owned(),
                    message: "too large".to_owned(),
                    http_status: 200,
                }),
            }];
            let status = Status {
                requests,
                ..status(0, 9)
            };
            of(&status)
        };
        let since = "the feed stands still since 1970-01-01T00:00:05Z: too large";
        assert_eq!(polls(Some(5), TOO_LARGE), [since]);
        assert_eq!(polls(None, TOO_LARGE).len(), 1);
        assert!(polls(Some(10), TOO_LARGE).is_empty());
        assert!(polls(Some(5), "http_status").is_empty());
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
