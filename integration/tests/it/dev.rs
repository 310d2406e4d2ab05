//! The embedded default, through crashes.

use integration::node::{Node, temporary_folder};
use proto::v1;
use proto::v1::schemas_client::SchemasClient;
use serde_json::Value;

const SCHEMA: &str = r#"{"models": {"notes": {"backing": "managed", "schema": {
    "type": "object", "properties": {"weight": {"type": "number"}}}}}}"#;

fn participant() -> v1::Participant {
    v1::Participant {
        id: "ada".to_owned(),
        kind: v1::ParticipantKind::User.into(),
    }
}

/// As JSON whose numbers are compared digit by digit.
fn json(text: &[u8]) -> Value {
    serde_json::from_slice(text).unwrap()
}

fn create() -> v1::CommitRequest {
    v1::CommitRequest {
        client_tx_id: "one".to_owned(),
        participant: Some(participant()),
        operations: vec![v1::Operation {
            r#type: v1::OperationType::Create.into(),
            model: "notes".to_owned(),
            id: "a".to_owned(),
            input_json: br#"{"weight":1.50}"#.to_vec().into(),
            ..v1::Operation::default()
        }],
        ..v1::CommitRequest::default()
    }
}

#[tokio::test]
async fn everything_is_found_again_after_a_kill_and_after_a_stop() {
    let folder = temporary_folder("coordinator-dev-").unwrap();
    let start = || Node::start(env!("CARGO_BIN_EXE_demo").into(), folder.path()).unwrap();
    let mut node = start();
    let push = v1::PushSchemaRequest {
        document_json: SCHEMA.into(),
        force: false,
    };
    SchemasClient::new(node.connect().await.unwrap())
        .push(push)
        .await
        .unwrap();
    let receipt = node
        .client()
        .await
        .unwrap()
        .commit(create())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(receipt.state(), v1::CommitState::Confirmed);
    let key = node.key().unwrap().to_owned();
    node.kill().unwrap();

    let node = start();
    assert_eq!(node.key().unwrap(), key);
    let again = node
        .client()
        .await
        .unwrap()
        .commit(create())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(again, receipt);
    node.stop().await.unwrap();

    let node = start();
    let load = v1::LoadRequest {
        model: "notes".to_owned(),
        id: "a".to_owned(),
        participant: Some(participant()),
        ..v1::LoadRequest::default()
    };
    let loaded = node
        .client()
        .await
        .unwrap()
        .load(load)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        json(&loaded.row_json.unwrap()),
        json(&receipt.changes[0].row_json)
    );
    node.stop().await.unwrap();
}
