//! A client that can say what a well-behaved one would not: HTTP/2, frame by frame.

use h2::client::SendRequest;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tonic::Status;
use tonic::codegen::Bytes;
use tonic::codegen::http::{HeaderMap, Method, Request, StatusCode, Version};

/// One connection. Dropping it closes it.
pub(super) struct Wire {
    requests: SendRequest<Bytes>,
    _connection: JoinSet<Result<(), h2::Error>>,
}

/// What came back on one stream.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) http: StatusCode,
    /// Of the headers, or of the trailers.
    pub(super) status: Option<Status>,
}

impl Wire {
    pub(super) async fn open(address: &str) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        let (requests, connection) = h2::client::handshake(stream).await.unwrap();
        let mut driver = JoinSet::new();
        driver.spawn(connection);
        Self {
            requests,
            _connection: driver,
        }
    }

    /// A message as gRPC frames it.
    pub(super) fn message(bytes: &[u8]) -> Vec<u8> {
        Self::frame(0, bytes.len(), bytes)
    }

    /// A frame with any flag and any length.
    pub(super) fn frame(flag: u8, length: usize, bytes: &[u8]) -> Vec<u8> {
        let length = u32::try_from(length).unwrap().to_be_bytes();
        [&[flag][..], &length, bytes].concat()
    }

    /// The status that a call ends with.
    pub(super) async fn call(
        &mut self,
        path: &str,
        headers: &[(&str, &[u8])],
        body: &[u8],
    ) -> Status {
        let answer = self.ask(path, headers, body).await.unwrap();
        assert_eq!(answer.http, StatusCode::OK, "{path}");
        answer.status.unwrap()
    }

    /// Whatever a call ends with.
    pub(super) async fn ask(
        &mut self,
        path: &str,
        headers: &[(&str, &[u8])],
        body: &[u8],
    ) -> Result<Answer, h2::Error> {
        let mut request = Request::builder()
            .method(Method::POST)
            .version(Version::HTTP_2)
            .uri(format!("http://coordinator{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let ready = self.requests.clone().ready().await?;
        self.requests = ready;
        let (response, mut sending) = self
            .requests
            .send_request(request.body(()).unwrap(), false)?;
        // A server that has answered already need not take the rest.
        drop(sending.send_data(Bytes::copy_from_slice(body), true));
        let response = response.await?;
        let http = response.status();
        let status = status(response.headers());
        let mut body = response.into_body();
        while let Some(part) = body.data().await {
            let part = part?;
            body.flow_control().release_capacity(part.len())?;
        }
        let trailers = body.trailers().await?;
        let status = status.or_else(|| trailers.as_ref().and_then(self::status));
        Ok(Answer { http, status })
    }
}

fn status(headers: &HeaderMap) -> Option<Status> {
    Status::from_header_map(headers)
}
