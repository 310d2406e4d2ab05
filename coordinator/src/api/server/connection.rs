//! Connections as they come in.

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::Stream;
use futures_util::stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, Sleep};
use tonic::transport::server::Connected;

use crate::api::seats::{Seat, Seats};

/// How long to wait after a failed accept: out of file descriptors, say, it fails again at once.
const AFTER_FAILURE: Duration = Duration::from_millis(100);

/// What a client sends first: the HTTP/2 preface and the header of its settings. One that does not
/// holds a connection for nothing.
const PREFACE: usize = 24 + 9;

/// How long clients are borne with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// Until they begin to speak.
    pub(super) preface: Duration,
    /// When they say nothing later: who lives answers pings, but nobody is sent pings who finishes a
    /// TLS handshake and says no more.
    pub(super) silence: Duration,
    /// In all. A connection that takes no new calls ends with its last one, which does not end while
    /// its client does not read.
    pub(super) life: Duration,
}

/// A connection, and its seat among those from its address.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    /// Bytes of the preface that are still to come.
    missing: usize,
    /// When the client was last heard of, and how long it may be silent after its preface.
    heard: Instant,
    silence: Duration,
    /// When the connection is cut off, whatever goes on.
    until: Instant,
    /// Ends with the time for the preface, later with the silence or earlier.
    patience: Pin<Box<Sleep>>,
    /// Held to be freed with the connection.
    _seat: Seat<IpAddr>,
}

/// The listener's connections, at most `each` at a time from one address; the others are closed, and
/// so are those that there is no patience with any more.
pub(super) fn accepted(
    listener: TcpListener,
    each: usize,
    patience: Patience,
) -> impl Stream<Item = Result<Connection, io::Error>> {
    stream::unfold(
        (listener, Seats::new(each)),
        move |(listener, seats)| async move {
            let (stream, seat) = next(&listener, &seats).await;
            let now = Instant::now();
            let connection = Connection {
                stream,
                missing: PREFACE,
                heard: now,
                silence: patience.silence,
                until: now + patience.life,
                patience: Box::pin(tokio::time::sleep(patience.preface)),
                _seat: seat,
            };
            Some((Ok(connection), (listener, seats)))
        },
    )
}

async fn next(listener: &TcpListener, seats: &Seats<IpAddr>) -> (TcpStream, Seat<IpAddr>) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Fails only on a connection that is gone already.
                let prepared = stream.set_nodelay(true);
                if let (Ok(()), Some(seat)) = (prepared, seats.take(&peer.ip().to_canonical())) {
                    return (stream, seat);
                }
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(AFTER_FAILURE).await;
            }
        }
    }
}

impl Connection {
    /// Ready when the client has been silent for too long, or there for too long.
    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        while self.patience.as_mut().poll(context).is_ready() {
            let until = self.until.min(self.heard + self.silence);
            if self.missing > 0 || until <= Instant::now() {
                let message = "the client does not speak, or does not go";
                return Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, message));
            }
            // It was heard of meanwhile.
            self.patience.as_mut().reset(until);
        }
        Poll::Pending
    }
}

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut self.stream).poll_read(context, buffer);
        if outcome.is_pending() {
            return self.poll_end(context).map(Err);
        }
        self.heard = Instant::now();
        self.missing = self.missing.saturating_sub(buffer.filled().len() - before);
        outcome
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
