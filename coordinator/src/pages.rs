//! Pages of lists: how large they are, and the opaque tokens that continue them.
//!
//! A token is base64url of a version byte, 16 bytes of HMAC-SHA256 and a position in JSON. The MAC
//! covers what the list was asked with, so a token continues only the very list that it came from:
//! of the same method, organization and parameters.

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use secrecy::SecretBox;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::Sha256;

use crate::keys::{MasterKeys, keyed};
use crate::refusal::Refusal;

/// The rows of a page when the caller does not say.
const USUAL: u32 = 100;

/// The most rows of one page; a larger size asked for means this.
pub const LARGEST: u32 = 1_000;

/// The first byte of every token.
const VERSION: u8 = 1;

/// Bytes of the MAC that a token carries.
const TAG: usize = 16;

/// How many rows a page has: 100 when 0 is asked for, never more than 1,000.
pub fn page_size(requested: i32) -> Result<u32, Refusal> {
    match u32::try_from(requested) {
        Ok(0) => Ok(USUAL),
        Ok(size) => Ok(size.min(LARGEST)),
        Err(_) => Err(Refusal::field(
            "page_size_invalid",
            "page_size",
            "must not be negative",
        )),
    }
}

/// Cuts what was read with [`limit`] to one page; says whether more follows.
pub fn cut<T>(rows: &mut Vec<T>, size: u32) -> bool {
    let more = rows.len() > size as usize;
    rows.truncate(size as usize);
    more
}

/// How many rows to read for a page: one more, to know whether another page follows.
pub fn limit(size: u32) -> i64 {
    i64::from(size) + 1
}

/// Makes and reads page tokens. Tokens stay valid while the master key that they were made under is
/// among the node's.
pub struct PageTokens {
    keys: Vec<SecretBox<[u8; 32]>>,
}

impl fmt::Debug for PageTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PageTokens").finish_non_exhaustive()
    }
}

impl PageTokens {
    /// Tokens under keys of their own, derived from the master keys.
    pub fn new(master: &MasterKeys) -> Self {
        Self {
            keys: master.derive("page tokens"),
        }
    }

    /// The token that continues the list `asked` after `position`. `asked` is the method, the
    /// organization and every parameter but the size of the page.
    ///
    /// # Panics
    /// When the position is not a plain value, a map with keys that are not texts say.
    pub fn seal(&self, asked: &[&str], position: &impl Serialize) -> String {
        let payload = serde_json::to_vec(position).expect("positions are plain values");
        let tag = mac(&self.keys[0], asked, &payload).finalize().into_bytes();
        BASE64_URL_SAFE_NO_PAD.encode([&[VERSION], &tag[..TAG], &payload].concat())
    }

    /// The position that a token stands for; `None` for the empty token of a first page.
    ///
    /// A token that was changed, or belongs to another list, is `page_token_invalid`.
    pub fn open<P: DeserializeOwned>(
        &self,
        asked: &[&str],
        token: &str,
    ) -> Result<Option<P>, Refusal> {
        if token.is_empty() {
            return Ok(None);
        }
        self.position(asked, token).map(Some).ok_or_else(|| {
            let rule = "must be the `next_page_token` of an earlier answer to the same list, with the same parameters";
            Refusal::field("page_token_invalid", "page_token", rule)
        })
    }

    fn position<P: DeserializeOwned>(&self, asked: &[&str], token: &str) -> Option<P> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(token).ok()?;
        let (&VERSION, rest) = bytes.split_first()? else {
            return None;
        };
        let (tag, payload) = rest.split_at_checked(TAG)?;
        let ours = self
            .keys
            .iter()
            .any(|key| mac(key, asked, payload).verify_truncated_left(tag).is_ok());
        if ours {
            serde_json::from_slice(payload).ok()
        } else {
            None
        }
    }
}

fn mac(key: &SecretBox<[u8; 32]>, asked: &[&str], payload: &[u8]) -> Hmac<Sha256> {
    let mut mac = keyed(key);
    for part in asked {
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part.as_bytes());
    }
    mac.update(&u64::MAX.to_be_bytes());
    mac.update(payload);
    mac
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    fn tokens(ids: &[&str]) -> (PageTokens, String) {
        let entries: Vec<String> = ids
            .iter()
            .map(|id| MasterKeys::generate(id).expose_secret().to_owned())
            .collect();
        let text = entries.join(",");
        (PageTokens::new(&MasterKeys::parse(&text).unwrap()), text)
    }

    #[test]
    fn a_token_continues_where_its_page_ended() {
        let (tokens, _) = tokens(&["a"]);
        let token = tokens.seal(&["List", "acme"], &(7, "x"));
        let position: Option<(i64, String)> = tokens.open(&["List", "acme"], &token).unwrap();
        assert_eq!(position, Some((7, "x".to_owned())));
    }

    #[test]
    fn the_first_page_needs_no_token() {
        assert_eq!(tokens(&["a"]).0.open::<i64>(&["List"], ""), Ok(None));
    }

    #[test]
    fn a_token_of_another_list_is_refused() {
        let (tokens, _) = tokens(&["a"]);
        let token = tokens.seal(&["List", "acme"], &7);
        for asked in [
            &["List", "other"][..],
            &["Lista", "cme"],
            &["List"],
            &["List", "acme", ""],
        ] {
            let refusal = tokens.open::<i64>(asked, &token).unwrap_err();
            assert_eq!(refusal.reason, "page_token_invalid");
        }
    }

    #[test]
    fn a_token_that_was_changed_anywhere_is_refused() {
        let (tokens, _) = tokens(&["a"]);
        let bytes = BASE64_URL_SAFE_NO_PAD
            .decode(tokens.seal(&["List"], &7))
            .unwrap();
        for index in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[index] ^= 1;
            let changed = BASE64_URL_SAFE_NO_PAD.encode(changed);
            assert!(
                tokens.open::<i64>(&["List"], &changed).is_err(),
                "byte {index}"
            );
        }
        for token in ["!", "AQ", "AQAA", "é", &"A".repeat(100_000)] {
            assert!(tokens.open::<i64>(&["List"], token).is_err());
        }
    }

    #[test]
    fn tokens_outlive_a_rotation_of_the_master_key() {
        let (old, entry) = tokens(&["old"]);
        let token = old.seal(&["List"], &7);
        let both = format!("{},{entry}", MasterKeys::generate("new").expose_secret());
        let both = PageTokens::new(&MasterKeys::parse(&both).unwrap());
        assert_eq!(both.open::<i64>(&["List"], &token), Ok(Some(7)));
    }

    #[test]
    fn page_sizes_follow_the_rule() {
        assert_eq!(page_size(0), Ok(100));
        assert_eq!(page_size(1), Ok(1));
        assert_eq!(page_size(1_001), Ok(1_000));
        assert_eq!(page_size(i32::MAX), Ok(1_000));
        for negative in [-1, i32::MIN] {
            assert_eq!(
                page_size(negative).unwrap_err().violations[0].field,
                "page_size"
            );
        }
    }
}
