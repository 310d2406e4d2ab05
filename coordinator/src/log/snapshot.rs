//! The rows of managed models as they stand, a page at a time, without a transaction that lasts.
//!
//! Rows are read while others write. A row that has changed since the first page was read is left
//! out: its change, with the whole row, is in the log behind the position of that first page, and is
//! sent after the rows. At the head that the last page saw, rows and changes together are exactly
//! what is there.

use std::collections::VecDeque;
use std::sync::Arc;

use backends::json;
use bytes::Bytes;
use proto::v1;
use proto::v1::subscribe_response::Frame;
use serde_json::Value;

use super::entry::frame;
use super::tail::Log;
use super::{Break, Reader};
use crate::admit::{Backing, Filter, Model, Schema};
use crate::refusal::Refusal;
use crate::store::Error;
use crate::store::log::{LogHead, SnapshotRow};

/// Rows in one page at most, and their bytes.
const COUNT: i64 = 256;
const BYTES: i64 = 1 << 20;

/// A scan under way.
pub(super) struct Scan {
    schema: Option<Arc<Schema>>,
    models: VecDeque<String>,
    /// The last row of the first of the models that was read.
    after: String,
    /// Where the log stood when the first page was read.
    began: Option<LogHead>,
}

/// A page of a scan.
pub(super) struct ScanPage {
    /// Its rows.
    pub(super) frames: Vec<Bytes>,
    /// After the last page: behind which position changes follow, and at which the snapshot is
    /// complete.
    pub(super) finished: Option<(i64, i64)>,
}

impl Scan {
    /// A scan of the managed models that a filter lets through.
    ///
    /// # Errors
    /// `snapshot_not_managed` when it names one whose rows live elsewhere.
    pub(super) fn new(schema: Option<Arc<Schema>>, filter: &Filter) -> Result<Self, Refusal> {
        let mut models = VecDeque::new();
        for (name, model) in schema.iter().flat_map(|schema| &schema.models) {
            match model.backing {
                Backing::Managed if filter.takes_model(name) => models.push_back(name.clone()),
                Backing::Source(_) if filter.models.contains(name) => {
                    let rule = format!("{name} lives in a Data Source: it has no snapshot");
                    return Err(Refusal::field("snapshot_not_managed", "models", rule));
                }
                _ => {}
            }
        }
        Ok(Self {
            schema,
            models,
            after: String::new(),
            began: None,
        })
    }

    /// The next rows.
    pub(super) async fn page(
        &mut self,
        reader: &Reader,
        log: &Log,
        filter: &Filter,
    ) -> Result<Result<ScanPage, Break>, Refusal> {
        let _turn = reader.turns.acquire().await;
        let Some(model) = self.models.front() else {
            // Nothing to read but the head.
            let head = log.head().await?.ok_or_else(Refusal::internal)?;
            return Ok(self.pass(head).map(|finished| ScanPage {
                frames: Vec::new(),
                finished,
            }));
        };
        let from = (model.as_str(), self.after.as_str());
        let page = reader
            .store
            .snapshot_page(&log.organization, from, (COUNT, BYTES));
        let Some((head, rows)) = page.await? else {
            return Ok(Err(Break::Diverged));
        };
        log.saw(head.position);
        let began = self.began.unwrap_or(head);
        let mut frames = Vec::with_capacity(rows.len());
        let kind = self.schema.as_ref().and_then(|schema| schema.model(model));
        for row in rows.iter().filter(|row| row.sync_id <= began.position) {
            frames.extend(encoded((model, kind), row, filter)?);
        }
        if let Some(last) = rows.last() {
            self.after.clone_from(&last.id);
        } else {
            self.models.pop_front();
            self.after.clear();
        }
        Ok(self
            .pass(head)
            .map(|finished| ScanPage { frames, finished }))
    }

    /// Notes where the log stood when a page was read; after the last one, what that comes to.
    fn pass(&mut self, head: LogHead) -> Result<Option<(i64, i64)>, Break> {
        let began = *self.began.get_or_insert(head);
        if head.epoch != began.epoch || head.position < began.position {
            return Err(Break::Diverged);
        }
        let done = self.models.is_empty();
        Ok(done.then_some((began.position, head.position)))
    }
}

/// A row as a frame, if the filter lets it through.
fn encoded(
    (name, model): (&str, Option<&Model>),
    row: &SnapshotRow,
    filter: &Filter,
) -> Result<Option<Bytes>, Refusal> {
    let Ok(Value::Object(fields)) = json::parse_stored(&row.row) else {
        let corrupt = Error::Corrupt {
            table: "managed_rows",
            column: "row",
            row: format!("{name}/{}", row.id),
        };
        return Err(corrupt.into());
    };
    let sync_groups = model.map_or_else(Vec::new, |model| model.groups(&fields));
    if !filter.takes_groups(&sync_groups) {
        return Ok(None);
    }
    let row = v1::SnapshotRow {
        model: name.to_owned(),
        id: row.id.clone(),
        // As text from jsonb: canonical, but its numbers as they were written.
        row_json: row.row.clone().into(),
        archived: row.archived,
        sync_id: row.sync_id,
        sync_groups,
    };
    Ok(Some(frame(Frame::SnapshotRow(row))))
}
