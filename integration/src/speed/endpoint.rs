//! Endpoints that cost as little as an endpoint can, each on a thread of its own: what they take of
//! the machine counts against whoever calls them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

/// How an endpoint does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Manner {
    /// Answers at once.
    Prompt,
    /// Answers after so long.
    Slow(Duration),
    /// Answers 500.
    Storm,
    /// Takes connections and requests, and answers nothing.
    BlackHole,
}

/// A running endpoint. Dropping it closes it.
#[derive(Debug)]
pub(super) struct Plain {
    address: SocketAddr,
    _stop: oneshot::Sender<()>,
}

impl Plain {
    pub(super) fn start(manner: Manner) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    // Nobody can say it better than the calls that fail.
                    _ = serve(listener, manner) => {}
                    _ = stopped => {}
                }
            });
        });
        Ok(Self {
            address,
            _stop: stop,
        })
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}/ablo", self.address)
    }
}

async fn serve(listener: std::net::TcpListener, manner: Manner) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let manner = Arc::new(manner);
    loop {
        let (stream, _) = listener.accept().await?;
        let manner = Arc::clone(&manner);
        #[expect(
            clippy::disallowed_methods,
            reason = "it ends with the endpoint's runtime"
        )]
        tokio::spawn(async move {
            // A connection that breaks has nobody left to tell.
            drop(converse(stream, *manner).await);
        });
    }
}

async fn converse(mut stream: TcpStream, manner: Manner) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(4 << 10);
    loop {
        let Some((head, length)) = request(&mut stream, &mut buffer).await? else {
            return Ok(());
        };
        let body = &buffer[head..head + length];
        match manner {
            Manner::Prompt => stream.write_all(&answer(body)).await?,
            Manner::Slow(pause) => {
                tokio::time::sleep(pause).await;
                stream.write_all(&answer(body)).await?;
            }
            Manner::Storm => {
                let storm = b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n";
                stream.write_all(storm).await?;
            }
            Manner::BlackHole => std::future::pending().await,
        }
        buffer.drain(..head + length);
    }
}

/// The length of the next request's head, and of its body, which the buffer then holds; none at the
/// end of the connection.
async fn request(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
) -> io::Result<Option<(usize, usize)>> {
    loop {
        if let Some(end) = find(buffer, b"\r\n\r\n") {
            let head = end + 4;
            let length = content_length(&buffer[..head]);
            if buffer.len() >= head + length {
                return Ok(Some((head, length)));
            }
        }
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

fn content_length(head: &[u8]) -> usize {
    let head = String::from_utf8_lossy(head);
    let value = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse().ok())?
    });
    value.unwrap_or(0)
}

#[derive(Deserialize)]
struct Commit<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: &'a str,
    #[serde(borrow, default)]
    operations: Vec<Asked<'a>>,
}

#[derive(Deserialize)]
struct Asked<'a> {
    id: &'a str,
    #[serde(default)]
    input: Map<String, Value>,
}

/// Every operation is said to have been applied: its row is what was asked for. The feed is empty.
fn answer(body: &[u8]) -> Vec<u8> {
    let commit: Commit<'_> = serde_json::from_slice(body).unwrap_or(Commit {
        kind: "",
        operations: Vec::new(),
    });
    if commit.kind == "events" {
        return response(&json!({"events": []}));
    }
    let rows = commit.operations.into_iter().map(|asked| {
        let mut row = asked.input;
        row.insert("id".to_owned(), asked.id.into());
        Value::Object(row)
    });
    response(&json!({"rows": rows.collect::<Vec<_>>()}))
}

fn response(body: &Value) -> Vec<u8> {
    let body = body.to_string();
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_for_is_what_is_answered() {
        let body = json!({"type": "commit", "operations": [
            {"type": "CREATE", "model": "m", "id": "1", "input": {"number": 1}},
            {"type": "DELETE", "model": "m", "id": "2"},
        ]});
        let answer = answer(body.to_string().as_bytes());
        let start = find(&answer, b"\r\n\r\n").unwrap() + 4;
        let rows: Value = serde_json::from_slice(&answer[start..]).unwrap();
        assert_eq!(
            rows,
            json!({"rows": [{"id": "1", "number": 1}, {"id": "2"}]})
        );
        assert_eq!(content_length(&answer[..start]), answer.len() - start);
    }
}
