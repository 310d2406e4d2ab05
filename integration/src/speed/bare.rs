//! What a Data Source's endpoint could be sent without a coordinator: the same signed bodies, in a
//! loop that keeps nothing.

use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::ensure;
use backends::data_source::sign::{SigningKey, signature_header};
use serde_json::json;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::load::{Sample, closed};
use super::workload::Workload;

/// So many requests at a time.
pub(super) async fn rate(
    url: &str,
    model: &str,
    in_flight: usize,
    length: Duration,
) -> anyhow::Result<Sample> {
    // Another measurement may have done so before.
    drop(rustls::crypto::ring::default_provider().install_default());
    let client = reqwest::Client::builder()
        .http1_only()
        .no_proxy()
        .tcp_nodelay(true)
        .pool_max_idle_per_host(in_flight)
        .timeout(Duration::from_secs(30))
        .build()?;
    let bare = Arc::new(Bare {
        client,
        url: url.to_owned(),
        key: SigningKey::from("sk_test_bare".to_owned()),
        workload: Workload::new(model, 0, 1),
    });
    closed(in_flight, length, move |_| {
        let bare = Arc::clone(&bare);
        async move { bare.post().await }
    })
    .await
}

#[derive(Debug)]
struct Bare {
    client: reqwest::Client,
    url: String,
    key: SigningKey,
    workload: Workload,
}

impl Bare {
    async fn post(&self) -> anyhow::Result<()> {
        let body = self.body()?;
        let id = Uuid::now_v7().to_string();
        #[expect(
            clippy::disallowed_methods,
            reason = "signatures carry the time of day"
        )]
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let timestamp = i64::try_from(seconds)?;
        let signature = signature_header(std::slice::from_ref(&self.key), &id, timestamp, &body);
        let answer = self
            .client
            .post(&self.url)
            .header("content-type", "application/json")
            .header("webhook-id", &id)
            .header("idempotency-key", &id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", signature)
            .body(body)
            .send()
            .await?;
        let status = answer.status();
        let answer = answer.bytes().await?;
        ensure!(
            status.is_success() && !answer.is_empty(),
            "answered {status}"
        );
        Ok(())
    }

    /// As the coordinator writes it.
    fn body(&self) -> anyhow::Result<Vec<u8>> {
        let commit = self.workload.next();
        let operation = &commit.operations[0];
        let input: serde_json::Value = serde_json::from_slice(&operation.input_json)?;
        let name = &commit.client_tx_id;
        let body = json!({
            "type": "commit",
            "clientTxId": name,
            "correlationId": name,
            "intentHash": intent_hash(&operation.input_json),
            "operations": [
                {"type": "CREATE", "model": operation.model, "id": operation.id, "input": input},
            ],
            "scope": {
                "participantId": "user-1", "participantKind": "user",
                "organizationId": "acme", "mode": "test",
            },
        });
        Ok(serde_json::to_vec(&body)?)
    }
}

/// 64 hex characters.
fn intent_hash(input: &[u8]) -> String {
    let mut text = String::with_capacity(64);
    for byte in Sha256::digest(input) {
        write!(text, "{byte:02x}").expect("a String takes every write");
    }
    text
}
