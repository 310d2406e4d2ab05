//! Every call, in the words of an organization that was told another one's names and ids.

use integration::app::intent;
use prost::Message;
use proto::v1;
use serde_json::json;

use super::furnished::{CONTACTS, DEAD, Furnished, NOTES, ROW, SOURCE, TX, event};

/// A call, and what comes of it: `ok`, or the reason of its refusal.
pub(super) struct Call {
    pub(super) method: &'static str,
    pub(super) message: Vec<u8>,
    /// For an organization that has nothing.
    pub(super) empty: &'static str,
    /// For one that has things of the same names.
    pub(super) twin: &'static str,
    /// It changes nothing.
    pub(super) reads: bool,
}

fn read(
    method: &'static str,
    message: &impl Message,
    empty: &'static str,
    twin: &'static str,
) -> Call {
    let message = message.encode_to_vec();
    Call {
        method,
        message,
        empty,
        twin,
        reads: true,
    }
}

fn write(
    method: &'static str,
    message: &impl Message,
    empty: &'static str,
    twin: &'static str,
) -> Call {
    Call {
        reads: false,
        ..read(method, message, empty, twin)
    }
}

/// All of them, reading before writing, so that what is read was not just written.
pub(super) fn calls(acme: &Furnished) -> Vec<Call> {
    [
        rows(acme),
        log(acme),
        schemas(acme),
        sources(acme),
        commits(),
        verbs(),
        admin(acme),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn rows(acme: &Furnished) -> Vec<Call> {
    let load = |model: &str| v1::LoadRequest {
        model: model.to_owned(),
        id: ROW.to_owned(),
        participant: Some(intent::participant()),
        ..v1::LoadRequest::default()
    };
    let list = |model: &str, token: &str| v1::ListRequest {
        model: model.to_owned(),
        page_size: 1,
        page_token: token.to_owned(),
        participant: Some(intent::participant()),
        ..v1::ListRequest::default()
    };
    let get = |tx: &str| v1::GetCommitRequest {
        client_tx_id: tx.to_owned(),
    };
    vec![
        read(
            "Coordinator/GetCommit",
            &get(TX),
            "commit_not_found",
            "commit_not_found",
        ),
        read(
            "Coordinator/GetCommit",
            &get(DEAD),
            "commit_not_found",
            "commit_not_found",
        ),
        read("Coordinator/Load", &load(NOTES), "schema_missing", "ok"),
        read("Coordinator/Load", &load(CONTACTS), "schema_missing", "ok"),
        read("Coordinator/List", &list(NOTES, ""), "schema_missing", "ok"),
        read(
            "Coordinator/List",
            &list(CONTACTS, ""),
            "schema_missing",
            "ok",
        ),
        read(
            "Coordinator/List",
            &list(NOTES, &acme.tokens.rows),
            "schema_missing",
            "page_token_invalid",
        ),
    ]
}

fn log(acme: &Furnished) -> Vec<Call> {
    use v1::list_changes_request::Start as From;
    use v1::subscribe_request::Start;
    let subscribe = |start| v1::SubscribeRequest {
        start: Some(start),
        ..v1::SubscribeRequest::default()
    };
    let list = |start| v1::ListChangesRequest {
        start: Some(start),
        ..v1::ListChangesRequest::default()
    };
    let cursor = acme.cursor.clone();
    vec![
        read("Log/Subscribe", &subscribe(Start::Oldest(true)), "ok", "ok"),
        read(
            "Log/Subscribe",
            &subscribe(Start::Snapshot(true)),
            "ok",
            "ok",
        ),
        read(
            "Log/Subscribe",
            &subscribe(Start::Cursor(cursor.clone())),
            "cursor_not_found",
            "cursor_not_found",
        ),
        read("Log/ListChanges", &list(From::Oldest(true)), "ok", "ok"),
        read(
            "Log/ListChanges",
            &list(From::Cursor(cursor)),
            "cursor_not_found",
            "cursor_not_found",
        ),
    ]
}

fn schemas(acme: &Furnished) -> Vec<Call> {
    let get = |version| v1::GetSchemaRequest { version };
    let list = |token: &str| v1::ListSchemaVersionsRequest {
        page_size: 1,
        page_token: token.to_owned(),
    };
    vec![
        read("Schemas/Get", &get(0), "schema_not_found", "ok"),
        read("Schemas/Get", &get(1), "schema_not_found", "ok"),
        read(
            "Schemas/Get",
            &get(2),
            "schema_not_found",
            "schema_not_found",
        ),
        read("Schemas/ListVersions", &list(""), "ok", "ok"),
        read(
            "Schemas/ListVersions",
            &list(&acme.tokens.schemas),
            "page_token_invalid",
            "page_token_invalid",
        ),
    ]
}

fn sources(acme: &Furnished) -> Vec<Call> {
    let name = SOURCE.to_owned();
    let tokens = &acme.tokens;
    let list = |token: &str| v1::ListDataSourcesRequest {
        page_size: 1,
        page_token: token.to_owned(),
    };
    let attempts = |tx: &str, token: &str| v1::ListAttemptsRequest {
        name: SOURCE.to_owned(),
        client_tx_id: tx.to_owned(),
        page_size: 1,
        page_token: token.to_owned(),
    };
    let pending = |tx: &str, token: &str| v1::ListPendingRequest {
        name: SOURCE.to_owned(),
        page_size: 1,
        page_token: token.to_owned(),
        client_tx_id: tx.to_owned(),
        ..v1::ListPendingRequest::default()
    };
    let actions = |token: &str| v1::ListActionsRequest {
        name: SOURCE.to_owned(),
        page_size: 100,
        page_token: token.to_owned(),
    };
    let quarantine = |token: &str| v1::ListQuarantinedEventsRequest {
        name: SOURCE.to_owned(),
        page_size: 100,
        page_token: token.to_owned(),
    };
    let (gone, token) = ("source_not_found", "page_token_invalid");
    vec![
        read(
            "DataSources/Get",
            &v1::GetDataSourceRequest { name: name.clone() },
            gone,
            "ok",
        ),
        read("DataSources/List", &list(""), "ok", "ok"),
        read("DataSources/List", &list(&tokens.sources), token, token),
        read(
            "DataSources/GetStatus",
            &v1::GetDataSourceStatusRequest { name: name.clone() },
            gone,
            "ok",
        ),
        read("DataSources/ListAttempts", &attempts("", ""), gone, "ok"),
        read("DataSources/ListAttempts", &attempts(DEAD, ""), gone, "ok"),
        read(
            "DataSources/ListAttempts",
            &attempts("", &tokens.attempts),
            gone,
            token,
        ),
        read("DataSources/ListPending", &pending("", ""), gone, "ok"),
        read("DataSources/ListPending", &pending(DEAD, ""), gone, "ok"),
        read(
            "DataSources/ListPending",
            &pending("", &tokens.pending),
            gone,
            token,
        ),
        read("DataSources/ListActions", &actions(""), gone, "ok"),
        read(
            "DataSources/ListActions",
            &actions(&tokens.actions),
            token,
            token,
        ),
        read(
            "DataSources/ListQuarantinedEvents",
            &quarantine(""),
            gone,
            "ok",
        ),
        read(
            "DataSources/ListQuarantinedEvents",
            &quarantine(&tokens.quarantine),
            gone,
            token,
        ),
        // It asks the endpoint, so it is not tried with acme's key.
        write(
            "DataSources/Verify",
            &v1::VerifyDataSourceRequest { name },
            gone,
            "ok",
        ),
    ]
}

fn commits() -> Vec<Call> {
    let commit = |tx: &str, model: &str| {
        let create = intent::create(model, ROW, &json!({"text": "mine"}));
        intent::commit(tx, vec![create])
    };
    let streamed = |tx: &str, model: &str| v1::CommitStreamRequest {
        commit: Some(commit(tx, model)),
        timeout: None,
    };
    let missing = "schema_missing";
    vec![
        write("Coordinator/Commit", &commit(TX, NOTES), missing, "ok"),
        write("Coordinator/Commit", &commit(DEAD, CONTACTS), missing, "ok"),
        // A stream answers each commit in a message of its own.
        write("Coordinator/CommitStream", &streamed(TX, NOTES), "ok", "ok"),
        write(
            "Coordinator/CommitStream",
            &streamed("tansy-tx-two", NOTES),
            "ok",
            "ok",
        ),
    ]
}

fn verbs() -> Vec<Call> {
    let name = SOURCE.to_owned();
    let actor = String::new();
    let names = vec![DEAD.to_owned(), "tansy-dead-two".to_owned()];
    let gone = "source_not_found";
    let applied = v1::ResolvedApplied {
        rows_json: Vec::new(),
    };
    let resolve = v1::ResolveCommitRequest {
        name: name.clone(),
        client_tx_id: "tansy-dead-two".to_owned(),
        resolution: Some(v1::resolve_commit_request::Resolution::Applied(applied)),
        force: true,
        actor: actor.clone(),
    };
    let discard = v1::DiscardCommitsRequest {
        name: name.clone(),
        client_tx_ids: names.clone(),
        reason: String::new(),
        force: true,
        actor: actor.clone(),
    };
    let retry = v1::RetryCommitsRequest {
        name: name.clone(),
        client_tx_ids: names,
        actor: actor.clone(),
    };
    let recover = v1::RecoverCommitsRequest {
        name: name.clone(),
        since: None,
        actor: actor.clone(),
    };
    let push = v1::PushEventsRequest {
        name: name.clone(),
        events: vec![event("mine")],
    };
    let reset = v1::ResetFeedRequest {
        name: name.clone(),
        cursor: "x".to_owned(),
        actor: actor.clone(),
    };
    let pause = v1::PauseDataSourceRequest {
        name: name.clone(),
        reason: String::new(),
        actor: actor.clone(),
    };
    let resume = v1::ResumeDataSourceRequest {
        name: name.clone(),
        actor: actor.clone(),
    };
    let disable = v1::DisableDataSourceRequest {
        name: name.clone(),
        reason: String::new(),
        actor: actor.clone(),
    };
    let enable = v1::EnableDataSourceRequest {
        name: name.clone(),
        actor: actor.clone(),
    };
    let named = || {
        Some(v1::DataSource {
            name: SOURCE.to_owned(),
            max_in_flight: 7,
            ..v1::DataSource::default()
        })
    };
    let update = v1::UpdateDataSourceRequest {
        data_source: named(),
        update_mask: Some(prost_types::FieldMask {
            paths: vec!["max_in_flight".to_owned()],
        }),
        actor: actor.clone(),
    };
    let delete = v1::DeleteDataSourceRequest {
        name,
        actor: actor.clone(),
    };
    let create = v1::CreateDataSourceRequest {
        data_source_id: "tansy-other".to_owned(),
        data_source: Some(v1::DataSource {
            url: "http://127.0.0.1:1/".to_owned(),
            ..v1::DataSource::default()
        }),
        verify: false,
        actor,
    };
    let document = br#"{"models": {"mine": {"schema": {"type": "object"}}}}"#.to_vec();
    let schema = v1::PushSchemaRequest {
        document_json: document.into(),
        force: true,
    };
    vec![
        write(
            "DataSources/ResolveCommit",
            &resolve,
            "pending_not_found",
            "pending_not_found",
        ),
        write(
            "DataSources/DiscardCommits",
            &discard,
            gone,
            "pending_not_found",
        ),
        write(
            "DataSources/RetryCommits",
            &retry,
            gone,
            "pending_not_found",
        ),
        write("DataSources/RecoverCommits", &recover, gone, "ok"),
        write("DataSources/PushEvents", &push, gone, "ok"),
        write("DataSources/ResetFeed", &reset, gone, "ok"),
        write("DataSources/Pause", &pause, gone, "ok"),
        write("DataSources/Resume", &resume, gone, "ok"),
        write("DataSources/Disable", &disable, gone, "ok"),
        write("DataSources/Enable", &enable, gone, "ok"),
        write("DataSources/Update", &update, gone, "ok"),
        write("DataSources/Delete", &delete, gone, "source_in_use"),
        write("DataSources/Create", &create, "ok", "ok"),
        write("Schemas/Push", &schema, "ok", "ok"),
    ]
}

/// An organization's key opens nothing of the operator's, whosever it is.
fn admin(acme: &Furnished) -> Vec<Call> {
    let name = "organizations/acme".to_owned();
    let create = v1::CreateOrganizationRequest {
        organization_id: "acme".to_owned(),
        organization: None,
    };
    let get = v1::GetOrganizationRequest { name: name.clone() };
    let list = v1::ListOrganizationsRequest::default();
    let key = v1::CreateApiKeyRequest {
        parent: name.clone(),
        display_name: String::new(),
    };
    let keys = v1::ListApiKeysRequest {
        parent: name,
        ..v1::ListApiKeysRequest::default()
    };
    let revoke = v1::RevokeApiKeyRequest {
        name: acme.api_key.clone(),
    };
    let no = "unauthenticated";
    vec![
        write("Admin/CreateOrganization", &create, no, no),
        write("Admin/GetOrganization", &get, no, no),
        write("Admin/ListOrganizations", &list, no, no),
        write("Admin/CreateApiKey", &key, no, no),
        write("Admin/ListApiKeys", &keys, no, no),
        write("Admin/RevokeApiKey", &revoke, no, no),
    ]
}
