//! A change, encoded once for everybody who sees it; and who that is.

use backends::operation::OperationKind;
use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use proto::v1;
use time::OffsetDateTime;
use uuid::Uuid;

use super::cursor::{Cursor, Seal};
use crate::admit::Filter;
use crate::domain::ParticipantKind;
use crate::store::Error;
use crate::store::log::Logged;

/// What an entry weighs besides its frames.
const OVERHEAD: usize = 256;

/// Field 1, length-delimited: where both a `SubscribeResponse` and a `ListChangesResponse` have
/// changes, so that one encoding serves both.
const CHANGE: u8 = 1 << 3 | 2;

/// One change of the log.
#[derive(Debug)]
pub(super) struct Entry {
    /// Its position.
    pub(super) sync_id: i64,
    /// When it was appended.
    pub(super) created_at: OffsetDateTime,
    model: String,
    groups: Vec<String>,
    left: Vec<String>,
    /// For those who see the row.
    frame: Bytes,
    /// For those whose groups the row has left; empty when there are none.
    left_frame: Bytes,
}

impl Entry {
    /// Encodes a change.
    pub(super) fn new(logged: Logged, epoch: Uuid, seal: &Seal) -> Result<Self, Error> {
        let cursor = seal.cursor(Cursor {
            epoch,
            position: logged.sync_id,
        });
        let whole = change(&logged, cursor)?;
        let frame = framed(&whole);
        let left_frame = if logged.left_groups.is_empty() {
            Bytes::new()
        } else {
            framed(&v1::Change {
                row_json: Bytes::new(),
                sync_groups: Vec::new(),
                left: true,
                ..whole
            })
        };
        Ok(Self {
            sync_id: logged.sync_id,
            created_at: logged.created_at,
            model: logged.model,
            groups: logged.groups,
            left: logged.left_groups,
            frame,
            left_frame,
        })
    }

    /// What a subscriber with this filter is sent of it, if anything.
    pub(super) fn seen_by(&self, filter: &Filter) -> Option<&Bytes> {
        if !filter.takes_model(&self.model) {
            None
        } else if filter.takes_groups(&self.groups) {
            Some(&self.frame)
        } else if filter.names_one_of(&self.left) {
            Some(&self.left_frame)
        } else {
            None
        }
    }

    /// About how many bytes it takes up.
    pub(super) fn weight(&self) -> usize {
        self.frame.len() + self.left_frame.len() + OVERHEAD
    }
}

/// A frame that is not shared.
pub(super) fn frame(frame: v1::subscribe_response::Frame) -> Bytes {
    let response = v1::SubscribeResponse { frame: Some(frame) };
    response.encode_to_vec().into()
}

fn framed(change: &v1::Change) -> Bytes {
    let mut frame = BytesMut::with_capacity(change.encoded_len() + 6);
    frame.put_u8(CHANGE);
    change
        .encode_length_delimited(&mut frame)
        .expect("the buffer grows");
    frame.freeze()
}

fn change(logged: &Logged, cursor: String) -> Result<v1::Change, Error> {
    let kind = logged.kind()?;
    let participant = logged.participant()?;
    let nanos = i32::try_from(logged.created_at.nanosecond()).expect("less than 10^9");
    Ok(v1::Change {
        sync_id: logged.sync_id,
        cursor,
        r#type: operation_type(kind).into(),
        model: logged.model.clone(),
        id: logged.row_id.clone(),
        row_json: logged.row.clone().unwrap_or_default().into(),
        client_tx_id: logged.client_tx_id.clone().unwrap_or_default(),
        operation_index: logged.operation.map(i32::from),
        transaction_id: logged.transaction_id.clone().unwrap_or_default(),
        participant: participant.map(|who| v1::Participant {
            id: who.id,
            kind: participant_kind(who.kind).into(),
        }),
        origin: match logged.client_tx_id {
            Some(_) => v1::Origin::Sdk,
            None => v1::Origin::External,
        }
        .into(),
        sync_groups: logged.groups.clone(),
        left_sync_groups: logged.left_groups.clone(),
        left: false,
        stale: logged.stale,
        time: Some(prost_types::Timestamp {
            seconds: logged.created_at.unix_timestamp(),
            nanos,
        }),
    })
}

fn operation_type(kind: OperationKind) -> v1::OperationType {
    match kind {
        OperationKind::Create => v1::OperationType::Create,
        OperationKind::Update => v1::OperationType::Update,
        OperationKind::Delete => v1::OperationType::Delete,
        OperationKind::Archive => v1::OperationType::Archive,
        OperationKind::Unarchive => v1::OperationType::Unarchive,
    }
}

fn participant_kind(kind: ParticipantKind) -> v1::ParticipantKind {
    match kind {
        ParticipantKind::User => v1::ParticipantKind::User,
        ParticipantKind::Agent => v1::ParticipantKind::Agent,
        ParticipantKind::System => v1::ParticipantKind::System,
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::log::tests::{encoded, logged};

    fn filter(models: &[&str], groups: &[&str]) -> Filter {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Filter {
            models: names(models),
            groups: names(groups),
        }
    }

    fn sent(entry: &Entry, filter: &Filter) -> Option<v1::Change> {
        let frame = entry.seen_by(filter)?.clone();
        // The same bytes are a page with one change.
        let page = v1::ListChangesResponse::decode(frame.clone()).unwrap();
        match v1::SubscribeResponse::decode(frame).unwrap().frame {
            Some(v1::subscribe_response::Frame::Change(change)) => {
                assert_eq!(page.changes, std::slice::from_ref(&change));
                Some(change)
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn who_sees_a_row_sees_it_whole_and_who_lost_it_sees_that_alone() {
        let mut moved = logged(7, "{}");
        moved.groups = vec!["new".to_owned()];
        moved.left_groups = vec!["old".to_owned()];
        let entry = encoded(moved);
        for whole in [
            filter(&[], &[]),
            filter(&["notes"], &["new"]),
            filter(&[], &["old", "new"]),
        ] {
            let change = sent(&entry, &whole).unwrap();
            assert!(!change.left && change.row_json.as_ref() == b"{}");
            assert_eq!(change.left_sync_groups, ["old"]);
        }
        let left = sent(&entry, &filter(&["notes"], &["old"])).unwrap();
        assert!(left.left && left.row_json.is_empty() && left.sync_groups.is_empty());
        assert_eq!((left.sync_id, left.id.as_str()), (7, "a"));
        for nothing in [filter(&["airports"], &[]), filter(&[], &["other"])] {
            assert!(entry.seen_by(&nothing).is_none());
        }
    }
}
