//! Whether a request is from the coordinator.

use axum::http::{HeaderMap, StatusCode};
use standardwebhooks::{Webhook, WebhookError};

use super::Refusal;

/// Verifies Standard Webhooks signatures.
#[derive(Clone)]
pub(super) struct Verifier {
    key: Vec<u8>,
}

impl Verifier {
    pub(super) fn new(key: &str) -> Self {
        Self {
            key: key.as_bytes().to_vec(),
        }
    }

    /// Accepts a body whose signature was made with the key within the last five minutes.
    pub(super) fn verify(&self, headers: &HeaderMap, body: &[u8]) -> Result<(), Refusal> {
        // The key's bytes as they are: a `whsec_…` secret would be base64, an API key is not.
        Webhook::from_bytes(self.key.clone())
            .and_then(|webhook| webhook.verify(body, headers))
            .map_err(|error| {
                let code = match error {
                    WebhookError::TimestampTooOldError | WebhookError::FutureTimestampError => {
                        "source_timestamp_expired"
                    }
                    _ => "source_signature_invalid",
                };
                Refusal::Final(StatusCode::UNAUTHORIZED, code, error.to_string())
            })
    }
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Verifier(***)")
    }
}
