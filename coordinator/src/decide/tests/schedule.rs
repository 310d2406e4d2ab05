//! How many attempts a commit has and when each is due, against what the schedule promises.

use super::*;
use crate::decide::breaker::{PAUSE_CAP, PAUSE_FAILING};

/// How an attempt fails.
#[derive(Clone, Copy, Debug)]
enum Failure {
    /// 5xx, or no answer; with a `Retry-After` of so many seconds.
    Answered(Option<u64>),
    Lost,
    /// 429.
    Patience(Option<u64>),
    /// 401.
    Misconfigured,
    /// The node was too slow to send it.
    NeverLeft,
}

fn any_failure() -> impl Strategy<Value = Failure> {
    let asked = || prop::option::weighted(0.3, 0_u64..8_000);
    prop_oneof![
        4 => asked().prop_map(Failure::Answered),
        2 => Just(Failure::Lost),
        1 => asked().prop_map(Failure::Patience),
        1 => Just(Failure::Misconfigured),
        1 => Just(Failure::NeverLeft),
    ]
}

fn settle_as(attempt: &Started, failure: Failure) -> Command {
    let retry = |after: Option<u64>| Outcome::Retry {
        retry_after: after.map(Duration::from_secs),
        error: error(),
    };
    let unknown = Outcome::Unknown { error: error() };
    let (outcome, status) = match failure {
        Failure::Answered(after) => (retry(after), Some(503)),
        Failure::Patience(after) => (retry(after), Some(429)),
        Failure::Lost | Failure::NeverLeft => (unknown, None),
        Failure::Misconfigured => (Outcome::Misconfigured { error: error() }, Some(401)),
    };
    let Command::Settle(settle) = settle_of(attempt, outcome, false) else {
        unreachable!("settle_of makes a settle")
    };
    Command::Settle(Settle {
        http_status: status,
        never_left: matches!(failure, Failure::NeverLeft),
        ..settle
    })
}

proptest! {
    /// Whatever else comes in between, as many attempts as the schedule has are spent on failures of the
    /// commit's own, no more and no fewer; each is due when its pause is over, or later if the endpoint
    /// asks for it, up to an hour.
    #[test]
    fn a_commit_has_the_attempts_of_its_schedule_and_each_when_it_is_due(
        delays in prop::collection::vec(1_u64..100_000, 0..6),
        failures in prop::collection::vec(any_failure(), 0..30),
    ) {
        let delays: Vec<_> = delays.into_iter().map(Duration::from_secs).collect();
        let mut state = with_source();
        settings(&mut state).retry.delays = delays.clone();
        let mut attempt = in_flight(&mut state);
        let mut spent = 0;
        for failure in failures.into_iter().chain([Failure::Lost; 7]) {
            run(&mut state, settle_as(&attempt, failure));
            if matches!(failure, Failure::Answered(_) | Failure::Lost) {
                spent += 1;
            }
            let entry = state.inbox[&("crm".to_owned(), 1)].clone();
            prop_assert_eq!(entry.dead, spent > delays.len());
            if entry.dead {
                return Ok(());
            }
            let due = entry.due_at - state.now;
            let paused = state.sources["crm"].backoff_until.map(|until| until - state.now);
            match failure {
                Failure::Answered(after) | Failure::Patience(after) => {
                    let asked = Duration::from_secs(after.unwrap_or(0).min(3_600));
                    let pause = delays.get(spent.max(1) - 1).copied().unwrap_or(PAUSE_CAP);
                    prop_assert_eq!(due, pause.max(asked));
                    prop_assert!(after.is_none() || paused >= Some(asked.try_into().unwrap()));
                }
                Failure::Lost => prop_assert_eq!(due, delays[spent - 1]),
                Failure::NeverLeft => prop_assert_eq!(due, PAUSE_FAILING),
                Failure::Misconfigured => prop_assert_eq!(Some(due), paused),
            }
            state.now = entry.due_at.max(state.sources["crm"].backoff_until.unwrap_or(entry.due_at));
            attempt = started(&mut state);
        }
        prop_assert!(false, "it never ends");
    }
}

#[test]
fn an_attempt_that_never_left_says_nothing_of_its_source() {
    let mut state = with_source();
    let attempt = in_flight(&mut state);
    let failed = settle_as(&attempt, Failure::Answered(None));
    let (_, append) = run(&mut state, failed);
    assert_eq!(append.requests.len(), 1);
    let said = state.inbox[&("crm".to_owned(), 1)].last_error.clone();
    assert!(said.is_some());
    state.now += Duration::from_mins(1);
    let attempt = started(&mut state);
    let (_, append) = run(&mut state, settle_as(&attempt, Failure::NeverLeft));
    assert!(append.requests.is_empty());
    assert_eq!(append.attempts_closed.len(), 1);
    assert_eq!(state.inbox[&("crm".to_owned(), 1)].last_error, said);
}
