//! Signatures by Standard Webhooks, scheme `v1`.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;

/// The most keys that one request is signed with.
pub const MAX_KEYS: usize = 5;

/// An organization's API key, as the key of a signature: its UTF-8 bytes as they are.
#[derive(Clone)]
pub struct SigningKey(pub SecretString);

impl From<String> for SigningKey {
    fn from(key: String) -> Self {
        Self(SecretString::from(key))
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(***)")
    }
}

/// The value of `webhook-signature`: `v1,<base64>` for each key, separated by spaces.
///
/// `keys` are newest first; only the first [`MAX_KEYS`] sign. The same arguments give the same
/// text. `id` and `timestamp` must be what the request's other two headers say.
#[expect(clippy::missing_panics_doc, reason = "HMAC takes a key of any length")]
pub fn signature_header(keys: &[SigningKey], id: &str, timestamp: i64, body: &[u8]) -> String {
    let signatures: Vec<String> = keys
        .iter()
        .take(MAX_KEYS)
        .map(|key| {
            let mut mac = Hmac::<Sha256>::new_from_slice(key.0.expose_secret().as_bytes())
                .expect("HMAC takes a key of any length");
            mac.update(format!("{id}.{timestamp}.").as_bytes());
            mac.update(body);
            format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
        })
        .collect();
    signatures.join(" ")
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use reqwest::header::{HeaderMap, HeaderValue};
    use standardwebhooks::Webhook;

    use super::{SigningKey, signature_header};
    use crate::data_source::clock::{Clock, SystemClock, unix_seconds};

    fn key(text: &str) -> SigningKey {
        SigningKey::from(text.to_owned())
    }

    fn now() -> i64 {
        unix_seconds(SystemClock.now())
    }

    fn headers(id: &str, timestamp: &str, signature: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("webhook-id", HeaderValue::from_str(id).unwrap());
        headers.insert(
            "webhook-timestamp",
            HeaderValue::from_str(timestamp).unwrap(),
        );
        headers.insert(
            "webhook-signature",
            HeaderValue::from_str(signature).unwrap(),
        );
        headers
    }

    fn verifies(secret: &str, body: &[u8], headers: &HeaderMap) -> bool {
        let receiver = Webhook::from_bytes(secret.as_bytes().to_vec()).unwrap();
        receiver.verify(body, headers).is_ok()
    }

    #[test]
    fn the_vector_in_the_wires_reference_is_reproduced() {
        let body = br#"{"type":"events","limit":100}"#;
        assert_eq!(
            signature_header(
                &[key("sk_test_demo_key")],
                "msg_test_1",
                1_700_000_000,
                body
            ),
            "v1,VibwdIvYCqme6wl1UJwaToCzUOfbN2013KQWBuMXvTA="
        );
    }

    #[test]
    fn a_stock_library_verifies_with_any_of_the_keys() {
        let (body, timestamp) = (br#"{"type":"load"}"#, now());
        let keys = [key("sk_live_new"), key("sk_live_old")];
        let signature = signature_header(&keys, "c_1", timestamp, body);
        let headers = headers("c_1", &timestamp.to_string(), &signature);
        assert!(verifies("sk_live_new", body, &headers));
        assert!(verifies("sk_live_old", body, &headers));
        assert!(!verifies("sk_live_other", body, &headers));
    }

    #[test]
    fn a_stock_library_refuses_what_was_changed() {
        let (body, timestamp) = (br#"{"type":"load"}"#, now());
        let sent = timestamp.to_string();
        let signature = signature_header(&[key("k")], "c_1", timestamp, body);
        assert!(verifies("k", body, &headers("c_1", &sent, &signature)));
        assert!(!verifies(
            "k",
            br#"{"type": "load"}"#,
            &headers("c_1", &sent, &signature)
        ));
        assert!(!verifies("k", body, &headers("c_2", &sent, &signature)));
        let other = (timestamp - 1).to_string();
        assert!(!verifies("k", body, &headers("c_1", &other, &signature)));
        let truncated = &signature[..signature.len() - 4];
        assert!(!verifies("k", body, &headers("c_1", &sent, truncated)));
        let renamed = signature.replace("v1,", "v2,");
        assert!(!verifies("k", body, &headers("c_1", &sent, &renamed)));
        for skew in [-302, 302] {
            let signature = signature_header(&[key("k")], "c_1", timestamp + skew, body);
            let skewed = (timestamp + skew).to_string();
            assert!(!verifies("k", body, &headers("c_1", &skewed, &signature)));
        }
    }

    #[test]
    fn at_most_five_keys_sign_newest_first() {
        let keys: Vec<_> = (0..7).map(|index| key(&index.to_string())).collect();
        let header = signature_header(&keys, "id", 0, b"{}");
        let signatures: Vec<_> = header.split(' ').collect();
        assert_eq!(signatures.len(), 5);
        assert_eq!(signatures[0], signature_header(&keys[..1], "id", 0, b"{}"));
    }

    #[test]
    fn a_key_is_not_shown() {
        assert_eq!(format!("{:?}", key("sk_live_secret")), "SigningKey(***)");
    }

    #[test]
    fn times_before_1970_are_negative() {
        let before = SystemTime::UNIX_EPOCH - std::time::Duration::from_secs(7);
        assert_eq!(unix_seconds(before), -7);
    }
}
