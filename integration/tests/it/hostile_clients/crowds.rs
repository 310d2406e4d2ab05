//! Many connections that want nothing.

use std::net::SocketAddr;

use integration::app::{Flags, PATIENCE};
use rcgen::{CertificateParams, KeyPair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::Stage;
use super::frames::{PREFACE, SETTINGS, frame};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_of_idle_connections_is_cut_off_at_its_limit_and_keeps_nobody_out() {
    let stage = Stage::set().await;
    let server: SocketAddr = stage.node.address().parse().unwrap();
    let mut crowd = Vec::new();
    for _ in 0..1_200 {
        // An address of its own, so that it is not the bystander's limit that is reached.
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.7:0".parse().unwrap()).unwrap();
        let mut stream = socket.connect(server).await.unwrap();
        // Those beyond the limit are closed before they speak.
        drop(
            stream
                .write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat())
                .await,
        );
        crowd.push(stream);
    }
    let mut held = 0;
    for stream in &mut crowd {
        // The server's settings, or the end.
        let first = timeout(PATIENCE, stream.read(&mut [0; 9])).await.unwrap();
        held += usize::from(first.unwrap_or(0) > 0);
    }
    assert_eq!(held, 1_024);
    stage.served(50).await;
    drop(crowd);
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handshakes_that_stop_half_way_are_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    let certificate = certificate.self_signed(&key).unwrap();
    let written = |name: &str, text: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let flags = Flags::default()
        .with(
            "tls-certificate",
            written("certificate.pem", certificate.pem()),
        )
        .with("tls-key", written("key.pem", key.serialize_pem()));
    let app = integration::app::TestApp::without_nodes(flags).await;
    let node = app.spawn_node(crate::command::EXECUTABLE).await;
    // A record that announces 512 bytes of greeting, and a little of it.
    let half = [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        &[7; 100],
    ]
    .concat();
    let before = node.peak_memory();
    let mut crowd = Vec::new();
    for said in [&b""[..], &half[..5], &half].repeat(100) {
        let mut stream = TcpStream::connect(node.address()).await.unwrap();
        stream.write_all(said).await.unwrap();
        crowd.push(stream);
    }
    for stream in &mut crowd {
        let ended = timeout(PATIENCE, stream.read_to_end(&mut Vec::new())).await;
        // Closed or reset, either way it ends.
        drop(ended.expect("nobody waits for ever"));
    }
    assert!(node.peak_memory() - before < super::COST);
}
