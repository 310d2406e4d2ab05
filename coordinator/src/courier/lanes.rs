//! The order of commits that share rows: pure bookkeeping, no clock, no I/O.
//!
//! A lane is a row, by hash. A commit stands in the lane of every row that it touches, behind the
//! commits that were accepted before it, and is runnable while it is first in all of them. Commits
//! stand in every lane in the order in which they joined, so no two can wait for each other.

use std::collections::{HashMap, VecDeque};

/// Who stands in which lane, by sequence.
#[derive(Debug, Default)]
pub struct Lanes {
    queues: HashMap<i64, VecDeque<i64>>,
    commits: HashMap<i64, Standing>,
    places: usize,
}

#[derive(Debug)]
struct Standing {
    lanes: Vec<i64>,
    /// Lanes in which others stand before it.
    blocked: usize,
}

impl Lanes {
    /// Puts a commit behind all that stand in its lanes; whether it is runnable. Sequences come in
    /// ascending order but for commits that come back, and each lane once.
    pub fn join(&mut self, sequence: i64, lanes: Vec<i64>) -> bool {
        let mut blocked = 0;
        for lane in &lanes {
            let queue = self.queues.entry(*lane).or_default();
            blocked += usize::from(!queue.is_empty());
            queue.push_back(sequence);
        }
        self.places += lanes.len();
        self.commits.insert(sequence, Standing { lanes, blocked });
        blocked == 0
    }

    /// Takes a finished commit out; those that became runnable by it, in order.
    pub fn leave(&mut self, sequence: i64) -> Vec<i64> {
        let Some(Standing { lanes, .. }) = self.commits.remove(&sequence) else {
            return Vec::new();
        };
        self.places -= lanes.len();
        let mut runnable = Vec::new();
        for lane in lanes {
            let Some(queue) = self.queues.get_mut(&lane) else {
                continue;
            };
            let was_first = queue.front() == Some(&sequence);
            if was_first {
                queue.pop_front();
            } else {
                queue.retain(|one| *one != sequence);
            }
            match queue.front().copied() {
                Some(next) if was_first => runnable.extend(self.unblock(next)),
                Some(_) => {}
                None => {
                    self.queues.remove(&lane);
                }
            }
        }
        runnable.sort_unstable();
        runnable
    }

    fn unblock(&mut self, sequence: i64) -> Option<i64> {
        let standing = self.commits.get_mut(&sequence)?;
        standing.blocked -= 1;
        (standing.blocked == 0).then_some(sequence)
    }

    /// The lanes that a commit stands in.
    pub fn of(&self, sequence: i64) -> &[i64] {
        let standing = self.commits.get(&sequence);
        standing.map_or(&[], |standing| &standing.lanes)
    }

    /// Whether nobody stands in this lane.
    pub fn is_free(&self, lane: i64) -> bool {
        !self.queues.contains_key(&lane)
    }

    /// Whether a commit stands here.
    pub fn contains(&self, sequence: i64) -> bool {
        self.commits.contains_key(&sequence)
    }

    /// Whether a commit is first in all its lanes.
    pub fn is_runnable(&self, sequence: i64) -> bool {
        self.commits
            .get(&sequence)
            .is_some_and(|standing| standing.blocked == 0)
    }

    /// How many commits stand here.
    pub fn len(&self) -> usize {
        self.commits.len()
    }

    /// How many places they have in all lanes together.
    pub fn places(&self) -> usize {
        self.places
    }

    /// Whether none does.
    pub fn is_empty(&self) -> bool {
        self.commits.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::Lanes;

    /// A commit is runnable when no unfinished commit before it shares a lane with it.
    fn runnable(unfinished: &[(i64, Vec<i64>)]) -> BTreeSet<i64> {
        unfinished
            .iter()
            .enumerate()
            .filter(|(at, (_, lanes))| {
                !unfinished[..*at]
                    .iter()
                    .any(|(_, before)| lanes.iter().any(|l| before.contains(l)))
            })
            .map(|(_, (sequence, _))| *sequence)
            .collect()
    }

    proptest! {
        #[test]
        fn lanes_agree_with_the_definition_whatever_joins_and_leaves(
            steps in prop::collection::vec(
                (prop::collection::btree_set(0_i64..8, 1..4), any::<Option<prop::sample::Index>>()),
                1..200,
            )
        ) {
            let mut lanes = Lanes::default();
            let mut model: Vec<(i64, Vec<i64>)> = Vec::new();
            let mut ready = BTreeSet::new();
            for (sequence, (touched, leaves)) in (1_i64..).zip(steps) {
                let touched: Vec<i64> = touched.into_iter().collect();
                if lanes.join(sequence, touched.clone()) {
                    ready.insert(sequence);
                }
                model.push((sequence, touched));
                if let Some(index) = leaves {
                    let running: Vec<i64> = ready.iter().copied().collect();
                    if !running.is_empty() {
                        let done = running[index.index(running.len())];
                        ready.remove(&done);
                        model.retain(|(one, _)| *one != done);
                        ready.extend(lanes.leave(done));
                    }
                }
                prop_assert_eq!(&ready, &runnable(&model));
                prop_assert_eq!(lanes.len(), model.len());
            }
        }

        #[test]
        fn every_commit_runs_in_the_end(
            commits in prop::collection::vec(prop::collection::btree_set(0_i64..6, 1..5), 1..100)
        ) {
            let mut lanes = Lanes::default();
            let mut ready = Vec::new();
            let count = commits.len();
            for (sequence, touched) in (1_i64..).zip(commits) {
                if lanes.join(sequence, touched.into_iter().collect()) {
                    ready.push(sequence);
                }
            }
            let mut finished = 0;
            while let Some(sequence) = ready.pop() {
                finished += 1;
                ready.extend(lanes.leave(sequence));
            }
            prop_assert_eq!(finished, count);
            prop_assert!(lanes.is_empty() && lanes.places() == 0);
        }
    }
}
