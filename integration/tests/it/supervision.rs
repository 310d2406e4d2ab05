//! What keeps a node serving, and how it says that it will not for long.

use std::process::Command;
use std::time::Duration;

use integration::app::{Flags, Tenant, TestApp, eventually, intent};
use nix::sys::signal::Signal;
use proto::v1;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::command::EXECUTABLE;

const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_node_that_runs_out_of_file_descriptors_serves_again_when_there_are_some() {
    let app = TestApp::without_nodes(Flags::default()).await;
    let node = app.spawn_node(EXECUTABLE).await;
    let tenant = Tenant::create(node.address(), "acme").await;
    tenant
        .push(r#"{"models": {"notes": {"schema": {"type": "object"}}}}"#)
        .await;
    let limited = Command::new("prlimit")
        .args([&format!("--pid={}", node.pid()), "--nofile=64:64"])
        .status();
    assert!(limited.unwrap().success());
    let mut crowd = Vec::new();
    for _ in 0..100 {
        crowd.push(TcpStream::connect(node.address()).await.unwrap());
    }
    let refused = "a connection could not be accepted";
    eventually("the limit", async || {
        node.log().contains(refused).then_some(())
    })
    .await;
    drop(crowd);
    let create = || intent::create("notes", "a", &json!({}));
    let anew = tenant.connected_anew();
    anew.confirm(intent::commit("after", vec![create()])).await;
}

async fn health(address: &str) -> HealthClient<Channel> {
    let channel = Channel::from_shared(format!("http://{address}")).unwrap();
    HealthClient::new(channel.connect().await.unwrap())
}

#[tokio::test]
async fn a_stopping_node_says_so_before_it_refuses_connections() {
    let flags = Flags::default().with("drain-grace", "4s");
    let app = TestApp::without_nodes(flags).await;
    let mut node = app.spawn_node(EXECUTABLE).await;
    let tenant = Tenant::create(node.address(), "acme").await;
    let mut watch = health(node.address()).await;
    let statuses = watch.watch(HealthCheckRequest::default()).await;
    let mut statuses = statuses.unwrap().into_inner();
    let mut next = async || {
        let status = timeout(PATIENCE, statuses.message()).await.unwrap();
        status.unwrap().unwrap().status()
    };
    assert_eq!(next().await, ServingStatus::Serving);
    node.signal(Signal::SIGTERM);
    assert_eq!(next().await, ServingStatus::NotServing);
    // Who has not heard of it yet is still answered, also on a new connection.
    let check = health(node.address())
        .await
        .check(HealthCheckRequest::default())
        .await;
    assert_eq!(
        check.unwrap().into_inner().status(),
        ServingStatus::NotServing
    );
    let list = v1::ListDataSourcesRequest::default();
    tenant.connected_anew().sources().list(list).await.unwrap();
    let address = node.address().to_owned();
    let status = node.ended().await;
    assert_eq!(status.code(), Some(0), "{status}: {}", node.log());
    assert!(TcpStream::connect(address).await.is_err());
}
