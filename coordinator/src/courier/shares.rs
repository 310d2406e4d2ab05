//! What a node's organizations share out among themselves: requests in flight, connections for
//! looking into inboxes.
//!
//! An organization may hold no more shares than are left for all others, so that whoever comes next
//! finds some, however many sources hang: one alone gets half of them, two get a third each, and so
//! on. When there are none to be had, the next that comes free goes to the organization that holds
//! the fewest; within one, to whoever asked first.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::domain::OrganizationId;

/// A number of shares.
#[derive(Clone, Debug)]
pub struct Shares {
    pool: Arc<Mutex<Pool>>,
}

#[derive(Debug)]
struct Pool {
    free: usize,
    /// Organizations that hold shares or wait for some.
    parties: HashMap<OrganizationId, Party>,
    /// How many of them wait.
    waiting: usize,
}

#[derive(Debug, Default)]
struct Party {
    held: usize,
    asking: VecDeque<oneshot::Sender<Share>>,
}

/// One share, free again when it is dropped.
#[derive(Debug)]
pub(super) struct Share {
    pool: Arc<Mutex<Pool>>,
    /// `None` once it was handed back while nobody was there to take it.
    holder: Option<OrganizationId>,
}

impl Shares {
    /// So many, at least one.
    pub fn new(count: usize) -> Self {
        let pool = Pool {
            free: count.max(1),
            parties: HashMap::new(),
            waiting: 0,
        };
        Self {
            pool: Arc::new(Mutex::new(pool)),
        }
    }

    /// A share, as soon as it is this organization's turn.
    pub(super) async fn take(&self, organization: &OrganizationId) -> Share {
        loop {
            match self.ask(organization) {
                Ok(share) => return share,
                Err(asked) => {
                    if let Ok(share) = asked.await {
                        return share;
                    }
                }
            }
        }
    }

    /// A share, if one is free for this organization now.
    pub(super) fn take_now(&self, organization: &OrganizationId) -> Option<Share> {
        let mut pool = lock(&self.pool);
        let free = pool.free;
        let party = pool.parties.entry(organization.clone()).or_default();
        let may = party.asking.is_empty() && party.held < free;
        if may {
            party.held += 1;
            pool.free -= 1;
        } else {
            pool.forget(organization);
        }
        drop(pool);
        may.then(|| self.share(organization))
    }

    /// A share, or where it will come from.
    fn ask(&self, organization: &OrganizationId) -> Result<Share, oneshot::Receiver<Share>> {
        let mut pool = lock(&self.pool);
        let free = pool.free;
        let party = pool.parties.entry(organization.clone()).or_default();
        if party.asking.is_empty() && party.held < free {
            party.held += 1;
            pool.free -= 1;
            return Ok(self.share(organization));
        }
        let (give, asked) = oneshot::channel();
        let first = party.asking.is_empty();
        party.asking.push_back(give);
        pool.waiting += usize::from(first);
        Err(asked)
    }

    fn share(&self, organization: &OrganizationId) -> Share {
        Share {
            pool: Arc::clone(&self.pool),
            holder: Some(organization.clone()),
        }
    }

    /// Hands out what is free to those who wait.
    fn hand_out(&self, pool: &mut Pool) {
        while pool.waiting > 0 {
            let asking = pool.parties.iter().filter(|(_, it)| !it.asking.is_empty());
            let Some(next) = asking
                .min_by_key(|(_, it)| it.held)
                .map(|(name, _)| name.clone())
            else {
                return;
            };
            let free = pool.free;
            let Some(party) = pool.parties.get_mut(&next).filter(|it| it.held < free) else {
                return;
            };
            let Some(give) = party.asking.pop_front() else {
                return;
            };
            if party.asking.is_empty() {
                pool.waiting -= 1;
            }
            match give.send(self.share(&next)) {
                Ok(()) => {
                    party.held += 1;
                    pool.free -= 1;
                }
                // Whoever asked is gone. The share was never counted, and must not be given back.
                Err(mut share) => share.holder = None,
            }
            pool.forget(&next);
        }
    }
}

impl Pool {
    fn forget(&mut self, organization: &OrganizationId) {
        let idle = |party: &Party| party.held == 0 && party.asking.is_empty();
        if self.parties.get(organization).is_some_and(idle) {
            self.parties.remove(organization);
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let Some(holder) = self.holder.take() else {
            return;
        };
        let shares = Shares {
            pool: Arc::clone(&self.pool),
        };
        let mut pool = lock(&self.pool);
        pool.free += 1;
        if let Some(party) = pool.parties.get_mut(&holder) {
            party.held -= 1;
        }
        pool.forget(&holder);
        shares.hand_out(&mut pool);
    }
}

fn lock(pool: &Mutex<Pool>) -> MutexGuard<'_, Pool> {
    pool.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One who takes a share whenever there is something to do with it, and waits in line otherwise.
#[derive(Debug)]
pub(super) struct Turn {
    shares: Shares,
    organization: OrganizationId,
    asked: Option<oneshot::Receiver<Share>>,
    given: Option<Share>,
}

impl Turn {
    pub(super) fn new(shares: Shares, organization: OrganizationId) -> Self {
        Self {
            shares,
            organization,
            asked: None,
            given: None,
        }
    }

    /// A share if there is one; otherwise it is asked for.
    pub(super) fn take(&mut self) -> Option<Share> {
        if let Some(share) = self.given.take() {
            return Some(share);
        }
        if self.asked.is_none() {
            match self.shares.ask(&self.organization) {
                Ok(share) => return Some(share),
                Err(asked) => self.asked = Some(asked),
            }
        }
        None
    }

    /// Whether a share was asked for and has not come.
    pub(super) fn waits(&self) -> bool {
        self.asked.is_some()
    }

    /// Returns when the share that was asked for has come; never when none was.
    pub(super) async fn come(&mut self) {
        let Some(asked) = &mut self.asked else {
            return std::future::pending().await;
        };
        let share = asked.await;
        self.asked = None;
        self.given = share.ok();
    }

    /// There is nothing to do with a share now.
    pub(super) fn pass(&mut self) {
        self.asked = None;
        self.given = None;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn organization(number: usize) -> OrganizationId {
        OrganizationId::new(&format!("org-{number}"))
    }

    /// As many shares as the organization gets without waiting.
    fn all_that_it_gets(shares: &Shares, number: usize) -> Vec<Share> {
        std::iter::from_fn(|| shares.ask(&organization(number)).ok()).collect()
    }

    #[test]
    fn whoever_comes_next_finds_some_however_much_the_others_hold() {
        let shares = Shares::new(2_048);
        let held: Vec<_> = (0..8)
            .map(|number| all_that_it_gets(&shares, number))
            .collect();
        let counts: Vec<_> = held.iter().map(Vec::len).collect();
        assert_eq!(counts, [1_024, 512, 256, 128, 64, 32, 16, 8]);
    }

    #[test]
    fn what_comes_free_goes_to_whoever_holds_the_fewest_and_asked_first() {
        let shares = Shares::new(2);
        let (first, second) = (organization(1), organization(2));
        let held = shares.ask(&first).unwrap();
        let mut again = shares.ask(&first).unwrap_err();
        let other = shares.ask(&second).unwrap();
        let mut others = shares.ask(&second).unwrap_err();
        drop(other);
        // One is free now, and each of the two that wait holds at most that many.
        assert!(again.try_recv().is_err());
        let given = others.try_recv().unwrap();
        drop(held);
        drop(again.try_recv().unwrap());
        drop(given);
        assert!(lock(&shares.pool).parties.is_empty());
        assert_eq!(lock(&shares.pool).free, 2);
    }

    #[tokio::test]
    async fn a_turn_that_is_passed_holds_nobody_up() {
        let shares = Shares::new(1);
        let mut turn = Turn::new(shares.clone(), organization(1));
        let held = turn.take().unwrap();
        assert!(turn.take().is_none() && turn.waits());
        let mut other = Turn::new(shares.clone(), organization(2));
        assert!(other.take().is_none());
        turn.pass();
        drop(held);
        other.come().await;
        assert!(!other.waits());
        drop(other);
        drop(shares.take(&organization(3)).await);
        assert!(lock(&shares.pool).parties.is_empty());
    }

    proptest! {
        /// Whatever is taken, asked for, given back and given up, in whatever order: no share is lost
        /// or made, none is free while someone waits who may have it, and in the end all are free.
        #[test]
        fn no_share_is_lost_and_nobody_waits_without_need(
            count in 1_usize..12,
            steps in prop::collection::vec((0_usize..4, 0_u8..4, any::<prop::sample::Index>()), 1..200),
        ) {
            let shares = Shares::new(count);
            let mut held = Vec::new();
            let mut asked = Vec::new();
            for (number, step, index) in steps {
                match step {
                    0 | 1 => match shares.ask(&organization(number)) {
                        Ok(share) => held.push(share),
                        Err(receiver) => asked.push(receiver),
                    },
                    2 if !held.is_empty() => drop(held.swap_remove(index.index(held.len()))),
                    3 if !asked.is_empty() => drop(asked.swap_remove(index.index(asked.len()))),
                    _ => {}
                }
                asked.retain_mut(|receiver| match receiver.try_recv() {
                    Ok(share) => {
                        held.push(share);
                        false
                    }
                    Err(_) => true,
                });
                let pool = lock(&shares.pool);
                prop_assert_eq!(pool.free + held.len(), count);
                for party in pool.parties.values() {
                    let alive = party.asking.iter().any(|one| !one.is_closed());
                    prop_assert!(!alive || party.held >= pool.free);
                }
            }
            drop(asked);
            held.clear();
            let pool = lock(&shares.pool);
            prop_assert_eq!((pool.free, pool.waiting), (count, 0));
            prop_assert!(pool.parties.is_empty());
        }
    }
}
