//! Clients that ask and do not listen.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use prost::Message;
use proto::v1;
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;

use integration::app::{Tenant, eventually, follower, intent, reason};
use serde_json::json;
use tonic::Code;

use super::Stage;
use super::frames::{
    ACK, DATA, END_HEADERS, END_STREAM, HEADERS, INITIAL_WINDOW_SIZE, PING, call, frame, hello,
    message, setting,
};

/// What a node keeps of answers for one organization, in bytes.
const KEPT: u64 = 48 << 20;

/// A call that is complete.
fn asked(stream: u32, path: &str, key: &str, request: &impl Message) -> Vec<u8> {
    let opened = frame(HEADERS, END_HEADERS, stream, &call(path, key));
    let body = message(&request.encode_to_vec());
    [opened, frame(DATA, END_STREAM, stream, &body)].concat()
}

/// An organization whose list of notes comes to some three and a half MiB.
async fn hoarder(stage: &Stage) -> Tenant {
    let tenant = Tenant::create(stage.node.address(), "hoarder").await;
    tenant.push(super::SCHEMA).await;
    let text = "t".repeat(500_000);
    let creates =
        (0..7).map(|it| intent::create("notes", &format!("r{it}"), &json!({"text": text})));
    let creates = intent::commit("rows", creates.collect());
    tenant.confirm(creates).await;
    tenant
}

/// A client that asks, one call after the other, and reads nothing but the heads of the answers; it says
/// that it lives whenever it is asked.
async fn ask(address: String, calls: Vec<Vec<u8>>, heads: Arc<AtomicUsize>) {
    let window = setting(INITIAL_WINDOW_SIZE, 0);
    let (mut reading, mut writing) = hello(&address, &window).await.unwrap();
    let mut calls = calls.into_iter();
    writing.write_all(&calls.next().unwrap()).await.unwrap();
    while let Some(came) = reading.frame().await {
        let next = match came.kind {
            PING => Some(frame(PING, ACK, 0, &came.payload)),
            HEADERS => {
                heads.fetch_add(1, Ordering::Relaxed);
                calls.next()
            }
            _ => None,
        };
        writing.write_all(&next.unwrap_or_default()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_are_never_read_hold_up_nobody_else() {
    let stage = Stage::set().await;
    let hoarder = hoarder(&stage).await;
    let list = v1::ListRequest {
        model: "notes".to_owned(),
        page_size: 200,
        participant: Some(intent::participant()),
        ..v1::ListRequest::default()
    };
    let follow = follower::from_oldest();
    let key = hoarder.key();
    let lists = |stream| asked(stream, "/ablo.coordinator.v1.Coordinator/List", key, &list);
    let follows = asked(1, "/ablo.coordinator.v1.Log/Subscribe", key, &follow);
    let calls = (3..160).step_by(2).map(lists);
    let calls: Vec<_> = std::iter::once(follows).chain(calls).collect();
    let heads = Arc::new(AtomicUsize::new(0));
    let mut client = JoinSet::new();
    let address = stage.node.address().to_owned();
    client.spawn(ask(address, calls.clone(), Arc::clone(&heads)));
    eventually("answers to all calls", async || {
        (heads.load(Ordering::Relaxed) >= calls.len()).then_some(())
    })
    .await;
    stage.served(200).await;
    // Nothing more is kept for who does not read what is there; what is short is answered.
    let refused = hoarder.list("notes").await.map(|_| ()).unwrap_err();
    assert_eq!(reason(&refused), "answer_not_kept");
    assert_eq!(refused.code(), Code::Unavailable);
    let create = vec![intent::create("notes", "short", &json!({}))];
    hoarder.confirm(intent::commit("short", create)).await;
    assert!(client.try_join_next().is_none(), "it lives");
    client.shutdown().await;
    eventually("room for answers", async || {
        hoarder.list("notes").await.ok()
    })
    .await;
    // An answer is made of pieces as large, which the allocator keeps for a while; all answers of
    // this test come to five times as much.
    stage.end_keeping(2 * KEPT).await;
}
