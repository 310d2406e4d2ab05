//! A front-end: it sends the commits of several clients on one stream.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use proto::v1;
use proto::v1::commit_stream_response::Answer;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use crate::app::Tenant;

/// Commits that wait for the stream at most.
const WAITING: usize = 64;

/// A stream that is opened when it is needed, wherever the client of that moment likes.
#[derive(Debug, Default)]
pub(super) struct Line {
    stream: Mutex<Option<Stream>>,
}

/// Who waits for what became of a commit.
type Waiting = Arc<Mutex<HashMap<String, oneshot::Sender<Answer>>>>;

#[derive(Debug)]
struct Stream {
    send: mpsc::Sender<v1::CommitStreamRequest>,
    waiting: Waiting,
    /// Ends when the stream does.
    answers: JoinSet<()>,
}

impl Line {
    /// What became of a commit, as a call of its own would have told. A commit must not be sent under
    /// a name that another intent has: its answers could not be told apart.
    pub(super) async fn commit(
        &self,
        door: &Tenant,
        commit: v1::CommitRequest,
        (within, open_within): (Duration, Duration),
    ) -> Result<v1::Receipt, Status> {
        let answer = self.send(door, commit, (within, open_within)).await?;
        match timeout(within, answer).await {
            Ok(Ok(Answer::Receipt(receipt))) => Ok(receipt),
            Ok(Ok(Answer::Error(error))) => Err(Status::with_details(
                Code::from_i32(error.code),
                error.message,
                error.status,
            )),
            Ok(Err(_)) => Err(Status::unavailable("the stream ended")),
            Err(_) => {
                if within >= open_within {
                    // Its node may be frozen.
                    *self.stream.lock().await = None;
                }
                Err(Status::deadline_exceeded("no answer on the stream"))
            }
        }
    }

    async fn send(
        &self,
        door: &Tenant,
        commit: v1::CommitRequest,
        (within, open_within): (Duration, Duration),
    ) -> Result<oneshot::Receiver<Answer>, Status> {
        let mut stream = self.stream.lock().await;
        if let Some(open) = stream.as_mut()
            && open.answers.try_join_next().is_some()
        {
            *stream = None;
        }
        if stream.is_none() {
            let opened = timeout(open_within, Stream::open(door)).await;
            *stream = Some(opened.map_err(|_| Status::unavailable("no stream"))??);
        }
        let open = stream.as_ref().expect("it was just opened");
        let (tell, answer) = oneshot::channel();
        let name = commit.client_tx_id.clone();
        open.waiting.lock().await.insert(name, tell);
        let message = v1::CommitStreamRequest {
            commit: Some(commit),
            timeout: within.try_into().ok(),
        };
        let sent = open.send.try_send(message);
        sent.map_err(|_| Status::unavailable("the stream takes no more"))?;
        Ok(answer)
    }
}

impl Stream {
    async fn open(door: &Tenant) -> Result<Self, Status> {
        let (send, messages) = mpsc::channel(WAITING);
        let mut client = door.coordinator();
        let opened = client.commit_stream(ReceiverStream::new(messages)).await?;
        let mut told = opened.into_inner();
        let waiting = Waiting::default();
        let wait = Arc::clone(&waiting);
        let mut answers = JoinSet::new();
        answers.spawn(async move {
            while let Ok(Some(answer)) = told.message().await {
                let tell = wait.lock().await.remove(&answer.client_tx_id);
                if let (Some(tell), Some(answer)) = (tell, answer.answer) {
                    // Whoever has given up asks again.
                    drop(tell.send(answer));
                }
            }
            wait.lock().await.clear();
        });
        Ok(Self {
            send,
            waiting,
            answers,
        })
    }
}
