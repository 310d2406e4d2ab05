//! How much a source takes, and whom its failures cost what.

use super::*;
use crate::domain::SettingsPatch;
use crate::refusal::Class;

fn write(name: &str) -> Command {
    let create = vec![operation(OperationKind::Create, "airports", name, 1)];
    accept_of(name, Route::Source("crm".to_owned()), create)
}

/// How many commits a reply list queued, replayed, and refused for want of room.
fn counted(replies: &[Reply]) -> (usize, usize, usize) {
    let count = |of: fn(&Reply) -> bool| replies.iter().filter(|one| of(one)).count();
    (
        count(|one| matches!(one, Reply::Queued(..))),
        count(|one| matches!(one, Reply::Replay(_))),
        count(|one| matches!(one, Reply::Refused(refusal) if refusal.reason == "queue_too_deep")),
    )
}

#[test]
fn a_batch_fills_a_queue_to_its_bound_and_replays_still_answer() {
    let mut state = with_source();
    settings(&mut state).max_pending = 3;
    let batch: Vec<_> = ["a", "b", "a", "c", "d", "e"].map(write).into();
    let (replies, append) = decide(&organization(), &mut state, &batch);
    assert_eq!(counted(&replies), (3, 1, 2));
    assert_eq!((append.inbox.len(), state.sources["crm"].pending), (3, 3));
    let Reply::Refused(refusal) = &replies[5] else {
        panic!("a refusal")
    };
    assert_eq!(refusal.class, Class::Exhausted);
    assert!(refusal.retry_after.is_some());
    assert_eq!(
        refusal.metadata,
        [
            ("data_source", "crm".to_owned()),
            ("max_pending", "3".to_owned())
        ]
    );
    assert!(matches!(run(&mut state, write("b")).0, Reply::Replay(_)));
}

#[test]
fn a_commit_that_settles_makes_room_for_one_more() {
    let mut state = with_source();
    settings(&mut state).max_pending = 1;
    let attempt = in_flight(&mut state);
    assert_eq!(refusal(run(&mut state, write("b")).0), "queue_too_deep");
    let batch = [
        settle_of(&attempt, applied(), false),
        write("b"),
        write("c"),
    ];
    let (replies, _) = decide(&organization(), &mut state, &batch);
    assert_eq!(counted(&replies), (1, 0, 1));
}

#[test]
fn two_changes_of_one_source_at_once_both_stand() {
    let mut state = with_source();
    let slower = SettingsPatch {
        max_per_second: Some(7),
        ..SettingsPatch::default()
    };
    let elsewhere = SettingsPatch {
        url: Some("https://new.example/".to_owned()),
        max_pending: Some(9),
        ..SettingsPatch::default()
    };
    let before = settings(&mut state).clone();
    let batch = [slower, elsewhere]
        .map(|patch| Command::Control(Control::UpdateSource("crm".to_owned(), patch)));
    decide(&organization(), &mut state, &batch);
    let expected = SourceSettings {
        url: "https://new.example/".to_owned(),
        max_per_second: 7,
        max_pending: 9,
        ..before
    };
    assert_eq!(*settings(&mut state), expected);
    // What failed at the endpoint that was left is due at once, whenever it failed.
    let recovery = state.sources["crm"].recovery().unwrap();
    assert_eq!((recovery.from, recovery.at), (None, NOW));
}

/// A commit whose first attempt failed just now, and a source that was then found failing and came
/// back.
fn brought_forward(state: &mut State) -> Started {
    settings(state).retry.delays = vec![Duration::from_hours(1); 2];
    let attempt = in_flight(state);
    run(state, settle_of(&attempt, retry(), false));
    let source = state.sources.get_mut("crm").unwrap();
    source.state = SourceState::Failing;
    state.now += Duration::from_secs(3);
    source.note_answer(state.now);
    started(state)
}

#[test]
fn an_attempt_that_a_recovery_brought_forward_spends_nothing() {
    let mut state = with_source();
    let attempt = brought_forward(&mut state);
    assert_eq!(attempt.trigger, Trigger::Recovery);
    state.now += Duration::from_secs(1);
    let (Reply::Settled(Some(entry), _), _) = run(&mut state, settle_of(&attempt, retry(), false))
    else {
        panic!("it waits on")
    };
    assert_eq!((entry.attempts, entry.spent), (2, 1));
    assert_eq!(entry.due_at, NOW + Duration::from_hours(1));
    // It is not brought forward again by the same recovery, and the schedule goes on as it stood.
    let why = run(&mut state, start_of(1)).0;
    assert!(
        matches!(why, Reply::NotStartable(NotStartable::Until(until)) if until == entry.due_at)
    );
    state.now = entry.due_at;
    let attempt = started(&mut state);
    assert_eq!(attempt.trigger, Trigger::Schedule);
    run(&mut state, settle_of(&attempt, retry(), false));
    assert_eq!(state.inbox[&("crm".to_owned(), 1)].spent, 2);
}

#[test]
fn a_commit_that_failed_before_a_spell_is_not_brought_forward_by_its_end() {
    let mut state = with_source();
    settings(&mut state).retry.delays = vec![Duration::from_hours(1); 2];
    let attempt = in_flight(&mut state);
    run(&mut state, settle_of(&attempt, retry(), false));
    let source = state.sources.get_mut("crm").unwrap();
    // Others are answered, and later the source fails and comes back.
    source.note_answer(NOW + Duration::from_secs(1));
    for _ in 0..20 {
        source.note_failure(NOW + Duration::from_mins(2));
    }
    source.state = SourceState::Failing;
    source.note_answer(NOW + Duration::from_mins(3));
    state.now = NOW + Duration::from_mins(4);
    let why = run(&mut state, start_of(1)).0;
    assert!(matches!(why, Reply::NotStartable(NotStartable::Until(_))));
}

#[test]
fn a_commit_that_alone_is_answered_as_misconfigured_waits_for_itself() {
    let mut state = with_source();
    let misconfigured = || Outcome::Misconfigured { error: error() };
    let attempt = in_flight(&mut state);
    run(&mut state, settle_of(&attempt, misconfigured(), false));
    let until = state.sources["crm"].backoff_until.unwrap();
    assert_eq!(state.inbox[&("crm".to_owned(), 1)].due_at, until);
    // Another commit is answered: the source is well, and the first one's turn comes.
    state.now = until;
    let source = state.sources.get_mut("crm").unwrap();
    source.note_answer(until);
    let attempt = started(&mut state);
    run(&mut state, settle_of(&attempt, misconfigured(), false));
    let entry = state.inbox[&("crm".to_owned(), 1)].clone();
    assert_eq!((entry.spent, entry.failed_at), (0, None));
    assert!(entry.due_at >= until + Duration::from_mins(4));
    // The next recovery leaves it where it is.
    let source = state.sources.get_mut("crm").unwrap();
    source.note_answer(until + Duration::from_secs(5));
    assert!(!entry.recovered_by(&state.sources["crm"]));
}
