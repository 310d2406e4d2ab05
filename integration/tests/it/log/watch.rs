//! `coordinator watch`, as a program of its own.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use integration::app::{Flags, Source, Tenant, TestApp};
use integration::endpoint::Endpoint;
use serde_json::Value;

use super::note;

const EXECUTABLE: &str = env!("CARGO_BIN_EXE_demo");

/// A watch that ends after so many changes.
fn watch(address: &str, key: &str, count: usize) -> Child {
    Command::new(EXECUTABLE)
        .arg0("coordinator")
        .args(["watch", "--json", "--oldest", "--count"])
        .arg(count.to_string())
        .args(["--server", address, "--key", key])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_shows_every_change_once_through_a_restart_of_its_node() {
    let app = TestApp::without_nodes(Flags::default()).await;
    let mut node = app.spawn_node(EXECUTABLE).await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = Tenant::create(node.address(), "acme").await;
    tenant.prepare(&Source::at(&endpoint)).await;
    tenant.confirm(note("a", "one")).await;
    let mut child = watch(node.address(), tenant.key(), 3);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || loop {
        let line: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        if line["frame"] == "change" {
            return line;
        }
    };
    let first = tokio::task::block_in_place(&mut next);
    assert_eq!((&first["syncId"], &first["id"]), (&1.into(), &"a".into()));
    assert_eq!(first["row"]["text"], "one");
    assert_eq!(first["participant"]["id"], "user-1");
    node.restart().await;
    let tenant = tenant.connected_anew();
    tenant.settle(note("b", "two")).await;
    tenant.settle(note("c", "three")).await;
    let rest = tokio::task::block_in_place(|| [next(), next()]);
    let ids = rest.map(|line| line["syncId"].as_i64().unwrap());
    assert_eq!(ids, [2, 3]);
    let status = tokio::task::block_in_place(|| child.wait()).unwrap();
    assert!(status.success());
}
