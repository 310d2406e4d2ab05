//! Taking in changes made outside: each once, in the order in which they come, beside our own.

mod command;

use std::collections::HashSet;
use std::time::Duration;

use backends::operation::{Change, RowKey};

use super::append::{Append, DeltaRow, Quarantined};
use super::state::{Feed, Source, State, Touched};
use super::{Reply, groups, versions};
use crate::domain::{CommitState, Delta, RequestKind, Trigger};

pub use command::{EchoOf, ExternalEvent, Misfit, Step, TakeEvents, Taken};

pub(super) fn touch(take: &TakeEvents, touched: &mut Touched) {
    touched.sources.push(take.source.clone());
    touched.feeds.push(take.source.clone());
    for event in &take.events {
        if let Some(id) = &event.id {
            touched.events.push((take.source.clone(), id.clone()));
        }
        if let Ok(change) = &event.change {
            touched.versions.push(key(change));
            touched.groups.push(key(change));
        }
        for echo in &event.echoes {
            touched.commits.push(echo.client_tx_id.clone());
            if let Some(sequence) = echo.sequence {
                touched.entry(&take.source, sequence, false);
            }
        }
    }
}

fn key(change: &Change) -> RowKey {
    RowKey {
        model: change.model.clone(),
        id: change.id.clone(),
    }
}

pub(super) fn take(state: &mut State, append: &mut Append, take: &TakeEvents) -> Reply {
    let Some(source) = state.sources.get(&take.source).cloned() else {
        return Reply::Fenced;
    };
    if source.epoch != take.epoch {
        return Reply::Fenced;
    }
    if state.head.schema_version != take.schema_version {
        return Reply::SchemaMoved(state.head.schema_version);
    }
    if has_moved(state, take) {
        return Reply::Moved;
    }
    let before = state.feeds.get(&take.source).cloned();
    let mut taking = Taking {
        feed: before.clone().unwrap_or_else(|| Feed::from(None)),
        state,
        append,
        take,
        source,
        duplicates: 0,
        written: HashSet::new(),
        deferred: HashSet::new(),
        taken: Vec::new(),
        unclear: Vec::new(),
        urged: Vec::new(),
        denied: Vec::new(),
        new: 0,
    };
    for place in 0..take.events.len() {
        taking.event(place);
    }
    taking.append.read_again(&take.source, &take.unread);
    if taking.unclear.is_empty() {
        taking.step();
    }
    Reply::Taken(Box::new(taking.done(before.as_ref())))
}

/// Whether a commit that an event names does not stand where it was looked up: an operator had it take
/// a new place, and neither that place nor the entry there was read.
fn has_moved(state: &State, take: &TakeEvents) -> bool {
    let mut echoes = take.events.iter().flat_map(|event| &event.echoes);
    echoes.any(|echo| {
        state.ledger.get(&echo.client_tx_id).is_some_and(|entry| {
            entry.state == CommitState::Queued
                && entry.source.as_ref() == Some(&take.source)
                && entry.sequence != echo.sequence
        })
    })
}

struct Taking<'a> {
    state: &'a mut State,
    append: &'a mut Append,
    take: &'a TakeEvents,
    source: Source,
    feed: Feed,
    duplicates: i64,
    /// Rows that this command changed.
    written: HashSet<RowKey>,
    /// Rows that must be loaded first.
    deferred: HashSet<RowKey>,
    taken: Vec<(RowKey, i64)>,
    unclear: Vec<usize>,
    urged: Vec<i64>,
    denied: Vec<String>,
    new: usize,
}

/// What an event is to us.
enum Origin {
    /// Somebody else's change.
    External,
    /// A confirmed commit come back.
    Echo,
    /// A commit come back whose answer was lost.
    Lost(i64),
    /// A rejected commit come back.
    Denied(String),
}

impl Taking<'_> {
    fn event(&mut self, place: usize) {
        let event = &self.take.events[place];
        let name = event.id.clone().map(|id| (self.take.source.clone(), id));
        if name
            .as_ref()
            .is_some_and(|name| self.state.events.contains_key(name))
        {
            self.duplicates += i64::from(!event.again);
            self.pushed_done(event);
            return;
        }
        match &event.change {
            Err(misfit) => {
                if let Some((source, id)) = name.clone() {
                    let misfit = misfit.clone();
                    self.append
                        .quarantined
                        .push(Quarantined { source, id, misfit });
                    self.feed.quarantined += 1;
                }
            }
            Ok(change) => match self.origin(event) {
                Origin::Echo => self.feed.echoes += 1,
                Origin::Lost(sequence) => {
                    self.feed.echoes += 1;
                    self.urge(sequence);
                }
                origin @ (Origin::External | Origin::Denied(_)) => {
                    if self.is_unclear(event, change) {
                        self.unclear.push(place);
                        return;
                    }
                    if let Origin::Denied(client_tx_id) = origin {
                        self.denied.push(client_tx_id);
                    }
                    self.append(change);
                    self.feed.taken += i64::from(event.id.is_some());
                }
            },
        }
        self.note_lateness(place);
        self.pushed_done(event);
        if let Some(name) = name {
            self.new += 1;
            self.feed.last_event_at = Some(self.state.now);
            self.append.events.insert(name.clone());
            self.state.events.insert(name, self.state.now);
        }
    }

    /// An echo names a commit of this source, and its row is one of the commit's.
    fn origin(&self, event: &ExternalEvent) -> Origin {
        for echo in &event.echoes {
            let entry = self.state.ledger.get(&echo.client_tx_id);
            let Some(entry) = entry.filter(|it| it.source.as_ref() == Some(&self.take.source))
            else {
                continue;
            };
            match (entry.state, echo.member) {
                (CommitState::Confirmed, Some(true)) => return Origin::Echo,
                (CommitState::Queued, Some(true)) => {
                    return entry.sequence.map_or(Origin::Echo, Origin::Lost);
                }
                (CommitState::Rejected, None | Some(true)) => {
                    return Origin::Denied(echo.client_tx_id.clone());
                }
                _ => {}
            }
        }
        Origin::External
    }

    /// Whether nobody can tell if the event or a change of ours came first: then what the source holds
    /// now decides.
    fn is_unclear(&mut self, event: &ExternalEvent, change: &Change) -> bool {
        let key = key(change);
        if event.loaded {
            return false;
        }
        if self.deferred.contains(&key) {
            return true;
        }
        let last = self.state.versions.get(&key).map_or(0, |row| row.sync_id);
        let ours =
            last > self.take.floor && event.known != Some(last) && !self.written.contains(&key);
        if event.bare || ours {
            self.deferred.insert(key);
            return true;
        }
        false
    }

    /// The answer to a commit was lost: it is sent again, now, and what is answered then is its delta.
    fn urge(&mut self, sequence: i64) {
        let key = (self.take.source.clone(), sequence);
        let Some(entry) = self.state.inbox.get_mut(&key) else {
            return;
        };
        entry.echoed = true;
        entry.next_cause = Some(Trigger::Echo);
        entry.due_at = self.state.now;
        // Its courier may have let it go: it reads the inbox anew.
        if self.urged.is_empty() {
            self.source.inbox_revision += 1;
        }
        if entry.dead {
            entry.dead = false;
            self.source.dead -= 1;
            self.source.pending += 1;
            self.append.dead -= 1;
            if let Some(ledger) = self.state.ledger.get_mut(&entry.client_tx_id) {
                ledger.dead = false;
                self.append
                    .settled
                    .insert(ledger.client_tx_id.clone(), ledger.clone());
            }
        }
        self.append.put_source(&self.source, false);
        self.state
            .sources
            .insert(self.source.id.clone(), self.source.clone());
        self.urged.push(sequence);
        self.append.inbox_changed.insert(key, entry.clone());
    }

    fn append(&mut self, change: &Change) {
        self.state.head.last_sync_id += 1;
        let sync_id = self.state.head.last_sync_id;
        let key = key(change);
        self.state.models_in_use.insert(key.model.clone());
        versions::changed(self.state, self.append, key.clone(), sync_id);
        let membership = groups::of_source_change(self.state, self.append, change);
        self.append.deltas.push(DeltaRow {
            delta: Delta {
                sync_id,
                change: change.clone(),
                stale: false,
            },
            client_tx_id: None,
            participant: None,
            membership,
        });
        self.written.insert(key.clone());
        self.taken.push((key, sync_id));
    }

    /// An event that is new in front of one that was seen became visible after that one.
    fn note_lateness(&mut self, place: usize) {
        if !self.take.behind {
            return;
        }
        let later = self.take.events[place + 1..].iter().find_map(|event| {
            let name = (self.take.source.clone(), event.id.clone()?);
            self.state.events.get(&name).copied()
        });
        if let Some(seen_at) = later {
            let late = Duration::try_from(self.state.now - seen_at).unwrap_or_default();
            self.feed.largest_lateness = self.feed.largest_lateness.max(late);
        }
    }

    fn pushed_done(&mut self, event: &ExternalEvent) {
        if let Some(position) = event.pushed {
            let name = (self.take.source.clone(), position);
            self.append.pushed_done.insert(name);
        }
    }

    fn step(&mut self) {
        let now = self.state.now;
        let trail = &mut self.feed.trail;
        match &self.take.step {
            Step::Stay => {}
            Step::Newest { from, to } => {
                if let Some(to) = to
                    && trail.newest() == from.as_deref()
                    && from.as_ref() != Some(to)
                {
                    trail.see(to.clone(), now, self.source.settings.feed_lag);
                }
            }
            Step::Durable { from, to } => {
                if trail.durable() == from.as_deref() {
                    trail.reach(to);
                }
            }
            Step::Stop(state) => self.feed.state = *state,
            Step::Reread(positions) => {
                let source = &self.take.source;
                let done = positions.iter().map(|position| (source.clone(), *position));
                self.append.rereads_done.extend(done);
            }
        }
    }

    /// Writes the feed if it has news; a poll that brought none writes nothing.
    fn done(self, before: Option<&Feed>) -> Taken {
        let Self {
            state,
            append,
            take,
            mut feed,
            ..
        } = self;
        let polled = matches!(take.step, Step::Newest { .. } | Step::Durable { .. }) || take.behind;
        let pushed = take.events.iter().any(|event| event.pushed.is_some());
        let written = before != Some(&feed) || !self.taken.is_empty() || pushed;
        if written {
            feed.duplicates += self.duplicates;
            if take.caught_up {
                feed.caught_up_at = Some(state.now);
            }
            if polled {
                let kind = (take.source.clone(), RequestKind::Events);
                append.requests.entry(kind).or_default().success_at = Some(state.now);
            }
            append.feeds.insert(take.source.clone(), feed.clone());
            state.feeds.insert(take.source.clone(), feed.clone());
        }
        Taken {
            now: state.now,
            last_sync_id: state.head.last_sync_id,
            feed,
            new: self.new,
            unclear: self.unclear,
            changed: self.taken,
            urged: self.urged,
            denied: self.denied,
            written: written && polled,
        }
    }
}
