//! What this node keeps for each source that it reads from: a bound on what is in flight, and a
//! record that many reads share.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::domain::OrganizationId;
use crate::store::source_requests::LastRequests;

/// The most reads of one source in flight on one node: a slow endpoint holds up no one else.
const MAX_IN_FLIGHT: usize = 64;

type SourceKey = (OrganizationId, String);

/// The gates of all sources that are being read.
#[derive(Debug, Default)]
pub(super) struct Gates {
    gates: Mutex<HashMap<SourceKey, Arc<Gate>>>,
}

/// The gate of one source.
#[derive(Debug)]
pub(super) struct Gate {
    room: Arc<Semaphore>,
    /// Of its load requests.
    pub(super) loads: Journal,
    /// Of its list requests.
    pub(super) lists: Journal,
}

/// One read of a source, inside its gate.
#[derive(Debug)]
pub(super) struct Entered<'a> {
    gates: &'a Gates,
    key: SourceKey,
    gate: Option<Arc<Gate>>,
    _room: OwnedSemaphorePermit,
}

impl Gates {
    /// Lets a read in, unless the source has as many in flight as it may.
    pub(super) fn enter(&self, organization: &OrganizationId, source: &str) -> Option<Entered<'_>> {
        let key = (organization.clone(), source.to_owned());
        let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        let gate = gates.entry(key.clone()).or_insert_with(|| {
            Arc::new(Gate {
                room: Arc::new(Semaphore::new(MAX_IN_FLIGHT)),
                loads: Journal::default(),
                lists: Journal::default(),
            })
        });
        let room = Arc::clone(&gate.room).try_acquire_owned().ok()?;
        let gate = Some(Arc::clone(gate));
        Some(Entered {
            gates: self,
            key,
            gate,
            _room: room,
        })
    }
}

impl Entered<'_> {
    pub(super) fn gate(&self) -> &Gate {
        self.gate
            .as_ref()
            .expect("it is taken only when this is dropped")
    }
}

/// The last one out takes the gate away.
impl Drop for Entered<'_> {
    fn drop(&mut self) {
        let mut gates = self
            .gates
            .gates
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        drop(self.gate.take());
        if gates
            .get(&self.key)
            .is_some_and(|gate| Arc::strong_count(gate) == 1)
        {
            gates.remove(&self.key);
        }
    }
}

/// What requests of one kind came to, on its way to the record: one writes for all that wait.
#[derive(Debug, Default)]
pub(super) struct Journal {
    unwritten: Mutex<Unwritten>,
    /// The number of the last entry on record. Held while one writes.
    written: tokio::sync::Mutex<u64>,
}

#[derive(Debug, Default)]
struct Unwritten {
    last: LastRequests,
    entries: u64,
}

impl Journal {
    /// Returns when this entry, or a newer one of its sort, is on record.
    pub(super) async fn record<E, F: Future<Output = Result<(), E>>>(
        &self,
        came_to: LastRequests,
        write: impl FnOnce(LastRequests) -> F,
    ) -> Result<(), E> {
        let entry = {
            let mut unwritten = self.unwritten();
            let LastRequests { succeeded, failed } = came_to;
            unwritten.last.succeeded |= succeeded;
            unwritten.last.failed = failed.or_else(|| unwritten.last.failed.take());
            unwritten.entries += 1;
            unwritten.entries
        };
        let mut written = self.written.lock().await;
        if *written >= entry {
            return Ok(());
        }
        let (last, entries) = {
            let mut unwritten = self.unwritten();
            (std::mem::take(&mut unwritten.last), unwritten.entries)
        };
        match write(last.clone()).await {
            Ok(()) => {
                *written = entries;
                Ok(())
            }
            Err(error) => {
                // Whoever comes next tries again; what is newer stays.
                let mut unwritten = self.unwritten();
                unwritten.last.succeeded |= last.succeeded;
                unwritten.last.failed = unwritten.last.failed.take().or(last.failed);
                Err(error)
            }
        }
    }

    fn unwritten(&self) -> std::sync::MutexGuard<'_, Unwritten> {
        self.unwritten
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tokio::sync::Notify;

    use super::*;
    use crate::store::source_requests::FailedRequest;

    fn failed(class: &str) -> LastRequests {
        let class = class.to_owned();
        let failed = FailedRequest {
            class,
            message: String::new(),
            http_status: 500,
        };
        LastRequests {
            succeeded: false,
            failed: Some(failed),
        }
    }

    const SUCCEEDED: LastRequests = LastRequests {
        succeeded: true,
        failed: None,
    };

    #[test]
    fn a_source_has_so_many_reads_in_flight_and_a_gate_only_while_it_has() {
        let gates = Gates::default();
        let acme = OrganizationId::new("acme");
        let mut inside: Vec<_> = (0..MAX_IN_FLIGHT)
            .map(|_| gates.enter(&acme, "crm").unwrap())
            .collect();
        assert!(gates.enter(&acme, "crm").is_none());
        assert!(gates.enter(&acme, "erp").is_some());
        inside.pop();
        assert!(gates.enter(&acme, "crm").is_some());
        inside.clear();
        assert!(gates.gates.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn one_writes_for_all_that_wait() {
        let journal = Journal::default();
        let (writing, go_on) = (Notify::new(), Notify::new());
        let writes = Mutex::new(Vec::new());
        let write = async |last: LastRequests| {
            writes.lock().unwrap().push(last);
            writing.notify_one();
            go_on.notified().await;
            Ok::<_, Infallible>(())
        };
        let first = journal.record(SUCCEEDED, &write);
        let others = async {
            writing.notified().await;
            let all = async {
                tokio::join!(
                    journal.record(failed("a"), &write),
                    journal.record(SUCCEEDED, &write),
                    journal.record(failed("b"), &write),
                )
            };
            let release = async {
                go_on.notify_one();
                writing.notified().await;
                go_on.notify_one();
            };
            tokio::join!(all, release)
        };
        let _ = tokio::join!(first, others);
        let together = LastRequests {
            succeeded: true,
            ..failed("b")
        };
        assert_eq!(*writes.lock().unwrap(), [SUCCEEDED, together]);
    }

    #[tokio::test]
    async fn what_could_not_be_written_is_written_with_the_next() {
        let journal = Journal::default();
        let away = journal.record(failed("a"), async |_| Err("away")).await;
        assert_eq!(away, Err("away"));
        let expected = LastRequests {
            succeeded: true,
            ..failed("a")
        };
        let write = async |last| {
            assert_eq!(last, expected);
            Ok::<_, &str>(())
        };
        assert_eq!(journal.record(SUCCEEDED, write).await, Ok(()));
    }
}
