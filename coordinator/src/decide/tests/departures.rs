//! Commits whose first attempt is recorded with their accept.

use std::collections::HashSet;

use super::*;

const NODE: Uuid = Uuid::from_u128(7);

fn write(name: &str) -> Command {
    let create = vec![operation(OperationKind::Create, "airports", name, 1)];
    accept_of(name, Route::Source("crm".to_owned()), create)
}

/// A source that is owned, and whose courier lets "a" depart.
fn with_leave() -> State {
    let mut state = with_source();
    let source = state.sources.get_mut("crm").unwrap();
    (source.owner, source.epoch) = (Some(NODE), 3);
    let leave = Leave {
        node: NODE,
        epoch: 3,
        revision: 0,
        commits: HashSet::from(["a".to_owned()]),
    };
    state.leaves.insert("crm".to_owned(), leave);
    state
}

#[test]
fn a_commit_that_has_leave_is_recorded_with_its_attempt() {
    let mut state = with_leave();
    let (replies, append) = decide(&organization(), &mut state, &[write("a"), write("b")]);
    assert!(replies.iter().all(|it| matches!(it, Reply::Queued(..))));
    let [departed] = &append.departed[..] else {
        panic!("{:?}", append.departed)
    };
    let [opened] = &append.attempts_opened[..] else {
        panic!("{:?}", append.attempts_opened)
    };
    let deadline = NOW + departed.started.timeout;
    assert_eq!((departed.sequence, departed.started.number), (1, 1));
    assert_eq!((opened.node, opened.deadline), (NODE, deadline));
    assert_eq!(append.inbox[0].open, Some((NOW, deadline)));
    assert_eq!((append.inbox[1].open, append.inbox[1].attempts), (None, 0));
    // It is one attempt like any other: settled once, under the epoch that it was made under.
    let settle = |epoch| {
        let settle = settle_of(&departed.started, applied(), false);
        let Command::Settle(settle) = settle else {
            panic!("a settle")
        };
        Command::Settle(Settle { epoch, ..settle })
    };
    assert!(matches!(run(&mut state, settle(2)).0, Reply::Fenced));
    let (reply, append) = run(&mut state, settle(3));
    assert!(matches!(reply, Reply::Settled(None, _)), "{reply:?}");
    assert_eq!(append.attempts_closed[0].number, 1);
}

/// Its request may take all of its time, counted from then: a successor must not send it again before.
#[test]
fn an_attempt_of_a_batch_whose_time_is_behind_ends_as_much_later() {
    let mut state = with_leave();
    state.behind = Duration::from_millis(40);
    let (_, append) = decide(&organization(), &mut state, &[write("a")]);
    let ends = NOW + state.behind + append.departed[0].started.timeout;
    assert_eq!(append.attempts_opened[0].deadline, ends);
    assert_eq!(append.inbox[0].open, Some((NOW, ends)));
}

#[test]
fn leave_that_was_given_for_another_state_of_the_source_is_worth_nothing() {
    let changes: [fn(&mut Source); 6] = [
        |source| source.epoch += 1,
        |source| source.owner = None,
        |source| source.inbox_revision += 1,
        |source| source.state = SourceState::Failing,
        |source| source.state = SourceState::Paused,
        |source| source.backoff_until = Some(NOW + Duration::from_secs(1)),
    ];
    for change in changes {
        let mut state = with_leave();
        change(state.sources.get_mut("crm").unwrap());
        let (reply, append) = run(&mut state, write("a"));
        assert!(matches!(reply, Reply::Queued(..)), "{reply:?}");
        assert!(append.departed.is_empty() && append.attempts_opened.is_empty());
        assert_eq!(append.inbox[0].open, None);
    }
}
