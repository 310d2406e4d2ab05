//! Keeps one commit at a time from taking its course at an endpoint, until whoever holds it lets go.
//! So owners wake up too late ([`zombie`]), and requests are executed too late ([`late`]).

mod late;
mod zombie;

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::pause;
use crate::chaos::world::{LEASE, REQUEST_TIMEOUT, World};
use crate::endpoint::{Answer, Arrival, Gate};

/// A commit comes within so long, unless something else is broken.
const COMES_WITHIN: Duration = Duration::from_secs(2);

/// So long after it came it comes again, from the next owner if need be, on a busy machine as well.
const SENT_AGAIN_WITHIN: Duration = LEASE
    .saturating_add(REQUEST_TIMEOUT)
    .saturating_add(Duration::from_secs(4));

/// How long a node has to record what it was just told, or finds out when it wakes up.
const FINDS_OUT_WITHIN: Duration = Duration::from_secs(1);

/// Holds commits at the endpoints of one organization, at each by one schedule.
pub(super) async fn hold_commits(world: &World, end: Instant, seed: u64) {
    let organization = &world.organizations[0];
    let [good, flaky, slow, hostile] = &organization.sinks[..] else {
        unreachable!("the first organization has four endpoints");
    };
    let woken = (organization, &[good, slow][..]);
    let random = |number: u64| StdRng::seed_from_u64(seed ^ (number << 41));
    tokio::join!(
        zombie::haunt(world, woken, end, random(1)),
        late::hold_up(world, flaky, end, random(2)),
        late::hold_up(world, hostile, end, random(3)),
    );
}

/// Whether a fault is one that these schedules bring about.
pub(in crate::chaos) fn brings_about(fault: &str) -> bool {
    [zombie::MISSED, zombie::DONE, late::MISSED, late::DONE].contains(&fault)
}

/// What is held of a commit.
#[derive(Clone, Copy, Debug)]
enum Part {
    /// What is answered to any of its copies.
    Answers,
    /// Its first copy, before it is executed; those that come meanwhile are refused.
    FirstCopy,
}

/// Holds commits at an endpoint. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(in crate::chaos) struct Custody(Arc<watch::Sender<Option<Held>>>);

#[derive(Debug)]
struct Held {
    part: Part,
    /// Its `webhook-id`, once it has come.
    commit: Option<String>,
    /// How often it has come.
    copies: usize,
    gate: Gate,
}

/// As long as it is there the commit stays.
struct Hold<'a>(&'a Custody);

impl Custody {
    /// What becomes of a request that would be answered like this.
    pub(in crate::chaos) fn over(&self, arrival: &Arrival, answer: Answer) -> Answer {
        let mut held_back = None;
        self.0.send_if_modified(|held| {
            let id = arrival.webhook_id();
            let of = |it: &mut Held| it.commit.get_or_insert_with(|| id.to_owned()) == id;
            let held = held.as_mut().and_then(|it| of(it).then_some(it));
            held_back = held.map(|it| {
                it.copies += 1;
                (it.part, it.copies, it.gate.clone())
            });
            held_back.is_some()
        });
        match held_back {
            None => answer,
            Some((Part::Answers, _, gate)) => answer.replied_once_open(&gate),
            Some((Part::FirstCopy, 1, gate)) => Answer::honest().once_open(&gate),
            Some((Part::FirstCopy, ..)) => Answer::error(StatusCode::CONFLICT, "row_changed"),
        }
    }

    /// Holds the commit that comes next.
    fn hold(&self, part: Part) -> Hold<'_> {
        self.0.send_replace(Some(Held {
            part,
            commit: None,
            copies: 0,
            gate: Gate::closed(),
        }));
        Hold(self)
    }
}

impl Hold<'_> {
    /// Whether the commit comes so often, all in all, within so long.
    async fn came(&self, copies: usize, within: Duration) -> bool {
        let mut held = self.0.0.subscribe();
        let came = held.wait_for(|it| it.as_ref().is_some_and(|it| it.copies >= copies));
        timeout(within, came).await.is_ok()
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        if let Some(held) = self.0.0.send_replace(None) {
            held.gate.open();
        }
    }
}
