//! Three nodes, one source and its endpoint, one step at a time: leases and claims, windows, decisions,
//! requests that come late and answers that are lost. What a courier does with time and tasks is
//! replayed by hand; what it knows and decides is the real thing, on tables in memory.

mod endpoint;
mod node;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use backends::data_source::wire;
use backends::operation::{OnStale, Operation, OperationKind};
use proptest::prelude::*;
use serde_json::json;
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use uuid::Uuid;

use self::endpoint::{Endpoint, Mood};
use self::node::{Act, Node};
use crate::admit::Schema;
use crate::decide::{Accept, Command, Control, Operate, Operator, Reply, Target, Verb};
use crate::domain::{
    Commit, CommitId, CommitState, Participant, ParticipantKind, Route, SourceState,
};
use crate::in_memory::{CRM, Tables};

const NODES: usize = 3;

/// Rows of the source.
const ROWS: u8 = 3;

/// What happens next. What there is to choose from is counted round.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// A commit on these rows, a bit each, which is over after so many seconds, if it ever is.
    Accept(u8, Option<u16>),
    /// One that was accepted comes again.
    Again(usize),
    /// So many milliseconds pass.
    Wait(u32),
    /// A node does one of the things that there are to do; if that is to read, the database answers so
    /// many milliseconds later.
    Go(usize, u32),
    /// Something befalls a node.
    Node(usize, Act),
    /// A request arrives.
    Arrive(usize, Mood),
    /// An operator's verb on a commit that waits.
    Operate(u8, usize),
    /// An operator's hand on the source.
    Source(u8),
}

fn any_step() -> impl Strategy<Value = Step> {
    let pass = prop_oneof![
        6 => 0_u32..2_000,
        4 => 2_000_u32..30_000,
        1 => 30_000_u32..400_000,
    ];
    let rows = prop_oneof![4 => (0..ROWS).prop_map(|row| 1 << row), 1 => 1..1_u8 << ROWS];
    let ends = prop::option::weighted(0.2, 1_u16..900);
    let latency = prop_oneof![8 => Just(0_u32), 1 => 0..5_000_u32, 1 => 5_000..90_000_u32];
    let act = (0..NODES, node::any_act());
    let arrival = (0_usize..8, endpoint::any_mood());
    prop_oneof![
        5 => (rows, ends).prop_map(|(rows, ends)| Step::Accept(rows, ends)),
        1 => (0_usize..99).prop_map(Step::Again),
        6 => pass.prop_map(Step::Wait),
        60 => (0_usize..99, latency).prop_map(|(which, latency)| Step::Go(which, latency)),
        4 => act.prop_map(|(node, act)| Step::Node(node, act)),
        10 => arrival.prop_map(|(which, mood)| Step::Arrive(which, mood)),
        1 => (0_u8..4, 0_usize..99).prop_map(|(verb, which)| Step::Operate(verb, which)),
        1 => (0_u8..2).prop_map(Step::Source),
    ]
}

/// All there is.
struct World {
    /// By the clock of the database.
    now: OffsetDateTime,
    tables: Tables,
    /// Until when each node's lease lasts.
    leases: BTreeMap<Uuid, OffsetDateTime>,
    nodes: Vec<Node>,
    endpoint: Endpoint,
    schema: Arc<Schema>,
    /// Commits that were accepted, and their rows.
    accepted: Vec<(String, u8)>,
    /// Names given to nodes.
    named: u128,
}

impl World {
    fn new() -> Self {
        let document = json!({"models": {"airports": {
            "backing": {"dataSource": CRM},
            "schema": {"type": "object", "properties": {"n": {"type": "integer"}}},
        }}});
        let schema = Schema::compile(1, document.to_string().as_bytes());
        let mut world = Self {
            now: OffsetDateTime::UNIX_EPOCH,
            tables: Tables::new(),
            leases: BTreeMap::new(),
            nodes: Vec::new(),
            endpoint: Endpoint::default(),
            schema: Arc::new(schema.expect("the document is a schema")),
            accepted: Vec::new(),
            named: 0,
        };
        world.nodes = (0..NODES).map(|_| Node::new(world.name())).collect();
        world
    }

    fn name(&mut self) -> Uuid {
        self.named += 1;
        Uuid::from_u128(self.named)
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Accept(rows, ends) => self.accept(rows, ends),
            Step::Again(which) => self.again(which),
            Step::Wait(milliseconds) => {
                self.now += Duration::from_millis(milliseconds.into());
                for node in 0..NODES {
                    self.act(node, Act::Tend);
                }
            }
            Step::Go(which, latency) => self.go(which, latency),
            Step::Node(node, act) => self.act(node, act),
            Step::Arrive(which, mood) => self.arrive(which, mood),
            Step::Operate(verb, which) => self.operate(verb, which),
            Step::Source(verb) => self.source(verb),
        }
    }

    fn accept(&mut self, rows: u8, ends: Option<u16>) {
        let name = format!("c{}", self.accepted.len());
        let ends = ends.map(|after| self.now + Duration::from_secs(after.into()));
        let command = commit(&name, rows, ends, &self.schema);
        match self.tables.run(self.now, command).0 {
            Reply::Queued(..) => self.accepted.push((name, rows)),
            Reply::Refused(refusal) => assert_eq!(refusal.reason, "source_disabled"),
            reply => panic!("a new commit: {reply:?}"),
        }
    }

    fn again(&mut self, which: usize) {
        let Some((name, rows)) = around(&self.accepted, which) else {
            return;
        };
        let command = commit(name, *rows, None, &self.schema);
        let (reply, append) = self.tables.run(self.now, command);
        assert!(matches!(reply, Reply::Replay(_)) && append.is_empty());
    }

    /// Nothing is done by force: what is may be applied all the same, and says so.
    fn operate(&mut self, verb: u8, which: usize) {
        let waiting: Vec<_> = self.tables.inbox().into_values().collect();
        let Some(entry) = around(&waiting, which) else {
            return;
        };
        let target = Target {
            client_tx_id: entry.client_tx_id.clone(),
            sequence: entry.sequence,
        };
        let verb = match verb {
            0 | 1 => Verb::Retry,
            2 => Verb::Recover(None),
            _ => Verb::Discard {
                reason: String::new(),
                force: false,
            },
        };
        let operate = Operate {
            source: CRM.to_owned(),
            targets: vec![target],
            verb,
            by: Operator {
                key_id: Uuid::nil(),
                actor: String::new(),
            },
        };
        self.tables.run(self.now, Command::Operate(operate));
    }

    fn source(&mut self, verb: u8) {
        let (crm, reason) = (CRM.to_owned(), String::new());
        let control = match (self.tables.source().state, verb) {
            (SourceState::Paused, _) => Control::ResumeSource(crm),
            (SourceState::Disabled, _) => Control::EnableSource(crm),
            (_, 0) => Control::PauseSource(crm, reason),
            (_, _) => Control::DisableSource(crm, reason),
        };
        self.tables.run(self.now, Command::Control(control));
    }

    /// Faults end: one node is left, and whatever it sends arrives and is applied.
    fn drain(&mut self) {
        for node in 0..NODES {
            self.act(node, Act::Kill);
        }
        if matches!(
            self.tables.source().state,
            SourceState::Paused | SourceState::Disabled
        ) {
            self.source(0);
        }
        for _ in 0..5_000 {
            if self.tables.source().pending == 0 {
                return;
            }
            self.act(0, Act::Tend);
            while self.work_on(0) {
                self.answer_all();
            }
            self.now += Duration::from_secs(1);
        }
        panic!("it never ends: {:#?}", self.tables.inbox());
    }

    /// What the log says of each row is what the endpoint did, in its order. Of a commit that was dead
    /// and took a new place nobody knows when it was applied: its rows are read again.
    fn log_is_true(&self) {
        let confirmed = |name: &str| {
            let standing = self.tables.standing(name);
            standing.is_some_and(|(state, _)| state == CommitState::Confirmed)
                && !self.tables.reentered(name)
        };
        for row in 0..ROWS {
            let id = row.to_string();
            let told = self
                .tables
                .log
                .iter()
                .filter(|one| one.delta.change.id == id);
            let told = told.filter_map(|one| one.client_tx_id.as_deref());
            let told: Vec<_> = told.filter(|name| confirmed(name)).collect();
            let done = self.endpoint.executed(row);
            let done: Vec<_> = done.filter(|name| confirmed(name)).collect();
            assert_eq!(told, done, "of row {row}");
        }
    }
}

/// The element of this number, counted round.
fn around<T>(all: &[T], which: usize) -> Option<&T> {
    all.get(which.checked_rem(all.len())?)
}

/// The ids of these rows.
fn ids(rows: u8) -> impl Iterator<Item = u8> {
    (0..ROWS).filter(move |row| rows >> row & 1 == 1)
}

fn commit(
    name: &str,
    rows: u8,
    expires_at: Option<OffsetDateTime>,
    schema: &Arc<Schema>,
) -> Command {
    let operations: Vec<_> = ids(rows)
        .map(|row| Operation {
            kind: OperationKind::Update,
            model: "airports".to_owned(),
            id: row.to_string(),
            input: json!({"n": 1}).as_object().cloned().unwrap_or_default(),
            transaction_id: None,
            read_at: None,
            on_stale: OnStale::Reject,
        })
        .collect();
    let body = wire::commit_body(name, "00", &operations, &wire::Scope::default());
    let commit = Commit {
        client_tx_id: name.to_owned(),
        id: CommitId(Uuid::nil()),
        fingerprint: Sha256::digest(format!("{operations:?}")).into(),
        participant: Participant {
            id: "ann".to_owned(),
            kind: ParticipantKind::User,
        },
        operations,
        assigned: Vec::new(),
        route: Route::Source(CRM.to_owned()),
        required_sync_groups: Vec::new(),
        traceparent: None,
        expires_at,
    };
    Command::Accept(Accept {
        commit: Arc::new(commit),
        schema: Arc::clone(schema),
        body: Some(body.into()),
        weight: 0,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    /// Whatever nodes, the endpoint, operators and the time do: one outcome for each commit; nothing is
    /// sent or final while another attempt at its rows may still be applied; rows change in the order of
    /// acceptance, and the log says what was done; an owner before changes nothing; all comes to an end.
    #[test]
    fn whatever_nodes_and_endpoint_do_rows_change_once_and_in_order(
        steps in prop::collection::vec(any_step(), 1..500)
    ) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        world.log_is_true();
        world.drain();
        world.log_is_true();
    }
}
