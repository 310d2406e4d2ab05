//! A front-end that costs little: unary calls straight on HTTP/2, and commit streams.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use axum::http::Request;
use axum::http::uri::PathAndQuery;
use bytes::{BufMut, Bytes, BytesMut};
use h2::client::SendRequest;
use prost::Message;
use proto::v1;
use proto::v1::commit_stream_response::Answer;
use proto::v1::coordinator_client::CoordinatorClient;
use tokio::net::TcpStream;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;

use super::load::{Sample, closed};
use super::workload::Workload;
use crate::app::Tenant;

/// Calls in flight on one connection.
const EACH: usize = 128;

/// Receipts fit in it a thousand times over.
const WINDOW: u32 = 1 << 20;

/// The status `RESOURCE_EXHAUSTED`.
const EXHAUSTED: &str = "8";
/// How often a call is sent again that was turned away, and after how long.
const AGAIN: u32 = 100;
const PAUSE: Duration = Duration::from_millis(100);

static TURNED_AWAY: AtomicU64 = AtomicU64::new(0);

/// How many calls were turned away since this was asked last.
pub(super) fn turned_away() -> u64 {
    TURNED_AWAY.swap(0, Ordering::Relaxed)
}

/// Connections to one node, as many as the calls need.
#[derive(Clone, Debug)]
pub(super) struct Calls {
    connections: Arc<Vec<SendRequest<Bytes>>>,
    turn: Arc<AtomicUsize>,
    authority: String,
}

impl Calls {
    /// Connects for so many calls at once.
    pub(super) async fn connect(address: &str, in_flight: usize) -> anyhow::Result<Self> {
        let mut connections = Vec::new();
        for _ in 0..in_flight.div_ceil(EACH) {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let (send, connection) = h2::client::Builder::new()
                .initial_window_size(WINDOW)
                .initial_connection_window_size(WINDOW)
                .handshake(stream)
                .await?;
            #[expect(clippy::disallowed_methods, reason = "it ends with the connection")]
            tokio::spawn(async move {
                // Calls on it say what went wrong.
                drop(connection.await);
            });
            connections.push(send);
        }
        Ok(Self {
            connections: Arc::new(connections),
            turn: Arc::default(),
            authority: address.to_owned(),
        })
    }

    /// Sends a commit, which must be confirmed, or queued if that is what it waits for. One that is
    /// turned away for now is sent again, as any client does; that takes its time.
    pub(super) async fn commit(&self, key: &str, commit: &v1::CommitRequest) -> anyhow::Result<()> {
        for _ in 0..AGAIN {
            if self.send(key, commit).await? {
                return Ok(());
            }
            TURNED_AWAY.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(PAUSE).await;
        }
        bail!("{} was turned away {AGAIN} times", commit.client_tx_id)
    }

    /// Whether the commit was taken.
    async fn send(&self, key: &str, commit: &v1::CommitRequest) -> anyhow::Result<bool> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % self.connections.len();
        let mut connection = self.connections[turn].clone().ready().await?;
        let (answer, mut body) = connection.send_request(self.head(key)?, false)?;
        body.send_data(frame(commit), true)?;
        let (head, mut answer) = answer.await?.into_parts();
        let mut message = BytesMut::new();
        while let Some(part) = answer.data().await {
            let part = part?;
            answer.flow_control().release_capacity(part.len())?;
            message.extend_from_slice(&part);
        }
        let trailers = answer.trailers().await?;
        let headers = &head.headers;
        if headers
            .get("grpc-status")
            .is_some_and(|status| status == EXHAUSTED)
        {
            return Ok(false);
        }
        ensure!(message.len() > 5, "refused: {headers:?} {trailers:?}");
        let receipt = v1::Receipt::decode(&message[5..])?;
        check(&receipt, commit.wait())?;
        Ok(true)
    }

    fn head(&self, key: &str) -> anyhow::Result<Request<()>> {
        let path = PathAndQuery::from_static("/ablo.coordinator.v1.Coordinator/Commit");
        let uri = axum::http::Uri::builder()
            .scheme("http")
            .authority(self.authority.as_str())
            .path_and_query(path)
            .build()?;
        Ok(Request::post(uri)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("authorization", format!("Bearer {key}"))
            .body(())?)
    }
}

/// A message as gRPC frames it.
fn frame(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut frame = BytesMut::with_capacity(length + 5);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(length).expect("messages are small"));
    message.encode(&mut frame).expect("there is room");
    frame.freeze()
}

fn check(receipt: &v1::Receipt, wait: v1::Wait) -> anyhow::Result<()> {
    let wanted = receipt.state() == v1::CommitState::Confirmed || wait == v1::Wait::Queued;
    ensure!(wanted, "not confirmed: {receipt:?}");
    Ok(())
}

/// Commit streams to one node.
#[derive(Clone, Debug)]
pub(super) struct Streams {
    streams: Arc<Vec<Stream>>,
    turn: Arc<AtomicUsize>,
}

type Waiting = Arc<Mutex<HashMap<String, oneshot::Sender<v1::CommitStreamResponse>>>>;

#[derive(Debug)]
struct Stream {
    send: mpsc::Sender<v1::CommitStreamRequest>,
    waiting: Waiting,
}

impl Streams {
    /// Opens streams for so many commits at once, each on a connection of its own.
    pub(super) async fn open(tenant: &Tenant, in_flight: usize) -> anyhow::Result<Self> {
        let mut streams = Vec::new();
        for _ in 0..in_flight.div_ceil(EACH) {
            streams.push(Stream::open(&tenant.connected_anew()).await?);
        }
        Ok(Self {
            streams: Arc::new(streams),
            turn: Arc::default(),
        })
    }

    /// So many commits at a time, spread over the streams.
    pub(super) async fn closed(
        self,
        in_flight: usize,
        length: Duration,
        workload: Workload,
    ) -> anyhow::Result<Sample> {
        let workload = Arc::new(workload);
        closed(in_flight, length, move |_| {
            let (streams, workload) = (self.clone(), Arc::clone(&workload));
            async move { streams.commit(workload.next()).await }
        })
        .await
    }

    /// Sends a commit, which must be confirmed.
    async fn commit(&self, commit: v1::CommitRequest) -> anyhow::Result<()> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % self.streams.len();
        let stream = &self.streams[turn];
        let (tell, answer) = oneshot::channel();
        let wait = commit.wait();
        let name = commit.client_tx_id.clone();
        stream.waiting.lock().await.insert(name, tell);
        let message = v1::CommitStreamRequest {
            commit: Some(commit),
            timeout: None,
        };
        stream.send.send(message).await?;
        match answer.await?.answer.context("an answer")? {
            Answer::Receipt(receipt) => check(&receipt, wait),
            Answer::Error(error) => bail!("refused: {error:?}"),
        }
    }
}

impl Stream {
    async fn open(tenant: &Tenant) -> anyhow::Result<Self> {
        let (send, messages) = mpsc::channel(EACH);
        let mut client: CoordinatorClient<_> = tenant.coordinator();
        let mut answers = client
            .commit_stream(ReceiverStream::new(messages))
            .await?
            .into_inner();
        let waiting = Waiting::default();
        let told = Arc::clone(&waiting);
        #[expect(clippy::disallowed_methods, reason = "it ends with the stream")]
        tokio::spawn(async move {
            while let Ok(Some(answer)) = answers.message().await {
                if let Some(tell) = told.lock().await.remove(&answer.client_tx_id) {
                    // Whoever measured no longer waits for it.
                    drop(tell.send(answer));
                }
            }
            told.lock().await.clear();
        });
        Ok(Self { send, waiting })
    }
}
