//! JSON as the coordinator accepts it: one reading of every text, numbers digit for digit.
//!
//! Two parsers that disagree about one text (which of two equal keys wins, what `1e400` is) make
//! two systems disagree about one row. So everything that a caller or an endpoint sends is read by
//! [`parse`], which refuses what RFC 8259 leaves open and what Postgres cannot store, and says
//! where it is; [`raw_fields`] and its kin find the parts of a text that are to be judged apart.
//! Text that was written with [`canonical`] is read with [`parse`] as well: `serde_json`'s own reader
//! rewrites exponents and gives one reserved key a meaning.

use std::cmp::Ordering;
use std::fmt;

use serde_json::{Map, Number, Value};

mod document;
mod number;
mod parser;
mod parts;

pub use document::Document;
pub use parts::{lossy_string, raw_fields, raw_items};

/// The deepest nesting that is accepted: a scalar has depth 0, `[]` and `{}` have depth 1.
pub const MAX_DEPTH: usize = 64;

/// The longest text that is accepted, in bytes.
pub const MAX_BYTES: usize = 1 << 20;

/// The most fields that one object may have.
pub const MAX_FIELDS: usize = 1_000;

/// The longest text of one number, in bytes, as written and without an exponent: Postgres writes
/// none, and what it answers must be acceptable again.
pub const MAX_NUMBER_BYTES: usize = 1_000;

/// The largest exponent that may be written, up or down. With [`MAX_NUMBER_BYTES`] it keeps every
/// number far inside what Postgres' `numeric` holds.
pub const MAX_EXPONENT: u32 = 1_000;

/// Reads one JSON text, strictly.
///
/// Accepted is what RFC 8259 allows, without: a byte order mark, equal keys in one object, lone
/// surrogates, `\u0000` anywhere, more than [`MAX_FIELDS`] fields in one object, and numbers that
/// overflow a double, are longer than [`MAX_NUMBER_BYTES`] or have an exponent beyond
/// [`MAX_EXPONENT`]. Numbers keep their text.
///
/// # Errors
/// The first rule that the text breaks, and where. Nothing is read past it.
pub fn parse(bytes: &[u8]) -> Result<Value, JsonError> {
    parser::parse(bytes)
}

/// Reads one text that was written with [`canonical`], from values that [`parse`] accepted one by
/// one. What they came to together may be past the limits of size, so none applies but that of depth.
///
/// # Errors
/// When the text is nothing that [`canonical`] wrote.
pub fn parse_stored(text: &str) -> Result<Value, JsonError> {
    parser::parse_stored(text)
}

/// Reads one JSON object, as strictly as [`parse`].
///
/// # Errors
/// As [`parse`], and [`JsonRule::NotObject`].
pub fn parse_object(bytes: &[u8]) -> Result<Map<String, Value>, JsonError> {
    match parser::parse(bytes)? {
        Value::Object(object) => Ok(object),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err(JsonError {
                path: String::new(),
                rule: JsonRule::NotObject,
            })
        }
    }
}

/// The one text of a value: keys sorted by code point, no white space, numbers as written.
///
/// Equal values have equal texts; values whose numbers are written differently have not.
///
/// # Panics
/// Never: what is written is UTF-8.
pub fn canonical(value: &Value) -> String {
    let mut text = Vec::new();
    write_canonical(value, &mut text);
    String::from_utf8(text).expect("JSON is written in UTF-8")
}

/// Orders two numbers by their exact decimal value: `1.0`, `1` and `10e-1` are equal, and
/// `9007199254740993` is more than `9007199254740992`.
pub fn compare_numbers(a: &Number, b: &Number) -> Ordering {
    number::Decimal::read(a.as_str()).cmp(&number::Decimal::read(b.as_str()))
}

/// The length of a value's shortest text, in bytes: escapes left out, numbers without an exponent, as
/// Postgres writes them.
pub fn extent(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(true) => 4,
        Value::Bool(false) => 5,
        Value::Number(number) => number::plain_length(number.as_str()),
        Value::String(text) => text.len() + 2,
        Value::Array(items) => 2 + items.iter().map(|item| extent(item) + 1).sum::<usize>(),
        Value::Object(fields) => {
            2 + fields
                .iter()
                .map(|(key, value)| key.len() + 4 + extent(value))
                .sum::<usize>()
        }
    }
}

/// Whether two values are the same, numbers by value: `{"a":1}` and `{"a":1.0}` are.
pub fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => compare_numbers(a, b).is_eq(),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len()
                && a.iter()
                    .all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}

/// Why a text was refused, and where.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{}", self.sentence())]
pub struct JsonError {
    /// The place, as in `a.b[3]`; empty for the text as a whole. At most about 200 characters.
    pub path: String,
    /// The rule that it breaks.
    pub rule: JsonRule,
}

impl JsonError {
    fn sentence(&self) -> String {
        if self.path.is_empty() {
            self.rule.to_string()
        } else {
            format!("{}: {}", self.path, self.rule)
        }
    }
}

/// A rule that a JSON text must keep.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum JsonRule {
    /// It is JSON, by RFC 8259.
    Invalid,
    /// It is UTF-8, and its escapes make whole characters.
    Utf8,
    /// It is at most [`MAX_BYTES`] long.
    TooLarge,
    /// It nests at most [`MAX_DEPTH`] deep.
    TooDeep,
    /// An object has at most [`MAX_FIELDS`] fields.
    TooManyFields,
    /// An object's keys differ.
    DuplicateKey,
    /// A key is not one that the JSON library gives a meaning of its own.
    ReservedKey,
    /// No string holds U+0000: Postgres cannot store it.
    Nul,
    /// A number has a value that doubles and Postgres can hold.
    NumberOutOfRange,
    /// The text is one object.
    NotObject,
}

impl JsonRule {
    /// The rule's name on the wire.
    pub fn code(self) -> &'static str {
        match self {
            Self::Invalid => "json_invalid",
            Self::Utf8 => "json_not_utf8",
            Self::TooLarge => "json_too_large",
            Self::TooDeep => "json_too_deep",
            Self::TooManyFields => "json_too_many_fields",
            Self::DuplicateKey => "json_duplicate_key",
            Self::ReservedKey => "json_reserved_key",
            Self::Nul => "json_nul",
            Self::NumberOutOfRange => "number_out_of_range",
            Self::NotObject => "json_not_object",
        }
    }
}

impl fmt::Display for JsonRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid => f.write_str("not valid JSON"),
            Self::Utf8 => f.write_str("not valid UTF-8, or half of a surrogate pair"),
            Self::TooLarge => write!(f, "longer than {MAX_BYTES} bytes"),
            Self::TooDeep => write!(f, "nested deeper than {MAX_DEPTH} levels"),
            Self::TooManyFields => write!(f, "an object with more than {MAX_FIELDS} fields"),
            Self::DuplicateKey => f.write_str("the key stands twice in one object"),
            Self::ReservedKey => f.write_str("the key is reserved"),
            Self::Nul => f.write_str("a string that contains the character U+0000"),
            Self::NumberOutOfRange => f.write_str("a number out of range"),
            Self::NotObject => f.write_str("not a JSON object"),
        }
    }
}

fn write_canonical(value: &Value, text: &mut Vec<u8>) {
    match value {
        Value::Array(items) => {
            text.push(b'[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    text.push(b',');
                }
                write_canonical(item, text);
            }
            text.push(b']');
        }
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            // UTF-8 sorts as its code points do.
            fields.sort_unstable_by_key(|(key, _)| *key);
            text.push(b'{');
            for (index, (key, field)) in fields.into_iter().enumerate() {
                if index > 0 {
                    text.push(b',');
                }
                write_plain(key, text);
                text.push(b':');
                write_canonical(field, text);
            }
            text.push(b'}');
        }
        Value::Number(number) => text.extend_from_slice(number.as_str().as_bytes()),
        Value::Null | Value::Bool(_) | Value::String(_) => write_plain(value, text),
    }
}

/// What has one text however it is written.
fn write_plain(value: &(impl serde::Serialize + ?Sized), text: &mut Vec<u8>) {
    serde_json::to_writer(text, value).expect("memory takes every write");
}

#[cfg(test)]
mod tests;
