//! What a front-end could be followed through without a coordinator: a server that hands on what it is
//! sent to whoever listens, keeps nothing, and lets those who fall behind miss some.

use std::net::SocketAddr;
use std::pin::Pin;
use std::thread;

use futures_util::stream::{self, Stream, StreamExt};
use proto::v1;
use proto::v1::coordinator_server::{Coordinator, CoordinatorServer};
use proto::v1::log_server::{Log, LogServer};
use proto::v1::subscribe_response::Frame;
use tokio::sync::{broadcast, oneshot};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

/// Changes that wait for the slowest.
const WAITING: usize = 4_096;

/// As long as the coordinator's cursors.
const CURSOR: &str = "AQEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// A running server, on threads of its own. Dropping it stops it.
#[derive(Debug)]
pub(super) struct Broadcast {
    address: SocketAddr,
    _stop: oneshot::Sender<()>,
}

impl Broadcast {
    pub(super) fn start() -> anyhow::Result<Self> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel::<()>();
        // As many threads as there are cores, as anybody would have it.
        let runtime = tokio::runtime::Runtime::new()?;
        thread::spawn(move || {
            let serve = async {
                let incoming = TcpListenerStream::new(tokio::net::TcpListener::from_std(listener)?);
                let incoming = incoming.map(|stream| {
                    let stream = stream?;
                    stream.set_nodelay(true)?;
                    std::io::Result::Ok(stream)
                });
                let desk = Desk(broadcast::channel(WAITING).0);
                tonic::transport::Server::builder()
                    .add_service(CoordinatorServer::new(desk.clone()))
                    .add_service(LogServer::new(desk))
                    .serve_with_incoming(incoming)
                    .await?;
                anyhow::Ok(())
            };
            runtime.block_on(async {
                tokio::select! {
                    // Nobody can say it better than the calls that fail.
                    _ = serve => {}
                    _ = stopped => {}
                }
            });
            runtime.shutdown_background();
        });
        Ok(Self {
            address,
            _stop: stop,
        })
    }

    pub(super) fn address(&self) -> String {
        self.address.to_string()
    }
}

/// Takes commits of one operation, and makes of each the frame that the coordinator would.
#[derive(Clone, Debug)]
struct Desk(broadcast::Sender<v1::SubscribeResponse>);

#[tonic::async_trait]
impl Coordinator for Desk {
    async fn commit(
        &self,
        request: Request<v1::CommitRequest>,
    ) -> Result<Response<v1::Receipt>, Status> {
        let commit = request.into_inner();
        let client_tx_id = commit.client_tx_id.clone();
        // Without a listener there is nobody to tell.
        drop(self.0.send(frame(commit)));
        Ok(Response::new(v1::Receipt {
            client_tx_id,
            state: v1::CommitState::Confirmed.into(),
            ..v1::Receipt::default()
        }))
    }

    type CommitStreamStream = Answers<v1::CommitStreamResponse>;

    async fn commit_stream(
        &self,
        _: Request<tonic::Streaming<v1::CommitStreamRequest>>,
    ) -> Result<Response<Self::CommitStreamStream>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn get_commit(
        &self,
        _: Request<v1::GetCommitRequest>,
    ) -> Result<Response<v1::Receipt>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn load(
        &self,
        _: Request<v1::LoadRequest>,
    ) -> Result<Response<v1::LoadResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn list(
        &self,
        _: Request<v1::ListRequest>,
    ) -> Result<Response<v1::ListResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}

#[tonic::async_trait]
impl Log for Desk {
    type SubscribeStream = Answers<v1::SubscribeResponse>;

    async fn subscribe(
        &self,
        _: Request<v1::SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let frames = stream::unfold(self.0.subscribe(), |mut frames| async {
            let frame = frames.recv().await;
            Some((frame.map_err(|_| Status::data_loss("too slow")), frames))
        });
        // The first frame says that the stream has begun.
        let begun = stream::once(async { Ok(v1::SubscribeResponse::default()) });
        Ok(Response::new(Box::pin(begun.chain(frames))))
    }

    async fn list_changes(
        &self,
        _: Request<v1::ListChangesRequest>,
    ) -> Result<Response<v1::ListChangesResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}

fn frame(commit: v1::CommitRequest) -> v1::SubscribeResponse {
    let operation = commit.operations.into_iter().next().unwrap_or_default();
    let change = v1::Change {
        sync_id: 1_000_000,
        cursor: CURSOR.to_owned(),
        r#type: operation.r#type,
        model: operation.model,
        id: operation.id,
        row_json: operation.input_json,
        client_tx_id: commit.client_tx_id,
        operation_index: Some(0),
        participant: commit.participant,
        origin: v1::Origin::Sdk.into(),
        time: Some(prost_types::Timestamp {
            seconds: 1_700_000_000,
            nanos: 123_456_789,
        }),
        ..v1::Change::default()
    };
    v1::SubscribeResponse {
        frame: Some(Frame::Change(change)),
    }
}
