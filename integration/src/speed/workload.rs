//! What is written: rows of about 200 bytes, half of them new, half of them there before.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use proto::v1;
use serde_json::json;

/// The text of every row, of this side and the other.
pub(super) const TEXT: &str = "The quick brown fox jumps over the lazy dog while twelve wizards \
                               box quietly and a jovial cat naps on the warm brick wall of noon.";

/// Told apart by this, so that no two measurements name the same commit.
static RUN: AtomicU32 = AtomicU32::new(1);

/// Commits on one model.
#[derive(Debug)]
pub(super) struct Workload {
    model: String,
    run: u32,
    /// Rows `k0`, `k1`, … exist.
    keys: u64,
    operations: u64,
    made: AtomicU64,
}

/// A number for a measurement that no other has.
pub(super) fn run() -> u32 {
    RUN.fetch_add(1, Ordering::Relaxed)
}

impl Workload {
    /// Commits of so many operations on a model with so many rows; with none, all are new.
    pub(super) fn new(model: &str, keys: u64, operations: u64) -> Self {
        Self {
            model: model.to_owned(),
            run: run(),
            keys,
            operations,
            made: AtomicU64::new(0),
        }
    }

    /// The next commit.
    pub(super) fn next(&self) -> v1::CommitRequest {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let operations = (0..self.operations).map(|index| self.operation(number, index));
        v1::CommitRequest {
            client_tx_id: format!("r{}-{number}", self.run),
            participant: Some(v1::Participant {
                id: "user-1".to_owned(),
                kind: v1::ParticipantKind::User.into(),
            }),
            operations: operations.collect(),
            wait: v1::Wait::Confirmed.into(),
            ..v1::CommitRequest::default()
        }
    }

    fn operation(&self, number: u64, index: u64) -> v1::Operation {
        let drawn = mixed(number.wrapping_mul(self.operations) + index);
        let updates = self.keys > 0 && drawn.is_multiple_of(2);
        let (kind, id) = if updates {
            // Rows of one commit lie apart, so that none comes twice.
            let stride = (self.keys / self.operations).max(1);
            let key = (mixed(number) + index * stride) % self.keys;
            (v1::OperationType::Update, format!("k{key}"))
        } else {
            let id = format!("n{}-{number}-{index}", self.run);
            (v1::OperationType::Create, id)
        };
        v1::Operation {
            r#type: kind.into(),
            model: self.model.clone(),
            id,
            input_json: input(drawn % 1_000_000_000).into(),
            ..v1::Operation::default()
        }
    }
}

/// The fields of a row.
pub(super) fn input(number: u64) -> String {
    json!({"text": TEXT, "number": number}).to_string()
}

/// A number's bits, well mixed: draws that cost next to nothing and are the same on every run.
pub(super) fn mixed(number: u64) -> u64 {
    let mut bits = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn half_of_it_is_new_and_no_row_comes_twice_in_a_commit() {
        let workload = Workload::new("notes", 1_000, 100);
        let mut created = 0;
        for _ in 0..20 {
            let commit = workload.next();
            let ids: HashSet<_> = commit.operations.iter().map(|it| &it.id).collect();
            assert_eq!(ids.len(), 100);
            created += commit
                .operations
                .iter()
                .filter(|it| it.r#type() == v1::OperationType::Create)
                .count();
        }
        assert!((900..1_100).contains(&created), "{created}");
    }

    #[test]
    fn two_workloads_never_name_the_same_commit() {
        let (one, other) = (Workload::new("a", 1, 1), Workload::new("a", 1, 1));
        assert_ne!(one.next().client_tx_id, other.next().client_tx_id);
    }
}
