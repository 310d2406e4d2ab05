//! Taking in a batch of events: judged, in the gaps between attempts at their rows, each once.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use backends::operation::{Change, RowKey};
use tokio::time::Instant;

use super::judge::{Judge, Told};
use super::{FeedReader, Trouble, tell_denied};
use crate::admit::Schema;
use crate::courier::flight::Claim;
use crate::decide::{Command, EchoOf, ExternalEvent, Reply, Step, TakeEvents, Taken, lane};
use crate::store::feeds::Named;

/// Events in one command at most.
const BATCH: usize = 500;

/// Times that a batch is judged anew before it waits.
const JUDGED_ANEW: usize = 5;

/// Why events must be judged anew.
pub(super) enum Anew {
    /// This schema is active instead of the one that they were judged by.
    Schema(i32),
    /// A commit that one of them names does not stand where it was looked up.
    Moved,
}

/// Events that came together.
pub(super) struct Batch {
    /// In their order.
    pub(super) events: Vec<Raw>,
    /// See [`TakeEvents::behind`].
    pub(super) behind: bool,
    /// See [`TakeEvents::floor`].
    pub(super) floor: i64,
    /// What becomes of the feed when all are taken in.
    pub(super) step: Step,
    /// See [`TakeEvents::caught_up`].
    pub(super) caught_up: bool,
}

/// An event as it came.
pub(super) struct Raw {
    pub(super) told: Told,
    /// Its place among the pushed events.
    pub(super) pushed: Option<i64>,
}

impl Raw {
    pub(super) fn polled(told: Told) -> Self {
        Self { told, pushed: None }
    }
}

/// What all commands of a batch have in common.
#[derive(Clone)]
pub(super) struct Terms {
    pub(super) schema_version: i32,
    pub(super) behind: bool,
    /// Some of the events were taken in before: a new one may be older than they are.
    pub(super) again: bool,
    pub(super) floor: i64,
    pub(super) step: Step,
    pub(super) caught_up: bool,
}

impl FeedReader {
    /// Takes in all events of a batch; how many were new.
    pub(super) async fn take(&mut self, batch: Batch) -> Result<usize, Trouble> {
        let mut new = 0;
        let mut chunks = batch.events.chunks(BATCH).peekable();
        loop {
            let chunk = chunks.next().unwrap_or_default();
            let last = chunks.peek().is_none();
            let terms = Terms {
                schema_version: 0,
                behind: batch.behind,
                again: batch.behind,
                floor: batch.floor,
                step: if last { batch.step.clone() } else { Step::Stay },
                caught_up: batch.caught_up && last,
            };
            new += self.chunk(chunk, terms).await?;
            if last {
                return Ok(new);
            }
        }
    }

    async fn chunk(&mut self, raws: &[Raw], mut terms: Terms) -> Result<usize, Trouble> {
        let mut schema = self.tools.schemas.latest(&self.organization).await?;
        for _ in 0..JUDGED_ANEW {
            terms.schema_version = schema.as_ref().map_or(0, |schema| schema.version);
            let events = self.judged(raws, schema.as_deref()).await?;
            let mut ids = events.iter().filter_map(|event| event.id.as_ref());
            terms.again |= ids.any(|id| self.recent.knows(id));
            match self.events(events, &terms, schema.as_deref()).await? {
                Ok(new) => return Ok(new),
                Err(Anew::Moved) => {}
                Err(Anew::Schema(version)) => {
                    let newer = self
                        .tools
                        .schemas
                        .refresh(&self.organization, version)
                        .await?;
                    schema = Some(newer);
                }
            }
        }
        Err(Trouble::Database)
    }

    /// The events, judged, with what is known of the commits that they name.
    async fn judged(
        &self,
        raws: &[Raw],
        schema: Option<&Schema>,
    ) -> Result<Vec<ExternalEvent>, Trouble> {
        let judge = Judge {
            organization: &self.organization,
            source: &self.source,
            schema,
        };
        let mut named = Vec::new();
        let mut events = Vec::with_capacity(raws.len());
        for (place, raw) in raws.iter().enumerate() {
            let (mut event, names) = judge.event(&raw.told);
            event.pushed = raw.pushed;
            if let Ok(change) = &event.change {
                let row = |client_tx_id| Named {
                    client_tx_id,
                    model: change.model.clone(),
                    id: change.id.clone(),
                    lane: event.lane,
                };
                named.extend(names.into_iter().map(|name| (place, row(name))));
            }
            events.push(event);
        }
        if named.is_empty() {
            return Ok(events);
        }
        let (places, named): (Vec<usize>, Vec<Named>) = named.into_iter().unzip();
        let store = &self.tools.store;
        let known = store.echoed_commits(&self.organization, &self.source, named);
        for (place, echo) in places.into_iter().zip(known.await?) {
            events[place]
                .echoes
                .extend(echo.into_iter().collect::<Vec<EchoOf>>());
        }
        Ok(events)
    }

    /// Takes in events whose rows are free, and waits for the others'. How many were new, or why they
    /// must be judged anew.
    pub(super) async fn events(
        &mut self,
        events: Vec<ExternalEvent>,
        terms: &Terms,
        schema: Option<&Schema>,
    ) -> Result<Result<usize, Anew>, Trouble> {
        let flight = Arc::clone(&self.flight);
        let lanes = events.iter().filter(|event| event.change.is_ok());
        let mut claim = flight.claim(lanes.map(|event| event.lane).collect());
        let mut left = events;
        let mut new = 0;
        loop {
            let (free, held, until) = split(left, &claim);
            if free.is_empty() && !held.is_empty() {
                let until = until.unwrap_or_else(|| Instant::now() + super::PANIC_PAUSE);
                tokio::select! {
                    () = flight.landed() => {}
                    () = tokio::time::sleep_until(until) => {}
                }
                left = held;
                continue;
            }
            let last = held.is_empty();
            let terms = Terms {
                step: if last { terms.step.clone() } else { Step::Stay },
                caught_up: terms.caught_up && last,
                ..terms.clone()
            };
            let lanes: HashSet<i64> = free.iter().map(|event| event.lane).collect();
            match self.submit(free, &terms, schema).await? {
                Ok((taken, urged)) => {
                    new += taken;
                    claim.release(&lanes);
                    self.urge(&urged);
                }
                Err(anew) => return Ok(Err(anew)),
            }
            if last {
                return Ok(Ok(new));
            }
            left = held;
        }
    }

    fn urge(&self, urged: &[i64]) {
        if !urged.is_empty() {
            self.tools
                .wake
                .ring_source(&self.organization, &self.source);
        }
    }

    /// Submits events whose rows are free; loads those of which nobody can tell what they became.
    async fn submit(
        &mut self,
        events: Vec<ExternalEvent>,
        terms: &Terms,
        schema: Option<&Schema>,
    ) -> Result<Result<(usize, Vec<i64>), Anew>, Trouble> {
        let (mut events, mut new, mut urged) = (events, 0, Vec::new());
        let mut unread = BTreeSet::new();
        loop {
            let taken = match self.command(&events, unread, terms).await? {
                Ok(taken) => taken,
                Err(anew) => return Ok(Err(anew)),
            };
            new += taken.new;
            urged.extend(taken.urged);
            if taken.unclear.is_empty() {
                return Ok(Ok((new, urged)));
            }
            let unclear: HashSet<usize> = taken.unclear.into_iter().collect();
            let rest = events.into_iter().enumerate();
            events = rest
                .filter(|(place, _)| unclear.contains(place))
                .map(|(_, event)| event)
                .collect();
            unread = self.load_rows(&mut events, schema).await?;
            events = self.leave_out_told(events).await?;
            if events.is_empty() && terms.step == Step::Stay {
                return Ok(Ok((new, urged)));
            }
        }
    }

    async fn command(
        &mut self,
        events: &[ExternalEvent],
        unread: BTreeSet<RowKey>,
        terms: &Terms,
    ) -> Result<Result<Taken, Anew>, Trouble> {
        let mut events = events.to_vec();
        for event in &mut events {
            let swept = |id: &String| self.swept.knows(id);
            event.again = terms.behind || event.id.as_ref().is_some_and(swept);
            if let (Ok(change), false) = (&event.change, terms.again) {
                event.known = self.history.own(&row_of(change), event.pushed.is_some());
            }
        }
        let pushed = events.iter().any(|event| event.pushed.is_some());
        let ids: Vec<String> = events.iter().filter_map(|event| event.id.clone()).collect();
        let loaded = events.iter().filter(|event| event.loaded);
        let loaded = loaded.filter_map(|event| event.change.as_ref().ok().map(row_of));
        let loaded: HashSet<RowKey> = loaded.collect();
        let take = TakeEvents {
            source: self.source.clone(),
            epoch: self.epoch,
            schema_version: terms.schema_version,
            events,
            unread,
            behind: terms.behind,
            floor: terms.floor,
            step: terms.step.clone(),
            caught_up: terms.caught_up,
        };
        let command = Command::TakeEvents(take);
        match self
            .tools
            .flushers
            .submit(&self.organization, command)
            .await?
        {
            Reply::Taken(taken) => {
                self.took(&taken, ids, (terms, pushed, &loaded));
                Ok(Ok(*taken))
            }
            Reply::SchemaMoved(version) => Ok(Err(Anew::Schema(version))),
            Reply::Moved => Ok(Err(Anew::Moved)),
            _ => Err(Trouble::Fenced),
        }
    }

    fn took(
        &mut self,
        taken: &Taken,
        ids: Vec<String>,
        (terms, pushed, loaded): (&Terms, bool, &HashSet<RowKey>),
    ) {
        self.observe(taken.now, taken.last_sync_id);
        let stood = self.feed.as_ref().map(|feed| feed.trail.clone());
        if terms
            .step
            .leads(&stood.unwrap_or_default(), &taken.feed.trail)
        {
            self.feed = Some(taken.feed.clone());
        } else {
            // It was reset meanwhile: that is seen first, and all that follows from it.
            self.stale = true;
        }
        if taken.written {
            self.noted.wrote(None);
        }
        let unclear: HashSet<usize> = taken.unclear.iter().copied().collect();
        for (place, id) in ids.into_iter().enumerate() {
            if unclear.contains(&place) {
                continue;
            }
            if terms.behind && !self.recent.knows(&id) {
                self.swept.note(id.clone());
            }
            self.recent.note(id);
        }
        for (row, sync_id) in &taken.changed {
            self.flight
                .moved(lane(&self.organization, &row.model, &row.id));
            // What was read again, or loaded, may be of later events than those that polls bring next.
            if terms.again || loaded.contains(row) {
                self.history.forget(row);
            } else {
                self.history.changed(row.clone(), *sync_id, pushed);
            }
        }
        self.tools.metrics.feed_events(taken.new as u64);
        for client_tx_id in &taken.denied {
            let source = (&self.organization, self.source.as_str());
            tell_denied(&self.tools.metrics, source, client_tx_id);
        }
    }
}

/// The row that a change is about.
pub(super) fn row_of(change: &Change) -> RowKey {
    RowKey {
        model: change.model.clone(),
        id: change.id.clone(),
    }
}

/// Those whose rows are free, those that wait for attempts, and when to look again at the latest.
fn split(
    events: Vec<ExternalEvent>,
    claim: &Claim<'_>,
) -> (Vec<ExternalEvent>, Vec<ExternalEvent>, Option<Instant>) {
    let mut free: HashMap<i64, bool> = HashMap::new();
    let mut until = None;
    for event in events.iter().filter(|event| event.change.is_ok()) {
        free.entry(event.lane)
            .or_insert_with(|| match claim.is_free(event.lane) {
                Ok(()) => true,
                Err(at) => {
                    until = until.max(at);
                    false
                }
            });
    }
    let (free, held) = events
        .into_iter()
        .partition(|event| free.get(&event.lane).copied().unwrap_or(true));
    (free, held, until)
}
