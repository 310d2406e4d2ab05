//! Calls by nobody in particular.

use integration::app::{OPERATOR_TOKEN, eventually};
use proto::v1::{GetOrganizationRequest, ListRequest, LoadRequest, RevokeApiKeyRequest};
use tonic::Code;

use super::house::{House, Policy, commit, operation};
use super::refusal::{Refusal, refused};
use super::wire::Wire;

const COMMIT: &str = "/ablo.coordinator.v1.Coordinator/Commit";
const CREATE_ORGANIZATION: &str = "/ablo.coordinator.v1.Admin/CreateOrganization";

#[tokio::test]
async fn a_call_without_a_valid_token_is_refused_with_one_and_the_same_text() {
    let house = House::open(Policy::Production).await;
    let before = house.contents().await;
    let mut wire = Wire::open(&house.app.address()).await;
    let well_formed = format!("Bearer {}", house.acme);
    let mut unknown = well_formed.clone().into_bytes();
    let last = unknown.len() - 1;
    unknown[last] = if unknown[last] == b'a' { b'b' } else { b'a' };
    let long = format!("Bearer {}", "a".repeat(15_000));
    let cases: Vec<(&str, Vec<&[u8]>)> = vec![
        ("no authorization", vec![]),
        ("an empty one", vec![b""]),
        ("a scheme alone", vec![b"Bearer"]),
        ("an empty token", vec![b"Bearer "]),
        ("another scheme", vec![b"Basic c2VjcmV0"]),
        ("a key without its scheme", vec![house.acme.as_bytes()]),
        (
            "letters that are not ASCII",
            vec![b"Bearer sk_test_\xc3\xa9"],
        ),
        ("bytes that are not text", vec![b"Bearer \xff\xfe"]),
        ("an unknown key", vec![&unknown]),
        ("a key cut short", vec![&unknown[..last]]),
        ("a key and more", vec![long.as_bytes()]),
        ("SQL", vec![b"Bearer ' OR 1=1; --"]),
        (
            "two keys",
            vec![well_formed.as_bytes(), well_formed.as_bytes()],
        ),
    ];
    let mut texts = Vec::new();
    for path in [
        COMMIT,
        CREATE_ORGANIZATION,
        "/ablo.coordinator.v1.Coordinator/Nothing",
    ] {
        for (name, values) in &cases {
            let headers: Vec<(&str, &[u8])> = values
                .iter()
                .map(|value| ("authorization", *value))
                .collect();
            let status = wire.call(path, &headers, &Wire::message(b"")).await;
            assert_eq!(Refusal::of(&status), unauthenticated(), "{name} {path}");
            texts.push(status.message().to_owned());
        }
    }
    texts.dedup();
    assert_eq!(texts.len(), 1, "{texts:?}");
    assert_eq!(house.contents().await, before);
    house.close().await;
}

#[tokio::test]
async fn neither_an_api_key_nor_the_operators_token_opens_the_others_door() {
    let house = House::open(Policy::Production).await;
    let get = GetOrganizationRequest {
        name: "organizations/acme".to_owned(),
    };
    let status = house.admin_as(&house.acme).get_organization(get).await;
    assert_eq!(Refusal::of(&status.unwrap_err()), unauthenticated());
    let list = house
        .coordinator_as(OPERATOR_TOKEN)
        .list(ListRequest::default())
        .await;
    assert_eq!(Refusal::of(&list.unwrap_err()), unauthenticated());
    house.close().await;
}

#[tokio::test]
async fn a_key_sees_nothing_of_another_organization() {
    let house = House::furnished().await;
    let mut rival = house.coordinator_as(&house.rival);
    let before = house.contents().await;
    let load = || LoadRequest {
        model: "notes".to_owned(),
        id: "old".to_owned(),
        ..LoadRequest::default()
    };
    let no_schema = refused(Code::FailedPrecondition, "schema_missing");
    let status = rival.load(load()).await.unwrap_err();
    assert_eq!(Refusal::of(&status), no_schema);
    let delete = operation(proto::v1::OperationType::Delete, "notes", "old", "");
    let status = rival
        .commit(commit("mine", vec![delete]))
        .await
        .unwrap_err();
    assert_eq!(Refusal::of(&status), no_schema);
    let receipt = proto::v1::GetCommitRequest {
        client_tx_id: "old-notes".to_owned(),
    };
    let status = rival.get_commit(receipt).await.unwrap_err();
    assert_eq!(
        Refusal::of(&status),
        refused(Code::NotFound, "commit_not_found")
    );
    assert_eq!(house.contents().await, before);
    house.close().await;
}

#[tokio::test]
async fn a_revoked_key_is_refused() {
    let house = House::furnished().await;
    let made = house.key_of("acme").await;
    let load = LoadRequest {
        model: "notes".to_owned(),
        id: "old".to_owned(),
        ..LoadRequest::default()
    };
    let mut with_it = house.coordinator_as(&made.key);
    with_it.load(load.clone()).await.unwrap();
    let name = made.api_key.unwrap().name;
    house
        .admin()
        .revoke_api_key(RevokeApiKeyRequest { name })
        .await
        .unwrap();
    // Another node may have revoked it: this one may go on believing for a while.
    let status = eventually("a refusal", async || with_it.load(load.clone()).await.err()).await;
    assert_eq!(Refusal::of(&status), unauthenticated());
    house.coordinator().load(load).await.unwrap();
    house.close().await;
}

fn unauthenticated() -> Refusal {
    refused(Code::Unauthenticated, "unauthenticated")
}
