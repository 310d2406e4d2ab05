//! A node: its lease, its claim, its courier, and the attempts that it makes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use backends::data_source::classify::Outcome;
use proptest::prelude::*;
use time::OffsetDateTime;
use uuid::Uuid;

use super::endpoint::Request;
use super::{World, around};
use crate::courier::attempt::End;
use crate::courier::window::Window;
use crate::decide::{
    Command, Control, Expire, InboxEntry, NotStartable, Recovery, Reply, Settle, Source, Start,
    Started, Terms,
};
use crate::domain::Trigger;
use crate::in_memory::CRM;
use crate::store::inbox::Waiting;

const LEASE: Duration = Duration::from_secs(3);

/// Commits read at a time.
const PAGE: usize = 2;

/// What a node does.
#[derive(Clone, Copy, Debug)]
pub(super) enum Act {
    /// Renews its lease, looks for orphans, claims the one that it saw.
    Tend,
    Look,
    Claim,
    /// Its connection to the endpoint breaks.
    GiveUp(usize),
    /// Does nothing for so many milliseconds.
    Freeze(u32),
    /// Its courier ends by a panic, and starts anew under the same epoch.
    Panic,
    /// Gives its source up, as a node does that stops.
    Release,
    /// Is killed and replaced.
    Kill,
}

pub(super) fn any_act() -> impl Strategy<Value = Act> {
    prop_oneof![
        2 => Just(Act::Look),
        2 => Just(Act::Claim),
        4 => (0_usize..9).prop_map(Act::GiveUp),
        1 => (1_000_u32..400_000).prop_map(Act::Freeze),
        1 => Just(Act::Panic),
        1 => Just(Act::Release),
        1 => Just(Act::Kill),
    ]
}

/// Something that a node has to do.
#[derive(Clone, Copy, Debug)]
enum Task {
    Read,
    Pop,
    PopAsked,
    Expire,
    Take,
    Start(usize),
    Send(usize),
    Settle(usize),
}

/// A source that nobody delivers to, and whose it was.
struct Orphan(Option<Uuid>);

pub(super) struct Node {
    id: Uuid,
    frozen_until: OffsetDateTime,
    /// What its look saw.
    orphan: Option<Orphan>,
    courier: Option<Courier>,
    /// Couriers started.
    couriers: u32,
    chosen: Vec<Chosen>,
    attempts: Vec<Attempt>,
}

struct Courier {
    number: u32,
    epoch: i64,
    window: Window,
    /// The database's time that it read, and when it had it.
    clock: (OffsetDateTime, OffsetDateTime),
    recovery: Option<Recovery>,
    stale: bool,
    ends: VecDeque<(i64, End)>,
}

/// A commit that was taken out of the window, on its way to the database.
struct Chosen {
    courier: (u32, i64),
    sequence: i64,
    revision: i64,
    terms: Option<Arc<Terms>>,
    expires: bool,
}

struct Attempt {
    courier: (u32, i64),
    sequence: i64,
    started: Started,
    sent: bool,
    answer: Option<(Outcome, bool)>,
}

impl Node {
    pub(super) fn new(id: Uuid) -> Self {
        Self {
            id,
            frozen_until: OffsetDateTime::UNIX_EPOCH,
            orphan: None,
            courier: None,
            couriers: 0,
            chosen: Vec::new(),
            attempts: Vec::new(),
        }
    }

    fn start_courier(&mut self, epoch: i64, now: OffsetDateTime) {
        self.couriers += 1;
        self.courier = Some(Courier {
            number: self.couriers,
            epoch,
            window: Window::default(),
            clock: (now, now),
            recovery: None,
            stale: true,
            ends: VecDeque::new(),
        });
    }

    /// A courier that is gone has nothing to do with it.
    fn end(&mut self, (number, _): (u32, i64), sequence: i64, end: End) {
        if let Some(courier) = self.courier.as_mut().filter(|it| it.number == number) {
            courier.ends.push_back((sequence, end));
        }
    }

    fn tasks(&mut self, now: OffsetDateTime) -> Vec<Task> {
        let mut tasks: Vec<_> = (0..self.chosen.len()).map(Task::Start).collect();
        for (place, attempt) in self.attempts.iter().enumerate() {
            match (&attempt.answer, attempt.sent) {
                (Some(_), _) => tasks.push(Task::Settle(place)),
                (None, false) => tasks.push(Task::Send(place)),
                (None, true) => {}
            }
        }
        let Some(courier) = &mut self.courier else {
            return tasks;
        };
        while let Some(over) = courier.window.pop_over(courier.now(now)) {
            courier.window.finish(over);
        }
        if !courier.ends.is_empty() {
            tasks.push(Task::Take);
        }
        if courier.stale {
            tasks.push(Task::Read);
            return tasks;
        }
        let now = courier.now(now);
        if courier.window.is_due(now) {
            tasks.push(Task::Pop);
        }
        if courier.window.next_asked().is_some_and(|due| due <= now) {
            tasks.push(Task::PopAsked);
        }
        if courier.window.next_expiry().is_some_and(|at| at <= now) {
            tasks.push(Task::Expire);
        }
        tasks
    }
}

/// As in `run.rs`.
impl Courier {
    fn now(&self, now: OffsetDateTime) -> OffsetDateTime {
        self.clock.0 + (now - self.clock.1)
    }

    /// Takes in a page of the inbox; whether it was the last one.
    fn read(&mut self, source: &Source, entries: Vec<Waiting>) {
        let after = self.window.seen;
        if self.window.revision != source.inbox_revision {
            self.window.renew(source.inbox_revision);
            if after > 0 {
                return;
            }
        }
        self.recovered(source.recovery());
        let full = entries.len() == PAGE;
        self.window.extend(entries, source.recovery());
        if !full {
            self.window.seen = self.window.seen.max(source.inbox_sequence);
            self.stale = false;
        }
    }

    fn recovered(&mut self, recovery: Option<Recovery>) {
        let at = |recovery: Option<Recovery>| recovery.map(|it| it.at);
        if at(recovery) > at(self.recovery) {
            self.recovery = recovery;
            if let Some(recovery) = recovery {
                self.window.recover(recovery);
            }
        }
    }

    /// Moves on after an end; `false` when the source is another's.
    fn take(&mut self, sequence: i64, end: End, now: OffsetDateTime) -> bool {
        let now = self.now(now);
        match end {
            End::Settled(entry, source) => {
                self.recovered(source.recovery());
                self.settled(sequence, entry.as_deref(), now);
                self.decided_of(source.inbox_revision);
            }
            End::NeverLeft(entry, revision) => {
                self.settled(sequence, Some(&entry), now);
                self.decided_of(revision);
            }
            End::NotStarted(why, revision) => {
                match why {
                    NotStartable::Finished => self.window.finish(sequence),
                    NotStartable::Until(until) => {
                        self.window.wait(sequence, until);
                        self.stale = true;
                    }
                    NotStartable::Disabled | NotStartable::Reread => {
                        self.window.wait(sequence, now);
                        self.stale = true;
                    }
                }
                self.decided_of(revision);
            }
            End::Expired(Some(NotStartable::Finished)) => self.window.finish(sequence),
            End::Expired(Some(NotStartable::Until(until))) => self.window.expires(sequence, until),
            End::Expired(_) => {
                self.stale = true;
                self.window.expires(sequence, now);
            }
            End::Fenced => return false,
            End::Unavailable => self.window.wait(sequence, now),
        }
        true
    }

    fn decided_of(&mut self, revision: i64) {
        if revision < self.window.revision {
            self.window.revision = revision;
            self.stale = true;
        }
    }

    fn settled(&mut self, sequence: i64, entry: Option<&InboxEntry>, now: OffsetDateTime) {
        match entry {
            None => self.window.finish(sequence),
            Some(entry) if entry.dead => match entry.may_apply_until {
                Some(until) if until > now => self.window.hold(sequence, until),
                _ => self.window.finish(sequence),
            },
            Some(entry) => {
                let failed = (entry.due_at, entry.failed_at);
                self.window.ask(sequence, entry.is_asked());
                self.window.wait_again(sequence, failed, self.recovery);
                if let Some(at) = entry.ends_at() {
                    let at = entry.may_apply_until.map_or(at, |until| until.max(at));
                    self.window.expires(sequence, at);
                }
            }
        }
    }
}

impl World {
    pub(super) fn act(&mut self, node: usize, act: Act) {
        let now = self.now;
        if matches!(act, Act::Kill) {
            self.nodes[node] = Node::new(self.name());
            return;
        }
        let it = &mut self.nodes[node];
        if it.frozen_until > now {
            return;
        }
        match act {
            Act::Tend => {
                self.leases.insert(it.id, now + LEASE);
                self.look(node);
                self.claim(node);
            }
            Act::Look => self.look(node),
            Act::Claim => self.claim(node),
            Act::GiveUp(which) => {
                let sent = it.attempts.iter_mut().filter(|one| one.sent);
                let mut waiting: Vec<_> = sent.filter(|one| one.answer.is_none()).collect();
                let which = which.checked_rem(waiting.len());
                if let Some(attempt) = which.map(|which| waiting.swap_remove(which)) {
                    attempt.answer = Some(unknown());
                }
            }
            Act::Freeze(milliseconds) => {
                it.frozen_until = now + Duration::from_millis(milliseconds.into());
            }
            Act::Panic => {
                if let Some(epoch) = it.courier.take().map(|courier| courier.epoch) {
                    it.start_courier(epoch, now);
                }
            }
            Act::Release => self.release(node),
            Act::Kill => {}
        }
    }

    /// One of the nodes that have something to do does one thing.
    pub(super) fn go(&mut self, which: usize, latency: u32) {
        let now = self.now;
        let tasks = self.nodes.iter_mut().enumerate().flat_map(|(node, it)| {
            let awake = it.frozen_until <= now;
            let tasks = if awake { it.tasks(now) } else { Vec::new() };
            tasks.into_iter().map(move |task| (node, task))
        });
        let tasks: Vec<_> = tasks.collect();
        if let Some((node, task)) = around(&tasks, which) {
            self.work(*node, *task, latency);
        }
    }

    /// A node does what it has to do next; whether there was anything.
    pub(super) fn work_on(&mut self, node: usize) -> bool {
        let task = self.nodes[node].tasks(self.now).first().copied();
        if let Some(task) = task {
            self.work(node, task, 0);
        }
        task.is_some()
    }

    /// See `orphans.sql`.
    fn look(&mut self, node: usize) {
        let it = &mut self.nodes[node];
        let held = |owner| {
            self.leases
                .get(&owner)
                .is_some_and(|until| *until > self.now)
        };
        it.orphan = match self.tables.source().owner {
            None => Some(Orphan(None)),
            Some(owner) if owner != it.id && !held(owner) => Some(Orphan(Some(owner))),
            Some(_) => None,
        };
    }

    fn claim(&mut self, node: usize) {
        let it = &mut self.nodes[node];
        let Some(Orphan(gone)) = it.orphan.take() else {
            return;
        };
        let claim = Control::ClaimSource {
            source: CRM.to_owned(),
            node: it.id,
            gone,
        };
        let (reply, append) = self.tables.run(self.now, Command::Control(claim));
        match reply {
            Reply::Claimed(source) => it.start_courier(source.epoch, self.now),
            _ => assert!(append.is_empty()),
        }
    }

    /// Once nothing is in flight.
    fn release(&mut self, node: usize) {
        let it = &mut self.nodes[node];
        if !it.attempts.is_empty() || !it.chosen.is_empty() {
            return;
        }
        if let Some(courier) = it.courier.take() {
            let release = Control::ReleaseSource {
                source: CRM.to_owned(),
                epoch: courier.epoch,
            };
            self.tables.run(self.now, Command::Control(release));
        }
    }

    fn work(&mut self, node: usize, task: Task, latency: u32) {
        match task {
            Task::Read => self.read(node, latency),
            Task::Pop | Task::PopAsked | Task::Expire => self.choose(node, task),
            Task::Take => {
                let now = self.now;
                let it = &mut self.nodes[node];
                if let Some(courier) = &mut it.courier
                    && let Some((sequence, end)) = courier.ends.pop_front()
                    && !courier.take(sequence, end, now)
                {
                    it.courier = None;
                }
            }
            Task::Start(place) => {
                let chosen = self.nodes[node].chosen.remove(place);
                self.start(node, chosen);
            }
            Task::Send(place) => self.send(node, place),
            Task::Settle(place) => {
                let attempt = self.nodes[node].attempts.remove(place);
                self.settle(node, attempt);
            }
        }
    }

    fn read(&mut self, node: usize, latency: u32) {
        // Some of the time on the way there, some on the way back.
        let latency = Duration::from_millis(latency.into());
        self.now += latency / 2;
        let now = self.now;
        self.now += latency / 2;
        let source = self.tables.source().clone();
        let it = &mut self.nodes[node];
        let Some(courier) = &mut it.courier else {
            return;
        };
        if source.owner != Some(it.id) || source.epoch != courier.epoch {
            it.courier = None;
            return;
        }
        courier.clock = (now, self.now);
        let seen = courier.window.seen;
        let entries = self.tables.inbox().into_values();
        let entries = entries
            .filter(|entry| entry.sequence > seen)
            .filter(|entry| !entry.dead || entry.may_apply_until > Some(now));
        courier.read(&source, entries.take(PAGE).map(waiting).collect());
    }

    fn choose(&mut self, node: usize, task: Task) {
        let it = &mut self.nodes[node];
        let Some(courier) = &mut it.courier else {
            return;
        };
        let now = courier.now(self.now);
        let found = match task {
            Task::PopAsked => courier.window.pop_asked(now),
            Task::Expire => courier.window.pop_expired(now),
            _ => courier.window.pop(now),
        };
        it.chosen.extend(found.map(|sequence| Chosen {
            courier: (courier.number, courier.epoch),
            sequence,
            revision: courier.window.revision,
            terms: courier.window.terms(sequence),
            expires: matches!(task, Task::Expire),
        }));
    }

    fn start(&mut self, node: usize, chosen: Chosen) {
        let Chosen {
            courier,
            sequence,
            revision,
            terms,
            expires,
        } = chosen;
        let epoch = courier.1;
        let command = match (&terms, expires) {
            (Some(terms), true) => Command::Expire(Expire {
                source: CRM.to_owned(),
                epoch,
                sequence,
                client_tx_id: terms.client_tx_id.clone(),
                weight: 0,
            }),
            _ => Command::Start(Start {
                source: CRM.to_owned(),
                epoch,
                sequence,
                node: self.nodes[node].id,
                terms,
                revision,
                weight: 0,
            }),
        };
        let reply = self.fenced_run(epoch, command);
        let it = &mut self.nodes[node];
        let end = match reply {
            Reply::Started(started) => {
                it.attempts.push(Attempt {
                    courier,
                    sequence,
                    started: *started,
                    sent: false,
                    answer: None,
                });
                return;
            }
            Reply::NotStartable(why) if expires => End::Expired(Some(why)),
            Reply::NotStartable(why) => End::NotStarted(why, revision),
            _ if expires => End::Expired(None),
            _ => End::Fenced,
        };
        it.end(courier, sequence, end);
    }

    /// Nothing leaves after its deadline, nor while another request of its commit is waited for.
    fn send(&mut self, node: usize, place: usize) {
        let now = self.now;
        let attempt = &mut self.nodes[node].attempts[place];
        let deadline = attempt.started.started_at + attempt.started.timeout;
        let (name, started_at) = (
            attempt.started.client_tx_id.clone(),
            attempt.started.started_at,
        );
        if now >= deadline {
            attempt.sent = true;
            let (outcome, _) = unknown();
            attempt.answer = Some((outcome, false));
            return;
        }
        let others = self.nodes.iter().flat_map(|node| &node.attempts);
        let waited_for = others
            .filter(|it| it.sent && it.answer.is_none())
            .any(|it| {
                it.started.client_tx_id == name && it.started.started_at + it.started.timeout > now
            });
        assert!(!waited_for, "{name} is sent twice at once");
        self.nodes[node].attempts[place].sent = true;
        let known = self.accepted.iter().find(|(one, _)| *one == name);
        self.endpoint.send(Request {
            rows: known.map_or(0, |(_, rows)| *rows),
            name,
            sent_at: self.now,
            started_at,
            deadline,
        });
    }

    /// The answer to a request, if somebody still waits for it.
    pub(super) fn answer(&mut self, request: &Request, answer: (Outcome, bool)) {
        let mut attempts = self.nodes.iter_mut().flat_map(|node| &mut node.attempts);
        let waiting = attempts.find(|attempt| {
            let started = &attempt.started;
            attempt.sent
                && attempt.answer.is_none()
                && (&started.client_tx_id, started.started_at)
                    == (&request.name, request.started_at)
        });
        if let Some(attempt) = waiting.filter(|_| self.now < request.deadline) {
            attempt.answer = Some(answer);
        }
    }

    fn settle(&mut self, node: usize, attempt: Attempt) {
        let Attempt {
            courier,
            sequence,
            started,
            answer,
            ..
        } = attempt;
        let (outcome, may_still_apply) = answer.expect("it has an answer");
        let operations = backends::data_source::wire::operations(&started.body);
        let never_left = matches!(outcome, Outcome::Unknown { .. }) && !may_still_apply;
        let settle = Command::Settle(Settle {
            source: CRM.to_owned(),
            epoch: courier.1,
            sequence,
            client_tx_id: started.client_tx_id.clone(),
            started_at: started.started_at,
            duration: Duration::from_millis(3),
            http_status: None,
            url: started.url.clone(),
            trigger: started.trigger,
            never_left,
            outcome,
            may_still_apply,
            excerpt: None,
            rows: operations
                .unwrap_or_default()
                .iter()
                .map(backends::operation::Operation::key)
                .collect(),
            unclear: Vec::new(),
            read_back: None,
            jitter: 0.5,
            certificate_expires_at: None,
        });
        let reply = self.fenced_run(courier.1, settle.clone());
        // Nobody heard that it is durable, and it is said again.
        let (_, append) = self.tables.run(self.now, settle);
        assert!(append.is_empty(), "settled twice");
        let end = match reply {
            Reply::Settled(Some(entry), source) if never_left => {
                End::NeverLeft(entry, source.inbox_revision)
            }
            Reply::Settled(entry, source) => End::Settled(entry, source),
            _ => End::Fenced,
        };
        self.nodes[node].end(courier, sequence, end);
    }

    /// Runs a command of an owner of this epoch: of an owner before it changes nothing.
    fn fenced_run(&mut self, epoch: i64, command: Command) -> Reply {
        let current = self.tables.source().epoch == epoch;
        let (reply, append) = self.tables.run(self.now, command);
        assert!(current || matches!(reply, Reply::Fenced) && append.is_empty());
        reply
    }
}

fn unknown() -> (Outcome, bool) {
    let error = backends::data_source::classify::AttemptError {
        class: "timeout".to_owned(),
        message: "no answer".to_owned(),
    };
    (Outcome::Unknown { error }, true)
}

/// See `window.sql` and `store/inbox.rs`.
fn waiting(entry: &InboxEntry) -> Waiting {
    let expires_at = entry.ends_at();
    let terms = entry.expires_at.map(|_| Terms {
        client_tx_id: entry.client_tx_id.clone(),
        expires_at,
        guards: Vec::new(),
    });
    let open_until = entry.open.map(|(_, deadline)| deadline);
    Waiting {
        sequence: entry.sequence,
        lanes: entry.lanes.clone(),
        weight: 0,
        holds_until: entry.may_apply_until.filter(|_| entry.dead),
        tried: entry.attempts > 0,
        due_at: entry.due_at.max(open_until.unwrap_or(entry.due_at)),
        failed_at: entry.failed_at,
        terms: terms.map(Arc::new),
        open_until,
        asked: entry.next_cause.is_some_and(Trigger::is_asked),
    }
}
