//! HTTP/1.1, as much as an endpoint under test needs, with every byte in the test's hands.

use std::future;
use std::io;

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::script::Reply;

/// A request's headers and body.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

pub(super) struct Connection(BufReader<TcpStream>);

impl Connection {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self(BufReader::new(stream))
    }

    /// The next request; none at the end of the connection.
    pub(super) async fn request(&mut self) -> io::Result<Option<Request>> {
        let mut line = String::new();
        if self.0.read_line(&mut line).await? == 0 {
            return Ok(None);
        }
        let mut headers = HeaderMap::new();
        loop {
            line.clear();
            if self.0.read_line(&mut line).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if line.trim_end().is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').ok_or(io::ErrorKind::InvalidData)?;
            let name: HeaderName = name.parse().map_err(io::Error::other)?;
            let value: HeaderValue = value.trim().parse().map_err(io::Error::other)?;
            headers.append(name, value);
        }
        let length = headers
            .get("content-length")
            .and_then(|value| value.to_str().ok());
        let length = length.unwrap_or("0").parse().map_err(io::Error::other)?;
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).await?;
        Ok(Some(Request { headers, body }))
    }

    /// Sends a reply; says whether the connection goes on.
    pub(super) async fn reply(
        &mut self,
        reply: &Reply,
        honest: (StatusCode, Value),
    ) -> io::Result<bool> {
        match reply {
            Reply::Honest => {
                self.response(honest.0, &[], honest.1.to_string().as_bytes())
                    .await
            }
            Reply::Fixed(status, headers, body) => self.response(*status, headers, body).await,
            Reply::Raw(bytes) => {
                self.0.write_all(bytes).await?;
                Ok(false)
            }
            Reply::Endless(head, again) => {
                self.0.write_all(head).await?;
                loop {
                    self.0.write_all(again).await?;
                }
            }
            Reply::Close => Ok(false),
            Reply::Reset => {
                self.0.get_ref().set_zero_linger()?;
                Ok(false)
            }
            Reply::Silence => future::pending().await,
            Reply::HeadOnly => {
                self.0
                    .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n")
                    .await?;
                future::pending().await
            }
        }
    }

    async fn response(
        &mut self,
        status: StatusCode,
        headers: &[(String, String)],
        body: &[u8],
    ) -> io::Result<bool> {
        let mut head = vec![
            format!("HTTP/1.1 {status}"),
            "content-type: application/json".to_owned(),
            format!("content-length: {}", body.len()),
        ];
        head.extend(
            headers
                .iter()
                .map(|(name, value)| format!("{name}: {value}")),
        );
        let head = head.join("\r\n") + "\r\n\r\n";
        self.0.write_all(&[head.as_bytes(), body].concat()).await?;
        Ok(true)
    }
}
