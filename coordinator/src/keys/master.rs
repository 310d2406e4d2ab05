//! Master keys: they seal API keys, and other keys are derived from them.

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use chacha20poly1305::aead::{Aead, Generate, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use hmac::{Hmac, Mac};
use secrecy::{ExposeSecret, SecretBox, SecretString};
use sha2::Sha256;
use uuid::Uuid;

use crate::domain::OrganizationId;
use crate::store::api_keys::SealedKey;

/// Bytes of `XChaCha20`'s nonce, which stands before the ciphertext.
const NONCE: usize = 24;

/// Several keys by their ids: the first one seals, all of them open.
///
/// Adding a new key in front and keeping the old ones is how a rotation begins.
pub struct MasterKeys {
    keys: Vec<(String, SecretBox<[u8; 32]>)>,
}

/// Shows the ids alone.
impl fmt::Debug for MasterKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.keys.iter().map(|(id, _)| id))
            .finish()
    }
}

/// What is wrong with the master keys. No message shows any part of a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MasterKeyFault {
    /// No key is given.
    #[error("no master key is given; write `id:base64`, 32 bytes in base64")]
    None,
    /// An entry has no id, or one that is not a short word.
    #[error("master key {0}: an id is 1 to 32 characters of `a-z`, `A-Z`, `0-9`, `-` and `_`")]
    Id(usize),
    /// An entry's key is not base64 of 32 bytes.
    #[error("master key `{0}`: the key is not 32 bytes in base64")]
    Key(String),
    /// Two entries have one id.
    #[error("master key `{0}` is given twice")]
    Twice(String),
    /// API keys are sealed under a key that is not given.
    #[error("API keys are sealed under master key `{0}`, which is not among those given")]
    Unknown(String),
    /// An API key does not open: the master key is another one, or the row was tampered with.
    #[error("API key {key_id} does not open under master key `{id}`: it is not the right one")]
    Sealed {
        /// The master key.
        id: String,
        /// The API key.
        key_id: Uuid,
    },
}

impl MasterKeys {
    /// Reads entries `id:base64`, separated by commas or white space; the first one seals.
    pub fn parse(text: &str) -> Result<Self, MasterKeyFault> {
        let mut keys: Vec<(String, SecretBox<[u8; 32]>)> = Vec::new();
        let separated = text.split(|c: char| c == ',' || c.is_whitespace());
        for (index, entry) in separated.filter(|entry| !entry.is_empty()).enumerate() {
            let (id, encoded) = entry.split_once(':').ok_or(MasterKeyFault::Id(index + 1))?;
            if !is_id(id) {
                return Err(MasterKeyFault::Id(index + 1));
            }
            if keys.iter().any(|(other, _)| other == id) {
                return Err(MasterKeyFault::Twice(id.to_owned()));
            }
            let bytes = BASE64_STANDARD
                .decode(encoded)
                .ok()
                .and_then(|b| b.try_into().ok());
            let bytes: [u8; 32] = bytes.ok_or_else(|| MasterKeyFault::Key(id.to_owned()))?;
            keys.push((id.to_owned(), SecretBox::new(Box::new(bytes))));
        }
        if keys.is_empty() {
            return Err(MasterKeyFault::None);
        }
        Ok(Self { keys })
    }

    /// An entry for [`Self::parse`] with a new random key.
    pub fn generate(id: &str) -> SecretString {
        let key = chacha20poly1305::Key::generate();
        format!("{id}:{}", BASE64_STANDARD.encode(key)).into()
    }

    /// The id of the key that seals.
    pub(super) fn current(&self) -> &str {
        &self.keys[0].0
    }

    /// Seals an API key for one row of the table: it opens nowhere else.
    pub(super) fn seal(
        &self,
        organization: &OrganizationId,
        key_id: Uuid,
        key: &SecretString,
    ) -> SealedKey {
        let (id, master) = &self.keys[0];
        let nonce = XNonce::generate();
        let bound = bound_to(organization.as_str(), key_id);
        let payload = Payload {
            msg: key.expose_secret().as_bytes(),
            aad: &bound,
        };
        let ciphertext = cipher(master)
            .encrypt(&nonce, payload)
            .expect("a key is short");
        SealedKey {
            org_id: organization.as_str().to_owned(),
            key_id,
            sealed: [&nonce[..], &ciphertext].concat(),
            sealed_under: id.clone(),
        }
    }

    /// Opens an API key; fails when the row is not the one that it was sealed for.
    pub(super) fn open(&self, sealed: &SealedKey) -> Result<SecretString, MasterKeyFault> {
        let (id, master) = self
            .keys
            .iter()
            .find(|(id, _)| *id == sealed.sealed_under)
            .ok_or_else(|| MasterKeyFault::Unknown(sealed.sealed_under.clone()))?;
        let fault = || MasterKeyFault::Sealed {
            id: id.clone(),
            key_id: sealed.key_id,
        };
        let (nonce, ciphertext) = sealed.sealed.split_at_checked(NONCE).ok_or_else(fault)?;
        let nonce = XNonce::try_from(nonce).map_err(|_| fault())?;
        let bound = bound_to(&sealed.org_id, sealed.key_id);
        let payload = Payload {
            msg: ciphertext,
            aad: &bound,
        };
        let opened = cipher(master)
            .decrypt(&nonce, payload)
            .map_err(|_| fault())?;
        String::from_utf8(opened)
            .map(SecretString::from)
            .map_err(|_| fault())
    }

    /// Keys for another purpose, one per master key, the sealing one's first: HMAC-SHA256 of the
    /// purpose. What was made under any of them stays valid through a rotation.
    pub fn derive(&self, purpose: &str) -> Vec<SecretBox<[u8; 32]>> {
        let derived = self.keys.iter().map(|(_, master)| {
            let mut mac = keyed(master);
            mac.update(purpose.as_bytes());
            SecretBox::new(Box::new(mac.finalize().into_bytes().into()))
        });
        derived.collect()
    }
}

/// An HMAC under a key of 32 bytes.
pub(crate) fn keyed(key: &SecretBox<[u8; 32]>) -> Hmac<Sha256> {
    Hmac::new_from_slice(key.expose_secret()).expect("HMAC takes a key of any length")
}

fn is_id(id: &str) -> bool {
    (1..=32).contains(&id.len())
        && id
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

fn cipher(master: &SecretBox<[u8; 32]>) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new(master.expose_secret().into())
}

/// What a sealed key is bound to: its organization, its id, and its column. The ids cannot contain
/// the separator, so two rows never have one binding.
fn bound_to(organization: &str, key_id: Uuid) -> Vec<u8> {
    format!("{organization}|{key_id}|api_keys.sealed").into_bytes()
}
