//! Commits that are not to be sent after a time.

use super::*;

const END: Duration = Duration::from_mins(1);

/// Accepts one commit that is over in a minute, and claims its source.
fn accepted() -> State {
    let mut state = with_source();
    let reply = run(
        &mut state,
        ending(Route::Source("crm".to_owned()), NOW + END),
    )
    .0;
    assert!(matches!(reply, Reply::Queued(..)), "{reply:?}");
    let claim = Control::ClaimSource {
        source: "crm".to_owned(),
        node: Uuid::nil(),
        gone: None,
    };
    run(&mut state, Command::Control(claim));
    state
}

fn ending(route: Route, at: OffsetDateTime) -> Command {
    let model = if route == Route::Managed {
        "notes"
    } else {
        "airports"
    };
    let create = operation(OperationKind::Create, model, "1", 1);
    let Command::Accept(accept) = accept_of("a", route, vec![create]) else {
        unreachable!("accept_of makes an accept")
    };
    let commit = Commit {
        expires_at: Some(at),
        ..(*accept.commit).clone()
    };
    Command::Accept(Accept {
        commit: Arc::new(commit),
        ..accept
    })
}

fn expire() -> Command {
    Command::Expire(Expire {
        source: "crm".to_owned(),
        epoch: 1,
        sequence: 1,
        client_tx_id: "a".to_owned(),
        weight: 0,
    })
}

fn why(reply: &Reply) -> NotStartable {
    match reply {
        Reply::NotStartable(why) => *why,
        reply => panic!("something was started: {reply:?}"),
    }
}

fn is_expired(state: &State) -> bool {
    let entry = &state.ledger["a"];
    let code = entry.error.as_ref().map(|error| error.0.as_str());
    entry.state == CommitState::Rejected && code == Some("commit_expired")
}

#[test]
fn a_commit_whose_time_is_over_is_not_accepted_whichever_backing_holds_its_rows() {
    for route in [Route::Managed, Route::Source("crm".to_owned())] {
        let mut state = with_source();
        let (reply, append) = run(&mut state, ending(route.clone(), NOW));
        assert_eq!(refusal(reply), "commit_expired");
        assert!(append.is_empty() && state.ledger.is_empty());
        // In time it is, and replays afterwards: when it expires is not part of the intent.
        let in_time = ending(route.clone(), NOW + Duration::from_secs(1));
        assert!(!matches!(run(&mut state, in_time).0, Reply::Refused(_)));
        assert!(matches!(
            run(&mut state, ending(route, NOW)).0,
            Reply::Replay(_)
        ));
    }
}

#[test]
fn a_commit_whose_time_is_over_is_rejected_and_never_sent() {
    for command in [start_of(1), expire()] {
        let mut state = accepted();
        state.now = NOW + END;
        let (reply, append) = run(&mut state, command.clone());
        assert_eq!(why(&reply), NotStartable::Finished);
        assert!(is_expired(&state));
        assert_eq!(
            (append.inbox_done.len(), append.attempts_opened.len()),
            (1, 0)
        );
        assert_eq!(append.versions[&key("1")].unsettled, -1);
        assert_eq!(state.sources["crm"].pending, 0);
        assert_eq!(why(&run(&mut state, command).0), NotStartable::Finished);
    }
}

#[test]
fn nothing_ends_before_its_time_and_everything_then_although_its_source_is_disabled_or_paused() {
    for standing in [SourceState::Disabled, SourceState::Paused] {
        let mut state = accepted();
        state.sources.get_mut("crm").unwrap().state = standing;
        let (reply, append) = run(&mut state, expire());
        assert_eq!(why(&reply), NotStartable::Until(NOW + END));
        assert!(append.is_empty());
        state.now = NOW + END;
        assert_eq!(why(&run(&mut state, expire()).0), NotStartable::Finished);
        assert!(is_expired(&state));
        let source = &state.sources["crm"];
        assert_eq!((source.state, source.pending), (standing, 0));
    }
}

#[test]
fn a_dead_one_holds_its_rows_although_its_time_is_over() {
    let mut state = accepted();
    let until = NOW + 2 * END;
    let entry = state.inbox.get_mut(&("crm".to_owned(), 1)).unwrap();
    (entry.dead, entry.may_apply_until) = (true, Some(until));
    state.now = NOW + END;
    assert_eq!(
        why(&run(&mut state, expire()).0),
        NotStartable::Until(until)
    );
    state.now = until;
    assert_eq!(why(&run(&mut state, expire()).0), NotStartable::Finished);
}

#[test]
fn it_ends_in_time_although_its_source_backs_off() {
    let mut state = accepted();
    state.sources.get_mut("crm").unwrap().backoff_until = Some(NOW + 10 * END);
    state.now = NOW + END;
    assert_eq!(why(&run(&mut state, expire()).0), NotStartable::Finished);
    assert!(is_expired(&state));
}

#[test]
fn it_is_not_rejected_while_an_attempt_may_still_apply() {
    let mut state = accepted();
    let attempt = started(&mut state);
    let deadline = NOW + attempt.timeout + SIGNATURE_TOLERANCE;
    state.now = NOW + END;
    // One that is in flight, or was when its node was lost.
    assert_eq!(
        why(&run(&mut state, expire()).0),
        NotStartable::Until(deadline)
    );
    run(
        &mut state,
        settle_of(&attempt, Outcome::Unknown { error: error() }, true),
    );
    for command in [start_of(1), expire()] {
        assert_eq!(
            why(&run(&mut state, command).0),
            NotStartable::Until(deadline)
        );
    }
    assert_eq!(state.ledger["a"].state, CommitState::Queued);
    state.now = deadline;
    assert_eq!(why(&run(&mut state, expire()).0), NotStartable::Finished);
    assert!(is_expired(&state));
}

#[test]
fn an_attempt_whose_node_was_lost_is_closed_when_its_commit_ends() {
    let mut state = accepted();
    started(&mut state);
    state.now = NOW + Duration::from_hours(1);
    let (reply, append) = run(&mut state, start_of(1));
    assert_eq!(why(&reply), NotStartable::Finished);
    assert_eq!(append.attempts_closed.len(), 1);
    assert_eq!(append.attempts_closed[0].next_attempt_at, None);
    assert!(is_expired(&state));
}

#[test]
fn nobody_but_the_owner_has_a_commit_rejected() {
    let mut state = accepted();
    state.now = NOW + END;
    state.sources.get_mut("crm").unwrap().epoch = 2;
    let (reply, append) = run(&mut state, expire());
    assert!(matches!(reply, Reply::Fenced));
    assert!(append.is_empty());
}
