//! Cursors: opaque texts that stand for a position in one organization's log.
//!
//! A cursor is base64url of a version byte, 8 bytes that name the organization, the log's epoch, the
//! position, and 16 bytes of HMAC-SHA256 over all of it. The key is derived from the master keys, so
//! that every node reads what any node wrote; the organization's name is an HMAC too and tells
//! nothing.

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use secrecy::SecretBox;
use sha2::Sha256;
use uuid::Uuid;

use crate::domain::OrganizationId;
use crate::keys::{MasterKeys, keyed};
use crate::refusal::{Class, Refusal};

/// The first byte of every cursor.
const VERSION: u8 = 1;

/// Bytes that name the organization, and bytes of the MAC.
const NAME: usize = 8;
const TAG: usize = 16;

/// Everything before the MAC: version, name, epoch, position.
const PAYLOAD: usize = 1 + NAME + 16 + 8;

/// Reads cursors, and makes those who write them. Cursors stay valid while the master key that they
/// were made under is among the node's.
pub struct Cursors {
    keys: Vec<SecretBox<[u8; 32]>>,
}

impl fmt::Debug for Cursors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cursors").finish_non_exhaustive()
    }
}

/// What a cursor stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The log's epoch.
    pub epoch: Uuid,
    /// Everything up to here has been seen.
    pub position: i64,
}

/// Writes the cursors of one organization.
#[derive(Clone)]
pub struct Seal {
    mac: Hmac<Sha256>,
    name: [u8; NAME],
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seal").finish_non_exhaustive()
    }
}

impl Cursors {
    /// Cursors under keys of their own, derived from the master keys.
    pub fn new(master: &MasterKeys) -> Self {
        Self {
            keys: master.derive("log cursors"),
        }
    }

    /// What writes this organization's cursors.
    pub fn seal(&self, organization: &OrganizationId) -> Seal {
        let key = &self.keys[0];
        Seal {
            mac: keyed(key),
            name: name(key, organization),
        }
    }

    /// What a cursor of this organization stands for.
    ///
    /// # Errors
    /// `cursor_invalid` when no coordinator with our keys made it; `cursor_not_found` when it is
    /// another organization's.
    pub fn open(&self, organization: &OrganizationId, text: &str) -> Result<Cursor, Refusal> {
        let invalid = || {
            let rule = "must be one that an earlier frame or answer gave, unchanged";
            Refusal::field("cursor_invalid", "cursor", rule)
        };
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| invalid())?;
        if bytes.len() != PAYLOAD + TAG || bytes[0] != VERSION {
            return Err(invalid());
        }
        let (payload, tag) = bytes.split_at(PAYLOAD);
        let made_under = |key: &&SecretBox<[u8; 32]>| {
            let mut mac = keyed(key);
            mac.update(payload);
            mac.verify_truncated_left(tag).is_ok()
        };
        let key = self.keys.iter().find(made_under).ok_or_else(invalid)?;
        let (given, rest) = payload[1..].split_at(NAME);
        if given != name(key, organization) {
            let message = "there is no such cursor";
            return Err(Refusal::new(Class::NotFound, "cursor_not_found", message));
        }
        let (epoch, rest) = rest.split_first_chunk().ok_or_else(invalid)?;
        let (position, _) = rest.split_first_chunk().ok_or_else(invalid)?;
        Ok(Cursor {
            epoch: Uuid::from_bytes(*epoch),
            position: i64::from_be_bytes(*position),
        })
    }
}

impl Seal {
    /// The text that stands for a position.
    pub fn cursor(&self, cursor: Cursor) -> String {
        let mut bytes = [0; PAYLOAD + TAG];
        bytes[0] = VERSION;
        bytes[1..=NAME].copy_from_slice(&self.name);
        bytes[1 + NAME..PAYLOAD - 8].copy_from_slice(cursor.epoch.as_bytes());
        bytes[PAYLOAD - 8..PAYLOAD].copy_from_slice(&cursor.position.to_be_bytes());
        let mut mac = self.mac.clone();
        mac.update(&bytes[..PAYLOAD]);
        let tag = mac.finalize().into_bytes();
        bytes[PAYLOAD..].copy_from_slice(&tag[..TAG]);
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    }
}

fn name(key: &SecretBox<[u8; 32]>, organization: &OrganizationId) -> [u8; NAME] {
    let mut mac = keyed(key);
    mac.update(b"organization ");
    mac.update(organization.as_str().as_bytes());
    let digest = mac.finalize().into_bytes();
    let (name, _) = digest.split_first_chunk().expect("SHA-256 has 32 bytes");
    *name
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    const EPOCH: Uuid = Uuid::from_u128(7);

    fn cursors(ids: &[&str]) -> (Cursors, String) {
        let entries: Vec<String> = ids
            .iter()
            .map(|id| MasterKeys::generate(id).expose_secret().to_owned())
            .collect();
        let text = entries.join(",");
        (Cursors::new(&MasterKeys::parse(&text).unwrap()), text)
    }

    fn acme() -> OrganizationId {
        OrganizationId::new("acme")
    }

    fn at(position: i64) -> Cursor {
        Cursor {
            epoch: EPOCH,
            position,
        }
    }

    #[test]
    fn a_cursor_stands_for_its_position_and_epoch() {
        let (cursors, _) = cursors(&["a"]);
        for position in [0, 1, 41, i64::MAX] {
            let text = cursors.seal(&acme()).cursor(at(position));
            assert_eq!(cursors.open(&acme(), &text), Ok(at(position)));
            assert!(!text.contains("acme"));
        }
    }

    #[test]
    fn a_cursor_that_was_changed_anywhere_is_refused() {
        let (cursors, _) = cursors(&["a"]);
        let text = cursors.seal(&acme()).cursor(at(7));
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(&text).unwrap();
        for index in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[index] ^= 1;
            let changed = BASE64_URL_SAFE_NO_PAD.encode(changed);
            let refusal = cursors.open(&acme(), &changed).unwrap_err();
            assert_eq!(refusal.reason, "cursor_invalid", "byte {index}");
        }
        for text in ["", "!", "AQ", "é", "-1", &text[1..], &"A".repeat(100_000)] {
            let refusal = cursors.open(&acme(), text).unwrap_err();
            assert_eq!(refusal.reason, "cursor_invalid");
        }
    }

    #[test]
    fn a_cursor_of_another_organization_is_not_found() {
        let (cursors, _) = cursors(&["a"]);
        let text = cursors.seal(&OrganizationId::new("other")).cursor(at(7));
        let refusal = cursors.open(&acme(), &text).unwrap_err();
        assert_eq!(
            (refusal.class, refusal.reason),
            (Class::NotFound, "cursor_not_found")
        );
    }

    #[test]
    fn cursors_outlive_a_rotation_of_the_master_key_and_no_longer() {
        let (old, entry) = cursors(&["old"]);
        let text = old.seal(&acme()).cursor(at(7));
        let new = MasterKeys::generate("new");
        let both = format!("{},{entry}", new.expose_secret());
        let both = Cursors::new(&MasterKeys::parse(&both).unwrap());
        assert_eq!(both.open(&acme(), &text), Ok(at(7)));
        let alone = Cursors::new(&MasterKeys::parse(new.expose_secret()).unwrap());
        assert_eq!(
            alone.open(&acme(), &text).unwrap_err().reason,
            "cursor_invalid"
        );
    }
}
