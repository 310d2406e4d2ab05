//! What was looked up lately.

use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::OnceCell;

/// Remembers look-ups for a while, misses included. Concurrent look-ups of one key are one; failed
/// ones are not remembered. When it is full of what is still valid, it forgets first what is not worth
/// keeping, then all.
#[derive(Debug)]
pub(super) struct Cache<K, V> {
    slots: Mutex<HashMap<K, Arc<Slot<V>>>>,
    capacity: usize,
    lifetime: Duration,
    worth_keeping: fn(&V) -> bool,
}

#[derive(Debug)]
struct Slot<V> {
    /// Counted from before the look-up, so that nothing older than the lifetime is answered.
    expires: Instant,
    value: OnceCell<V>,
}

impl<K: Eq + Hash, V: Clone> Cache<K, V> {
    pub(super) fn new(capacity: usize, lifetime: Duration, worth_keeping: fn(&V) -> bool) -> Self {
        Self {
            slots: Mutex::default(),
            capacity,
            lifetime,
            worth_keeping,
        }
    }

    /// The remembered value, or what `look_up` answers.
    pub(super) async fn get<E, F: Future<Output = Result<V, E>>>(
        &self,
        key: K,
        look_up: impl FnOnce() -> F,
    ) -> Result<V, E> {
        self.get_at(Instant::now(), key, look_up).await
    }

    async fn get_at<E, F: Future<Output = Result<V, E>>>(
        &self,
        now: Instant,
        key: K,
        look_up: impl FnOnce() -> F,
    ) -> Result<V, E> {
        self.slot(key, now)
            .value
            .get_or_try_init(look_up)
            .await
            .cloned()
    }

    /// The value that was last looked up, however long ago.
    pub(super) fn last(&self, key: &K) -> Option<V> {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.get(key)?.value.get().cloned()
    }

    /// The next look-up of the key is made anew.
    pub(super) fn forget(&self, key: &K) {
        self.slots
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(key);
    }

    fn slot(&self, key: K, now: Instant) -> Arc<Slot<V>> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get(&key).filter(|slot| slot.expires > now) {
            return Arc::clone(slot);
        }
        if slots.len() >= self.capacity {
            slots.retain(|_, slot| slot.expires > now);
        }
        if slots.len() >= self.capacity {
            slots.retain(|_, slot| slot.value.get().is_some_and(self.worth_keeping));
        }
        if slots.len() >= self.capacity {
            slots.clear();
        }
        let slot = Arc::new(Slot {
            expires: now + self.lifetime,
            value: OnceCell::new(),
        });
        slots.insert(key, Arc::clone(&slot));
        slot
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// Answers how often it was asked.
    #[derive(Default)]
    struct Source(AtomicU32);

    impl Source {
        async fn ask(&self) -> Result<u32, Infallible> {
            tokio::task::yield_now().await;
            Ok(self.0.fetch_add(1, Ordering::Relaxed) + 1)
        }
    }

    #[tokio::test]
    async fn a_value_is_looked_up_again_after_its_lifetime() {
        let (cache, source) = (
            Cache::new(10, Duration::from_secs(4), |_| false),
            Source::default(),
        );
        let begun = Instant::now();
        let (late, over) = (
            begun + Duration::from_millis(3_999),
            begun + Duration::from_secs(4),
        );
        assert_eq!(cache.get_at(begun, "a", || source.ask()).await, Ok(1));
        assert_eq!(cache.get_at(late, "a", || source.ask()).await, Ok(1));
        assert_eq!(cache.last(&"a"), Some(1));
        assert_eq!(cache.get_at(over, "a", || source.ask()).await, Ok(2));
    }

    #[tokio::test]
    async fn concurrent_look_ups_of_one_key_are_one() {
        let (cache, source) = (
            Cache::new(10, Duration::from_secs(4), |_| false),
            Source::default(),
        );
        let (one, other) = tokio::join!(
            cache.get("a", || source.ask()),
            cache.get("a", || source.ask())
        );
        assert_eq!((one, other), (Ok(1), Ok(1)));
    }

    #[tokio::test]
    async fn a_failed_look_up_is_not_remembered() {
        let cache = Cache::new(10, Duration::from_secs(4), |_| false);
        assert_eq!(
            cache.get("a", || async { Err::<u32, _>("away") }).await,
            Err("away")
        );
        assert_eq!(cache.get("a", || async { Ok::<_, &str>(1) }).await, Ok(1));
    }

    #[tokio::test]
    async fn it_never_holds_more_than_its_capacity() {
        let (cache, source) = (
            Cache::new(3, Duration::from_secs(4), |_| false),
            Source::default(),
        );
        for key in 0..10 {
            cache.get(key, || source.ask()).await.unwrap();
            assert!(cache.slots.lock().unwrap().len() <= 3);
        }
    }
}
