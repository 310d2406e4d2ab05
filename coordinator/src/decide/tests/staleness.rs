//! Views of rows in Data Sources: judged at accept, where pending commits count, and at the start of
//! the first attempt.

use super::*;

fn update(id: &str, read_at: Option<i64>, on_stale: OnStale) -> Operation {
    Operation {
        read_at,
        on_stale,
        ..operation(OperationKind::Update, "airports", id, 2)
    }
}

fn accept(name: &str, operations: Vec<Operation>) -> Command {
    accept_of(name, Route::Source("crm".to_owned()), operations)
}

fn claim(state: &mut State) {
    let claim = Control::ClaimSource {
        source: "crm".to_owned(),
        node: Uuid::nil(),
        gone: None,
    };
    run(state, Command::Control(claim));
}

/// As the courier starts it: with what the inbox holds.
fn start(state: &State, sequence: i64) -> Command {
    let entry = &state.inbox[&("crm".to_owned(), sequence)];
    Command::Start(Start {
        source: "crm".to_owned(),
        epoch: 1,
        sequence,
        node: Uuid::nil(),
        terms: Some(Arc::new(Terms {
            client_tx_id: entry.client_tx_id.clone(),
            expires_at: entry.expires_at,
            guards: entry.guards.clone(),
        })),
        revision: 0,
        weight: 0,
    })
}

fn started_as(state: &mut State, sequence: i64) -> Started {
    let command = start(state, sequence);
    match run(state, command).0 {
        Reply::Started(started) => *started,
        reply => panic!("not started: {reply:?}"),
    }
}

fn settled_as(state: &mut State, sequence: i64, outcome: Outcome) -> Append {
    let started = started_as(state, sequence);
    let Command::Settle(settle) = settle_of(&started, outcome, false) else {
        unreachable!("settle_of makes a settle")
    };
    let operations = wire::operations(&started.body).unwrap();
    let settle = Settle {
        sequence,
        client_tx_id: started.client_tx_id,
        rows: operations.iter().map(Operation::key).collect(),
        ..settle
    };
    run(state, Command::Settle(settle)).1
}

#[test]
fn a_commit_that_is_pending_on_the_row_counts_as_a_change() {
    let mut state = with_source();
    let first = accept("first", vec![update("1", None, OnStale::Reject)]);
    // Also inside one batch, and although nobody knew the row before.
    let cases = [
        ("rejects", OnStale::Reject),
        ("forces", OnStale::Force),
        ("flags", OnStale::Flag),
    ];
    let batch: Vec<_> = std::iter::once(first)
        .chain(cases.map(|(name, on_stale)| accept(name, vec![update("1", Some(10), on_stale)])))
        .collect();
    let (replies, append) = decide(&organization(), &mut state, &batch);
    let Reply::Refused(refused) = &replies[1] else {
        panic!("refused: {:?}", replies[1])
    };
    assert_eq!(refused.reason, "stale_context");
    let told: Vec<_> = refused.metadata.iter().map(|(name, _)| *name).collect();
    assert!(
        told.contains(&"pending") && !told.contains(&"sync_id"),
        "{told:?}"
    );
    assert!(matches!(replies[2], Reply::Queued(..)));
    let flagged: Vec<_> = append.inbox.iter().map(|one| one.flagged.clone()).collect();
    assert_eq!(flagged, [vec![], vec![], vec![0]]);
    assert_eq!(append.versions[&key("1")].unsettled, 3);
}

#[test]
fn a_row_is_as_it_was_when_the_last_commit_on_it_is_settled() {
    for outcome in [applied(), refused()] {
        let mut state = with_source();
        claim(&mut state);
        let both = ["a", "b"].map(|name| accept(name, vec![update("1", None, OnStale::Reject)]));
        decide(&organization(), &mut state, &both);
        let unsettled = |state: &State| state.versions[&key("1")].unsettled;
        assert_eq!(unsettled(&state), 2);
        settled_as(&mut state, 1, outcome.clone());
        assert_eq!(unsettled(&state), 1);
        let append = settled_as(&mut state, 2, outcome.clone());
        assert_eq!(unsettled(&state), 0);
        assert_eq!(append.versions[&key("1")].unsettled, -1);
        // A refusal leaves nothing to remember of the row.
        assert_eq!(append.versions[&key("1")].tells(), outcome == applied());
        let seen = state.head.last_sync_id;
        let next = accept("next", vec![update("1", Some(seen), OnStale::Reject)]);
        assert!(matches!(run(&mut state, next).0, Reply::Queued(..)));
    }
}

#[test]
fn an_older_commit_counts_although_a_newer_one_on_the_row_is_settled() {
    let mut state = with_source();
    claim(&mut state);
    // Two operations on the row are one commit on it.
    let twice = vec![update("1", None, OnStale::Reject); 2];
    let both = [("older", twice.clone()), ("newer", twice)].map(|(name, of)| accept(name, of));
    decide(&organization(), &mut state, &both);
    // The older one is dead, or holds other rows up: whichever way, the newer one got ahead of it.
    settled_as(&mut state, 2, applied());
    let seen = state.head.last_sync_id;
    let view = |name| accept(name, vec![update("1", Some(seen), OnStale::Reject)]);
    let Reply::Refused(early) = run(&mut state, view("early")).0 else {
        panic!("the older one may yet change the row")
    };
    assert!(early.metadata.contains(&("pending", "true".to_owned())));
    settled_as(&mut state, 1, refused());
    assert!(matches!(
        run(&mut state, view("fresh")).0,
        Reply::Queued(..)
    ));
}

#[test]
fn an_operation_that_is_not_sent_makes_nobody_wait() {
    let mut state = with_source();
    let nothing = Operation {
        input: serde_json::Map::new(),
        ..update("2", Some(10), OnStale::Reject)
    };
    let one = update("1", None, OnStale::Reject);
    let (_, append) = run(&mut state, accept("a", vec![one, nothing]));
    assert!(!append.versions.contains_key(&key("2")));
    assert!(append.inbox[0].guards.is_empty());
}

#[test]
fn a_row_that_changed_before_the_first_attempt_refuses_it_and_names_the_operation() {
    let mut state = with_source();
    claim(&mut state);
    let operations = vec![
        update("2", None, OnStale::Reject),
        update("1", Some(10), OnStale::Reject),
    ];
    run(&mut state, accept("a", operations));
    state.versions.get_mut(&key("1")).unwrap().sync_id = 11;
    let command = start(&state, 1);
    let mut touched = Touched::default();
    command.touch(&mut touched);
    assert_eq!(
        (touched.versions, touched.commits),
        (vec![key("1")], vec!["a".to_owned()])
    );
    let (reply, append) = run(&mut state, command);
    assert!(matches!(reply, Reply::NotStartable(NotStartable::Finished)));
    let (code, message) = state.ledger["a"].error.clone().unwrap();
    assert_eq!(code, "stale_context");
    assert!(message.contains("operations[1]"), "{message}");
    assert_eq!(state.ledger["a"].state, CommitState::Rejected);
    assert_eq!(
        (append.attempts_opened.len(), append.inbox_done.len()),
        (0, 1)
    );
    assert_eq!(state.sources["crm"].pending, 0);
    assert_eq!(append.versions[&key("2")].unsettled, -1);
}

#[test]
fn a_row_that_changed_before_the_first_attempt_is_forced_or_flagged_as_was_said() {
    for (on_stale, flagged) in [(OnStale::Force, vec![]), (OnStale::Flag, vec![0])] {
        let mut state = with_source();
        claim(&mut state);
        run(
            &mut state,
            accept("a", vec![update("1", Some(10), on_stale)]),
        );
        state.versions.get_mut(&key("1")).unwrap().sync_id = 11;
        let command = start(&state, 1);
        let (_, append) = run(&mut state, command);
        assert_eq!(append.attempts_opened.len(), 1);
        let changed = &append.inbox_changed[&("crm".to_owned(), 1)];
        assert_eq!(changed.flagged, flagged);
    }
}

#[test]
fn a_view_is_not_judged_again_once_an_attempt_has_left() {
    let mut state = with_source();
    claim(&mut state);
    run(
        &mut state,
        accept("a", vec![update("1", Some(10), OnStale::Reject)]),
    );
    settled_as(&mut state, 1, retry());
    state.versions.get_mut(&key("1")).unwrap().sync_id = 11;
    state.now += Duration::from_mins(10);
    assert_eq!(started_as(&mut state, 1).number, 2);
}

#[test]
fn a_view_of_a_managed_row_ends_with_a_removal_also_within_one_batch() {
    let viewed = |name: &str, read_at, on_stale| {
        let create = operation(OperationKind::Create, "notes", "a", 2);
        let create = Operation {
            read_at: Some(read_at),
            on_stale,
            ..create
        };
        managed(name, vec![create])
    };
    let mut touched = Touched::default();
    viewed("forces", 0, OnStale::Force).touch(&mut touched);
    assert_eq!((touched.rows.len(), touched.viewed.len()), (1, 0));
    viewed("rejects", 0, OnStale::Reject).touch(&mut touched);
    assert_eq!(touched.viewed.len(), 1);

    let mut state = state();
    let batch = [
        managed(
            "make",
            vec![operation(OperationKind::Create, "notes", "a", 1)],
        ),
        managed(
            "remove",
            vec![operation(OperationKind::Delete, "notes", "a", 1)],
        ),
        viewed("rejects", 1, OnStale::Reject),
        viewed("knows", 2, OnStale::Reject),
    ];
    let (replies, append) = decide(&organization(), &mut state, &batch);
    let Reply::Refused(refused) = &replies[2] else {
        panic!("refused: {:?}", replies[2])
    };
    assert_eq!(refused.reason, "stale_context");
    assert!(refused.metadata.contains(&("sync_id", "2".to_owned())));
    assert!(matches!(replies[3], Reply::Confirmed(_)));
    assert_eq!(append.deltas.len(), 3);
}
