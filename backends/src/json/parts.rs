//! The parts of a text that is JSON by its grammar, as they stand: what is to be judged apart, or
//! what matters of a text of which the rest may be what it likes.

use std::fmt;

use serde::de::{Deserializer, IgnoredAny, Visitor};

/// The fields of an object, keys and values as they stand, in their order and with all repetitions.
///
/// `None` when the text is no object, or no JSON. How deep it nests, and what its strings and
/// numbers stand for, is not looked at.
pub fn raw_fields(text: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let parts = parts(text, (b"{", b"}"))?;
    let (pairs, _) = parts.as_chunks::<2>();
    Some(pairs.iter().map(|[key, value]| (*key, *value)).collect())
}

/// The items of an array; otherwise as [`raw_fields`].
pub fn raw_items(text: &[u8]) -> Option<Vec<&[u8]>> {
    parts(text, (b"[", b"]"))
}

/// What a string says; `None` when the text is no string. What is
/// no whole character becomes U+FFFD.
pub fn lossy_string(text: &[u8]) -> Option<String> {
    struct Bytes;

    impl Visitor<'_> for Bytes {
        type Value = String;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string")
        }

        fn visit_bytes<E>(self, bytes: &[u8]) -> Result<String, E> {
            Ok(String::from_utf8_lossy(bytes).into_owned())
        }
    }

    if !text.trim_ascii_start().starts_with(b"\"") || !is_json(text) {
        return None;
    }
    // Asked for bytes, the library lets halves of surrogate pairs pass.
    let mut text = serde_json::Deserializer::from_slice(text);
    (&mut text).deserialize_bytes(Bytes).ok()
}

fn is_json(text: &[u8]) -> bool {
    serde_json::from_slice::<IgnoredAny>(text).is_ok()
}

/// What stands between the brackets, cut at the commas and colons that are in no other brackets.
fn parts<'a>(text: &'a [u8], (open, close): (&[u8], &[u8])) -> Option<Vec<&'a [u8]>> {
    let inside = text.trim_ascii().strip_prefix(open)?.strip_suffix(close)?;
    if !is_json(text) {
        return None;
    }
    let mut parts = Vec::new();
    let (mut depth, mut in_string, mut escaped, mut start) = (0_usize, false, false, 0);
    for (at, byte) in inside.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth -= 1,
            b',' | b':' if depth == 0 => {
                parts.push(inside[start..at].trim_ascii());
                start = at + 1;
            }
            _ => {}
        }
    }
    let last = inside[start..].trim_ascii();
    if !last.is_empty() {
        parts.push(last);
    }
    Some(parts)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(part: &[u8]) -> String {
        String::from_utf8_lossy(part).into_owned()
    }

    #[test]
    fn a_text_is_cut_at_its_own_commas_only() {
        let text = br#" { "a,\"b" : [1, {"c": "]}"}] , "a":1e400,"d":"\\" } "#;
        let fields = raw_fields(text).unwrap();
        let fields: Vec<_> = fields.iter().map(|(k, v)| (shown(k), shown(v))).collect();
        let wanted = [
            (r#""a,\"b""#, r#"[1, {"c": "]}"}]"#),
            (r#""a""#, "1e400"),
            (r#""d""#, r#""\\""#),
        ];
        assert_eq!(fields, wanted.map(|(k, v)| (k.to_owned(), v.to_owned())));
        assert_eq!(raw_items(b"[ ]"), Some(Vec::new()));
        assert_eq!(raw_fields(b"{}"), Some(Vec::new()));
        let deep = format!("[0,{}{}]", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(raw_items(deep.as_bytes()).unwrap().len(), 2);
        for text in ["", "{", "[1,]", "[1}", "{\"a\"}", "[\"\n\"]", "[1] 2", "7"] {
            assert_eq!(raw_items(text.as_bytes()), None, "{text}");
            assert_eq!(raw_fields(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn a_string_is_read_whatever_it_holds() {
        let read = |text: &[u8]| lossy_string(text);
        assert_eq!(read(br#""a\u0000\n""#).unwrap(), "a\0\n");
        assert_eq!(
            read(br#""\ud83d\ude00 \ud800.""#).unwrap(),
            "😀 \u{fffd}\u{fffd}\u{fffd}."
        );
        assert_eq!(read(b"\"\xff\"").unwrap(), "\u{fffd}");
        for text in ["7", "null", "", "\"", "[\"a\"]", "\"a\" \"b\""] {
            assert_eq!(read(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(text in r#"[\[\]{}",:0-9e \\u]{0,24}"#) {
            let _parts = (raw_fields(text.as_bytes()), raw_items(text.as_bytes()));
            let _string = lossy_string(text.as_bytes());
        }

        #[test]
        fn the_parts_are_what_serde_json_finds(items in prop::collection::vec("[^\u{0}]{0,6}", 0..5)) {
            let text = serde_json::to_string(&items).unwrap();
            let parts = raw_items(text.as_bytes()).unwrap();
            let read: Vec<_> = parts.into_iter().map(|part| lossy_string(part).unwrap()).collect();
            prop_assert_eq!(read, items);
        }
    }
}
