use super::*;

fn row(id: &str) -> Row {
    Row {
        model: "airports".to_owned(),
        id: id.to_owned(),
    }
}

/// Two clients, three commits, the second of which needed two attempts: as it should be.
fn good() -> History {
    let mut history = History::default();
    for (number, (token, ids)) in
        (0..).zip([("x", ["a", "b"]), ("y", ["b", "c"]), ("z", ["a", "c"])])
    {
        let rows: BTreeSet<Row> = ids.map(row).into();
        let changes: BTreeMap<Row, i64> = rows.iter().cloned().zip(2 * number + 1..).collect();
        history
            .log
            .extend(changes.iter().map(|(row, sync_id)| Position {
                sync_id: *sync_id,
                token: token.to_owned(),
                event: String::new(),
                row: row.clone(),
                value: token.to_owned(),
            }));
        history
            .ends
            .extend(rows.iter().map(|it| (it.clone(), token.to_owned())));
        history.executions.push(Execution {
            token: token.to_owned(),
            rows: rows.clone(),
        });
        let sent = 10 * number.unsigned_abs();
        history.writes.push(Write {
            token: token.to_owned(),
            rows,
            delivered: true,
            sent,
            acknowledged: Some(sent + 1),
            answers: vec![confirmed(changes); 2],
            ..Write::default()
        });
        let attempts: &[&str] = if token == "y" {
            &["unknown", "applied"]
        } else {
            &["applied"]
        };
        for (number, outcome) in (1..).zip(attempts) {
            history.attempts.push(Attempt {
                token: token.to_owned(),
                webhook_id: format!("id-{token}"),
                number,
                begun: true,
                outcome: Some((*outcome).to_owned()),
                ..Attempt::default()
            });
            history.arrivals.push(Arrival {
                token: token.to_owned(),
                webhook_id: format!("id-{token}"),
                body: token.as_bytes().to_vec(),
                signed: true,
                ..Arrival::default()
            });
        }
    }
    history
}

/// Which rules a history breaks that differs from the good one in this.
fn broken(breaking: impl FnOnce(&mut History)) -> BTreeSet<Rule> {
    let mut history = good();
    breaking(&mut history);
    let faults = history.faults();
    faults.into_iter().map(|it| it.rule).collect()
}

#[test]
fn what_is_as_promised_has_no_fault() {
    assert_eq!(good().faults(), []);
    // An attempt need not have arrived, and what nobody acknowledged need not have happened.
    let none = broken(|it| {
        it.arrivals.remove(1);
        it.writes[2].answers.iter_mut().for_each(|answer| {
            answer.confirmed = false;
            answer.changes.clear();
        });
        it.executions.pop();
        it.log.truncate(4);
        it.ends = [("a", "x"), ("b", "y"), ("c", "y")]
            .map(|(id, token)| (row(id), token.to_owned()))
            .into();
        it.attempts[3].outcome = Some("refused".to_owned());
    });
    assert!(none.is_empty(), "{none:?}");
}

#[test]
fn a_lost_commit_is_found() {
    let never_executed = broken(|it| drop(it.executions.pop()));
    assert_eq!(never_executed, [Rule::Lost].into());
    let not_in_the_log = broken(|it| {
        it.log.truncate(4);
        it.ends = [(row("b"), "y".to_owned())].into();
    });
    assert_eq!(not_in_the_log, [Rule::Lost].into());
    let only_queued = broken(|it| {
        it.writes[2].answers.clear();
        it.executions.pop();
    });
    assert_eq!(only_queued, [Rule::Lost, Rule::Unresolved].into());
}

#[test]
fn a_doubled_commit_is_found() {
    let executed = broken(|it| it.executions.push(it.executions[2].clone()));
    assert_eq!(executed, [Rule::Doubled].into());
    let logged = broken(|it| {
        let again = Position {
            sync_id: 7,
            ..it.log[5].clone()
        };
        it.log.push(again);
    });
    assert_eq!(logged, [Rule::Torn].into());
}

#[test]
fn a_phantom_is_found() {
    let nobody = |it: &mut History| {
        it.executions[0].token = "nobody".to_owned();
        it.log[0].token = "nobody".to_owned();
    };
    assert!(broken(nobody).contains(&Rule::Phantom));
    let rejected = broken(|it| {
        for answer in &mut it.writes[2].answers {
            answer.confirmed = false;
        }
    });
    assert_eq!(rejected, [Rule::Phantom].into());
    let elsewhere = broken(|it| it.writes[1].delivered = false);
    assert_eq!(elsewhere, [Rule::Phantom].into());
}

#[test]
fn rows_that_changed_in_another_order_are_found() {
    let at_the_endpoint = broken(|it| it.executions.swap(0, 1));
    assert_eq!(at_the_endpoint, [Rule::Reordered].into());
    let against_the_clients = broken(|it| {
        it.writes[1].sent = 2;
        it.writes[0].sent = 20;
    });
    assert_eq!(against_the_clients, [Rule::Overtaken].into());
    let overwritten = broken(|it| drop(it.ends.insert(row("a"), "x".to_owned())));
    assert_eq!(overwritten, [Rule::Reordered].into());
}

#[test]
fn what_came_in_order_may_have_been_sent_at_once() {
    let none = broken(|it| {
        it.writes[0].sent = 20;
        it.writes[1].acknowledged = Some(21);
        it.writes[2].sent = 19;
        it.writes[2].acknowledged = Some(22);
    });
    assert!(none.is_empty(), "{none:?}");
}

#[test]
fn half_a_commit_is_found() {
    let executed = broken(|it| drop(it.executions[2].rows.pop_last()));
    assert_eq!(executed, [Rule::Phantom].into());
    let logged = broken(|it| {
        it.log.pop();
        it.ends.clear();
    });
    assert_eq!(logged, [Rule::Torn].into());
    let apart = broken(|it| {
        let (x, y) = (it.log[1].clone(), it.log[3].clone());
        it.log[1] = Position { sync_id: 2, ..y };
        it.log[3] = Position { sync_id: 4, ..x };
        it.ends.clear();
        it.executions.clear();
    });
    assert!(apart.contains(&Rule::Torn), "{apart:?}");
}

#[test]
fn a_gap_and_a_repeated_position_are_found() {
    let gap = broken(|it| {
        it.log[5].sync_id = 7;
        for answer in &mut it.writes[2].answers {
            answer.changes.insert(row("c"), 7);
        }
    });
    assert_eq!(gap, [Rule::Gap, Rule::Torn].into());
    let repeated = broken(|it| it.log[3].sync_id = 3);
    assert!(repeated.contains(&Rule::Gap), "{repeated:?}");
}

#[test]
fn answers_that_differ_are_found() {
    let twice = broken(|it| it.writes[0].answers[1].changes.clear());
    assert_eq!(twice, [Rule::Unresolved].into());
    let from_the_log = broken(|it| {
        for answer in &mut it.writes[0].answers {
            answer.changes.insert(row("a"), 9);
        }
    });
    assert_eq!(from_the_log, [Rule::Unresolved].into());
    let pending = broken(|it| it.unsettled.push("y".to_owned()));
    assert_eq!(pending, [Rule::Unresolved].into());
}

#[test]
fn a_request_that_is_not_on_record_is_found() {
    let unrecorded = broken(|it| drop(it.attempts.remove(1)));
    assert_eq!(unrecorded, [Rule::OffRecord].into());
    let open = broken(|it| it.attempts[1].outcome = None);
    assert_eq!(open, [Rule::OffRecord].into());
    let twice = broken(|it| it.attempts[1].outcome = Some("applied".to_owned()));
    assert_eq!(twice, [Rule::OffRecord].into());
}

#[test]
fn an_attempt_on_record_that_nobody_made_is_found() {
    let off = BTreeSet::from([Rule::OffRecord]);
    // What was frozen meanwhile closes an attempt of before under the number of the present one.
    let of_before = broken(|it| {
        let mut closed = it.attempts[2].clone();
        closed.outcome = Some("unknown".to_owned());
        it.attempts.push(closed);
    });
    assert_eq!(of_before, off);
    assert_eq!(broken(|it| it.attempts[0].begun = false), off);
    assert_eq!(broken(|it| it.attempts[0].number = 2), off);
}

#[test]
fn a_retry_that_is_another_request_is_found() {
    let bytes = broken(|it| it.arrivals[2].body.push(b' '));
    assert_eq!(bytes, [Rule::OffRecord].into());
    let unsigned = broken(|it| it.arrivals[0].signed = false);
    assert_eq!(unsigned, [Rule::OffRecord].into());
    let id = broken(|it| {
        it.arrivals[2].webhook_id = "fresh".to_owned();
        it.attempts[2].webhook_id = "fresh".to_owned();
    });
    assert_eq!(id, [Rule::OffRecord].into());
}

#[test]
fn what_a_refused_write_does_is_a_phantom() {
    let refused = |it: &mut History| {
        it.writes[2].refused = Some("stale_context".to_owned());
        it.writes[2].acknowledged = None;
        it.writes[2].answers.clear();
    };
    assert_eq!(broken(refused), [Rule::Phantom].into());
    let replays =
        |changed, accepted| broken(|it| it.writes[0].replays.push(Replay { changed, accepted }));
    assert_eq!(replays(true, true), [Rule::Phantom].into());
    assert_eq!(replays(false, false), [Rule::Unresolved].into());
    assert!(replays(true, false).is_empty() && replays(false, true).is_empty());
}

fn confirmed(changes: BTreeMap<Row, i64>) -> Answer {
    Answer {
        confirmed: true,
        expired: false,
        changes,
    }
}

/// With a subscriber that saw everything.
fn read() -> History {
    let mut history = good();
    history.readers.push(Reader {
        name: "reader".to_owned(),
        models: BTreeSet::new(),
        changes: history.log.clone(),
        beginnings: BTreeSet::from([0]),
    });
    history
}

fn misread(misreading: impl FnOnce(&mut Vec<Position>)) -> BTreeSet<Rule> {
    let mut history = read();
    misreading(&mut history.readers[0].changes);
    history.faults().into_iter().map(|it| it.rule).collect()
}

#[test]
fn a_subscriber_that_missed_repeated_or_made_up_something_is_found() {
    assert_eq!(read().faults(), []);
    let gap = BTreeSet::from([Rule::Gap]);
    assert_eq!(misread(|it| drop(it.remove(2))), gap);
    assert_eq!(misread(|it| drop(it.pop())), gap);
    assert_eq!(misread(|it| it.push(it[5].clone())), gap);
    assert_eq!(misread(|it| it.swap(1, 2)), gap);
    assert_eq!(misread(|it| it[3].value = "other".to_owned()), gap);
    let mut part = read();
    part.readers[0].models = BTreeSet::from(["notes".to_owned()]);
    assert!(
        !part.faults().is_empty(),
        "it saw what it had not asked for"
    );
    part.readers[0].changes.clear();
    assert_eq!(part.faults(), []);
}

#[test]
fn a_subscriber_misses_what_the_retention_has_passed_over_only_where_it_was_told() {
    let gap = vec![Rule::Gap];
    let rules = |history: &History| -> Vec<Rule> {
        history.faults().into_iter().map(|it| it.rule).collect()
    };
    let mut history = read();
    history.expired = 3;
    assert_eq!(rules(&history), []);
    // It had seen one, and began again behind what had expired by then.
    history.readers[0].changes.remove(1);
    assert_eq!(rules(&history), gap);
    history.readers[0].beginnings.insert(1);
    assert_eq!(rules(&history), []);
    history.expired = 1;
    assert_eq!(rules(&history), gap);
    history.expired = 6;
    history.readers[0].changes.truncate(1);
    assert_eq!(rules(&history), []);
    history.expired = 5;
    assert_eq!(rules(&history), gap);
}

#[test]
fn a_receipt_that_came_too_late_to_have_changes_agrees_with_one_that_has_them() {
    let mut history = good();
    let late = Answer {
        expired: true,
        changes: BTreeMap::new(),
        ..history.writes[0].answers[0].clone()
    };
    history.writes[0].answers.insert(0, late.clone());
    assert_eq!(history.faults(), []);
    history.writes[0].answers = vec![late.clone()];
    assert_eq!(history.faults(), []);
    history.writes[0].answers.push(Answer {
        confirmed: false,
        ..late
    });
    assert!(!history.faults().is_empty());
}

/// Two changes made outside, after everything else.
fn outside() -> History {
    let mut history = good();
    for (sync_id, id) in (7..).zip(["first", "second"]) {
        history.events.push(Event {
            id: id.to_owned(),
            row: row("o"),
        });
        history.log.push(Position {
            sync_id,
            token: String::new(),
            event: id.to_owned(),
            row: row("o"),
            value: id.to_owned(),
        });
    }
    history
}

#[test]
fn a_change_made_outside_that_is_missed_repeated_or_undone_is_found() {
    let rules = |breaking: fn(&mut History)| -> BTreeSet<Rule> {
        let mut history = outside();
        breaking(&mut history);
        history.faults().into_iter().map(|it| it.rule).collect()
    };
    let missed = BTreeSet::from([Rule::Missed]);
    assert!(rules(|_| {}).is_empty());
    assert_eq!(rules(|it| drop(it.log.pop())), missed);
    let twice = |it: &mut History| {
        let again = Position {
            sync_id: 9,
            ..it.log[7].clone()
        };
        it.log.push(again);
    };
    assert_eq!(rules(twice), missed);
    let undone = |it: &mut History| {
        it.log.swap(6, 7);
        (it.log[6].sync_id, it.log[7].sync_id) = (7, 8);
    };
    assert_eq!(rules(undone), missed);
    // Found late, with what the row holds by then.
    let late = |it: &mut History| {
        it.log.swap(6, 7);
        (it.log[6].sync_id, it.log[7].sync_id) = (7, 8);
        it.log[7].value = "second".to_owned();
    };
    assert!(rules(late).is_empty());
    assert_eq!(
        rules(|it| it.log[7].value = "first".to_owned()),
        missed,
        "it is told of with what the row held before it"
    );
    assert_eq!(rules(|it| drop(it.events.pop())), [Rule::Phantom].into());
}

#[test]
fn two_winners_on_one_view_of_a_row_are_found() {
    // `z` changes the row that `x` changed at 1.
    let seen_at = |read_at| broken(|it| it.writes[2].guard = Some((row("a"), read_at)));
    assert_eq!(seen_at(0), [Rule::Stale].into());
    assert!(seen_at(1).is_empty());
}

#[test]
fn what_does_not_come_to_rest_is_found() {
    let stuck = BTreeSet::from([Rule::Stuck]);
    assert_eq!(broken(|it| it.aftermath.queued = 1), stuck);
    assert_eq!(broken(|it| it.aftermath.idle_in_transaction = 1), stuck);
    assert_eq!(broken(|it| it.aftermath.waiting = 1), stuck);
    let grown = |to: u64| broken(|it| it.aftermath.resident = vec![(100 << 20, to << 20)]);
    assert_eq!(grown(200), stuck);
    assert!(grown(110).is_empty());
}

#[test]
fn what_belongs_to_another_organization_is_found_wherever_it_is() {
    let leaked = |leaking: fn(&mut History)| {
        broken(|it| {
            it.strangers = vec!["globex~".to_owned()];
            leaking(it);
        })
    };
    assert!(leaked(|_| {}).is_empty());
    assert!(leaked(|it| it.texts.push("no row globex~1".to_owned())).contains(&Rule::Leaked));
    assert!(leaked(|it| it.arrivals[0].body = b"globex~1".to_vec()).contains(&Rule::Leaked));
    assert!(leaked(|it| it.log[0].value = "globex~1".to_owned()).contains(&Rule::Leaked));
    assert!(leaked(|it| it.executions[0].token = "globex~1".to_owned()).contains(&Rule::Leaked));
}

#[test]
fn a_record_that_came_late_or_is_not_true_is_found() {
    // One request of each commit arrives at 20 ms; its attempt was recorded when it says.
    let recorded = |started: i64, replied: Option<u16>, status: Option<u16>| {
        broken(|it| {
            for arrival in &mut it.arrivals {
                (arrival.at, arrival.replied) = (Some(20_000), replied);
            }
            for attempt in &mut it.attempts {
                (attempt.started, attempt.status) = (started, status);
            }
        })
    };
    let off = BTreeSet::from([Rule::OffRecord]);
    assert!(recorded(10_000, Some(200), Some(200)).is_empty());
    assert_eq!(recorded(30_000, Some(200), Some(200)), off);
    assert_eq!(recorded(10_000, Some(200), Some(503)), off);
    assert_eq!(recorded(10_000, None, Some(200)), off);
}

#[test]
fn a_source_that_tells_another_last_error_or_success_than_its_attempts_is_found() {
    let standing = |success, error: Option<(i64, &str)>| {
        broken(|it| {
            for (attempt, started) in it.attempts.iter_mut().zip(1..) {
                (attempt.source, attempt.started) = ("crm".to_owned(), started);
            }
            it.attempts[1].error = Some("timeout".to_owned());
            it.standings = vec![Standing {
                source: "crm".to_owned(),
                success,
                error: error.map(|(at, class)| (at, class.to_owned())),
            }];
        })
    };
    let off = BTreeSet::from([Rule::OffRecord]);
    assert!(standing(Some(9), Some((9, "timeout"))).is_empty());
    assert_eq!(standing(None, Some((9, "timeout"))), off);
    assert_eq!(standing(Some(3), Some((9, "timeout"))), off);
    assert_eq!(standing(Some(9), None), off);
    assert_eq!(standing(Some(9), Some((1, "timeout"))), off);
    assert_eq!(standing(Some(9), Some((9, "gone"))), off);
}
