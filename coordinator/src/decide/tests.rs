mod departures;
mod events;
mod flow;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use backends::data_source::classify::{AttemptError, Outcome};
use backends::data_source::schedule::RetrySchedule;
use backends::data_source::wire;
use backends::operation::{Change, OnStale, Operation, OperationKind, RowKey};
use proptest::prelude::*;
use serde_json::{Value, json};
use time::OffsetDateTime;
use uuid::Uuid;

use super::*;
use crate::domain::{
    CommitId, CommitState, Participant, ParticipantKind, Route, SourceState, Trigger,
};

mod expiry;
mod fate;
mod schedule;
mod staleness;

const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

/// A row of the source.
fn key(id: &str) -> RowKey {
    RowKey {
        model: "airports".to_owned(),
        id: id.to_owned(),
    }
}

fn organization() -> OrganizationId {
    OrganizationId::new("acme")
}

fn schema() -> Arc<Schema> {
    let fields = json!({"type": "object", "properties": {"n": {"type": "integer"}}});
    let document = json!({"models": {
        "notes": {"backing": "managed", "schema": fields},
        "airports": {"backing": {"dataSource": "crm"}, "schema": fields},
    }});
    Arc::new(Schema::compile(1, document.to_string().as_bytes()).unwrap())
}

fn state() -> State {
    let head = Head {
        version: 0,
        last_sync_id: 0,
        schema_version: 1,
    };
    State::empty(NOW, head)
}

pub(super) fn with_source() -> State {
    let mut state = state();
    state.head.last_sync_id = 10;
    let settings = SourceSettings {
        url: "https://crm.example/".to_owned(),
        retry: RetrySchedule {
            delays: vec![Duration::from_secs(5), Duration::from_mins(5)],
        },
        request_timeout: Duration::from_secs(15),
        max_in_flight: 16,
        max_per_second: 0,
        max_pending: 1_000_000,
        feed_lag: Duration::from_mins(1),
    };
    state
        .sources
        .insert("crm".to_owned(), Source::new("crm", settings));
    state
}

fn settings(state: &mut State) -> &mut SourceSettings {
    Arc::make_mut(&mut state.sources.get_mut("crm").unwrap().settings)
}

pub(super) fn operation(kind: OperationKind, model: &str, id: &str, n: i64) -> Operation {
    let input = match kind {
        OperationKind::Create => json!({"id": id, "n": n}),
        OperationKind::Update => json!({"n": n}),
        _ => json!({}),
    };
    Operation {
        kind,
        model: model.to_owned(),
        id: id.to_owned(),
        input: input.as_object().cloned().unwrap(),
        transaction_id: None,
        read_at: None,
        on_stale: OnStale::Reject,
    }
}

pub(super) fn accept_of(name: &str, route: Route, operations: Vec<Operation>) -> Command {
    let fingerprint = sha2::Sha256::digest(format!("{operations:?}")).into();
    let scope = wire::Scope::default();
    let body = wire::commit_body(name, "00", &operations, &scope);
    let body = (route != Route::Managed).then(|| bytes::Bytes::from(body));
    let commit = Arc::new(Commit {
        client_tx_id: name.to_owned(),
        id: CommitId(Uuid::nil()),
        fingerprint,
        participant: Participant {
            id: "ann".to_owned(),
            kind: ParticipantKind::User,
        },
        operations,
        assigned: Vec::new(),
        route,
        required_sync_groups: Vec::new(),
        traceparent: None,
        expires_at: None,
    });
    Command::Accept(Accept {
        commit,
        schema: schema(),
        body,
        weight: 0,
    })
}

use sha2::Digest;

fn managed(name: &str, operations: Vec<Operation>) -> Command {
    accept_of(name, Route::Managed, operations)
}

pub(super) fn run(state: &mut State, command: Command) -> (Reply, Append) {
    let (mut replies, append) = decide(&organization(), state, &[command]);
    (replies.remove(0), append)
}

pub(super) fn refusal(reply: Reply) -> &'static str {
    match reply {
        Reply::Refused(refusal) => refusal.reason,
        reply => panic!("not a refusal: {reply:?}"),
    }
}

#[test]
fn a_commit_applies_all_of_its_operations_or_none() {
    let mut state = state();
    let (reply, _) = run(
        &mut state,
        managed(
            "a",
            vec![
                operation(OperationKind::Create, "notes", "1", 1),
                operation(OperationKind::Update, "notes", "missing", 2),
            ],
        ),
    );
    assert_eq!(refusal(reply), "entity_not_found");
    assert!(state.rows.is_empty() && state.ledger.is_empty());
    assert_eq!(state.head.last_sync_id, 0);
}

#[test]
fn a_refused_commit_leaves_nothing_for_its_neighbours_in_the_batch() {
    let mut state = state();
    let create = |name| {
        managed(
            name,
            vec![operation(OperationKind::Create, "notes", "1", 1)],
        )
    };
    let (replies, append) = decide(&organization(), &mut state, &[create("a"), create("b")]);
    assert!(matches!(replies[0], Reply::Confirmed(_)));
    assert_eq!(refusal(replies[1].clone()), "entity_exists");
    assert_eq!((append.commits.len(), append.deltas.len()), (1, 1));
}

#[test]
fn the_same_id_replays_the_same_intent_and_refuses_another() {
    let mut state = state();
    let one = |n| managed("a", vec![operation(OperationKind::Create, "notes", "1", n)]);
    let (first, _) = run(&mut state, one(1));
    let (again, append) = run(&mut state, one(1));
    let (Reply::Confirmed(first), Reply::Replay(again)) = (first, again) else {
        panic!("a first answer and a replay")
    };
    assert_eq!(
        again.receipt(),
        Receipt {
            deltas: Vec::new(),
            ..*first
        }
    );
    assert!(append.is_empty());
    assert_eq!(refusal(run(&mut state, one(2)).0), "idempotency_conflict");
}

use crate::domain::Receipt;

#[test]
fn a_merged_row_that_breaks_the_schema_is_refused_with_its_field() {
    let mut state = state();
    let create = managed("0", vec![operation(OperationKind::Create, "notes", "1", 1)]);
    run(&mut state, create);
    let mut bad = operation(OperationKind::Update, "notes", "1", 1);
    bad.input.insert("n".to_owned(), Value::from("one"));
    let (Reply::Refused(refusal), _) = run(&mut state, managed("a", vec![bad])) else {
        panic!("a refusal")
    };
    assert_eq!(refusal.violations[0].field, "operations[0].input_json.n");
}

#[test]
fn staleness_is_judged_on_the_row_as_it_stands() {
    let mut state = state();
    let create = managed("a", vec![operation(OperationKind::Create, "notes", "1", 1)]);
    run(&mut state, create);
    let update = |name, read_at, on_stale| {
        let update = operation(OperationKind::Update, "notes", "1", 2);
        managed(
            name,
            vec![Operation {
                read_at: Some(read_at),
                on_stale,
                ..update
            }],
        )
    };
    let (stale, append) = run(&mut state, update("b", 0, OnStale::Reject));
    assert_eq!(refusal(stale), "stale_context");
    assert!(append.is_empty());
    let (Reply::Confirmed(flagged), _) = run(&mut state, update("c", 0, OnStale::Flag)) else {
        panic!("confirmed")
    };
    assert!(flagged.deltas[0].stale);
    assert!(matches!(
        run(&mut state, update("d", 2, OnStale::Reject)).0,
        Reply::Confirmed(_)
    ));
}

#[test]
fn staleness_of_a_row_in_a_data_source_is_judged_by_its_last_change() {
    let mut state = with_source();
    let update = |read_at, on_stale| {
        let update = operation(OperationKind::Update, "airports", "1", 2);
        vec![Operation {
            read_at: Some(read_at),
            on_stale,
            ..update
        }]
    };
    let key = update(0, OnStale::Reject)[0].key();
    state.versions.insert(key.clone(), version(7));
    let route = || Route::Source("crm".to_owned());
    let command = accept_of("a", route(), update(6, OnStale::Reject));
    let mut touched = Touched::default();
    command.touch(&mut touched);
    assert_eq!(touched.versions, [key]);
    let (refused, append) = run(&mut state, command);
    assert_eq!(refusal(refused), "stale_context");
    assert!(append.is_empty());
    for (name, read_at, on_stale) in [("b", 7, OnStale::Reject), ("c", 6, OnStale::Force)] {
        let command = accept_of(name, route(), update(read_at, on_stale));
        assert!(matches!(run(&mut state, command).0, Reply::Queued(..)));
    }
}

#[test]
fn a_disabled_source_takes_no_new_commits() {
    let mut state = with_source();
    let disable = Control::DisableSource("crm".to_owned(), "maintenance".to_owned());
    run(&mut state, Command::Control(disable));
    let create = vec![operation(OperationKind::Create, "airports", "1", 1)];
    let (reply, append) = run(
        &mut state,
        accept_of("a", Route::Source("crm".to_owned()), create),
    );
    assert_eq!(refusal(reply), "source_disabled");
    assert!(append.is_empty());
}

/// Accepts one commit for the source, claims it, and starts an attempt.
fn in_flight(state: &mut State) -> Started {
    let create = vec![operation(OperationKind::Create, "airports", "1", 1)];
    run(
        state,
        accept_of("a", Route::Source("crm".to_owned()), create),
    );
    let claim = Control::ClaimSource {
        source: "crm".to_owned(),
        node: Uuid::nil(),
        gone: None,
    };
    run(state, Command::Control(claim));
    started(state)
}

fn start_of(epoch: i64) -> Command {
    Command::Start(Start {
        source: "crm".to_owned(),
        epoch,
        sequence: 1,
        node: Uuid::nil(),
        terms: None,
        revision: 0,
        weight: 0,
    })
}

fn started(state: &mut State) -> Started {
    match run(state, start_of(1)).0 {
        Reply::Started(started) => *started,
        reply => panic!("not started: {reply:?}"),
    }
}

fn settle_of(started: &Started, outcome: Outcome, may_still_apply: bool) -> Command {
    Command::Settle(Settle {
        source: "crm".to_owned(),
        epoch: 1,
        sequence: 1,
        client_tx_id: "a".to_owned(),
        started_at: started.started_at,
        duration: Duration::from_millis(3),
        http_status: Some(200),
        outcome,
        may_still_apply,
        excerpt: None,
        rows: vec![key("1")],
        unclear: Vec::new(),
        read_back: None,
        url: "https://crm.example/".to_owned(),
        trigger: started.trigger,
        never_left: false,
        jitter: 0.5,
        certificate_expires_at: None,
    })
}

pub(super) fn applied() -> Outcome {
    Outcome::Applied(vec![Change {
        operation: Some(0),
        kind: OperationKind::Create,
        model: "airports".to_owned(),
        id: "1".to_owned(),
        row: Some(json!({"id": "1", "n": 1}).try_into().unwrap()),
        transaction_id: None,
    }])
}

pub(super) fn error() -> AttemptError {
    AttemptError {
        class: "http_status".to_owned(),
        message: "503".to_owned(),
    }
}

pub(super) fn retry() -> Outcome {
    Outcome::Retry {
        retry_after: None,
        error: error(),
    }
}

pub(super) fn refused() -> Outcome {
    Outcome::Refused {
        code: "taken".to_owned(),
        message: "no".to_owned(),
    }
}

#[test]
fn an_applied_commit_is_confirmed_with_its_deltas_and_leaves_the_inbox() {
    let mut state = with_source();
    let attempt = in_flight(&mut state);
    let (reply, append) = run(&mut state, settle_of(&attempt, applied(), false));
    assert!(matches!(reply, Reply::Settled(None, _)));
    assert_eq!(state.ledger["a"].state, CommitState::Confirmed);
    assert_eq!((append.deltas.len(), append.inbox_done.len()), (1, 1));
    assert_eq!(state.sources["crm"].pending, 0);
    assert_eq!(state.sources["crm"].attempts, [1, 0, 0, 0, 0, 0]);
}

#[test]
fn a_stale_write_to_a_source_that_says_flag_is_applied_and_marked() {
    let mut state = with_source();
    let row = operation(OperationKind::Create, "airports", "1", 1);
    state.versions.insert(row.key(), version(7));
    let flag = Operation {
        read_at: Some(6),
        on_stale: OnStale::Flag,
        ..row
    };
    run(
        &mut state,
        accept_of("a", Route::Source("crm".to_owned()), vec![flag]),
    );
    let claim = Control::ClaimSource {
        source: "crm".to_owned(),
        node: Uuid::nil(),
        gone: None,
    };
    run(&mut state, Command::Control(claim));
    let attempt = started(&mut state);
    let (_, append) = run(&mut state, settle_of(&attempt, applied(), false));
    assert!(append.deltas[0].delta.stale);
}

#[test]
fn a_settle_from_a_lease_that_moved_on_changes_nothing() {
    let mut state = with_source();
    let attempt = in_flight(&mut state);
    let gone = Some(Uuid::nil());
    let claim = Control::ClaimSource {
        source: "crm".to_owned(),
        node: Uuid::max(),
        gone,
    };
    run(&mut state, Command::Control(claim));
    let (reply, append) = run(&mut state, settle_of(&attempt, applied(), false));
    assert!(matches!(reply, Reply::Fenced));
    assert!(append.is_empty());
    assert!(matches!(run(&mut state, start_of(1)).0, Reply::Fenced));
}

#[test]
fn a_successor_sends_again_only_after_the_open_attempt_is_over() {
    let mut state = with_source();
    let attempt = in_flight(&mut state);
    let Reply::NotStartable(NotStartable::Until(until)) = run(&mut state, start_of(1)).0 else {
        panic!("an attempt is in flight")
    };
    assert_eq!(until, attempt.started_at + attempt.timeout);
    state.now = until;
    let again = started(&mut state);
    assert_eq!((again.number, again.trigger), (2, Trigger::Takeover));
    assert_eq!((again.id, &again.body), (attempt.id, &attempt.body));
}

#[test]
fn a_refusal_waits_until_an_attempt_of_unknown_fate_can_no_longer_apply() {
    let mut state = with_source();
    let attempt = in_flight(&mut state);
    run(
        &mut state,
        settle_of(&attempt, Outcome::Unknown { error: error() }, true),
    );
    state.now += Duration::from_secs(10);
    let second = started(&mut state);
    let (Reply::Settled(Some(entry), _), _) = run(&mut state, settle_of(&second, refused(), false))
    else {
        panic!("it stays queued")
    };
    assert_eq!(state.ledger["a"].state, CommitState::Queued);
    assert_eq!(entry.due_at, NOW + attempt.timeout + SIGNATURE_TOLERANCE);
    state.now = entry.due_at;
    let third = started(&mut state);
    run(&mut state, settle_of(&third, refused(), false));
    assert_eq!(state.ledger["a"].state, CommitState::Rejected);
}

#[test]
fn exhausted_attempts_park_the_commit() {
    let mut state = with_source();
    let mut attempt = in_flight(&mut state);
    for _ in 0..2 {
        run(&mut state, settle_of(&attempt, retry(), false));
        state.now += Duration::from_mins(10);
        attempt = started(&mut state);
    }
    run(&mut state, settle_of(&attempt, retry(), false));
    assert!(state.ledger["a"].dead);
    assert_eq!(
        (state.sources["crm"].pending, state.sources["crm"].dead),
        (0, 1)
    );
    let why = run(&mut state, start_of(1)).0;
    assert!(matches!(why, Reply::NotStartable(NotStartable::Finished)));
}

#[test]
fn a_misconfigured_source_backs_off_as_a_whole_and_spends_no_attempt() {
    let mut state = with_source();
    let attempt = in_flight(&mut state);
    run(
        &mut state,
        settle_of(&attempt, Outcome::Misconfigured { error: error() }, false),
    );
    assert_eq!(state.sources["crm"].state, SourceState::Failing);
    assert_eq!(state.inbox[&("crm".to_owned(), 1)].spent, 0);
    let until = state.sources["crm"].backoff_until.unwrap();
    assert!(until > state.now);
    state.now = until;
    let again = started(&mut state);
    run(&mut state, settle_of(&again, applied(), false));
    assert_eq!(state.sources["crm"].state, SourceState::Enabled);
    assert_eq!(state.sources["crm"].recovered_at, Some(state.now));
}

#[test]
fn a_source_that_keeps_failing_is_probed_ever_more_seldom_until_it_answers() {
    let mut state = with_source();
    settings(&mut state).retry.delays = vec![Duration::from_secs(1); 20];
    let mut attempt = in_flight(&mut state);
    let mut pauses = Vec::new();
    for _ in 0..6 {
        run(&mut state, settle_of(&attempt, retry(), false));
        let until = state.sources["crm"].backoff_until;
        pauses.push(until.map_or(0, |until| (until - state.now).whole_seconds()));
        state.now = state.inbox[&("crm".to_owned(), 1)]
            .due_at
            .max(until.unwrap_or(NOW));
        attempt = started(&mut state);
    }
    assert_eq!(pauses, [0, 0, 1, 2, 4, 8]);
    run(&mut state, settle_of(&attempt, applied(), false));
    let source = &state.sources["crm"];
    assert_eq!((source.backoff_until, source.backoff_step), (None, 0));
}

#[test]
fn a_pause_that_an_endpoint_asks_for_outlasts_what_it_answers_to_others() {
    let mut state = with_source();
    let attempt = in_flight(&mut state);
    let pause = Duration::from_mins(1);
    let patience = Outcome::Retry {
        retry_after: Some(pause),
        error: error(),
    };
    run(&mut state, settle_of(&attempt, patience, false));
    // Another request was in flight meanwhile, and is answered.
    state.sources.get_mut("crm").unwrap().note_answer(NOW);
    assert_eq!(state.sources["crm"].backoff_until, Some(NOW + pause));
}

#[test]
fn requests_in_flight_when_a_source_backs_off_do_not_lengthen_its_pause() {
    let mut state = with_source();
    let attempt = in_flight(&mut state);
    let source = state.sources.get_mut("crm").unwrap();
    (source.consecutive_failures, source.backoff_step) = (9, 1);
    source.backoff_until = Some(NOW + Duration::from_secs(1));
    run(&mut state, settle_of(&attempt, retry(), false));
    let source = &state.sources["crm"];
    assert_eq!(source.backoff_until, Some(NOW + Duration::from_secs(1)));
    assert_eq!(source.backoff_step, 1);
}

#[test]
fn retry_after_holds_the_whole_source_and_429_spends_nothing() {
    let mut state = with_source();
    let attempt = in_flight(&mut state);
    let retry_after = Some(Duration::from_secs(90));
    let busy = Outcome::Retry {
        retry_after,
        error: error(),
    };
    let Command::Settle(settle) = settle_of(&attempt, busy, false) else {
        unreachable!("settle_of makes a settle")
    };
    let http_status = Some(429);
    run(
        &mut state,
        Command::Settle(Settle {
            http_status,
            ..settle
        }),
    );
    assert_eq!(state.inbox[&("crm".to_owned(), 1)].spent, 0);
    let Reply::NotStartable(NotStartable::Until(until)) = run(&mut state, start_of(1)).0 else {
        panic!("the source asked for patience")
    };
    assert_eq!(until, NOW + Duration::from_secs(90));
}

#[test]
fn gone_disables_the_source_and_keeps_its_commits() {
    let mut state = with_source();
    let attempt = in_flight(&mut state);
    let gone = settle_of(&attempt, Outcome::Gone { error: error() }, false);
    let (_, append) = run(&mut state, gone);
    assert_eq!(state.sources["crm"].state, SourceState::Disabled);
    assert!(append.sources["crm"].1, "who reads its feed is told");
    assert_eq!(state.sources["crm"].pending, 1);
    let why = run(&mut state, start_of(1)).0;
    assert!(matches!(why, Reply::NotStartable(NotStartable::Disabled)));
    run(
        &mut state,
        Command::Control(Control::EnableSource("crm".to_owned())),
    );
    started(&mut state);
}

fn any_command() -> impl Strategy<Value = Command> {
    let kinds = prop::sample::select(vec![
        OperationKind::Create,
        OperationKind::Update,
        OperationKind::Delete,
        OperationKind::Archive,
        OperationKind::Unarchive,
    ]);
    let operations = prop::collection::btree_map(0_u8..4, (kinds, 0_i64..3), 1..3);
    (0_u8..12, operations).prop_map(|(name, operations)| {
        let operations = operations
            .into_iter()
            .map(|(id, (kind, n))| operation(kind, "notes", &id.to_string(), n))
            .collect();
        managed(&name.to_string(), operations)
    })
}

proptest! {
    /// However commands are cut into batches, they come to the same: batching is not visible.
    #[test]
    fn batches_come_to_the_same_as_single_commands(
        commands in prop::collection::vec(any_command(), 1..40),
        cuts in prop::collection::vec(1_usize..8, 1..40),
    ) {
        let mut one_by_one = state();
        for command in &commands {
            decide(&organization(), &mut one_by_one, std::slice::from_ref(command));
        }
        let mut batched = state();
        let mut deltas = Vec::new();
        let mut rest = &commands[..];
        for cut in cuts.into_iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (batch, after) = rest.split_at(cut.min(rest.len()));
            let (_, append) = decide(&organization(), &mut batched, batch);
            deltas.extend(append.deltas.iter().map(|row| row.delta.sync_id));
            rest = after;
        }
        prop_assert_eq!(&one_by_one.rows, &batched.rows);
        prop_assert_eq!(&one_by_one.ledger, &batched.ledger);
        prop_assert_eq!(one_by_one.head, batched.head);
        let dense: Vec<i64> = (1..=batched.head.last_sync_id).collect();
        prop_assert_eq!(deltas, dense);
    }

    /// Whatever an endpoint answers, in whatever order, a commit is applied at most once, ends, and
    /// the source's counts agree with it.
    #[test]
    fn any_order_of_outcomes_ends_settled_or_dead(outcomes in prop::collection::vec(0_u8..6, 1..30)) {
        let mut state = with_source();
        let mut attempt = Some(in_flight(&mut state));
        let mut deltas = 0;
        for outcome in outcomes.into_iter().chain([0; 4]) {
            let Some(open) = attempt.take() else { break };
            let (outcome, unknown) = match outcome {
                0 => (retry(), false),
                1 => (Outcome::Unknown { error: error() }, true),
                2 => (refused(), false),
                3 => (Outcome::Misconfigured { error: error() }, false),
                4 => (Outcome::Gone { error: error() }, false),
                _ => (applied(), false),
            };
            let (_, append) = run(&mut state, settle_of(&open, outcome, unknown));
            deltas += append.deltas.len();
            run(&mut state, Command::Control(Control::EnableSource("crm".to_owned())));
            state.now += Duration::from_hours(1);
            if let Reply::Started(started) = run(&mut state, start_of(1)).0 {
                attempt = Some(*started);
            }
        }
        let entry = &state.ledger["a"];
        let ended = entry.dead || entry.state != CommitState::Queued;
        prop_assert!(ended);
        prop_assert_eq!(deltas, usize::from(entry.state == CommitState::Confirmed));
        let source = &state.sources["crm"];
        prop_assert_eq!((source.pending, source.dead), (0, i64::from(entry.dead)));
    }
}

fn version(sync_id: i64) -> RowVersion {
    RowVersion {
        sync_id,
        unsettled: 0,
    }
}

#[test]
fn a_certificates_end_is_known_until_another_is_shown_or_the_endpoint_moves() {
    let mut state = with_source();
    let day = |day| Some(OffsetDateTime::UNIX_EPOCH + time::Duration::days(day));
    let known = |state: &State| state.sources["crm"].certificate_expires_at;
    let mut started = in_flight(&mut state);
    for (shown, expected) in [(day(9), day(9)), (None, day(9)), (day(5), day(5))] {
        let Command::Settle(settle) = settle_of(&started, retry(), false) else {
            panic!("a settle is a settle");
        };
        let settle = Settle {
            certificate_expires_at: shown,
            ..settle
        };
        run(&mut state, Command::Settle(settle));
        assert_eq!(known(&state), expected);
        state.now += Duration::from_hours(1);
        state.inbox.get_mut(&("crm".to_owned(), 1)).unwrap().dead = false;
        started = self::started(&mut state);
    }
    let mut settings = SourceSettings::clone(&state.sources["crm"].settings);
    "https://other.example/".clone_into(&mut settings.url);
    let update = Control::UpdateSource("crm".to_owned(), settings.into());
    run(&mut state, Command::Control(update));
    assert_eq!(known(&state), None);
    let Command::Settle(late) = settle_of(&started, retry(), false) else {
        panic!("a settle is a settle");
    };
    let late = Settle {
        certificate_expires_at: day(7),
        ..late
    };
    run(&mut state, Command::Settle(late));
    assert_eq!(known(&state), None, "what the endpoint before showed");
}

#[test]
fn a_command_weighs_what_it_carries() {
    const ROW: usize = 1 << 20;
    let mut state = with_source();
    let started = in_flight(&mut state);
    let change = Change {
        operation: None,
        kind: OperationKind::Update,
        model: "airports".to_owned(),
        id: "1".to_owned(),
        row: Some(json!({"text": "x".repeat(ROW)}).try_into().unwrap()),
        transaction_id: None,
    };
    let answer = settle_of(&started, Outcome::Applied(vec![change; 2]), false);
    assert!(answer.weight() > 2 * ROW);
    assert!(settle_of(&started, applied(), false).weight() < 4_096);
    let Command::Start(start) = start_of(1) else {
        unreachable!("start_of makes a start")
    };
    let start = Start {
        weight: ROW,
        ..start
    };
    let expire = Expire {
        source: start.source.clone(),
        epoch: start.epoch,
        sequence: start.sequence,
        client_tx_id: "a".to_owned(),
        weight: ROW,
    };
    assert!(Command::Start(start).weight() > ROW);
    assert!(Command::Expire(expire).weight() > ROW);
}
