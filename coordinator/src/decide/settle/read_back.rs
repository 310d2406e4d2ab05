//! What loads of a commit's rows showed, on the record.

use backends::data_source::classify::AttemptError;

use super::Closing;
use crate::domain::{RequestError, RequestKind};

/// What signed loads of a commit's rows showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadBack {
    /// For a person; no row data.
    pub text: String,
    /// Whether any row could be read.
    pub succeeded: bool,
    /// Why a row could not: class, message, and the HTTP status or 0.
    pub failed: Option<(String, String, i32)>,
    /// Why the answer did not fit the commit, where its rows showed that it was applied.
    pub misfit: Option<AttemptError>,
}

impl Closing<'_> {
    /// Loads are on record as requests of their own kind.
    pub(super) fn note_read_back(&mut self) {
        let Some(read_back) = &self.settle.read_back else {
            return;
        };
        let now = self.state.now;
        self.entry.read_back = Some((now, read_back.text.clone()));
        let kind = (self.settle.source.clone(), RequestKind::Load);
        let note = self.append.requests.entry(kind).or_default();
        if read_back.succeeded {
            note.success_at = Some(now);
        }
        if let Some((class, message, http_status)) = read_back.failed.clone() {
            note.error = Some(RequestError {
                at: now,
                class,
                message,
                http_status,
            });
        }
    }
}
