//! One request for events, or for a row, and what it came to.

use std::sync::Arc;
use std::time::Duration;

use backends::data_source::classify::{ReadFault, ReadFaultKind, feed_outcome, refuses_cursor};
use backends::data_source::client::Request;
use backends::data_source::endpoint::EndpointUrl;
use backends::data_source::exchange::{Exchange, FailureClass};
use backends::data_source::wire::{self, FeedPage, Scope, events_body};
use tokio::time::Instant;
use uuid::Uuid;

use super::judge::{Told, event_id};
use super::take::{Batch, Raw};
use super::trail::{Next, Sweep};
use super::{FeedReader, PAGE, Trouble};
use crate::broken::crash_point;
use crate::decide::Step;
use crate::domain::FeedState;

/// Polls in a row that refuse a cursor and end polling: one may be an endpoint that is being changed.
const REFUSALS: u32 = 3;

/// Polls in a row that bring the same events again, from which on that is told.
const SAME: u32 = 2;

/// Cursors without a new event that are remembered.
const LONGEST_WAY: usize = 1_000;

/// A page of so many events may have more behind it, however many were asked for: endpoints have
/// limits of their own.
const FULL: usize = 100;

/// The class of a failed poll: the next event alone is longer than an answer may be.
pub(crate) const TOO_LARGE: &str = "event_too_large";

/// The longest answer that is read when a single event was asked for: one that is longer than an event
/// may be is then kept aside, and the feed goes on.
const LONGEST_EVENT: usize = 8 << 20;

/// Such answers that a node reads at a time.
pub(crate) const LARGE_ANSWERS: usize = 4;

/// The longest cursor that is kept, in bytes.
const LONGEST_CURSOR: usize = 4 << 10;

impl FeedReader {
    /// Polls once from the newest cursor.
    pub(super) async fn poll(&mut self) -> Result<(), Trouble> {
        if !self.is_named().await? {
            self.pace.quiet(false);
            return Ok(());
        }
        let from = self
            .feed
            .as_ref()
            .and_then(|feed| feed.trail.newest().map(str::to_owned));
        let began = self.now();
        let Some(page) = self.page(from.as_deref()).await? else {
            return Ok(());
        };
        crash_point!("feed.polled");
        let count = page.events.len();
        let to = page.next_cursor.filter(|to| from.as_ref() != Some(to));
        let moved = to.is_some();
        let more = moved && count >= FULL.min(self.limit as usize);
        let anew = to.clone().is_some_and(|to| self.visited.insert(to));
        let batch = Batch {
            events: page.events.into_iter().map(Raw::polled).collect(),
            behind: false,
            floor: self.history.floor_of_poll(self.lag()),
            step: Step::Newest { from, to },
            caught_up: !more,
        };
        let new = if count > 0 || moved || self.feed.is_none() {
            self.take(batch).await?
        } else {
            0
        };
        if !more {
            self.history.polled(began);
        }
        self.polled((count, new), anew, more).await
    }

    /// Takes note of what a poll brought: so many events, of which so many were new, and a cursor that
    /// had not come before.
    async fn polled(
        &mut self,
        (count, new): (usize, usize),
        anew: bool,
        more: bool,
    ) -> Result<(), Trouble> {
        self.grow();
        if new > 0 || self.visited.len() >= LONGEST_WAY {
            self.visited.clear();
        }
        let same = new == 0 && count > 0 && !anew;
        self.same = if same { self.same + 1 } else { 0 };
        if self.same >= SAME {
            let message = "the feed answered events that were seen before, again and again";
            self.note_failure("no_progress", message, 200).await;
            self.pace.quiet(false);
            return Ok(());
        }
        self.note_success(!more).await?;
        if new > 0 {
            self.pace.busy(more);
        } else if count > 0 && anew {
            // On the way through what is known: after a reset.
            self.pace.busy(false);
        } else {
            let lately = self.lately();
            self.pace.quiet(lately);
        }
        Ok(())
    }

    /// Reads one page of the sweep.
    pub(super) async fn sweep_on(&mut self) -> Result<(), Trouble> {
        if !self.is_named().await? {
            self.pace.swept(Duration::ZERO, false);
            return Ok(());
        }
        let Some(feed) = &self.feed else {
            return Ok(());
        };
        let mut sweep = if let Some(sweep) = self.sweep.take() {
            sweep
        } else {
            self.swept_from = (Instant::now(), self.now());
            Sweep::begin(&feed.trail)
        };
        let (trail, began, lag) = (feed.trail.clone(), self.now(), self.lag());
        let cursor = sweep.cursor().map(str::to_owned);
        let Some(page) = self.page(cursor.as_deref()).await? else {
            return Ok(());
        };
        let swept = sweep.page(&trail, (began, lag), page.next_cursor.as_deref());
        let step = match swept.durable {
            Some(to) => Step::Durable {
                from: trail.durable().map(str::to_owned),
                to,
            },
            None => Step::Stay,
        };
        let known = |event: &Told| self.recent.knows(&event_id(event));
        if step != Step::Stay || !page.events.iter().all(known) {
            let batch = Batch {
                events: page.events.into_iter().map(Raw::polled).collect(),
                behind: true,
                floor: self.history.floor_of_sweep(self.lag()),
                step,
                caught_up: false,
            };
            let new = self.take(batch).await?;
            if new > 0 {
                self.pace.busy(false);
            }
        }
        self.grow();
        match swept.next {
            Next::Page => {
                self.sweep = Some(sweep);
                self.pace.sweep_on();
            }
            Next::End => self.end_sweep(),
            Next::Circle => {
                let message = "the feed's cursors lead in circles";
                self.note_failure("no_progress", message, 200).await;
                self.end_sweep();
            }
        }
        Ok(())
    }

    fn end_sweep(&mut self) {
        let (began, at) = self.swept_from;
        self.history.swept(at);
        let lately = self.lately();
        self.pace.swept(began.elapsed(), lately);
    }

    /// How long after a change its event may become visible, as the source says.
    fn lag(&self) -> Duration {
        self.look.as_ref().map_or(Duration::ZERO, |look| look.lag)
    }

    /// Whether the schema says that rows live in this source: before, nothing could be taken in.
    async fn is_named(&mut self) -> Result<bool, Trouble> {
        let schema = self.tools.schemas.latest(&self.organization).await?;
        self.named = schema.is_some_and(|schema| schema.sources().contains(self.source.as_str()));
        Ok(self.named)
    }

    /// A page of events; `None` when there was none, which is on record then.
    async fn page(&mut self, cursor: Option<&str>) -> Result<Option<FeedPage>, Trouble> {
        let body = events_body(cursor, self.limit, &self.scope());
        let mut exchange = self.ask(wire::RequestKind::Events, body.clone()).await?;
        if is_too_large(&exchange) && self.limit > 1 {
            self.limit /= 2;
            return Ok(None);
        }
        if is_too_large(&exchange) {
            let turns = Arc::clone(&self.tools.large_answers);
            let _turn = turns.acquire().await.map_err(|_| Trouble::Database)?;
            let asked = (wire::RequestKind::Events, body);
            exchange = self.ask_for(asked, LONGEST_EVENT).await?;
        }
        if is_too_large(&exchange) {
            let fault = ReadFault {
                kind: ReadFaultKind::Unavailable,
                class: TOO_LARGE.to_owned(),
                message: "the answer is longer than 8 MiB although one event was asked for; \
                          the feed stands still until the endpoint leaves the event out or \
                          shortens it, or the feed is reset to a cursor behind it"
                    .to_owned(),
            };
            if self.noted.failed_otherwise(TOO_LARGE) {
                tracing::error!(
                    organization = %self.organization,
                    source.id = self.source,
                    "a feed stands still at an event that is too large"
                );
                self.tools.metrics.feed_alarm(TOO_LARGE);
            }
            return self.failed(&exchange, &fault, cursor).await.map(|()| None);
        }
        let page = feed_outcome(&exchange).and_then(bounded);
        match page {
            Ok(page) => {
                self.refused = 0;
                Ok(Some(page))
            }
            Err(fault) => self.failed(&exchange, &fault, cursor).await.map(|()| None),
        }
    }

    async fn failed(
        &mut self,
        exchange: &Exchange,
        fault: &ReadFault,
        cursor: Option<&str>,
    ) -> Result<(), Trouble> {
        let status = exchange.status.map_or(0, i32::from);
        if fault.kind == ReadFaultKind::NotConfigured {
            // That is no failure: the feed's state says it.
            return self.stop(FeedState::None).await;
        }
        self.refused = if cursor.is_some() && refuses_cursor(exchange) {
            self.refused + 1
        } else {
            0
        };
        if self.refused >= REFUSALS {
            self.note_failure("cursor_refused", &fault.message, status)
                .await;
            tracing::error!(
                organization = %self.organization,
                source.id = self.source,
                error = fault.message,
                "a feed refuses our cursor: it is not read until it is reset"
            );
            self.tools.metrics.feed_alarm("cursor_refused");
            return self.stop(FeedState::Refused).await;
        }
        self.note_failure(&fault.class, &fault.message, status)
            .await;
        Err(Trouble::Endpoint(exchange.retry_after))
    }

    /// The feed is not polled any more.
    async fn stop(&mut self, state: FeedState) -> Result<(), Trouble> {
        self.sweep = None;
        let batch = Batch {
            events: Vec::new(),
            behind: false,
            floor: 0,
            step: Step::Stop(state),
            caught_up: false,
        };
        self.take(batch).await.map(drop)
    }

    /// Pages of this size are not too large.
    fn grow(&mut self) {
        self.limit = (self.limit + self.limit / 8 + 1).min(PAGE);
    }

    /// Signs and sends one request.
    pub(super) async fn ask(
        &self,
        kind: wire::RequestKind,
        body: Vec<u8>,
    ) -> Result<Exchange, Trouble> {
        self.ask_for((kind, body), wire::LONGEST_ANSWER).await
    }

    /// The same, with so many bytes of the answer at most.
    async fn ask_for(
        &self,
        (kind, body): (wire::RequestKind, Vec<u8>),
        longest: usize,
    ) -> Result<Exchange, Trouble> {
        let look = self.look.as_ref().ok_or(Trouble::Database)?;
        let keys = self.tools.keys.signing_keys(&self.organization).await?;
        if keys.is_empty() {
            let message = "the organization has no key to sign with";
            return Ok(Exchange::failed(FailureClass::RequestInvalid, message));
        }
        let url = match EndpointUrl::parse(&look.url, self.tools.endpoints.policy()) {
            Ok(url) => url,
            Err(fault) => {
                let class = FailureClass::AddressForbidden;
                return Ok(Exchange::failed(class, fault.to_string()));
            }
        };
        let request = Request {
            url: &url,
            webhook_id: &Uuid::new_v4().simple().to_string(),
            body: body.into(),
            keys: &keys,
            timeout: look.timeout,
            traceparent: None,
            kind,
        };
        Ok(self.tools.endpoints.send_for(request, longest).await)
    }

    pub(super) fn scope(&self) -> Scope {
        Scope {
            organization_id: Some(self.organization.to_string()),
            mode: self.look.as_ref().map(|look| look.mode.as_str().to_owned()),
            ..Scope::default()
        }
    }
}

fn is_too_large(exchange: &Exchange) -> bool {
    let failure = exchange.failure.as_ref();
    failure.is_some_and(|failure| failure.class == FailureClass::BodyTooLarge)
}

/// A page whose cursor can be kept.
fn bounded(page: FeedPage) -> Result<FeedPage, ReadFault> {
    let long = page
        .next_cursor
        .as_ref()
        .is_some_and(|it| it.len() > LONGEST_CURSOR);
    if long {
        return Err(ReadFault {
            kind: ReadFaultKind::Unavailable,
            class: "response_invalid".to_owned(),
            message: format!("`nextCursor` is longer than {LONGEST_CURSOR} bytes"),
        });
    }
    Ok(page)
}
