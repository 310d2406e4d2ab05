//! Clients that ask and do not listen.

use prost::Message;
use proto::v1;
use tokio::io::AsyncWriteExt;

use integration::app::intent;
use serde_json::json;

use super::Stage;
use super::frames::{
    DATA, END_HEADERS, END_STREAM, HEADERS, INITIAL_WINDOW_SIZE, call, frame, hello, message,
    setting,
};

/// A call that is complete.
fn asked(stream: u32, path: &str, key: &str, request: &impl Message) -> Vec<u8> {
    let opened = frame(HEADERS, END_HEADERS, stream, &call(path, key));
    let body = message(&request.encode_to_vec());
    [opened, frame(DATA, END_STREAM, stream, &body)].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_are_never_read_hold_up_nobody_else() {
    let stage = Stage::set().await;
    let text = "t".repeat(1_000);
    let creates =
        (0..200).map(|it| intent::create("notes", &format!("r{it}"), &json!({"text": text})));
    stage
        .tenant
        .confirm(intent::commit("rows", creates.collect()))
        .await;
    let list = v1::ListRequest {
        model: "notes".to_owned(),
        page_size: 200,
        participant: Some(intent::participant()),
        ..v1::ListRequest::default()
    };
    let follow = integration::app::follower::from_oldest();
    let key = stage.tenant.key();
    let mut connections = Vec::new();
    for _ in 0..4 {
        let window = setting(INITIAL_WINDOW_SIZE, 0);
        let (reading, mut writing) = hello(stage.node.address(), &window).await.unwrap();
        for stream in (1..64).step_by(4) {
            let lists = asked(stream, "/ablo.coordinator.v1.Coordinator/List", key, &list);
            let stream = stream + 2;
            let follows = asked(stream, "/ablo.coordinator.v1.Log/Subscribe", key, &follow);
            writing.write_all(&[lists, follows].concat()).await.unwrap();
        }
        connections.push((reading, writing));
    }
    stage.served(200).await;
    drop(connections);
    stage.end().await;
}
