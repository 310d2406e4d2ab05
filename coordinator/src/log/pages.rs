//! Reads of the log behind the ring, made once for all who are at the same place: a thousand
//! subscribers that resume together cost one of them, and never more than a few reads at a time.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OnceCell;
use uuid::Uuid;

use super::entry::Entry;
use super::{Break, Reader};
use crate::domain::OrganizationId;
use crate::store::Error;
use crate::store::log::Span;

/// Changes in one page at most, and bytes of their rows.
const COUNT: i64 = 256;
const BYTES: i64 = 1 << 20;

/// Pages of one log that are kept for others who come along.
const KEPT: usize = 8;

/// Changes that follow each other.
#[derive(Debug)]
pub(super) struct Page {
    /// In order.
    pub(super) entries: Vec<Arc<Entry>>,
}

/// What a page was read as.
type Read = Result<Arc<Page>, Break>;

/// The pages of one log that were read lately.
#[derive(Debug, Default)]
pub(super) struct Pages {
    kept: Mutex<VecDeque<(Key, Arc<OnceCell<Read>>)>>,
}

/// The epoch, and the position before the page.
type Key = (Uuid, i64);

impl Pages {
    /// The changes behind a position that the log has passed, at least one.
    ///
    /// Readers are led to pages that begin at common places, so that they meet there.
    pub(super) async fn after(
        &self,
        reader: &Reader,
        organization: &OrganizationId,
        (epoch, position): Key,
    ) -> Result<Read, Error> {
        let common = position - position % COUNT;
        if common != position {
            // The common page may end before our position, when its rows are large, and may begin
            // before the oldest change that is kept.
            let page = self.page(reader, organization, (epoch, common)).await?;
            if let Ok(page) = &page
                && page.entries.last().is_some_and(|it| it.sync_id > position)
            {
                let skip = usize::try_from(position - common).unwrap_or(0);
                let entries = page.entries[skip..].to_vec();
                return Ok(Ok(Arc::new(Page { entries })));
            }
        }
        self.page(reader, organization, (epoch, position)).await
    }

    async fn page(
        &self,
        reader: &Reader,
        organization: &OrganizationId,
        key: Key,
    ) -> Result<Read, Error> {
        let slot = self.slot(key);
        let read = slot.get_or_try_init(|| read(reader, organization, key));
        let read = read.await?.clone();
        let complete =
            |page: &Arc<Page>| i64::try_from(page.entries.len()).is_ok_and(|count| count >= COUNT);
        if !read.as_ref().is_ok_and(complete) {
            // The log grows, and what was expired once may be asked for again.
            self.forget(key, &slot);
        }
        Ok(read)
    }

    fn slot(&self, key: Key) -> Arc<OnceCell<Read>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, slot)) = kept.iter().find(|(other, _)| *other == key) {
            return Arc::clone(slot);
        }
        if kept.len() >= KEPT {
            kept.pop_front();
        }
        let slot = Arc::default();
        kept.push_back((key, Arc::clone(&slot)));
        slot
    }

    fn forget(&self, key: Key, slot: &Arc<OnceCell<Read>>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(other, it)| *other != key || !Arc::ptr_eq(it, slot));
    }
}

async fn read(
    reader: &Reader,
    organization: &OrganizationId,
    (epoch, after): Key,
) -> Result<Read, Error> {
    let _turn = reader.turns.acquire().await;
    reader.metrics.log().page();
    let span = Span {
        after,
        count: COUNT,
        bytes: BYTES,
        since: None,
    };
    let Some(page) = reader.store.log_page(organization, span).await? else {
        return Ok(Err(Break::Diverged));
    };
    if page.head.epoch != epoch || page.head.position < after {
        return Ok(Err(Break::Diverged));
    }
    let expected = after + 1..;
    let contiguous = page
        .changes
        .iter()
        .zip(expected)
        .all(|(change, position)| change.sync_id == position);
    if !contiguous || page.changes.is_empty() {
        // Whatever is missing behind a position that the log has passed was dropped, or is a fault.
        let floor = reader.store.log_floor(organization).await?;
        if floor > after + 1 {
            return Ok(Err(Break::Expired));
        }
        reader.gap(organization, after);
        return Ok(Err(Break::Gap));
    }
    let seal = reader.cursors.seal(organization);
    let entries = page
        .changes
        .into_iter()
        .map(|change| Entry::new(change, epoch, &seal).map(Arc::new))
        .collect::<Result<_, _>>()?;
    Ok(Ok(Arc::new(Page { entries })))
}
