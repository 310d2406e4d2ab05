//! A row's object with its text.

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde_json::{Map, Value};

/// A JSON object that all who hold it share, and its text, which is written once: a row stands in the
/// log, in its table, in a receipt and in what judges the next change.
#[derive(Clone)]
pub struct Document(Arc<Inner>);

struct Inner {
    /// An object.
    value: Value,
    text: OnceLock<String>,
}

impl Document {
    /// The object as a value.
    pub fn value(&self) -> &Value {
        &self.0.value
    }

    /// Its text: keys in order, no white space, numbers as they were given.
    pub fn text(&self) -> &str {
        self.0.text.get_or_init(|| super::canonical(&self.0.value))
    }

    /// The bytes of its text, not copied: the object stays as long as they do.
    pub fn bytes(&self) -> Bytes {
        Bytes::from_owner(self.clone())
    }
}

/// The bytes of its text.
impl AsRef<[u8]> for Document {
    fn as_ref(&self) -> &[u8] {
        self.text().as_bytes()
    }
}

impl Deref for Document {
    type Target = Map<String, Value>;

    fn deref(&self) -> &Self::Target {
        let fields = self.0.value.as_object();
        fields.expect("a document is made of an object")
    }
}

impl From<Map<String, Value>> for Document {
    fn from(fields: Map<String, Value>) -> Self {
        Self(Arc::new(Inner {
            value: Value::Object(fields),
            text: OnceLock::new(),
        }))
    }
}

/// Of an object; the value is given back if it is none.
impl TryFrom<Value> for Document {
    type Error = Value;

    fn try_from(value: Value) -> Result<Self, Value> {
        match value {
            Value::Object(fields) => Ok(fields.into()),
            other => Err(other),
        }
    }
}

impl PartialEq for Document {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.value() == other.value()
    }
}

impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value().fmt(f)
    }
}
