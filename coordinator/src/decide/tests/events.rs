//! Changes made outside, beside our own.

use super::*;
use crate::domain::FeedState;

fn change(id: &str, n: i64) -> Change {
    Change {
        operation: None,
        kind: OperationKind::Update,
        model: "airports".to_owned(),
        id: id.to_owned(),
        row: Some(json!({"id": id, "n": n}).try_into().unwrap()),
        transaction_id: None,
    }
}

fn event(id: &str, row: &str, n: i64) -> ExternalEvent {
    ExternalEvent {
        id: Some(id.to_owned()),
        change: Ok(change(row, n)),
        bare: false,
        loaded: false,
        lane: lane(&organization(), "airports", row),
        echoes: Vec::new(),
        again: false,
        known: None,
        pushed: None,
    }
}

/// An event that names a commit, of which so much is known.
fn echo(id: &str, row: &str, member: Option<bool>) -> ExternalEvent {
    ExternalEvent {
        echoes: vec![EchoOf {
            client_tx_id: "a".to_owned(),
            sequence: Some(1),
            member,
        }],
        ..event(id, row, 1)
    }
}

fn take(events: Vec<ExternalEvent>) -> TakeEvents {
    TakeEvents {
        source: "crm".to_owned(),
        epoch: 0,
        schema_version: 1,
        events,
        unread: BTreeSet::new(),
        behind: false,
        floor: 10,
        step: Step::Stay,
        caught_up: false,
    }
}

fn newest(from: Option<&str>, to: &str) -> Step {
    Step::Newest {
        from: from.map(str::to_owned),
        to: Some(to.to_owned()),
    }
}

/// Under the epoch that the source has.
fn taken(state: &mut State, mut take: TakeEvents) -> (Taken, Append) {
    take.epoch = state.sources["crm"].epoch;
    let (reply, append) = run(state, Command::TakeEvents(take));
    match reply {
        Reply::Taken(taken) => (*taken, append),
        reply => panic!("not taken: {reply:?}"),
    }
}

/// A commit `a` of the row 1 is in flight.
fn sent() -> (State, Started) {
    let mut state = with_source();
    let started = in_flight(&mut state);
    let lanes = vec![lane(&organization(), "airports", "1")];
    let entry = state.inbox.get_mut(&("crm".to_owned(), 1)).unwrap();
    assert_eq!(entry.lanes, lanes);
    (state, started)
}

#[test]
fn an_event_is_taken_in_once_as_nobodys_write() {
    let mut state = with_source();
    let both = vec![event("e", "1", 1), event("f", "2", 2)];
    let (first, append) = taken(&mut state, take(both.clone()));
    assert_eq!((first.new, first.feed.taken), (2, 2));
    let delta = &append.deltas[0];
    assert_eq!((delta.delta.sync_id, &delta.client_tx_id), (11, &None));
    assert_eq!((&delta.participant, append.versions.len()), (&None, 2));
    assert_eq!(state.head.last_sync_id, 12);
    let (again, append) = taken(&mut state, take(both));
    assert!(again.new == 0 && append.is_empty());
    let more = TakeEvents {
        step: newest(None, "c"),
        ..take(vec![event("e", "1", 1)])
    };
    assert_eq!(taken(&mut state, more).0.feed.duplicates, 1);
}

#[test]
fn events_of_an_owner_before_are_refused() {
    let mut state = with_source();
    state.sources.get_mut("crm").unwrap().epoch = 2;
    let (reply, append) = run(
        &mut state,
        Command::TakeEvents(take(vec![event("e", "1", 1)])),
    );
    assert!(matches!(reply, Reply::Fenced) && append.is_empty());
    let other = TakeEvents {
        epoch: 2,
        schema_version: 7,
        ..take(Vec::new())
    };
    let (reply, append) = run(&mut state, Command::TakeEvents(other));
    assert!(matches!(reply, Reply::SchemaMoved(1)) && append.is_empty());
}

#[test]
fn a_confirmed_commit_come_back_changes_nothing() {
    let (mut state, started) = sent();
    run(&mut state, settle_of(&started, applied(), false));
    let position = state.head.last_sync_id;
    let (taken, append) = taken(&mut state, take(vec![echo("e", "1", Some(true))]));
    assert_eq!((taken.feed.echoes, taken.feed.taken), (1, 0));
    assert!(append.deltas.is_empty() && state.head.last_sync_id == position);
}

#[test]
fn a_commit_that_comes_back_before_its_answer_is_sent_again_at_once_and_has_one_delta() {
    let (mut state, started) = sent();
    run(&mut state, settle_of(&started, retry(), true));
    state.sources.get_mut("crm").unwrap().backoff_until = Some(NOW + Duration::from_hours(1));
    let (reply, _) = begin(&mut state);
    assert!(matches!(reply, Reply::NotStartable(NotStartable::Until(_))));

    let position = state.head.last_sync_id;
    let (taken, append) = taken(&mut state, take(vec![echo("e", "1", Some(true))]));
    assert!(append.deltas.is_empty() && taken.urged.len() == 1);
    let (reply, append) = begin(&mut state);
    let Reply::Started(again) = reply else {
        panic!("{reply:?}")
    };
    assert_eq!((again.trigger, again.number), (Trigger::Echo, 2));
    assert_eq!(
        append.inbox_changed.values().next().unwrap().next_cause,
        None
    );
    run(&mut state, settle_of(&again, applied(), false));
    assert_eq!(state.head.last_sync_id, position + 1);
}

#[test]
fn a_dead_commit_that_comes_back_is_revived() {
    let (mut state, mut started_one) = sent();
    for _ in 0..3 {
        run(&mut state, settle_of(&started_one, retry(), true));
        state.now += Duration::from_hours(1);
        if let (Reply::Started(again), _) = begin(&mut state) {
            started_one = *again;
        }
    }
    let source = &state.sources["crm"];
    assert_eq!(
        (source.pending, source.dead, state.ledger["a"].dead),
        (0, 1, true)
    );
    let (_, append) = taken(&mut state, take(vec![echo("e", "1", Some(true))]));
    let source = &state.sources["crm"];
    assert_eq!(
        (source.pending, source.dead, state.ledger["a"].dead),
        (1, 0, false)
    );
    assert!(append.sources.contains_key("crm") && append.settled.contains_key("a"));
    assert!(matches!(begin(&mut state).0, Reply::Started(_)));
}

#[test]
fn an_echo_whose_commit_moved_since_it_was_looked_up_is_looked_up_again() {
    let (mut state, started) = sent();
    run(&mut state, settle_of(&started, retry(), true));
    let mut entry = state.inbox.remove(&("crm".to_owned(), 1)).unwrap();
    entry.sequence = 2;
    state.inbox.insert(("crm".to_owned(), 2), entry);
    state.ledger.get_mut("a").unwrap().sequence = Some(2);
    let mut page = take(vec![echo("e", "1", Some(true))]);
    page.epoch = 1;
    let (reply, append) = run(&mut state, Command::TakeEvents(page.clone()));
    assert!(matches!(reply, Reply::Moved) && append.is_empty());
    assert!(state.events.is_empty());
    if let [echo] = &mut page.events[0].echoes[..] {
        echo.sequence = Some(2);
    }
    assert_eq!(taken(&mut state, page).0.urged, [2]);
}

#[test]
fn a_commit_that_is_known_to_be_applied_has_no_end_any_more() {
    let (mut state, started) = sent();
    let place = ("crm".to_owned(), 1);
    state.inbox.get_mut(&place).unwrap().expires_at = Some(NOW + Duration::from_mins(1));
    run(&mut state, settle_of(&started, retry(), false));
    taken(&mut state, take(vec![echo("e", "1", Some(true))]));
    let (Reply::Started(again), _) = begin(&mut state) else {
        panic!("it is sent at once")
    };
    // Nothing that comes of that lets it expire.
    let (_, append) = run(&mut state, settle_of(&again, retry(), false));
    assert!(append.inbox_changed[&place].echoed);
    state.now = NOW + Duration::from_hours(1);
    let expire = Command::Expire(Expire {
        source: "crm".to_owned(),
        epoch: 1,
        sequence: 1,
        client_tx_id: "a".to_owned(),
        weight: 0,
    });
    let (reply, append) = run(&mut state, expire);
    assert!(matches!(reply, Reply::NotStartable(NotStartable::Reread)));
    assert!(append.is_empty());
    assert!(matches!(begin(&mut state).0, Reply::Started(_)));
}

#[test]
fn a_commit_that_is_known_to_be_applied_and_refused_is_told() {
    // The event comes before the attempt that is refused, or during it.
    for during in [false, true] {
        let (mut state, mut attempt) = sent();
        let event = take(vec![echo("e", "1", Some(true))]);
        if during {
            taken(&mut state, event);
        } else {
            run(&mut state, settle_of(&attempt, retry(), false));
            taken(&mut state, event);
            let (Reply::Started(again), _) = begin(&mut state) else {
                panic!("it is sent at once")
            };
            attempt = *again;
        }
        let (reply, append) = run(&mut state, settle_of(&attempt, refused(), false));
        assert!(matches!(reply, Reply::Denied(_)), "{reply:?}");
        let row = ("crm".to_owned(), key("1"));
        assert_eq!(append.rereads, BTreeSet::from([row]));
        assert_eq!(state.ledger["a"].state, CommitState::Rejected);
        assert_eq!(state.sources["crm"].pending, 0);
    }
}

#[test]
fn a_name_that_is_not_the_rows_makes_no_echo() {
    let (mut state, started) = sent();
    let forged = vec![
        echo("e", "2", Some(false)),
        ExternalEvent {
            echoes: vec![EchoOf {
                client_tx_id: "nobody".to_owned(),
                sequence: None,
                member: None,
            }],
            ..event("f", "3", 1)
        },
    ];
    let (first, append) = taken(&mut state, take(forged));
    assert_eq!((first.feed.taken, append.deltas.len()), (2, 2));
    assert!(first.urged.is_empty());
    run(&mut state, settle_of(&started, applied(), false));
    let (second, _) = taken(&mut state, take(vec![echo("g", "4", Some(false))]));
    assert_eq!((second.feed.taken, second.feed.echoes), (3, 0));
    state.ledger.get_mut("a").unwrap().source = Some("hr".to_owned());
    let (third, _) = taken(&mut state, take(vec![echo("h", "5", Some(true))]));
    assert_eq!((third.feed.taken, third.feed.echoes), (4, 0));
}

#[test]
fn the_effect_of_a_rejected_commit_is_taken_in_and_told() {
    let (mut state, started) = sent();
    run(&mut state, settle_of(&started, refused(), false));
    let (taken, append) = taken(&mut state, take(vec![echo("e", "1", None)]));
    assert_eq!(
        (taken.denied, append.deltas.len()),
        (vec!["a".to_owned()], 1)
    );
}

#[test]
fn what_does_not_fit_is_quarantined_and_the_cursor_moves_on() {
    let mut state = with_source();
    let misfit = Misfit {
        reason: "model_unknown".to_owned(),
        message: "no such model".to_owned(),
        event: "{}".to_owned(),
    };
    let misfit = ExternalEvent {
        change: Err(misfit),
        ..event("e", "1", 1)
    };
    let page = TakeEvents {
        step: newest(None, "c"),
        caught_up: true,
        ..take(vec![misfit, event("f", "2", 1)])
    };
    let (taken, append) = taken(&mut state, page);
    assert_eq!((taken.feed.quarantined, taken.feed.taken), (1, 1));
    assert_eq!((append.quarantined.len(), append.events.len()), (1, 2));
    assert_eq!(taken.feed.trail.newest(), Some("c"));
    assert_eq!(taken.feed.caught_up_at, Some(NOW));
}

#[test]
fn a_cursor_that_somebody_moved_meanwhile_stays() {
    let mut state = with_source();
    let page = |step| TakeEvents {
        step,
        ..take(Vec::new())
    };
    taken(&mut state, page(newest(None, "c")));
    let reset = Control::ResetFeed("crm".to_owned(), Some("r".to_owned()));
    run(&mut state, Command::Control(reset));
    let (late, _) = taken(&mut state, page(newest(Some("c"), "d")));
    assert_eq!(late.feed.trail.newest(), Some("r"));
    let durable = Step::Durable {
        from: None,
        to: "c".to_owned(),
    };
    let (late, append) = taken(&mut state, page(durable));
    assert_eq!(late.feed.trail.durable(), Some("r"));
    assert!(append.is_empty(), "a poll without news writes nothing");
}

#[test]
fn a_row_that_we_may_have_changed_after_the_event_is_loaded_first() {
    let mut state = with_source();
    let key = RowKey {
        model: "airports".to_owned(),
        id: "1".to_owned(),
    };
    state.versions.insert(key.clone(), version(11));
    state.head.last_sync_id = 11;
    let page = |first: ExternalEvent, second: ExternalEvent| TakeEvents {
        step: newest(None, "c"),
        ..take(vec![first, event("x", "2", 1), second])
    };
    let (unclear, append) = taken(&mut state, page(event("e", "1", 1), event("f", "1", 2)));
    assert_eq!(unclear.unclear, [0, 2]);
    assert_eq!(
        (append.deltas.len(), unclear.feed.trail.newest()),
        (1, None)
    );
    let loaded = |id: &str, n| ExternalEvent {
        loaded: true,
        ..event(id, "1", n)
    };
    let (clear, append) = taken(&mut state, page(loaded("e", 1), loaded("f", 9)));
    assert!(clear.unclear.is_empty() && clear.feed.trail.newest() == Some("c"));
    assert_eq!(append.deltas.len(), 2);
    // What the feed itself changed last needs no load, nor does what was changed long ago.
    let last = clear.changed.last().unwrap().clone();
    let own = ExternalEvent {
        known: Some(last.1),
        ..event("g", "1", 3)
    };
    assert!(taken(&mut state, take(vec![own])).0.unclear.is_empty());
    let old = TakeEvents {
        floor: state.head.last_sync_id,
        ..take(vec![event("h", "1", 4)])
    };
    assert!(taken(&mut state, old).0.unclear.is_empty());
    let bare = ExternalEvent {
        bare: true,
        ..event("i", "7", 1)
    };
    assert_eq!(taken(&mut state, take(vec![bare])).0.unclear, [0]);
}

#[test]
fn how_late_an_event_was_is_told_by_the_one_behind_it() {
    let mut state = with_source();
    taken(&mut state, take(vec![event("101", "1", 1)]));
    state.now += Duration::from_secs(2);
    let swept = TakeEvents {
        behind: true,
        ..take(vec![
            event("100", "2", 1),
            ExternalEvent {
                again: true,
                ..event("101", "1", 1)
            },
            event("102", "3", 1),
        ])
    };
    let (swept, _) = taken(&mut state, swept);
    assert_eq!((swept.new, swept.feed.duplicates), (2, 0));
    assert_eq!(swept.feed.largest_lateness, Duration::from_secs(2));
}

#[test]
fn a_feed_that_was_none_is_looked_for_when_the_source_changes() {
    let mut state = with_source();
    let none = TakeEvents {
        step: Step::Stop(FeedState::None),
        ..take(Vec::new())
    };
    let mut moved = SourceSettings::clone(&state.sources["crm"].settings);
    moved.url = "https://other.example/".to_owned();
    let changes = [
        Control::EnableSource("crm".to_owned()),
        Control::UpdateSource("crm".to_owned(), moved.clone().into()),
        Control::ResetFeed("crm".to_owned(), None),
    ];
    for change in changes {
        assert_eq!(
            taken(&mut state, none.clone()).0.feed.state,
            FeedState::None
        );
        let (reply, append) = run(&mut state, Command::Control(change));
        assert!(matches!(reply, Reply::Done));
        assert_eq!(append.feeds["crm"].state, FeedState::Polling);
    }
    taken(&mut state, none);
    let same = Control::UpdateSource("crm".to_owned(), moved.into());
    run(&mut state, Command::Control(same));
    assert_eq!(state.feeds["crm"].state, FeedState::None);
}

proptest! {
    /// A commit's answer and its event come in any order, lost answers included: one delta.
    #[test]
    fn a_commit_and_its_event_make_one_delta_in_any_order(steps in prop::collection::vec(0_u8..4, 1..12)) {
        let (mut state, started) = sent();
        let (mut open, position) = (Some(started), state.head.last_sync_id);
        for (step, number) in steps.into_iter().zip(0..) {
            state.now += Duration::from_secs(1);
            match (step, open.take()) {
                (0, Some(started)) => drop(run(&mut state, settle_of(&started, applied(), false))),
                (1, Some(started)) => drop(run(&mut state, settle_of(&started, retry(), true))),
                (2, started) => {
                    open = started;
                    let event = echo(&format!("e{}", number % 3), "1", Some(true));
                    taken(&mut state, take(vec![event]));
                }
                (_, Some(started)) => open = Some(started),
                (_, None) => match begin(&mut state).0 {
                    Reply::Started(again) => open = Some(*again),
                    Reply::NotStartable(_) => {}
                    reply => panic!("{reply:?}"),
                },
            }
        }
        if state.ledger["a"].state != CommitState::Confirmed {
            if open.is_none() {
                taken(&mut state, take(vec![echo("last", "1", Some(true))]));
                let Reply::Started(again) = begin(&mut state).0 else {
                    panic!("an echo starts it");
                };
                open = Some(*again);
            }
            run(&mut state, settle_of(&open.unwrap(), applied(), false));
        }
        prop_assert_eq!(state.head.last_sync_id, position + 1);
    }
}

/// As the courier does that has read the inbox anew.
fn begin(state: &mut State) -> (Reply, Append) {
    let mut command = start_of(1);
    if let Command::Start(start) = &mut command {
        start.revision = state.sources["crm"].inbox_revision;
    }
    run(state, command)
}
