//! Stands before an example and makes it do one thing wrong.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use backends::data_source::client::{EndpointClient, Request};
use backends::data_source::egress::EgressPolicy;
use backends::data_source::endpoint::EndpointUrl;
use backends::data_source::sign::SigningKey;
use backends::data_source::wire::RequestKind;
use serde_json::{Value, json};
use standardwebhooks::Webhook;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::example::KEY;

const LARGEST_BODY: usize = 16 << 20;

/// What is done wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Whatever comes in is taken to be signed.
    TrustsEveryone,
    /// Only the first signature is looked at.
    ReadsOneSignature,
    /// Each operation is a commit of its own.
    AppliesPiecemeal,
    /// A refusal is a bare 500, as an exception that nobody caught.
    RefusesByException,
    /// Of a list's query only the limit is read.
    ListsAnything,
    /// A missing row is a 404.
    MissingIsAnError,
    /// Bodies have the server's default limit.
    TakesSmallBodies,
    /// The feed has new ids for its events each time.
    RenamesEvents,
}

/// A proxy on a loopback port. Dropping it closes the port.
pub(crate) struct Proxy {
    pub(crate) url: String,
    _server: JoinSet<()>,
}

struct Path {
    fault: Fault,
    target: EndpointUrl,
    client: EndpointClient,
    webhook: Webhook,
}

impl Proxy {
    pub(crate) async fn start(fault: Fault, target: &str) -> Self {
        let limit = match fault {
            Fault::TakesSmallBodies => 1 << 20,
            _ => LARGEST_BODY,
        };
        let policy = EgressPolicy {
            allowed_subnets: vec!["127.0.0.0/8".parse().unwrap()],
            ..EgressPolicy::default()
        };
        let path = Path {
            fault,
            target: EndpointUrl::parse(target, &policy).unwrap(),
            client: EndpointClient::new(policy).unwrap(),
            webhook: Webhook::from_bytes(KEY.into()).unwrap(),
        };
        let router = Router::new()
            .fallback(receive)
            .layer(DefaultBodyLimit::max(limit))
            .with_state(Arc::new(path));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/ablo", listener.local_addr().unwrap());
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            url,
            _server: server,
        }
    }
}

async fn receive(State(path): State<Arc<Path>>, headers: HeaderMap, body: Bytes) -> Response {
    let genuine = path.webhook.verify(&body, &headers).is_ok();
    let first_is_right = headers["webhook-signature"].to_str().is_ok_and(|all| {
        let mut first = headers.clone();
        let signature = all.split(' ').next().unwrap_or_default();
        first.insert("webhook-signature", signature.parse().unwrap());
        path.webhook.verify(&body, &first).is_ok()
    });
    let accepted = match path.fault {
        Fault::TrustsEveryone => true,
        Fault::ReadsOneSignature => first_is_right,
        _ => genuine,
    };
    let (status, answer) = if accepted {
        path.serve(serde_json::from_slice(&body).unwrap()).await
    } else {
        let expired = headers["webhook-timestamp"].to_str().unwrap();
        let code = format!("not accepted at {expired}");
        (StatusCode::UNAUTHORIZED, json!({"error": code}))
    };
    (status, answer.to_string()).into_response()
}

impl Path {
    async fn serve(&self, mut request: Value) -> (StatusCode, Value) {
        let kind = request["type"].as_str().unwrap().to_owned();
        match (self.fault, kind.as_str()) {
            (Fault::AppliesPiecemeal, "commit") => return self.piecemeal(&request).await,
            (Fault::ListsAnything, "list") => {
                request["query"] = json!({"limit": request["query"]["limit"]});
            }
            _ => {}
        }
        let (status, mut answer) = self.forward(&request).await;
        match (self.fault, kind.as_str()) {
            (Fault::RefusesByException, "commit") if status.is_client_error() => {
                (StatusCode::INTERNAL_SERVER_ERROR, Value::Null)
            }
            (Fault::MissingIsAnError, "load") if answer["row"].is_null() => {
                (StatusCode::NOT_FOUND, json!({"error": "not_found"}))
            }
            (Fault::RenamesEvents, "events") => {
                for event in answer["events"].as_array_mut().unwrap() {
                    event["id"] = uuid::Uuid::new_v4().to_string().into();
                }
                (status, answer)
            }
            _ => (status, answer),
        }
    }

    /// Stops at the first operation that fails, with the others done.
    async fn piecemeal(&self, commit: &Value) -> (StatusCode, Value) {
        let mut deltas = Vec::new();
        let operations = commit["operations"].as_array().unwrap();
        for (index, operation) in operations.iter().enumerate() {
            let mut part = commit.clone();
            // A commit of one operation keeps its name.
            if index > 0 {
                let name = commit["clientTxId"].as_str().unwrap();
                part["clientTxId"] = format!("{name}-{index}").into();
            }
            part["operations"] = json!([operation]);
            let (status, mut answer) = self.forward(&part).await;
            if status != StatusCode::OK {
                return (status, answer);
            }
            deltas.append(answer["deltas"].as_array_mut().unwrap());
        }
        (StatusCode::OK, json!({"deltas": deltas}))
    }

    /// What the example answers; signed anew, since the body may have changed.
    async fn forward(&self, request: &Value) -> (StatusCode, Value) {
        let exchange = self
            .client
            .send(Request {
                url: &self.target,
                webhook_id: "proxy",
                body: request.to_string().into(),
                keys: &[SigningKey::from(KEY.to_owned())],
                timeout: Duration::from_secs(30),
                traceparent: None,
                kind: RequestKind::Commit,
            })
            .await;
        let status = StatusCode::from_u16(exchange.status.unwrap()).unwrap();
        let answer = serde_json::from_slice(&exchange.body).unwrap_or(Value::Null);
        (status, answer)
    }
}
