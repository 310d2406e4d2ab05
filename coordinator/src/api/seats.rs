//! Bounds on how much one party may have going at once.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

/// Counts what each party has going.
#[derive(Debug)]
pub(super) struct Seats<K: Eq + Hash> {
    taken: Arc<Mutex<HashMap<K, usize>>>,
    each: usize,
}

impl<K: Eq + Hash> Clone for Seats<K> {
    fn clone(&self) -> Self {
        Self {
            taken: Arc::clone(&self.taken),
            each: self.each,
        }
    }
}

/// One of a party's seats, free again when it is dropped.
#[derive(Debug)]
pub(super) struct Seat<K: Eq + Hash> {
    taken: Arc<Mutex<HashMap<K, usize>>>,
    party: K,
}

impl<K: Eq + Hash + Clone> Seats<K> {
    /// `each` seats for every party.
    pub(super) fn new(each: usize) -> Self {
        Self {
            taken: Arc::default(),
            each,
        }
    }

    /// A seat, unless the party has all of its own.
    pub(super) fn take(&self, party: &K) -> Option<Seat<K>> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        match taken.get_mut(party) {
            Some(count) if *count >= self.each => return None,
            Some(count) => *count += 1,
            None if self.each == 0 => return None,
            None => {
                taken.insert(party.clone(), 1);
            }
        }
        Some(Seat {
            taken: Arc::clone(&self.taken),
            party: party.clone(),
        })
    }
}

impl<K: Eq + Hash> Drop for Seat<K> {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        match taken.get_mut(&self.party) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                taken.remove(&self.party);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_party_has_seats_of_its_own_and_gets_them_back() {
        let seats = Seats::new(2);
        let (one, two) = (seats.take(&"a").unwrap(), seats.take(&"a").unwrap());
        assert!(seats.take(&"a").is_none());
        assert!(seats.take(&"b").is_some());
        drop(one);
        assert!(seats.take(&"a").is_some());
        drop(two);
        assert!(seats.taken.lock().unwrap().is_empty());
    }
}
