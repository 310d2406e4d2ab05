//! The Log service. It is not built on the generated server, because a change is encoded once for
//! all who see it: what is sent are shared bytes, not messages.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes};
use futures_util::future::BoxFuture;
use futures_util::stream::{BoxStream, StreamExt};
use proto::v1;
use secrecy::SecretString;
use tonic::body::Body;
use tonic::codec::{BufferSettings, Codec, EncodeBuf, Encoder};
use tonic::codegen::http;
use tonic::server::{Grpc, NamedService, ServerStreamingService, UnaryService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use tower::Service;

use super::Rooms;
use super::auth::{bearer, caller};
use super::seats::Seats;
use super::server::LARGEST_MESSAGE;
use super::status::{Answer, status, unimplemented};
use crate::domain::OrganizationId;
use crate::keys::overloaded;

/// Streams at once.
#[derive(Clone, Debug)]
pub(super) struct StreamSeats {
    all: Seats<()>,
    by_organization: Seats<OrganizationId>,
}

/// The service.
#[derive(Clone, Debug)]
pub(super) struct LogApi {
    rooms: Arc<Rooms>,
    seats: StreamSeats,
}

impl LogApi {
    /// Lets `streams` run at once, of them at most `each` of one organization.
    pub(super) fn new(rooms: Arc<Rooms>, streams: usize, each: usize) -> Self {
        let seats = StreamSeats {
            all: Seats::new(streams),
            by_organization: Seats::new(each),
        };
        Self { rooms, seats }
    }

    async fn subscribe(
        self,
        request: Request<v1::SubscribeRequest>,
    ) -> Answer<BoxStream<'static, Result<Bytes, Status>>> {
        let caller = caller(&request)?;
        let organization = &caller.organization;
        let token = bearer(request.metadata().as_ref()).map_err(status)?;
        let token = SecretString::from(token);
        let seats = self
            .seats
            .all
            .take(&())
            .zip(self.seats.by_organization.take(organization));
        let seats = Box::new(seats.ok_or_else(|| status(overloaded()))?);
        let subscription =
            self.rooms
                .logs
                .subscribe(organization, request.into_inner(), (token, seats));
        let frames = subscription.await.map_err(status)?;
        Ok(Response::new(
            frames.map(|frame| frame.map_err(status)).boxed(),
        ))
    }

    async fn list_changes(self, request: Request<v1::ListChangesRequest>) -> Answer<Bytes> {
        let caller = caller(&request)?;
        let organization = &caller.organization;
        let page = self
            .rooms
            .logs
            .list_changes(organization, request.into_inner());
        page.await.map(Response::new).map_err(status)
    }
}

impl NamedService for LogApi {
    const NAME: &'static str = "ablo.coordinator.v1.Log";
}

impl Service<http::Request<Body>> for LogApi {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let api = self.clone();
        Box::pin(async move {
            Ok(match request.uri().path() {
                "/ablo.coordinator.v1.Log/Subscribe" => {
                    let mut grpc = grpc(Encoded::<v1::SubscribeRequest>::default());
                    grpc.server_streaming(Subscribe(api), request).await
                }
                "/ablo.coordinator.v1.Log/ListChanges" => {
                    let mut grpc = grpc(Encoded::<v1::ListChangesRequest>::default());
                    grpc.unary(ListChanges(api), request).await
                }
                _ => unimplemented(),
            })
        })
    }
}

fn grpc<T: Codec>(codec: T) -> Grpc<T> {
    Grpc::new(codec)
        .max_decoding_message_size(LARGEST_MESSAGE)
        .max_encoding_message_size(LARGEST_MESSAGE)
}

struct Subscribe(LogApi);

impl ServerStreamingService<v1::SubscribeRequest> for Subscribe {
    type Response = Bytes;
    type ResponseStream = BoxStream<'static, Result<Bytes, Status>>;
    type Future = BoxFuture<'static, Answer<Self::ResponseStream>>;

    fn call(&mut self, request: Request<v1::SubscribeRequest>) -> Self::Future {
        Box::pin(self.0.clone().subscribe(request))
    }
}

struct ListChanges(LogApi);

impl UnaryService<v1::ListChangesRequest> for ListChanges {
    type Response = Bytes;
    type Future = BoxFuture<'static, Answer<Bytes>>;

    fn call(&mut self, request: Request<v1::ListChangesRequest>) -> Self::Future {
        Box::pin(self.0.clone().list_changes(request))
    }
}

/// Reads messages, sends what is encoded already.
#[derive(Debug)]
struct Encoded<T>(ProstCodec<T, T>);

impl<T> Default for Encoded<T> {
    fn default() -> Self {
        Self(ProstCodec::new())
    }
}

impl<T: prost::Message + Default + 'static> Codec for Encoded<T> {
    type Encode = Bytes;
    type Decode = T;
    type Encoder = Copied;
    type Decoder = <ProstCodec<T, T> as Codec>::Decoder;

    fn encoder(&mut self) -> Copied {
        Copied
    }

    fn decoder(&mut self) -> Self::Decoder {
        self.0.decoder()
    }
}

#[derive(Debug)]
struct Copied;

impl Encoder for Copied {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::default()
    }
}
