use std::collections::BTreeSet;

use backends::data_source::classify::Outcome;
use backends::operation::OperationKind;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::decide::tests::{accept_of, applied, error, operation, refusal, refused, retry};
use crate::decide::{
    Append, Command, Control, NotStartable, Settle, Start, Started, Target, Verb, tests,
};
use crate::domain::{Route, SourceSettings};

const CRM: &str = "crm";

fn at(sequence: i64) -> (String, i64) {
    (CRM.to_owned(), sequence)
}

fn operator() -> Operator {
    Operator {
        key_id: Uuid::from_u128(7),
        actor: "ann".to_owned(),
    }
}

/// A source that a node delivers to, driven a command at a time.
struct Desk {
    state: State,
    last: Append,
}

impl Desk {
    fn new() -> Self {
        let mut desk = Self {
            state: tests::with_source(),
            last: Append::default(),
        };
        desk.control(Control::ClaimSource {
            source: CRM.to_owned(),
            node: Uuid::nil(),
            gone: None,
        });
        desk
    }

    fn run(&mut self, command: Command) -> Reply {
        let (reply, append) = tests::run(&mut self.state, command);
        self.last = append;
        reply
    }

    fn control(&mut self, control: Control) -> Reply {
        self.run(Command::Control(control))
    }

    fn by_operator(&mut self, control: Control) -> Reply {
        self.control(Control::By(operator(), Box::new(control)))
    }

    fn source(&self) -> &Source {
        &self.state.sources[CRM]
    }

    fn accept(&mut self, name: &str) -> i64 {
        let create = operation(OperationKind::Create, "airports", name, 1);
        let route = Route::Source(CRM.to_owned());
        match self.run(accept_of(name, route, vec![create])) {
            Reply::Queued(_, sequence) => sequence,
            reply => panic!("not queued: {reply:?}"),
        }
    }

    fn start(&mut self, sequence: i64) -> Reply {
        let start = Start {
            source: CRM.to_owned(),
            epoch: 1,
            sequence,
            node: Uuid::nil(),
            terms: None,
            revision: self.source().inbox_revision,
            weight: 0,
        };
        self.run(Command::Start(start))
    }

    fn started(&mut self, sequence: i64) -> Started {
        match self.start(sequence) {
            Reply::Started(started) => *started,
            reply => panic!("not started: {reply:?}"),
        }
    }

    fn settle(
        &mut self,
        sequence: i64,
        started: &Started,
        outcome: Outcome,
        unknown: bool,
    ) -> Reply {
        let sent = wire::operations(&started.body).unwrap();
        self.run(Command::Settle(Settle {
            source: CRM.to_owned(),
            epoch: 1,
            sequence,
            client_tx_id: started.client_tx_id.clone(),
            started_at: started.started_at,
            duration: Duration::from_millis(3),
            http_status: Some(503),
            outcome,
            may_still_apply: unknown,
            excerpt: None,
            rows: sent.iter().map(Operation::key).collect(),
            unclear: Vec::new(),
            read_back: None,
            url: "https://crm.example/".to_owned(),
            trigger: started.trigger,
            never_left: false,
            jitter: 0.5,
            certificate_expires_at: None,
        }))
    }

    /// A commit whose attempts are exhausted; the last one may still apply if `unknown`.
    fn dead(&mut self, name: &str, unknown: bool) -> i64 {
        let sequence = self.accept(name);
        while !self.state.inbox[&at(sequence)].dead {
            self.state.now += Duration::from_hours(1);
            let started = self.started(sequence);
            self.settle(sequence, &started, retry(), unknown);
        }
        sequence
    }

    fn operate(&mut self, verb: Verb, targets: &[(&str, i64)]) -> Reply {
        let targets = targets.iter().map(|(name, sequence)| Target {
            client_tx_id: (*name).to_owned(),
            sequence: *sequence,
        });
        self.run(Command::Operate(Operate {
            source: CRM.to_owned(),
            targets: targets.collect(),
            verb,
            by: operator(),
        }))
    }

    fn verbs(&self) -> Vec<(&'static str, Option<&str>)> {
        let actions = self.last.actions.iter();
        actions
            .map(|action| (action.verb, action.client_tx_id.as_deref()))
            .collect()
    }
}

fn rejected(force: bool) -> Verb {
    Verb::Reject {
        code: "sold_out".to_owned(),
        message: "sold out".to_owned(),
        force,
    }
}

fn discarded(force: bool) -> Verb {
    Verb::Discard {
        reason: "given up".to_owned(),
        force,
    }
}

#[test]
fn a_dead_commit_reenters_at_the_end_and_its_receipt_says_so() {
    let mut desk = Desk::new();
    let dead = desk.dead("a", false);
    desk.accept("b");
    let Reply::Operated(1, reentered) = desk.operate(Verb::Retry, &[("a", dead)]) else {
        panic!("one commit is retried")
    };
    assert_eq!(reentered, ["a"]);
    assert!(!desk.state.inbox.contains_key(&at(dead)));
    let entry = &desk.state.inbox[&at(3)];
    assert_eq!((entry.dead, entry.spent, entry.attempts), (false, 0, 3));
    assert_eq!(entry.first_failed_at, None);
    assert_eq!((desk.source().pending, desk.source().dead), (2, 0));
    let ledger = &desk.state.ledger["a"];
    assert_eq!((ledger.dead, ledger.sequence), (false, Some(3)));
    assert_eq!(ledger.reentered_at, Some(desk.state.now));
    assert_eq!(desk.last.inbox_changed[&at(dead)].sequence, 3);
    assert_eq!(desk.verbs(), [("retry", Some("a"))]);
    assert!(
        desk.last.versions.is_empty(),
        "it was unsettled all the time"
    );
    let started = desk.started(3);
    assert_eq!((started.number, started.trigger), (4, Trigger::Manual));
    desk.settle(3, &started, applied(), false);
    let receipt = desk.state.ledger["a"].receipt();
    assert_eq!(receipt.state, CommitState::Confirmed);
    assert!(receipt.reentered_at.is_some() && !receipt.dead);
}

#[test]
fn a_dead_commit_that_still_holds_its_lanes_keeps_its_place() {
    let mut desk = Desk::new();
    let dead = desk.dead("a", true);
    let held_until = desk.state.inbox[&at(dead)].may_apply_until.unwrap();
    let Reply::Operated(1, reentered) = desk.operate(Verb::Retry, &[("a", dead)]) else {
        panic!("one commit is retried")
    };
    assert_eq!(reentered, Vec::<String>::new());
    assert_eq!(desk.state.ledger["a"].reentered_at, None);
    assert!(!desk.state.inbox[&at(dead)].dead && !desk.state.ledger["a"].dead);
    assert_eq!((desk.source().pending, desk.source().dead), (1, 0));
    assert!(held_until > desk.state.now + LANE_MARGIN);
    desk.started(dead);
}

#[test]
fn a_dead_commit_that_lets_go_of_its_lanes_any_moment_reenters() {
    let mut desk = Desk::new();
    let dead = desk.dead("a", true);
    desk.state.now = desk.state.inbox[&at(dead)].may_apply_until.unwrap() - LANE_MARGIN;
    let Reply::Operated(1, reentered) = desk.operate(Verb::Retry, &[("a", dead)]) else {
        panic!("one commit is retried")
    };
    assert_eq!(reentered, ["a"]);
}

#[test]
fn a_manual_retry_waits_for_no_schedule_and_no_back_off() {
    let mut desk = Desk::new();
    let sequence = desk.accept("a");
    let started = desk.started(sequence);
    let misconfigured = Outcome::Misconfigured { error: error() };
    desk.settle(sequence, &started, misconfigured, false);
    let waits = desk.start(sequence);
    assert!(matches!(waits, Reply::NotStartable(NotStartable::Until(_))));
    desk.operate(Verb::Retry, &[("a", sequence)]);
    let again = desk.started(sequence);
    assert_eq!((again.trigger, again.id), (Trigger::Manual, started.id));
    assert_eq!(desk.state.inbox[&at(sequence)].next_cause, None);
}

#[test]
fn what_is_recovered_in_bulk_waits_for_its_source_and_spends_nothing() {
    let mut desk = Desk::new();
    let sequence = desk.accept("a");
    let started = desk.started(sequence);
    desk.settle(sequence, &started, retry(), false);
    let spent = desk.state.inbox[&at(sequence)].spent;
    let back_off = desk.state.now + Duration::from_mins(5);
    desk.state.sources.get_mut(CRM).unwrap().backoff_until = Some(back_off);
    desk.operate(Verb::Recover(None), &[("a", sequence)]);
    assert_eq!(desk.state.inbox[&at(sequence)].due_at, desk.state.now);
    let waits = desk.start(sequence);
    let until = NotStartable::Until(back_off);
    assert!(
        matches!(waits, Reply::NotStartable(it) if it == until),
        "{waits:?}"
    );
    desk.state.now = back_off;
    let again = desk.started(sequence);
    assert_eq!(again.trigger, Trigger::Recovery);
    desk.settle(sequence, &again, retry(), false);
    assert_eq!(desk.state.inbox[&at(sequence)].spent, spent);
}

#[test]
fn a_manual_attempt_that_fails_spends_nothing_and_leaves_the_schedule() {
    let mut desk = Desk::new();
    let sequence = desk.accept("a");
    let started = desk.started(sequence);
    desk.settle(sequence, &started, retry(), false);
    for number in 2..6 {
        desk.operate(Verb::Retry, &[("a", sequence)]);
        let started = desk.started(sequence);
        assert_eq!(started.number, number);
        desk.settle(sequence, &started, retry(), false);
        let entry = &desk.state.inbox[&at(sequence)];
        assert_eq!((entry.spent, entry.dead), (1, false));
        assert_eq!(entry.due_at, desk.state.now + Duration::from_secs(5));
    }
}

#[test]
fn a_retry_that_is_asked_for_during_an_attempt_follows_it() {
    let mut desk = Desk::new();
    let sequence = desk.accept("a");
    let started = desk.started(sequence);
    desk.operate(Verb::Retry, &[("a", sequence)]);
    let waits = desk.start(sequence);
    assert!(matches!(waits, Reply::NotStartable(NotStartable::Until(_))));
    desk.settle(sequence, &started, retry(), false);
    assert_eq!(desk.started(sequence).trigger, Trigger::Manual);
}

#[test]
fn a_start_from_before_an_operators_verb_is_refused() {
    let mut desk = Desk::new();
    let (first, second) = (desk.accept("a"), desk.accept("b"));
    let old = desk.source().inbox_revision;
    desk.operate(Verb::Retry, &[("a", first)]);
    let start = Start {
        source: CRM.to_owned(),
        epoch: 1,
        sequence: second,
        node: Uuid::nil(),
        terms: None,
        revision: old,
        weight: 0,
    };
    let reply = desk.run(Command::Start(start));
    assert!(matches!(reply, Reply::NotStartable(NotStartable::Reread)));
}

#[test]
fn retries_need_a_source_that_delivers() {
    let mut desk = Desk::new();
    let sequence = desk.accept("a");
    desk.by_operator(Control::PauseSource(CRM.to_owned(), "upgrade".to_owned()));
    let reply = desk.operate(Verb::Retry, &[("a", sequence)]);
    assert_eq!(refusal(reply), "source_paused");
    desk.by_operator(Control::DisableSource(CRM.to_owned(), String::new()));
    let reply = desk.operate(Verb::Recover(None), &[]);
    assert_eq!(refusal(reply), "source_disabled");
}

#[test]
fn a_commit_is_resolved_as_applied_whatever_its_source_does() {
    let mut desk = Desk::new();
    let dead = desk.dead("a", true);
    desk.by_operator(Control::DisableSource(CRM.to_owned(), String::new()));
    let Outcome::Applied(changes) = applied() else {
        unreachable!("it is applied")
    };
    let reply = desk.operate(Verb::Apply(changes), &[("a", dead)]);
    assert!(matches!(reply, Reply::Operated(1, _)), "{reply:?}");
    let entry = &desk.state.ledger["a"];
    assert_eq!((entry.state, entry.dead), (CommitState::Confirmed, false));
    assert_eq!(entry.sync_ids, Some((11, 11)));
    let delta = &desk.last.deltas[0];
    let row = json!({"id": "1", "n": 1}).try_into().unwrap();
    assert_eq!(delta.delta.change.row, Some(row));
    assert_eq!(delta.participant.as_ref().unwrap().id, "ann");
    assert_eq!(desk.last.inbox_done, BTreeSet::from([at(dead)]));
    assert_eq!((desk.source().pending, desk.source().dead), (0, 0));
    assert_eq!(desk.last.pending_change(), 0);
    assert_eq!(desk.verbs(), [("resolve", Some("a"))]);
}

#[test]
fn nobody_settles_a_commit_during_an_attempt() {
    let mut desk = Desk::new();
    let (first, second) = (desk.accept("a"), desk.accept("b"));
    let started = desk.started(second);
    let both = [("a", first), ("b", second)];
    for verb in [Verb::Apply(Vec::new()), rejected(true), discarded(true)] {
        assert_eq!(refusal(desk.operate(verb, &both)), "attempt_in_flight");
        assert!(desk.last.is_empty(), "all or none");
    }
    desk.state.now += started.timeout;
    let reply = desk.operate(discarded(false), &both);
    assert_eq!(refusal(reply), "may_still_apply");
    let reply = desk.operate(discarded(true), &both);
    assert!(matches!(reply, Reply::Operated(2, _)));
    assert_eq!(desk.last.attempts_closed[0].next_attempt_at, None);
    assert_eq!(desk.verbs().len(), 2);
    // The attempt's answer came too late, and changes nothing.
    let reply = desk.settle(second, &started, applied(), false);
    assert!(matches!(reply, Reply::Settled(None, _)), "{reply:?}");
    assert!(desk.last.is_empty());
}

#[test]
fn a_rejection_waits_until_no_attempt_may_still_apply_unless_forced() {
    let mut desk = Desk::new();
    let sequence = desk.accept("a");
    let started = desk.started(sequence);
    desk.settle(
        sequence,
        &started,
        Outcome::Unknown { error: error() },
        true,
    );
    let target = [("a", sequence)];
    for verb in [rejected(false), discarded(false)] {
        assert_eq!(refusal(desk.operate(verb, &target)), "may_still_apply");
    }
    desk.state.now = desk.state.inbox[&at(sequence)].may_apply_until.unwrap();
    let reply = desk.operate(rejected(false), &target);
    assert!(matches!(reply, Reply::Operated(1, _)));
    let entry = &desk.state.ledger["a"];
    assert_eq!(entry.state, CommitState::Rejected);
    let code = entry.error.as_ref().map(|error| error.0.as_str());
    assert_eq!(code, Some("sold_out"));
}

#[test]
fn a_discarded_commit_is_rejected_with_the_reason() {
    let mut desk = Desk::new();
    let sequence = desk.accept("a");
    desk.operate(discarded(false), &[("a", sequence)]);
    let error = desk.state.ledger["a"].error.clone();
    let wanted = (DISCARDED.to_owned(), "given up".to_owned());
    assert_eq!(error, Some(wanted));
}

#[test]
fn the_rows_of_a_commit_that_was_applied_after_all_are_read_again_when_it_is_given_up() {
    for (verb, read_again) in [
        (rejected(true), true),
        (discarded(true), true),
        (Verb::Apply(Vec::new()), false),
    ] {
        let mut desk = Desk::new();
        let sequence = desk.accept("a");
        desk.state.inbox.get_mut(&at(sequence)).unwrap().echoed = true;
        desk.operate(verb, &[("a", sequence)]);
        assert_eq!(desk.last.rereads.is_empty(), !read_again);
        let told = desk.last.actions[0].detail.contains("the feed had shown");
        assert_eq!(told, read_again);
    }
}

#[test]
fn a_name_that_does_not_wait_is_told_from_one_that_was_moved() {
    let mut desk = Desk::new();
    let dead = desk.dead("a", false);
    desk.operate(Verb::Retry, &[("a", dead)]);
    let reply = desk.operate(Verb::Retry, &[("a", dead)]);
    assert!(matches!(reply, Reply::Moved), "{reply:?}");
    let reply = desk.operate(Verb::Retry, &[("nobody", dead)]);
    assert_eq!(refusal(reply), "pending_not_found");
    let reply = desk.operate(Verb::Recover(None), &[("a", dead)]);
    assert!(matches!(reply, Reply::Operated(0, _)), "{reply:?}");
    assert!(desk.last.is_empty());
}

#[test]
fn recovered_commits_keep_their_order_and_are_one_action() {
    let mut desk = Desk::new();
    let (first, second) = (desk.dead("a", false), desk.dead("b", false));
    let reply = desk.operate(Verb::Recover(None), &[("b", second), ("a", first)]);
    let Reply::Operated(2, reentered) = reply else {
        panic!("two are recovered: {reply:?}")
    };
    assert_eq!(reentered, ["a", "b"]);
    assert_eq!(desk.state.ledger["a"].sequence, Some(3));
    assert_eq!(desk.state.ledger["b"].sequence, Some(4));
    assert_eq!(desk.verbs(), [("recover", None)]);
    assert_eq!(desk.last.actions[0].detail, "2 commits");
}

#[test]
fn a_paused_source_takes_and_keeps_what_it_delivers_once_resumed() {
    let mut desk = Desk::new();
    let pause = || Control::PauseSource(CRM.to_owned(), "upgrade".to_owned());
    desk.by_operator(pause());
    assert_eq!(desk.verbs(), [("pause", None)]);
    assert_eq!(desk.last.actions[0].detail, "upgrade");
    let sequence = desk.accept("a");
    let reply = desk.start(sequence);
    assert!(matches!(reply, Reply::NotStartable(NotStartable::Disabled)));
    desk.by_operator(Control::EnableSource(CRM.to_owned()));
    assert_eq!(desk.source().state, SourceState::Paused, "resume undoes it");
    assert_eq!(desk.verbs(), [], "nothing was changed");
    desk.by_operator(Control::ResumeSource(CRM.to_owned()));
    assert_eq!(desk.source().state, SourceState::Enabled);
    assert_eq!(desk.source().state_reason, "");
    desk.started(sequence);
    desk.by_operator(Control::DisableSource(CRM.to_owned(), String::new()));
    assert_eq!(refusal(desk.by_operator(pause())), "source_disabled");
}

#[test]
fn a_source_that_is_gone_while_paused_is_disabled() {
    let mut desk = Desk::new();
    let sequence = desk.accept("a");
    let started = desk.started(sequence);
    desk.by_operator(Control::PauseSource(CRM.to_owned(), String::new()));
    desk.settle(sequence, &started, Outcome::Gone { error: error() }, false);
    assert_eq!(desk.source().state, SourceState::Disabled);
}

#[test]
fn what_an_update_changed_is_on_record() {
    let mut desk = Desk::new();
    let mut settings = SourceSettings::clone(&desk.source().settings);
    let update = |settings| Control::UpdateSource(CRM.to_owned(), settings);
    desk.by_operator(update(settings.clone().into()));
    assert_eq!(desk.verbs(), [], "nothing was changed");
    settings.url = "https://crm.example/new".to_owned();
    settings.max_in_flight = 2;
    desk.by_operator(update(settings.into()));
    assert_eq!(desk.last.actions[0].detail, "url, max_in_flight");
    assert_eq!(desk.last.actions[0].by, operator());
}

/// What happens to a desk, on the commits that are there.
#[derive(Clone, Debug)]
enum Step {
    Accept,
    Start(prop::sample::Index),
    Settle(prop::sample::Index, u8),
    Wait(u16),
    Operate(u8, Vec<prop::sample::Index>),
    Source(u8),
}

fn any_step() -> impl Strategy<Value = Step> {
    let any = any::<prop::sample::Index>;
    prop_oneof![
        3 => Just(Step::Accept),
        6 => any().prop_map(Step::Start),
        6 => (any(), 0_u8..6).prop_map(|(which, outcome)| Step::Settle(which, outcome)),
        3 => (0_u16..2_000).prop_map(Step::Wait),
        3 => (0_u8..7, prop::collection::vec(any(), 1..4))
            .prop_map(|(verb, which)| Step::Operate(verb, which)),
        1 => (0_u8..4).prop_map(Step::Source),
    ]
}

impl Desk {
    fn places(&self) -> Vec<(String, i64)> {
        let entries = self.state.inbox.values();
        let mut places: Vec<_> = entries
            .map(|entry| (entry.client_tx_id.clone(), entry.sequence))
            .collect();
        places.sort_by_key(|place| place.1);
        places
    }

    /// Takes a step; how many commits it confirmed.
    fn step(&mut self, step: Step, open: &mut Vec<(i64, Started)>) -> usize {
        let places = self.places();
        match step {
            Step::Accept if self.source().state != SourceState::Disabled => {
                let name = format!("t{}", self.source().inbox_sequence);
                self.accept(&name);
            }
            Step::Start(which) if !places.is_empty() => {
                let (_, sequence) = places[which.index(places.len())].clone();
                if let Reply::Started(started) = self.start(sequence) {
                    open.push((sequence, *started));
                }
            }
            Step::Settle(which, outcome) if !open.is_empty() => {
                let (sequence, started) = open.remove(which.index(open.len()));
                let (outcome, unknown) = match outcome {
                    0 | 1 => (retry(), false),
                    2 => (Outcome::Unknown { error: error() }, true),
                    3 => (refused(), false),
                    4 => (Outcome::Misconfigured { error: error() }, false),
                    _ => (applied(), false),
                };
                self.settle(sequence, &started, outcome, unknown);
            }
            Step::Wait(seconds) => self.state.now += Duration::from_secs(seconds.into()),
            Step::Operate(verb, which) if !places.is_empty() => {
                let names: BTreeSet<_> = which
                    .into_iter()
                    .map(|which| places[which.index(places.len())].clone())
                    .collect();
                let targets: Vec<_> = names
                    .iter()
                    .map(|(name, at)| (name.as_str(), *at))
                    .collect();
                let verb = match verb {
                    0..=2 => Verb::Retry,
                    3 => Verb::Recover(None),
                    4 => Verb::Apply(Vec::new()),
                    5 => rejected(false),
                    _ => discarded(true),
                };
                self.operate(verb, &targets);
            }
            Step::Source(verb) => {
                let crm = CRM.to_owned();
                self.by_operator(match verb {
                    0 => Control::PauseSource(crm, String::new()),
                    1 => Control::DisableSource(crm, String::new()),
                    2 => Control::EnableSource(crm),
                    _ => Control::ResumeSource(crm),
                });
            }
            Step::Accept | Step::Start(_) | Step::Settle(..) | Step::Operate(..) => return 0,
        }
        let settled = self.last.settled.values();
        settled
            .filter(|entry| entry.state == CommitState::Confirmed)
            .count()
    }

    fn counts_agree(&self) {
        let entries = || self.state.inbox.values();
        let count = |dead| i64::try_from(entries().filter(|entry| entry.dead == dead).count());
        assert_eq!(Ok(self.source().pending), count(false));
        assert_eq!(Ok(self.source().dead), count(true));
        for (key, entry) in &self.state.inbox {
            assert_eq!(*key, at(entry.sequence));
            let ledger = &self.state.ledger[&entry.client_tx_id];
            assert_eq!(ledger.state, CommitState::Queued);
            assert_eq!(
                (ledger.dead, ledger.sequence),
                (entry.dead, Some(entry.sequence))
            );
            assert!(entry.sequence <= self.source().inbox_sequence);
        }
        for (row, version) in &self.state.versions {
            let of_it = entries().filter(|entry| rows_of(entry).contains(row));
            assert_eq!(Ok(version.unsettled), i64::try_from(of_it.count()));
        }
        let ledger = self.state.ledger.values();
        let queued = ledger.filter(|entry| entry.state == CommitState::Queued);
        assert_eq!(queued.count(), self.state.inbox.len());
    }
}

proptest! {
    /// Whatever operators, endpoints and couriers do, in whatever order: the source's counts agree
    /// with its inbox, the ledger with both, and no commit is confirmed twice.
    #[test]
    fn counts_agree_with_the_inbox_whatever_is_done(
        steps in prop::collection::vec(any_step(), 1..120)
    ) {
        let mut desk = Desk::new();
        let mut open = Vec::new();
        let mut confirmed = 0;
        let mut pending = 0;
        for step in steps {
            desk.last = Append::default();
            confirmed += desk.step(step, &mut open);
            pending += desk.last.pending_change();
            desk.counts_agree();
            prop_assert_eq!(pending, desk.source().pending);
        }
        let ledger = desk.state.ledger.values();
        let standing = ledger.filter(|entry| entry.state == CommitState::Confirmed).count();
        prop_assert_eq!(confirmed, standing);
    }
}
