//! Takes in whatever a node exports, and keeps the bytes.

use std::sync::{Arc, Mutex};

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tonic::codegen::Bytes;
use tonic::codegen::http::{HeaderMap, HeaderValue, Response};

/// A collector on the loopback. Dropping it closes it.
pub(super) struct Collector {
    url: String,
    heard: Arc<Mutex<Vec<u8>>>,
    _server: JoinSet<()>,
}

impl Collector {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let heard: Arc<Mutex<Vec<u8>>> = Arc::default();
        let mut server = JoinSet::new();
        let hearing = Arc::clone(&heard);
        server.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(take(stream, Arc::clone(&hearing)));
            }
        });
        Self {
            url,
            heard,
            _server: server,
        }
    }

    pub(super) fn url(&self) -> String {
        self.url.clone()
    }

    /// Every byte that it was sent, headers too.
    pub(super) fn heard(&self) -> String {
        String::from_utf8_lossy(&self.heard.lock().unwrap()).into_owned()
    }
}

/// Answers every export of one connection with an empty message.
async fn take(stream: TcpStream, heard: Arc<Mutex<Vec<u8>>>) -> Result<(), h2::Error> {
    let mut connection = h2::server::handshake(stream).await?;
    let mut exports = JoinSet::new();
    while let Some(export) = connection.accept().await {
        let (request, mut respond) = export?;
        let heard = Arc::clone(&heard);
        exports.spawn(async move {
            let headers = format!("{} {:?}", request.uri(), request.headers());
            heard.lock().unwrap().extend(headers.as_bytes());
            let mut body = request.into_body();
            while let Some(part) = body.data().await {
                let part = part?;
                heard.lock().unwrap().extend(&part);
                body.flow_control().release_capacity(part.len())?;
            }
            let mut response = Response::new(());
            let grpc = HeaderValue::from_static("application/grpc");
            response.headers_mut().insert("content-type", grpc);
            let mut answer = respond.send_response(response, false)?;
            answer.send_data(Bytes::from_static(&[0; 5]), false)?;
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            answer.send_trailers(trailers)
        });
    }
    Ok(())
}
