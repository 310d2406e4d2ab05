//! An endpoint that says exactly what a test wants, byte by byte.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;

/// What is said to every request of a connection, and what is done then.
#[derive(Clone)]
pub(super) enum Script {
    /// Wait for the next request.
    Reply(Vec<u8>),
    /// Close the connection.
    ReplyAndClose(Vec<u8>),
    /// Say nothing more.
    ReplyAndHold(Vec<u8>),
    /// One byte more every 20 ms.
    ReplyAndDrip(Vec<u8>),
    /// The second over and over.
    ReplyAndRepeat(Vec<u8>, Vec<u8>),
}

/// Runs until the test's runtime ends.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    connections: Arc<AtomicUsize>,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    #[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
    pub(super) async fn start(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (counted, recorded) = (Arc::clone(&connections), Arc::clone(&requests));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(converse(stream, script.clone(), Arc::clone(&recorded)));
            }
        });
        Self {
            address,
            connections,
            requests,
        }
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Heads and bodies of the requests so far.
    pub(super) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

/// Speaks by the script until it or the peer ends.
pub(super) async fn converse(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    script: Script,
    requests: Arc<Mutex<Vec<String>>>,
) {
    while let Some(request) = read_request(&mut stream).await {
        requests.lock().unwrap().push(request);
        let said = match &script {
            Script::Reply(bytes)
            | Script::ReplyAndClose(bytes)
            | Script::ReplyAndHold(bytes)
            | Script::ReplyAndDrip(bytes)
            | Script::ReplyAndRepeat(bytes, _) => stream.write_all(bytes).await,
        };
        if said.is_err() {
            return;
        }
        match &script {
            Script::Reply(_) => {}
            Script::ReplyAndClose(_) => return,
            Script::ReplyAndHold(_) => std::future::pending().await,
            Script::ReplyAndDrip(_) => {
                let mut pace = tokio::time::interval(Duration::from_millis(20));
                while stream.write_all(b"x").await.is_ok() {
                    pace.tick().await;
                }
                return;
            }
            Script::ReplyAndRepeat(_, bytes) => {
                while stream.write_all(bytes).await.is_ok() {}
                return;
            }
        }
    }
}

async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).await.ok()?;
        request.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&request).to_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body).await.ok()?;
    request.extend(body);
    Some(String::from_utf8(request).unwrap())
}
