//! What every call passes before its message is read: a deadline, a seat, a valid key. And after:
//! an answer with a reason, whatever happened inside.

use std::convert::Infallible;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::FutureExt;
use tokio::time::Instant;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tower::{Layer, Service};

use super::Rooms;
use super::auth::{Access, bearer, operator};
use super::deadline::{Deadline, exceeded};
use super::seats::{Seat, Seats};
use super::server::Limits;
use super::status::{completed, response};
use super::unread::Unread;
use crate::domain::OrganizationId;
use crate::keys::overloaded;
use crate::refusal::{Class, Refusal};

/// Whose answers are not counted: what its streams hold they give up when they are not read.
const SUBSCRIBE: &str = "/ablo.coordinator.v1.Log/Subscribe";

/// Puts [`Edge`] in front of the services.
#[derive(Clone, Debug)]
pub(super) struct EdgeLayer {
    gate: Arc<Gate>,
}

/// What the edge judges by.
#[derive(Debug)]
struct Gate {
    rooms: Arc<Rooms>,
    calls: Seats<()>,
    calls_by_organization: Seats<OrganizationId>,
    unread: Unread,
}

/// Services behind the gate.
#[derive(Clone, Debug)]
pub(super) struct Edge<S> {
    gate: Arc<Gate>,
    inner: S,
}

/// Lets in the messages of a stream, each as if it were a call.
#[derive(Clone, Debug)]
pub(super) struct Turnstile(Arc<Gate>);

/// What a call holds while it runs.
#[derive(Debug)]
pub(super) struct Passage {
    _call: Seat<()>,
    _own: Seat<OrganizationId>,
}

impl Turnstile {
    /// A passage for one more call of an organization.
    pub(super) fn enter(&self, organization: &OrganizationId) -> Result<Passage, Refusal> {
        self.0.enter(organization)
    }
}

impl EdgeLayer {
    /// Lets in as many calls as these limits say, and keeps as much of their answers.
    pub(super) fn new(rooms: Arc<Rooms>, limits: &Limits) -> Self {
        Self {
            gate: Arc::new(Gate {
                rooms,
                calls: Seats::new(limits.calls),
                calls_by_organization: Seats::new(limits.calls_per_organization),
                unread: Unread::new(limits.unread),
            }),
        }
    }
}

impl<S> Layer<S> for EdgeLayer {
    type Service = Edge<S>;

    fn layer(&self, inner: S) -> Edge<S> {
        Edge {
            gate: Arc::clone(&self.gate),
            inner,
        }
    }
}

impl<S> Service<Request<Body>> for Edge<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let now = Instant::now();
        let gate = Arc::clone(&self.gate);
        // The service that was polled ready is the one to call; the clone waits for the next call.
        let waiting = self.inner.clone();
        let ready = std::mem::replace(&mut self.inner, waiting);
        Box::pin(async move { Ok(gate.answer(ready, request, now).await) })
    }
}

impl Gate {
    fn enter(&self, organization: &OrganizationId) -> Result<Passage, Refusal> {
        let call = self.calls.take(&()).ok_or_else(overloaded)?;
        let own = self.calls_by_organization.take(organization);
        Ok(Passage {
            _call: call,
            _own: own.ok_or_else(overloaded)?,
        })
    }

    async fn answer<S>(
        self: &Arc<Self>,
        inner: S,
        request: Request<Body>,
        now: Instant,
    ) -> Response<Body>
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    {
        let deadline = match Deadline::of(request.headers(), now, self.rooms.wait_cap) {
            Ok(deadline) => deadline,
            Err(refusal) => return response(refusal),
        };
        let path = request.uri().path().to_owned();
        let passing = AssertUnwindSafe(self.pass(inner, request, deadline)).catch_unwind();
        match tokio::time::timeout_at(deadline.answer_by, passing).await {
            Ok(Ok(Ok(answer))) => completed(answer),
            Ok(Ok(Err(refusal))) => response(refusal),
            Ok(Err(_panic)) => {
                tracing::error!(rpc.method = path, "a call panicked");
                let message = "the fault is the coordinator's; it is logged";
                response(Refusal::new(Class::Internal, "internal", message))
            }
            Err(_elapsed) => response(exceeded()),
        }
    }

    async fn pass<S>(
        self: &Arc<Self>,
        mut inner: S,
        mut request: Request<Body>,
        deadline: Deadline,
    ) -> Result<Response<Body>, Refusal>
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    {
        request.extensions_mut().insert(deadline);
        let subscribes = request.uri().path() == SUBSCRIBE;
        let (passage, party) = match Access::of(request.uri().path()) {
            Access::Anybody => (None, Some(None)),
            Access::Operator => {
                operator(
                    bearer(request.headers())?,
                    self.rooms.operator_token.as_ref(),
                )?;
                (None, None)
            }
            Access::Organization => {
                let caller = self
                    .rooms
                    .keys
                    .authenticate(bearer(request.headers())?)
                    .await?;
                // Strangers take no seat, so that they cannot keep those with a key out.
                let organization = caller.organization.clone();
                let passage = self.enter(&organization)?;
                request.extensions_mut().insert(caller);
                request.extensions_mut().insert(Turnstile(Arc::clone(self)));
                (Some(passage), Some(Some(organization)))
            }
        };
        let Ok(answer) = inner.call(request).await;
        drop(passage);
        Ok(match party.filter(|_| !subscribes) {
            Some(party) => answer.map(|body| self.unread.answer(party, body)),
            None => answer,
        })
    }
}

#[cfg(test)]
mod tests {
    use tonic::{Code, Status};
    use tonic_types::StatusExt;

    use super::*;
    use crate::api::scratch::rooms;
    use crate::store::tests::unreachable;

    /// A service with a fault.
    #[derive(Clone)]
    struct Faulty;

    impl Service<Request<Body>> for Faulty {
        type Response = Response<Body>;
        type Error = Infallible;
        type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<Body>) -> Self::Future {
            Box::pin(async { panic!("a fault of ours") })
        }
    }

    #[tokio::test]
    async fn a_panic_inside_answers_internal_and_tells_nothing() {
        let gated = Arc::new(rooms(unreachable()));
        let mut edge = EdgeLayer::new(gated, &Limits::default()).layer(Faulty);
        let Ok(answer) = edge.call(Request::new(Body::empty())).await;
        let status = Status::from_header_map(answer.headers()).unwrap();
        assert_eq!(status.code(), Code::Internal);
        let details = status.get_error_details();
        assert_eq!(details.error_info().unwrap().reason, "internal");
        assert!(!status.message().contains("fault of ours"));
    }
}
