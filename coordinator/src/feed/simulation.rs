//! A feed whose events become visible late, come twice, and are pushed as well, and its readers one
//! after another: pages that are read and lost, taken in by a reader that was replaced, read again
//! after a reset. What a reader does with time and requests is replayed by hand; cursors, sweeps and
//! decisions are the real thing, on tables in memory.

use std::collections::BTreeSet;
use std::time::Duration;

use backends::operation::{Change, OperationKind};
use proptest::prelude::*;
use serde_json::json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::history::{History, Recent};
use super::trail::{Next, Sweep, Trail};
use crate::decide::{Command, Control, ExternalEvent, Feed, Reply, Step, TakeEvents, Taken, lane};
use crate::in_memory::{CRM, Tables, organization};

const LAG: Duration = Duration::from_mins(1);

/// An event of the source, at its place in the feed.
#[derive(Clone, Debug)]
struct Told {
    id: String,
    row: u8,
    /// What the row became.
    n: usize,
    visible_at: u64,
}

/// How the source tells of a change: so long after the one before, on this row, visible so late, or
/// whether it tells of the one before again.
type Telling = (u64, u8, u64, bool);

fn feed(tellings: &[Telling]) -> Vec<Told> {
    let (mut begun, mut told) = (0, Vec::<Told>::new());
    for (gap, row, late, again) in tellings {
        begun += gap;
        let before = told.last().filter(|_| *again);
        let mut one = before.cloned().unwrap_or_else(|| Told {
            id: format!("e{}", told.len()),
            row: *row,
            n: told.len(),
            visible_at: 0,
        });
        // A row's later event does not become visible before its earlier one.
        let before = told.iter().filter(|it| it.row == one.row);
        let before = before.map(|it| it.visible_at).max();
        one.visible_at = before.unwrap_or(0).max(begun + late);
        told.push(one);
    }
    told
}

/// What happens next.
#[derive(Clone, Copy, Debug)]
enum Turn {
    Wait(u64),
    /// The reader reads a page: behind the newest cursor, or of its sweep.
    Poll,
    Sweep,
    /// It is pushed an event.
    Push(usize),
    /// A reader takes in the page that it holds: the one there is, or one that was replaced.
    Take(usize),
    /// The page is lost.
    Lose,
    /// The reader sees how the feed stands, between two pages.
    Look,
    /// Another one takes over.
    Replace,
    /// An operator has it read anew, from its start or from the durable cursor.
    Reset(bool),
}

fn any_turn() -> impl Strategy<Value = Turn> {
    prop_oneof![
        6 => (1_u64..30).prop_map(Turn::Wait),
        8 => Just(Turn::Poll),
        8 => Just(Turn::Sweep),
        2 => any::<usize>().prop_map(Turn::Push),
        16 => prop_oneof![9 => Just(0_usize), 1 => 1_usize..9].prop_map(Turn::Take),
        1 => Just(Turn::Lose),
        1 => Just(Turn::Look),
        1 => Just(Turn::Replace),
        1 => any::<bool>().prop_map(Turn::Reset),
    ]
}

/// A page on its way into the log.
struct Held {
    events: Vec<ExternalEvent>,
    behind: bool,
    floor: i64,
    step: Step,
    /// How the sweep goes on that it is of.
    sweep: Option<Sweep>,
    /// When it was asked for, if it ends the feed.
    ended: Option<OffsetDateTime>,
}

struct Reader {
    epoch: i64,
    feed: Option<Feed>,
    /// The feed was reset, and how it stands is seen before anything is asked for.
    stale: bool,
    sweep: Option<Sweep>,
    held: Option<Held>,
    history: History,
    recent: Recent,
    /// When the sweep began.
    swept_from: OffsetDateTime,
}

impl Reader {
    /// How the feed stands after a step, unless it was reset meanwhile.
    fn stands(&mut self, step: &Step, feed: Feed) {
        let stood = self.feed.as_ref().map(|feed| feed.trail.clone());
        if step.leads(&stood.unwrap_or_default(), &feed.trail) {
            self.feed = Some(feed);
        } else {
            self.stale = true;
        }
    }
}

struct World {
    now: u64,
    told: Vec<Told>,
    page: usize,
    /// What each row became, as far as that was pushed.
    pushed: [usize; 4],
    tables: Tables,
    /// The newest is the one there is.
    readers: Vec<Reader>,
}

impl World {
    fn new(told: Vec<Told>, page: usize) -> Self {
        let mut world = Self {
            now: 0,
            told,
            page,
            pushed: [0; 4],
            tables: Tables::new(),
            readers: Vec::new(),
        };
        world.replace();
        world
    }

    fn at(&self) -> OffsetDateTime {
        OffsetDateTime::UNIX_EPOCH + Duration::from_secs(self.now)
    }

    fn reader(&mut self) -> &mut Reader {
        self.readers.last_mut().expect("there is a reader")
    }

    fn turn(&mut self, turn: Turn) {
        if self.reader().stale {
            self.look();
        }
        match turn {
            Turn::Wait(seconds) => self.now += seconds,
            Turn::Poll => self.poll(),
            Turn::Sweep => self.sweep(),
            Turn::Push(which) => self.push(which),
            Turn::Take(before) => {
                let newest = self.readers.len() - 1;
                self.take(newest.saturating_sub(before));
            }
            Turn::Lose => self.reader().held = None,
            Turn::Look => self.look(),
            Turn::Replace => self.replace(),
            Turn::Reset(whole) => {
                let feed = self.tables.feed().filter(|_| !whole);
                let cursor = feed.and_then(|feed| feed.trail.durable().map(str::to_owned));
                let reset = Control::ResetFeed(CRM.to_owned(), cursor);
                self.tables.run(self.at(), Command::Control(reset));
            }
        }
    }

    fn look(&mut self) {
        let feed = self.tables.feed().cloned();
        let reader = self.reader();
        if reader.held.is_some() {
            return;
        }
        if reader.feed != feed {
            reader.history.forget_all();
            reader.sweep = None;
        }
        reader.feed = feed;
        reader.stale = false;
    }

    fn replace(&mut self) {
        let claim = Control::ClaimSource {
            source: CRM.to_owned(),
            node: Uuid::from_u128(self.readers.len() as u128),
            gone: self.tables.source().owner,
        };
        let reply = self.tables.run(self.at(), Command::Control(claim)).0;
        let Reply::Claimed(source) = reply else {
            panic!("not claimed: {reply:?}");
        };
        self.readers.push(Reader {
            epoch: source.epoch,
            feed: self.tables.feed().cloned(),
            stale: false,
            sweep: None,
            held: None,
            history: History::default(),
            recent: Recent::default(),
            swept_from: OffsetDateTime::UNIX_EPOCH,
        });
    }

    /// The places of what is visible behind a cursor, and the cursor that goes with them.
    fn read(&self, cursor: Option<&str>) -> (Vec<ExternalEvent>, Option<String>) {
        let after = place(cursor);
        let visible = (after..self.told.len()).filter(|at| self.told[*at].visible_at <= self.now);
        let page: Vec<usize> = visible.take(self.page).collect();
        let next = page.last().map(|at| (at + 1).to_string());
        let events = page.into_iter().map(|at| event(&self.told[at], None));
        (events.collect(), next)
    }

    fn poll(&mut self) {
        if self.reader().held.is_some() {
            return;
        }
        let trail = self.reader().feed.as_ref().map(|feed| feed.trail.clone());
        let from = trail.and_then(|trail| trail.newest().map(str::to_owned));
        let (events, to) = self.read(from.as_deref());
        let (now, more) = (self.at(), events.len() == self.page);
        let reader = self.reader();
        reader.held = Some(Held {
            events,
            behind: false,
            floor: reader.history.floor_of_poll(LAG),
            step: Step::Newest { from, to },
            sweep: None,
            ended: (!more).then_some(now),
        });
    }

    fn sweep(&mut self) {
        let now = self.at();
        let reader = self.reader();
        let Some(feed) = reader.feed.clone().filter(|_| reader.held.is_none()) else {
            return;
        };
        let mut sweep = reader.sweep.take();
        if sweep.is_none() {
            reader.swept_from = now;
        }
        let sweep = sweep.get_or_insert_with(|| Sweep::begin(&feed.trail));
        let (events, next) = self.read(sweep.cursor());
        let swept = sweep.page(&feed.trail, (now, LAG), next.as_deref());
        assert_ne!(swept.next, Next::Circle);
        let from = feed.trail.durable().map(str::to_owned);
        let step = swept
            .durable
            .map_or(Step::Stay, |to| Step::Durable { from, to });
        let goes_on = (swept.next == Next::Page)
            .then(|| std::mem::replace(sweep, Sweep::begin(&Trail::default())));
        let reader = self.reader();
        reader.held = Some(Held {
            events,
            behind: true,
            floor: reader.history.floor_of_sweep(LAG),
            step,
            sweep: goes_on,
            ended: None,
        });
    }

    /// What became visible lately, in the order of each row, and not all of it.
    fn push(&mut self, which: usize) {
        let (now, lag) = (self.now, LAG.as_secs());
        let fresh = |it: &&Told| it.visible_at <= now && now <= it.visible_at + lag;
        let next = |it: &&Told| it.n >= self.pushed[usize::from(it.row)];
        let fresh: Vec<_> = self.told.iter().filter(fresh).filter(next).collect();
        let Some(told) = fresh.get(which % fresh.len().max(1)) else {
            return;
        };
        let (row, n) = (usize::from(told.row), told.n);
        let mut pushed = event(told, None);
        pushed.pushed = i64::try_from(n).ok();
        let now = self.at();
        let reader = self.reader();
        if reader.held.is_none() {
            self.pushed[row] = n;
            let reader = self.reader();
            reader.held = Some(Held {
                events: vec![pushed],
                behind: false,
                floor: reader.history.floor(now - LAG),
                step: Step::Stay,
                sweep: None,
                ended: None,
            });
        }
    }

    fn take(&mut self, which: usize) {
        let now = self.at();
        let reader = &mut self.readers[which];
        let Some(held) = &mut reader.held else {
            return;
        };
        let knows =
            |event: &ExternalEvent| event.id.as_ref().is_some_and(|id| reader.recent.knows(id));
        let again = held.behind || held.events.iter().any(knows);
        for event in &mut held.events {
            let row = event.change.as_ref().map(super::take::row_of);
            event.known = row
                .ok()
                .filter(|_| !again)
                .and_then(|row| reader.history.own(&row, event.pushed.is_some()));
        }
        let command = Command::TakeEvents(TakeEvents {
            source: CRM.to_owned(),
            epoch: reader.epoch,
            schema_version: 1,
            events: held.events.clone(),
            behind: held.behind,
            floor: held.floor,
            step: held.step.clone(),
            caught_up: false,
            unread: BTreeSet::new(),
        });
        let current = self.tables.source().epoch == reader.epoch;
        let (reply, append) = self.tables.run(now, command);
        match reply {
            Reply::Taken(taken) => {
                assert!(current);
                self.took(which, *taken, again);
            }
            Reply::Fenced => {
                assert!(!current && append.is_empty());
                reader.held = None;
            }
            reply => panic!("not taken: {reply:?}"),
        }
    }

    fn took(&mut self, which: usize, taken: Taken, again: bool) {
        let unclear: BTreeSet<usize> = taken.unclear.iter().copied().collect();
        let truth: Vec<usize> = (0..4).map(|row| self.truth(row)).collect();
        let reader = &mut self.readers[which];
        let step = reader
            .held
            .as_ref()
            .map_or(Step::Stay, |held| held.step.clone());
        reader.history.position(taken.now, taken.last_sync_id);
        reader.stands(&step, taken.feed);
        let events = reader.held.iter().flat_map(|held| &held.events);
        let loaded = events.filter(|event| event.loaded);
        let loaded: Vec<_> = loaded
            .filter_map(|event| event.change.as_ref().ok().map(super::take::row_of))
            .collect();
        let mut held = reader.held.iter().flat_map(|held| &held.events);
        let pushed = held.any(|event| event.pushed.is_some());
        // What was read again, or loaded, may be of later events than those that polls bring next.
        for (row, sync_id) in taken.changed {
            if again || loaded.contains(&row) {
                reader.history.forget(&row);
            } else {
                reader.history.changed(row, sync_id, pushed);
            }
        }
        let Some(mut held) = reader.held.take() else {
            return;
        };
        let mut left = Vec::new();
        for (place, event) in held.events.into_iter().enumerate() {
            match (event.change, unclear.contains(&place)) {
                (Ok(change), true) => {
                    let row = change.id.parse::<u8>().expect("a row's id is a number");
                    let change = change_of(row, truth[usize::from(row)]);
                    left.push(ExternalEvent {
                        change: Ok(change),
                        loaded: true,
                        ..event
                    });
                }
                _ => reader.recent.note(event.id.expect("it has an id")),
            }
        }
        if left.is_empty() {
            if held.behind {
                if held.sweep.is_none() {
                    reader.history.swept(reader.swept_from);
                }
                reader.sweep = held.sweep;
            }
            if let Some(began) = held.ended {
                reader.history.polled(began);
            }
            return;
        }
        held.events = left;
        reader.held = Some(held);
    }

    /// What the source holds.
    fn truth(&self, row: u8) -> usize {
        let visible = self
            .told
            .iter()
            .filter(|it| it.row == row && it.visible_at <= self.now);
        visible.map(|it| it.n).max().unwrap_or(0)
    }

    /// Whatever is at or before the durable cursor was taken in.
    fn nothing_is_passed_over(&self) {
        let durable = self.tables.feed().and_then(|feed| feed.trail.durable());
        let passed = &self.told[..place(durable)];
        for told in passed {
            assert!(
                self.tables.knows_event(&told.id),
                "{} was passed over",
                told.id
            );
        }
    }

    /// Reads on until nothing can come any more.
    fn drain(&mut self) {
        self.turn(Turn::Lose);
        self.look();
        for _ in 0..1_000 {
            self.turn(Turn::Lose);
            for turn in [
                Turn::Poll,
                Turn::Take(0),
                Turn::Take(0),
                Turn::Sweep,
                Turn::Take(0),
                Turn::Take(0),
            ] {
                self.turn(turn);
            }
            self.nothing_is_passed_over();
            self.now += 10;
            let feed = self.tables.feed();
            let durable = feed.and_then(|feed| feed.trail.durable());
            if place(durable) == self.told.len() {
                return;
            }
        }
        panic!("it never settles: {:?}", self.tables.feed());
    }
}

/// How many events stand at or before a cursor.
fn place(cursor: Option<&str>) -> usize {
    cursor.map_or(0, |cursor| cursor.parse().expect("our cursors are numbers"))
}

fn change_of(row: u8, n: usize) -> Change {
    Change {
        operation: None,
        kind: OperationKind::Update,
        model: "airports".to_owned(),
        id: row.to_string(),
        row: Some(json!({"id": row.to_string(), "n": n}).try_into().unwrap()),
        transaction_id: None,
    }
}

fn event(told: &Told, known: Option<i64>) -> ExternalEvent {
    ExternalEvent {
        id: Some(told.id.clone()),
        change: Ok(change_of(told.row, told.n)),
        bare: false,
        loaded: false,
        lane: lane(&organization(), "airports", &told.row.to_string()),
        echoes: Vec::new(),
        again: false,
        known,
        pushed: None,
    }
}

proptest! {
    /// Whatever is late, twice, pushed, lost or reset, and whoever reads: no cursor stands behind what was
    /// not taken in, each event is in the log once, and the log ends on what the source holds.
    #[test]
    fn every_event_is_taken_in_once_whatever_happens_to_its_readers(
        tellings in prop::collection::vec(
            (0_u64..20, 0_u8..4, 0_u64..=60, prop::bool::weighted(0.1)), 1..40
        ),
        page in 1_usize..6,
        turns in prop::collection::vec(any_turn(), 1..300),
    ) {
        let mut world = World::new(feed(&tellings), page);
        for turn in turns {
            world.turn(turn);
            world.nothing_is_passed_over();
        }
        world.drain();
        let ids: BTreeSet<_> = world.told.iter().map(|it| it.id.as_str()).collect();
        prop_assert_eq!(world.tables.log.len(), ids.len());
        for row in 0..4 {
            let id = row.to_string();
            let of_row = world.tables.log.iter().filter(|one| one.delta.change.id == id);
            let told: Vec<_> = of_row
                .map(|one| one.delta.change.row.as_ref().and_then(|row| row["n"].as_u64()))
                .collect();
            prop_assert!(told.is_sorted(), "told of {} as {:?}", id, told);
            let last = world.tables.log.iter().rfind(|one| one.delta.change.id == id);
            let last = last.and_then(|one| one.delta.change.row.clone());
            let held = change_of(row, world.truth(row)).row;
            prop_assert_eq!(last, held.filter(|_| world.told.iter().any(|it| it.row == row)));
        }
    }
}
