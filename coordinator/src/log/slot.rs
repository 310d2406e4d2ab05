//! Streams as the node sees them: who takes nothing, whose key is gone, and how each is ended.
//!
//! A stream is asked for its next frame whenever its connection has room, at least at each heartbeat.
//! One that is not asked for a while has a caller who does not read: what it holds is given up then,
//! and only the status is left for the caller to find.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::BoxStream;
use secrecy::{ExposeSecret, SecretString};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::keys::{BELIEF, KeyRing, REVOKED_WITHIN, unauthenticated};
use crate::refusal::{Class, Refusal};
use crate::telemetry::metrics::Metrics;

/// How long a caller may take nothing.
const PATIENCE: Duration = Duration::from_secs(30);

/// The age at which streams end, the first of them.
const AGE: Duration = Duration::from_mins(54);

/// How far apart streams of one age end.
const SPREAD: Duration = Duration::from_mins(12);

/// How often the node looks at its streams.
const LOOK: Duration = Duration::from_millis(500);

const _: () = assert!(BELIEF.as_millis() + LOOK.as_millis() < REVOKED_WITHIN.as_millis());

/// Keys that are looked up at once.
const KEYS_AT_ONCE: usize = 4;

/// What a stream sends: frames, then perhaps why it ended.
pub(super) type Frames = BoxStream<'static, Result<Bytes, Refusal>>;

/// The text that a stream can be resumed from.
pub(super) type Resume = Box<dyn Fn() -> String + Send + Sync>;

/// The streams of this node.
#[derive(Debug)]
pub(super) struct Streams {
    slots: Mutex<HashMap<u64, Arc<Slot>>>,
    next: AtomicU64,
    metrics: Metrics,
    begun: Instant,
    /// No stream begins any more.
    closed: AtomicBool,
}

/// One stream.
struct Slot {
    state: Mutex<State>,
    /// Milliseconds after the node's beginning.
    asked: AtomicU64,
    ages: Instant,
    token: SecretString,
    resume: Resume,
}

struct State {
    frames: Option<Frames>,
    ending: Option<Refusal>,
    waker: Option<Waker>,
}

/// A stream as its caller has it; leaving it takes it off the node's list.
#[derive(Debug)]
pub struct Subscription {
    streams: Arc<Streams>,
    slot: Arc<Slot>,
    number: u64,
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").finish_non_exhaustive()
    }
}

impl Streams {
    /// No streams.
    pub(super) fn new(metrics: Metrics) -> Self {
        Self {
            slots: Mutex::default(),
            next: AtomicU64::new(0),
            metrics,
            begun: Instant::now(),
            closed: AtomicBool::new(false),
        }
    }

    /// Takes a stream in, of a caller with this token.
    pub(super) fn enter(
        self: &Arc<Self>,
        frames: Frames,
        token: SecretString,
        resume: Resume,
    ) -> Subscription {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let spread = SPREAD.mul_f64(rand::random::<f64>());
        let slot = Arc::new(Slot {
            state: Mutex::new(State {
                frames: Some(frames),
                ending: None,
                waker: None,
            }),
            asked: AtomicU64::new(self.clock()),
            ages: Instant::now() + AGE + spread,
            token,
            resume,
        });
        self.lock().insert(number, Arc::clone(&slot));
        self.metrics.log().streams(1);
        // Looked at after it was entered: whoever closes ends what is entered, after closing.
        if self.closed.load(Ordering::SeqCst) {
            slot.end(draining());
        }
        Subscription {
            streams: Arc::clone(self),
            slot,
            number,
        }
    }

    /// Looks after the streams until `stop`; then ends them all, for their callers to resume
    /// elsewhere.
    pub(super) async fn keep(&self, keys: &KeyRing, stop: &CancellationToken) {
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(looks.tick()).await.is_some() {
            self.look_for_the_slow_and_the_old();
            let look = self.look_for_the_revoked(keys);
            if stop.run_until_cancelled(look).await.is_none() {
                break;
            }
        }
        self.closed.store(true, Ordering::SeqCst);
        for slot in self.all() {
            slot.end(draining());
        }
    }

    fn look_for_the_slow_and_the_old(&self) {
        let now = self.clock();
        let patience = u64::try_from(PATIENCE.as_millis()).expect("it is short");
        for slot in self.all() {
            if now.saturating_sub(slot.asked.load(Ordering::Relaxed)) > patience {
                if slot.end(slow()) {
                    self.metrics.log().slow_consumer();
                }
            } else if slot.ages <= Instant::now() {
                slot.end(aged());
            }
        }
    }

    async fn look_for_the_revoked(&self, keys: &KeyRing) {
        let slots = self.all();
        let tokens: HashSet<&str> = slots.iter().map(|it| it.token.expose_secret()).collect();
        let tokens: Vec<&str> = tokens.into_iter().collect();
        let mut revoked = HashSet::new();
        for some in tokens.chunks(KEYS_AT_ONCE) {
            let asked = some.iter().map(|token| keys.authenticate(token));
            let answers = futures_util::future::join_all(asked).await;
            for (token, answer) in some.iter().zip(answers) {
                if answer.is_err_and(|refusal| refusal.class == Class::Unauthenticated) {
                    revoked.insert(*token);
                }
            }
        }
        for slot in &slots {
            if revoked.contains(slot.token.expose_secret()) {
                slot.end(unauthenticated());
            }
        }
    }

    fn all(&self) -> Vec<Arc<Slot>> {
        self.lock().values().map(Arc::clone).collect()
    }

    fn clock(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<Slot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    /// Ends the stream, and gives up what it holds; `false` when it has ended already.
    fn end(&self, refusal: Refusal) -> bool {
        let mut state = self.lock();
        let Some(frames) = state.frames.take() else {
            return false;
        };
        let refusal = match refusal.class {
            Class::Unauthenticated => refusal,
            _ => refusal.with("cursor", (self.resume)()),
        };
        state.ending = Some(refusal);
        let waker = state.waker.take();
        drop(state);
        drop(frames);
        if let Some(waker) = waker {
            waker.wake();
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stream for Subscription {
    type Item = Result<Bytes, Refusal>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let asked = self.streams.clock();
        self.slot.asked.store(asked, Ordering::Relaxed);
        let mut state = self.slot.lock();
        let Some(frames) = &mut state.frames else {
            return Poll::Ready(state.ending.take().map(Err));
        };
        match frames.as_mut().poll_next(context) {
            Poll::Pending => {
                state.waker = Some(context.waker().clone());
                Poll::Pending
            }
            Poll::Ready(Some(Ok(frame))) => Poll::Ready(Some(Ok(frame))),
            Poll::Ready(end) => {
                state.frames = None;
                Poll::Ready(end)
            }
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.streams.lock().remove(&self.number);
        self.streams.metrics.log().streams(-1);
    }
}

fn slow() -> Refusal {
    let message = "the caller took nothing for 30 s; resume from the cursor";
    Refusal::new(Class::Exhausted, "slow_consumer", message)
}

fn aged() -> Refusal {
    let message = "the stream is an hour old; resume from the cursor";
    Refusal::new(Class::Unavailable, "stream_aged", message).retry_after(Duration::ZERO)
}

fn draining() -> Refusal {
    let message = "the node stops; resume from the cursor on another one";
    Refusal::new(Class::Unavailable, "node_draining", message).retry_after(Duration::ZERO)
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;

    use super::*;

    /// A stream that sends a frame whenever it is asked, and what shows that it is held.
    fn enter(streams: &Arc<Streams>) -> (Subscription, Arc<()>) {
        let held = Arc::new(());
        let frames = futures_util::stream::repeat(Arc::clone(&held))
            .map(|_| Ok(Bytes::from_static(b"frame")))
            .boxed();
        let resume = Box::new(|| "here".to_owned());
        let token = SecretString::from("sk_test_1");
        (streams.enter(frames, token, resume), held)
    }

    async fn ending(subscription: &mut Subscription) -> Refusal {
        loop {
            if let Err(refusal) = subscription.next().await.unwrap() {
                assert!(subscription.next().await.is_none());
                return refusal;
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_loses_what_is_held_for_him_and_finds_a_cursor() {
        let streams = Arc::new(Streams::new(Metrics::noop()));
        let (mut slow, held) = enter(&streams);
        let (mut other, _) = enter(&streams);
        slow.next().await.unwrap().unwrap();
        for _ in 0..4 {
            tokio::time::advance(PATIENCE / 4 + Duration::from_millis(1)).await;
            other.next().await.unwrap().unwrap();
            assert_eq!(Arc::strong_count(&held), 2);
        }
        streams.look_for_the_slow_and_the_old();
        assert_eq!(Arc::strong_count(&held), 1, "it is given up unread");
        let refusal = ending(&mut slow).await;
        assert_eq!(refusal.reason, "slow_consumer");
        assert_eq!(refusal.metadata, [("cursor", "here".to_owned())]);
        other.next().await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_ends_of_age_however_busy_it_is() {
        let streams = Arc::new(Streams::new(Metrics::noop()));
        let (mut stream, _) = enter(&streams);
        tokio::time::advance(AGE + SPREAD).await;
        stream.next().await.unwrap().unwrap();
        streams.look_for_the_slow_and_the_old();
        assert_eq!(ending(&mut stream).await.reason, "stream_aged");
    }

    #[tokio::test]
    async fn a_stream_that_begins_while_the_node_stops_ends_at_once() {
        let streams = Arc::new(Streams::new(Metrics::noop()));
        let (mut before, _) = enter(&streams);
        let keys = KeyRing::new(
            crate::store::tests::unreachable(),
            crate::keys::MasterKeys::parse(&format!("m1:{}=", "A".repeat(43))).unwrap(),
        );
        let stop = CancellationToken::new();
        stop.cancel();
        streams.keep(&keys, &stop).await;
        let (mut after, _) = enter(&streams);
        for stream in [&mut before, &mut after] {
            assert_eq!(ending(stream).await.reason, "node_draining");
        }
        drop((before, after));
        assert!(streams.lock().is_empty());
    }
}
