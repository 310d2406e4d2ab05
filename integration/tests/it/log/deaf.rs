//! A node whose ear died without a word: it notices, and listens anew.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use integration::app::follower::from_oldest;
use integration::app::{Flags, Follower, TestApp, eventually};
use integration::endpoint::Endpoint;
use integration::postgres::TestDatabase;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::note;

/// Passes bytes on between a node and its database, but for those of listeners that are silenced:
/// these are taken, and nothing is ever said.
struct Proxy {
    address: SocketAddr,
    /// Connections that asked to listen.
    listeners: Arc<AtomicUsize>,
    /// So many of them, the first, are silent.
    silent: watch::Sender<usize>,
    _server: JoinSet<()>,
}

impl Proxy {
    async fn start(socket: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let listeners = Arc::new(AtomicUsize::new(0));
        let (silent, silenced) = watch::channel(0);
        let mut server = JoinSet::new();
        let count = Arc::clone(&listeners);
        server.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let server = UnixStream::connect(&socket).await.unwrap();
                let (silenced, count) = (silenced.clone(), Arc::clone(&count));
                connections.spawn(async move {
                    let (from_client, to_client) = TcpStream::into_split(client);
                    let (from_server, to_server) = server.into_split();
                    let number = AtomicUsize::new(usize::MAX);
                    let listens =
                        || number.store(count.fetch_add(1, Ordering::SeqCst), Ordering::SeqCst);
                    let is_silent = || number.load(Ordering::SeqCst) < *silenced.borrow();
                    tokio::join!(
                        pump(from_client, to_server, &is_silent, listens),
                        pump(from_server, to_client, &is_silent, || {}),
                    );
                });
            }
        });
        Self {
            address,
            listeners,
            silent,
            _server: server,
        }
    }

    /// Waits until so many have asked to listen.
    async fn listened(&self, times: usize) {
        eventually("somebody to listen", async || {
            (self.listeners.load(Ordering::SeqCst) >= times).then_some(())
        })
        .await;
    }
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    is_silent: impl Fn() -> bool,
    listens: impl Fn(),
) {
    let mut portion = vec![0; 16 << 10];
    while let Ok(count @ 1..) = from.read(&mut portion).await {
        let text = &portion[..count];
        if text.windows(8).any(|it| it == b"LISTEN \"") {
            listens();
        }
        if is_silent() {
            continue;
        }
        if to.write_all(text).await.is_err() {
            return;
        }
    }
    // The other end does not hear of it either.
    if is_silent() {
        std::future::pending::<()>().await;
    }
    drop(to.shutdown().await);
}

/// Has a node's ear vanish, before the node hears that it listens or after.
async fn vanishes(before: bool) {
    let database = TestDatabase::migrated().await;
    let options = database.connect_options();
    let mut app = TestApp::over(database.url(), options.clone(), Flags::default());
    app.add_node().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;

    let socket = options.get_socket().unwrap().join(".s.PGSQL.5432");
    let proxy = Proxy::start(socket).await;
    let name = options.get_database().unwrap();
    let url = format!(
        "postgres://coordinator@{}/{name}?sslmode=disable",
        proxy.address
    );
    proxy.silent.send_replace(usize::from(before));
    let mut deaf = TestApp::over(url, options, Flags::default());
    let other = tenant.at(&deaf.add_node().await);
    proxy.listened(1).await;
    proxy.silent.send_replace(1);
    proxy.listened(2).await;
    let mut follower = Follower::start(&other, from_oldest()).await.unwrap();
    tenant.confirm(note("told", "x")).await;
    assert_eq!(follower.change().await.id, "told");
    other.confirm(note("told-by-the-other", "x")).await;
    deaf.stop().await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_ear_vanished_without_a_word_listens_anew() {
    vanishes(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_ear_vanished_while_it_was_made_listens_anew() {
    vanishes(true).await;
}
