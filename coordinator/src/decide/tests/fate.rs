//! Attempts of unknown fate: nothing is final, and no lane moves, while one may still apply.

use super::*;

/// What an attempt came to, and whether it may still be applied by then.
fn any_outcome() -> impl Strategy<Value = (Outcome, bool)> {
    let unknown = || Outcome::Unknown { error: error() };
    let later = Outcome::Retry {
        retry_after: Some(Duration::from_secs(7)),
        error: error(),
    };
    prop::sample::select(vec![
        (applied(), false),
        (refused(), false),
        (refused(), false),
        (unknown(), true),
        (unknown(), true),
        (retry(), true),
        (retry(), false),
        (later, true),
        (Outcome::Misconfigured { error: error() }, false),
        (Outcome::Gone { error: error() }, false),
    ])
}

/// Until when the source's lane of the row is held: as the courier has it.
fn lane_held_until(state: &State) -> Option<OffsetDateTime> {
    let entry = state.inbox.get(&("crm".to_owned(), 1))?;
    if entry.dead {
        return entry.may_apply_until;
    }
    Some(OffsetDateTime::UNIX_EPOCH + Duration::from_hours(24 * 365))
}

proptest! {
    /// Whatever is answered, however long anything takes, whoever is lost or gives up waiting: a
    /// commit that was not applied is neither rejected nor lets its lane go before every request
    /// that left is past its deadline and the tolerance of its signature.
    #[test]
    fn a_lane_never_moves_while_an_attempt_may_still_apply(
        steps in prop::collection::vec(
            (
                prop::option::weighted(0.8, any_outcome()),
                0_u64..20,
                prop_oneof![1_u64..60, 1_u64..2_000],
                prop::bool::weighted(0.2),
            ),
            1..40,
        ),
        expires in prop::option::of(1_u64..5_000),
    ) {
        let mut state = with_source();
        let mut attempt = Some(in_flight(&mut state));
        if let Some(expires) = expires {
            let entry = state.inbox.get_mut(&("crm".to_owned(), 1)).unwrap();
            entry.expires_at = Some(NOW + Duration::from_secs(expires));
        }
        let mut may_apply: Option<OffsetDateTime> = None;
        for (outcome, took, pause, expiry) in steps {
            if let Some(open) = attempt.take() {
                let until = open.started_at + open.timeout + SIGNATURE_TOLERANCE;
                let applies = match outcome {
                    Some((outcome, unknown)) => {
                        state.now = open.started_at + Duration::from_secs(took);
                        let settle = settle_of(&open, outcome, unknown);
                        run(&mut state, settle);
                        unknown
                    }
                    // Its node is lost: nobody says what became of it.
                    None => true,
                };
                may_apply = may_apply.max(applies.then_some(until));
            }
            holds(&state, may_apply)?;
            let enable = Control::EnableSource("crm".to_owned());
            run(&mut state, Command::Control(enable));
            state.now += Duration::from_secs(pause);
            let command = if expiry { expire_of() } else { start_of(1) };
            if let (Reply::Started(started), _) = run(&mut state, command) {
                attempt = Some(*started);
            }
            holds(&state, may_apply)?;
        }
    }
}

/// Unless it was applied, a commit is neither rejected nor lets its lane go before this.
fn holds(state: &State, may_apply: Option<OffsetDateTime>) -> Result<(), TestCaseError> {
    let standing = state.ledger["a"].state;
    let Some(until) = may_apply.filter(|until| *until > state.now) else {
        return Ok(());
    };
    if standing != CommitState::Confirmed {
        let held = lane_held_until(state);
        prop_assert_eq!(standing, CommitState::Queued, "rejected before {}", until);
        prop_assert!(held >= Some(until), "let go before {until}: {held:?}");
    }
    Ok(())
}

#[test]
fn a_dead_commit_is_not_finished_for_who_would_start_it_while_its_last_attempt_may_still_apply() {
    let mut state = with_source();
    settings(&mut state).retry.delays = Vec::new();
    let attempt = in_flight(&mut state);
    let unknown = Outcome::Unknown { error: error() };
    run(&mut state, settle_of(&attempt, unknown, true));
    assert!(state.ledger["a"].dead);
    let until = attempt.started_at + attempt.timeout + SIGNATURE_TOLERANCE;
    let why = |state: &mut State| match run(state, start_of(1)) {
        (Reply::NotStartable(why), append) if append.is_empty() => why,
        other => panic!("started: {other:?}"),
    };
    assert_eq!(why(&mut state), NotStartable::Until(until));
    state.now = until;
    assert_eq!(why(&mut state), NotStartable::Finished);
}

fn expire_of() -> Command {
    Command::Expire(Expire {
        source: "crm".to_owned(),
        epoch: 1,
        sequence: 1,
        client_tx_id: "a".to_owned(),
        weight: 0,
    })
}

#[test]
fn the_endpoint_is_looked_at_before_a_third_attempt_after_5xx_and_once() {
    let mut state = with_source();
    settings(&mut state).retry.delays = vec![Duration::from_secs(1); 9];
    let mut attempt = in_flight(&mut state);
    let mut looks = Vec::new();
    for status in [503, 404, 500, 500, 500] {
        looks.push(attempt.looks_first);
        let Command::Settle(settle) = settle_of(&attempt, retry(), false) else {
            unreachable!("settle_of makes a settle")
        };
        let read_back = attempt.looks_first.then(|| ReadBack {
            text: "1 of 1 rows to be created exist".to_owned(),
            succeeded: true,
            failed: None,
            misfit: None,
        });
        let settle = Settle {
            http_status: Some(status),
            read_back: read_back.map(Box::new),
            ..settle
        };
        run(&mut state, Command::Settle(settle));
        state.now += Duration::from_hours(1);
        attempt = started(&mut state);
    }
    assert_eq!(looks, [false, false, false, true, false]);
    let entry = &state.inbox[&("crm".to_owned(), 1)];
    let (at, text) = entry.read_back.clone().unwrap();
    assert!(at > NOW && text.starts_with("1 of 1"));
}

#[test]
fn a_load_is_on_record_as_a_request_of_its_own_kind() {
    let mut state = with_source();
    let attempt = in_flight(&mut state);
    let Command::Settle(settle) = settle_of(&attempt, applied(), false) else {
        unreachable!("settle_of makes a settle")
    };
    let settle = Settle {
        read_back: Some(Box::new(ReadBack {
            text: "1 of 1 rows carry the effect".to_owned(),
            succeeded: true,
            failed: Some(("http_status".to_owned(), "503".to_owned(), 503)),
            misfit: Some(error()),
        })),
        ..settle
    };
    let (_, append) = run(&mut state, Command::Settle(settle));
    let note = |kind| &append.requests[&("crm".to_owned(), kind)];
    let load = note(crate::domain::RequestKind::Load);
    assert!(load.success_at.is_some());
    assert_eq!(load.error.as_ref().unwrap().http_status, 503);
    let commit = note(crate::domain::RequestKind::Commit);
    assert!(commit.success_at.is_some() && commit.error.is_none());
    // The attempt says both: it was applied, and its answer did not say so.
    let closed = &append.attempts_closed[0];
    assert_eq!(closed.outcome, "applied");
    assert_eq!(closed.error.as_ref().unwrap().0, error().class);
}
