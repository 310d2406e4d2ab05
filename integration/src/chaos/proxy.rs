//! A TCP proxy that passes bytes on, late, or not at all.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// What is behind a proxy.
#[derive(Clone, Debug)]
pub(super) enum Upstream {
    /// A port of this machine.
    Tcp(SocketAddr),
    /// A socket file.
    Unix(PathBuf),
}

/// What a proxy does with bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Passes them on.
    Pass,
    /// Passes each portion on after so long.
    Delay(Duration),
    /// Keeps them until the mode changes.
    Hold,
    /// Takes them and loses them; whatever lost some is reset when the mode changes.
    Blackhole,
    /// Resets every connection, and every new one.
    Reset,
}

/// A proxy on a loopback port. Dropping it closes the port and every connection.
#[derive(Debug)]
pub(super) struct Proxy {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    _server: JoinSet<()>,
}

impl Proxy {
    pub(super) async fn start(upstream: Upstream) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (mode, seen) = watch::channel(Mode::Pass);
        let mut server = JoinSet::new();
        server.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    taken = listener.accept() => if let Ok((client, _)) = taken {
                        connections.spawn(connect(client, upstream.clone(), seen.clone()));
                    },
                    Some(_) = connections.join_next() => {}
                }
            }
        });
        Ok(Self {
            address,
            mode,
            _server: server,
        })
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on, for what comes and for what is under way.
    pub(super) fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

/// Whoever is at either end notices an error soon enough.
async fn connect(client: TcpStream, upstream: Upstream, mode: watch::Receiver<Mode>) {
    if *mode.borrow() == Mode::Reset {
        drop(client.set_zero_linger());
        return;
    }
    match upstream {
        Upstream::Tcp(address) => {
            let Ok(server) = TcpStream::connect(address).await else {
                drop(client.set_zero_linger());
                return;
            };
            drop(server.set_nodelay(true));
            relay(client, server, mode).await;
        }
        Upstream::Unix(path) => match UnixStream::connect(path).await {
            Ok(server) => relay(client, server, mode).await,
            Err(_) => drop(client.set_zero_linger()),
        },
    }
}

async fn relay(
    mut client: TcpStream,
    server: impl AsyncRead + AsyncWrite,
    mode: watch::Receiver<Mode>,
) {
    drop(client.set_nodelay(true));
    let ended = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = tokio::io::split(server);
        let both = async {
            tokio::try_join!(
                pump(from_client, to_server, mode.clone()),
                pump(from_server, to_client, mode.clone()),
            )
        };
        let mut resets = mode.clone();
        tokio::select! {
            ended = both => ended.is_ok(),
            _ = resets.wait_for(|mode| *mode == Mode::Reset) => false,
        }
    };
    if !ended {
        drop(client.set_zero_linger());
    }
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut mode: watch::Receiver<Mode>,
) -> io::Result<()> {
    let mut portion = vec![0; 16 << 10];
    loop {
        let count = from.read(&mut portion).await?;
        if count == 0 {
            return to.shutdown().await;
        }
        passed(&mut mode).await?;
        to.write_all(&portion[..count]).await?;
    }
}

/// Returns when a portion may pass; an error when it is lost.
async fn passed(mode: &mut watch::Receiver<Mode>) -> io::Result<()> {
    let lost = || io::Error::from(io::ErrorKind::ConnectionReset);
    loop {
        let now = *mode.borrow_and_update();
        match now {
            Mode::Pass => return Ok(()),
            Mode::Delay(pause) => {
                sleep(pause).await;
                return Ok(());
            }
            Mode::Hold => mode.changed().await.map_err(|_| lost())?,
            Mode::Blackhole => {
                let over = mode.wait_for(|mode| *mode != Mode::Blackhole).await;
                drop(over.map(|mode| *mode));
                return Err(lost());
            }
            Mode::Reset => return Err(lost()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that gives back what it gets, behind a proxy.
    async fn echo() -> (Proxy, JoinSet<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut server = JoinSet::new();
        server.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                connections.spawn(async move {
                    let (mut from, mut to) = stream.split();
                    drop(tokio::io::copy(&mut from, &mut to).await);
                });
            }
        });
        (Proxy::start(Upstream::Tcp(address)).await.unwrap(), server)
    }

    async fn ping(stream: &mut TcpStream) -> io::Result<u8> {
        stream.write_all(b"x").await?;
        stream.read_u8().await
    }

    #[tokio::test]
    async fn bytes_pass_are_held_are_lost_or_are_cut_off() {
        let (proxy, _server) = echo().await;
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(ping(&mut stream).await.unwrap(), b'x');
        proxy.set(Mode::Hold);
        stream.write_all(b"y").await.unwrap();
        let held = tokio::time::timeout(Duration::from_millis(50), stream.read_u8()).await;
        assert!(held.is_err());
        proxy.set(Mode::Pass);
        assert_eq!(stream.read_u8().await.unwrap(), b'y');
        proxy.set(Mode::Blackhole);
        stream.write_all(b"z").await.unwrap();
        let lost = tokio::time::timeout(Duration::from_millis(50), stream.read_u8()).await;
        assert!(lost.is_err());
        proxy.set(Mode::Pass);
        let reset = stream.read_u8().await.unwrap_err();
        assert_eq!(reset.kind(), io::ErrorKind::ConnectionReset);
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(ping(&mut stream).await.unwrap(), b'x');
        proxy.set(Mode::Reset);
        assert!(stream.read_u8().await.is_err());
        proxy.set(Mode::Delay(Duration::from_millis(1)));
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(ping(&mut stream).await.unwrap(), b'x');
    }
}
