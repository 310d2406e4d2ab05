//! Answers that their callers have not read yet, by bytes.
//!
//! Whatever a connection takes no more of waits in memory, and a connection may have hundreds of
//! calls. So every chunk of an answer has a share of what a node keeps, until the last of its bytes has
//! left. Nobody may have more than is left for all others: an organization that reads nothing has half
//! of it, and whoever comes next finds some.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;

use super::status::trailers;
use crate::domain::OrganizationId;
use crate::refusal::{Class, Refusal};

/// A chunk that is not longer has no share: calls are counted, too.
const SMALL: usize = 1 << 10;

/// When somebody who reads may have read.
const RETURN: Duration = Duration::from_millis(500);

/// Whose an answer is; strangers are one party.
pub(super) type Party = Option<OrganizationId>;

/// What a node keeps of answers.
#[derive(Clone, Debug)]
pub(super) struct Unread {
    most: usize,
    kept: Arc<Mutex<Kept>>,
}

#[derive(Debug, Default)]
struct Kept {
    all: usize,
    by_party: HashMap<Party, usize>,
}

/// A chunk on its way out, which gives back its share when it has left or nobody wants it any more.
struct Chunk {
    bytes: Bytes,
    party: Party,
    kept: Arc<Mutex<Kept>>,
}

impl Unread {
    /// So many bytes in all.
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            kept: Arc::default(),
        }
    }

    /// An answer for a party. What there is no room for is not kept: the answer ends with an error, by
    /// which nobody can tell what became of the call.
    pub(super) fn answer(&self, party: Party, body: Body) -> Body {
        Body::new(Answer {
            body: Some(body),
            party,
            unread: self.clone(),
        })
    }

    fn keep(&self, party: &Party, bytes: Bytes) -> Option<Bytes> {
        let length = bytes.len();
        if length <= SMALL {
            return Some(bytes);
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let all = kept.all + length;
        let own = kept.of(party) + length;
        if self.most.checked_sub(all)? < own {
            return None;
        }
        kept.all = all;
        kept.by_party.insert(party.clone(), own);
        Some(Bytes::from_owner(Chunk {
            bytes,
            party: party.clone(),
            kept: Arc::clone(&self.kept),
        }))
    }
}

impl Kept {
    fn of(&self, party: &Party) -> usize {
        self.by_party.get(party).copied().unwrap_or(0)
    }
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.all -= self.bytes.len();
        let left = kept.of(&self.party) - self.bytes.len();
        if left == 0 {
            kept.by_party.remove(&self.party);
        } else {
            kept.by_party.insert(self.party.clone(), left);
        }
    }
}

/// An answer whose chunks have a share each; without a body once one found none.
struct Answer {
    body: Option<Body>,
    party: Party,
    unread: Unread,
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        let polled = Pin::new(body).poll_frame(context);
        Poll::Ready(match std::task::ready!(polled) {
            Some(Ok(frame)) => Some(Ok(match frame.into_data() {
                Ok(bytes) => {
                    if let Some(bytes) = self.unread.keep(&self.party, bytes) {
                        Frame::data(bytes)
                    } else {
                        self.body = None;
                        Frame::trailers(trailers(not_kept()))
                    }
                }
                Err(frame) => frame,
            })),
            ended => ended,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body
            .as_ref()
            .is_none_or(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body
            .as_ref()
            .map_or_else(SizeHint::default, http_body::Body::size_hint)
    }
}

/// Whether the call had an effect, its answer would have said.
fn not_kept() -> Refusal {
    let message = "answers to earlier calls were not read; a commit is answered again under its id";
    Refusal::new(Class::Unavailable, "answer_not_kept", message).retry_after(RETURN)
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, Full};
    use tonic_types::StatusExt;

    use super::*;

    fn chunk(length: usize) -> Bytes {
        Bytes::from(vec![7; length])
    }

    fn organization(name: &str) -> OrganizationId {
        OrganizationId::new(name)
    }

    #[test]
    fn one_party_has_half_and_the_next_finds_some_until_they_have_read() {
        let unread = Unread::new(100 * SMALL);
        let (one, other) = (Some(organization("one")), Some(organization("other")));
        let kept: Vec<_> = (0..99)
            .map_while(|_| unread.keep(&one, chunk(5 * SMALL)))
            .collect();
        assert_eq!(kept.len(), 10);
        assert!(unread.keep(&one, chunk(SMALL)).is_some(), "it is small");
        let others = unread.keep(&other, chunk(25 * SMALL)).unwrap();
        let full = || unread.keep(&other, chunk(2 * SMALL)).is_none();
        assert!(full());
        assert!(unread.keep(&None, chunk(101 * SMALL)).is_none());
        assert!(unread.keep(&None, chunk(5 * SMALL)).is_some());

        // Parts that are sent one by one are one chunk, which is there until the last has left.
        let mut part = others.clone();
        drop(part.split_to(24 * SMALL));
        drop(others);
        assert!(full());
        drop(part);
        assert!(!full());
        drop(kept);
        let nothing = unread.kept.lock().unwrap();
        assert!(nothing.all == 0 && nothing.by_party.is_empty());
    }

    #[tokio::test]
    async fn an_answer_that_is_not_kept_ends_with_a_reason_and_a_time_to_return() {
        let unread = Unread::new(10 * SMALL);
        let body = |length| Body::new(Full::new(chunk(length)));
        let kept = unread.answer(Some(organization("one")), body(5 * SMALL));
        let kept = kept.collect().await.unwrap();
        let refused = unread.answer(Some(organization("one")), body(2 * SMALL));
        let refused = refused.collect().await.unwrap();
        let status = Status::from_header_map(refused.trailers().unwrap()).unwrap();
        assert_eq!(status.code(), tonic::Code::Unavailable);
        let details = status.get_error_details();
        assert_eq!(details.error_info().unwrap().reason, "answer_not_kept");
        assert_eq!(details.retry_info().unwrap().retry_delay, Some(RETURN));
        assert!(refused.to_bytes().is_empty());
        assert_eq!(kept.to_bytes().len(), 5 * SMALL);
        let again = unread.answer(Some(organization("one")), body(2 * SMALL));
        assert_eq!(
            again.collect().await.unwrap().to_bytes().len(),
            2 * SMALL,
            "what was read has left"
        );
    }
}
