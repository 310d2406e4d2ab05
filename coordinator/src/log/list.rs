//! Changes by page, for callers that poll.

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use proto::v1;
use proto::v1::list_changes_request::Start;

use super::ring::After;
use super::tail::Log;
use super::{Break, Logs, Place};
use crate::admit::Filter;
use crate::domain::OrganizationId;
use crate::pages;
use crate::refusal::Refusal;

/// Changes looked at for one page at most, and bytes of those that it has.
const LOOKED_AT: i64 = 4_096;
const BYTES: usize = 3 << 20;

/// Changes taken up at a time, and their bytes.
const TAKEN: (usize, usize) = (256, 1 << 20);

/// A page in the making.
struct Page {
    size: u32,
    changes: BytesMut,
    count: u32,
}

impl Logs {
    /// A page of changes, encoded as a `ListChangesResponse`.
    ///
    /// # Errors
    /// Those of the `Log` service.
    pub async fn list_changes(
        &self,
        organization: &OrganizationId,
        request: v1::ListChangesRequest,
    ) -> Result<Bytes, Refusal> {
        let size = pages::page_size(request.page_size)?;
        let filter = self
            .filter(organization, &request.models, &request.sync_groups)
            .await?;
        let log = self.join(organization).await?;
        let newest = self.newest(&log).await?;
        let mut place = match request.start {
            None | Some(Start::Oldest(false)) => newest,
            Some(Start::Oldest(true)) => self.oldest(&log).await?,
            Some(Start::Cursor(text)) => self.resumed(&log, &text).await?,
        };
        let mut page = Page {
            size,
            changes: BytesMut::new(),
            count: 0,
        };
        let until = newest.position.min(place.position + LOOKED_AT);
        while place.position < until && page.has_room() {
            let taken = page.take(&log, &mut place, &filter).await?;
            taken.map_err(Break::refusal)?;
        }
        let rest = v1::ListChangesResponse {
            changes: Vec::new(),
            cursor: log.cursor(place.era, place.position),
            caught_up_to: place.position,
            more: place.position < newest.position,
        };
        // The changes' frames are this message's first field, too.
        page.changes.put(rest.encode_to_vec().as_slice());
        Ok(page.changes.freeze())
    }
}

impl Page {
    fn has_room(&self) -> bool {
        self.count < self.size && self.changes.len() < BYTES
    }

    /// Looks at the changes behind a place, and moves it on.
    async fn take(
        &mut self,
        log: &Log,
        place: &mut Place,
        filter: &Filter,
    ) -> Result<Result<(), Break>, Refusal> {
        let page;
        let entries = match log.after(place.era, place.position, TAKEN) {
            Err(broken) => return Ok(Err(broken)),
            Ok(After::Entries(entries)) => entries,
            Ok(After::Behind | After::Nothing) => {
                page = match log.page(place.era, place.position).await? {
                    Ok(page) => page,
                    Err(broken) => return Ok(Err(broken)),
                };
                page.entries.clone()
            }
        };
        for entry in entries {
            if !self.has_room() {
                break;
            }
            place.position = entry.sync_id;
            if let Some(frame) = entry.seen_by(filter) {
                self.changes.put(frame.clone());
                self.count += 1;
            }
        }
        Ok(Ok(()))
    }
}
