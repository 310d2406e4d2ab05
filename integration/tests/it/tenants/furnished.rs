//! An organization with something of everything, each text of it unlike any other.

use axum::http::StatusCode;
use integration::app::follower::from_oldest;
use integration::app::{Follower, Tenant, TestApp, eventually, intent};
use integration::endpoint::{Answer, Endpoint, Kind};
use prost::Message;
use proto::v1;
use serde_json::json;

use super::verbatim::ask;

/// Names that both organizations of [`Furnished`] give to their things.
pub(super) const NOTES: &str = "tansyNotes";
pub(super) const CONTACTS: &str = "tansyContacts";
pub(super) const SOURCE: &str = "dataSources/tansy-crm";
pub(super) const ROW: &str = "tansy-row";
pub(super) const TX: &str = "tansy-tx";
pub(super) const DEAD: &str = "tansy-dead";

/// An organization, its endpoint, and what nobody else may hear of it.
pub(super) struct Furnished {
    pub(super) tenant: Tenant,
    pub(super) endpoint: Endpoint,
    /// Texts that only itself may see.
    pub(super) secrets: Vec<String>,
    /// Names of its things, which others may have too.
    pub(super) names: Vec<String>,
    pub(super) cursor: String,
    pub(super) tokens: Tokens,
    pub(super) api_key: String,
}

/// Where the next pages of its lists begin.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    pub(super) schemas: String,
    pub(super) rows: String,
    pub(super) sources: String,
    pub(super) attempts: String,
    pub(super) pending: String,
    pub(super) actions: String,
    pub(super) quarantine: String,
}

fn schema(note: &str) -> String {
    let fields = json!({
        "type": "object",
        "description": note,
        "properties": {"text": {"type": "string"}},
    });
    json!({"models": {
        NOTES: {"schema": fields},
        CONTACTS: {"backing": {"dataSource": "tansy-crm"}, "schema": fields},
    }})
    .to_string()
}

pub(super) fn event(id: &str) -> v1::ExternalEvent {
    v1::ExternalEvent {
        event_id: id.to_owned(),
        model: "tansyUnknown".to_owned(),
        id: ROW.to_owned(),
        r#type: v1::OperationType::Update.into(),
        row_json: br#"{"text":"hush-event-row"}"#.to_vec().into(),
        ..v1::ExternalEvent::default()
    }
}

impl Furnished {
    /// Sources that fail, commits that are dead, quarantined events, two of whatever is listed.
    pub(super) async fn acme(app: &TestApp) -> Self {
        let acme = Self::prepared(app, "acme", "hush-schema").await;
        let tenant = &acme.tenant;
        tenant.push(&schema("hush-schema-two")).await;
        acme.create_source("tansy-other").await;
        for (tx, row) in [(TX, ROW), ("tansy-tx-two", "tansy-row-two")] {
            let create = intent::create(NOTES, row, &json!({"text": "hush-row"}));
            tenant.confirm(intent::commit(tx, vec![create])).await;
        }
        let refused = json!({"error": "hush_code", "message": "hush-error", "retryable": true});
        let refused = Answer::json(StatusCode::CONFLICT, &refused);
        acme.endpoint.always(Kind::Commit, refused);
        for (tx, row) in [(DEAD, ROW), ("tansy-dead-two", "tansy-row-two")] {
            let create = intent::create(CONTACTS, row, &json!({"text": "hush-contact"}));
            let mut request = intent::commit(tx, vec![create]);
            "hush-person".clone_into(&mut request.participant.as_mut().unwrap().id);
            assert!(tenant.settle(request).await.dead);
        }
        let (name, actor) = (SOURCE.to_owned(), "hush-actor".to_owned());
        let pause = v1::PauseDataSourceRequest {
            name: name.clone(),
            reason: "hush-reason".to_owned(),
            actor: actor.clone(),
        };
        tenant.sources().pause(pause).await.unwrap();
        let resume = v1::ResumeDataSourceRequest { name, actor };
        tenant.sources().resume(resume).await.unwrap();
        let events = vec![event("hush-event-1"), event("hush-event-2")];
        let name = SOURCE.to_owned();
        let push = v1::PushEventsRequest { name, events };
        tenant.sources().push_events(push).await.unwrap();
        eventually("the events to be kept aside", async || {
            let request = v1::GetDataSourceStatusRequest {
                name: SOURCE.to_owned(),
            };
            let status = tenant
                .sources()
                .get_status(request)
                .await
                .unwrap()
                .into_inner();
            let feed = status.feed?;
            (feed.quarantined_count == 2 && feed.pushed_count == 0).then_some(())
        })
        .await;
        acme.looked_over().await
    }

    /// Things of the same names, all in order.
    pub(super) async fn twin(app: &TestApp) -> Self {
        Self::prepared(app, "twin", "another").await
    }

    /// What no call that its own key may make tells: the operator's text, the key itself.
    pub(super) fn unseen(&self) -> Vec<String> {
        vec![
            "hush-contact".to_owned(),
            "hush-display".to_owned(),
            self.tenant.key().to_owned(),
        ]
    }

    async fn prepared(app: &TestApp, name: &str, note: &str) -> Self {
        let endpoint = Endpoint::start("").await.unwrap();
        endpoint.without_feed();
        let tenant = app.organization(name).await;
        endpoint.set_keys(&[tenant.key()]);
        let made = v1::CreateApiKeyRequest {
            parent: format!("organizations/{name}"),
            display_name: "hush-display".to_owned(),
        };
        let made = tenant.admin().create_api_key(made).await.unwrap();
        let furnished = Self {
            tenant,
            endpoint,
            secrets: Vec::new(),
            names: Vec::new(),
            cursor: String::new(),
            tokens: Tokens::default(),
            api_key: made.into_inner().api_key.unwrap().name,
        };
        furnished.create_source("tansy-crm").await;
        furnished.tenant.push(&schema(note)).await;
        eventually("the answer that there is no feed", async || {
            let name = SOURCE.to_owned();
            let request = v1::GetDataSourceStatusRequest { name };
            let status = furnished.tenant.sources().get_status(request).await;
            let feed = status.unwrap().into_inner().feed?;
            (feed.state() == v1::FeedState::None).then_some(())
        })
        .await;
        furnished
    }

    async fn create_source(&self, id: &str) {
        let delay = prost_types::Duration {
            seconds: 0,
            nanos: 50_000_000,
        };
        let source = v1::DataSource {
            url: self.endpoint.url(),
            retry_policy: Some(v1::RetryPolicy {
                delays: vec![delay],
            }),
            ..v1::DataSource::default()
        };
        let request = v1::CreateDataSourceRequest {
            data_source_id: id.to_owned(),
            data_source: Some(source),
            ..v1::CreateDataSourceRequest::default()
        };
        self.tenant.sources().create(request).await.unwrap();
    }

    /// Notes every text by which it could be recognized.
    async fn looked_over(mut self) -> Self {
        self.tokens = self.tokens().await;
        let mut follower = Follower::start(&self.tenant, from_oldest()).await.unwrap();
        self.cursor = follower.change().await.cursor;
        let dead = self.tenant.receipt(DEAD).await.unwrap();
        let receipt = self.tenant.receipt(TX).await.unwrap();
        let texts = [
            "hush-schema",
            "hush-schema-two",
            "hush-row",
            "hush-contact",
            "hush_code",
            "hush-error",
            "hush-person",
            "hush-event-1",
            "hush-event-2",
            "hush-event-row",
            "hush-actor",
            "hush-reason",
            "hush-display",
            self.tenant.key(),
            &self.endpoint.url(),
            &dead.commit_id,
            &receipt.commit_id,
        ];
        self.secrets = texts.map(str::to_owned).to_vec();
        self.names = ["tansy", "hush"].map(str::to_owned).to_vec();
        self
    }

    async fn tokens(&self) -> Tokens {
        Tokens {
            schemas: self
                .token(
                    "Schemas/ListVersions",
                    &v1::ListSchemaVersionsRequest {
                        page_size: 1,
                        ..v1::ListSchemaVersionsRequest::default()
                    },
                    |it: v1::ListSchemaVersionsResponse| it.next_page_token,
                )
                .await,
            rows: self
                .token(
                    "Coordinator/List",
                    &v1::ListRequest {
                        page_size: 1,
                        model: NOTES.to_owned(),
                        participant: Some(intent::participant()),
                        ..v1::ListRequest::default()
                    },
                    |it: v1::ListResponse| it.next_page_token,
                )
                .await,
            sources: self
                .token(
                    "DataSources/List",
                    &v1::ListDataSourcesRequest {
                        page_size: 1,
                        ..v1::ListDataSourcesRequest::default()
                    },
                    |it: v1::ListDataSourcesResponse| it.next_page_token,
                )
                .await,
            attempts: self
                .token(
                    "DataSources/ListAttempts",
                    &v1::ListAttemptsRequest {
                        page_size: 1,
                        name: SOURCE.to_owned(),
                        ..v1::ListAttemptsRequest::default()
                    },
                    |it: v1::ListAttemptsResponse| it.next_page_token,
                )
                .await,
            pending: self
                .token(
                    "DataSources/ListPending",
                    &v1::ListPendingRequest {
                        page_size: 1,
                        name: SOURCE.to_owned(),
                        ..v1::ListPendingRequest::default()
                    },
                    |it: v1::ListPendingResponse| it.next_page_token,
                )
                .await,
            actions: self
                .token(
                    "DataSources/ListActions",
                    &v1::ListActionsRequest {
                        page_size: 1,
                        name: SOURCE.to_owned(),
                        ..v1::ListActionsRequest::default()
                    },
                    |it: v1::ListActionsResponse| it.next_page_token,
                )
                .await,
            quarantine: self
                .token(
                    "DataSources/ListQuarantinedEvents",
                    &v1::ListQuarantinedEventsRequest {
                        page_size: 1,
                        name: SOURCE.to_owned(),
                        ..v1::ListQuarantinedEventsRequest::default()
                    },
                    |it: v1::ListQuarantinedEventsResponse| it.next_page_token,
                )
                .await,
        }
    }

    async fn token<A: Message + Default>(
        &self,
        method: &str,
        request: &impl Message,
        next: impl Fn(A) -> String,
    ) -> String {
        let (address, key) = (self.tenant.address(), self.tenant.key());
        let heard = ask(address, key, method, request.encode_to_vec()).await;
        heard.end.unwrap();
        let token = next(A::decode(&heard.messages[0][..]).unwrap());
        assert_ne!(token, "", "{method} has more than one page");
        token
    }
}
