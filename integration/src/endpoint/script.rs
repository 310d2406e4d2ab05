//! What a test can tell an endpoint to do.

use std::fmt;
use std::sync::Arc;

use axum::http::StatusCode;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::Arrival;

/// The kinds of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Applies operations.
    Commit,
    /// Reads one row.
    Load,
    /// Reads rows.
    List,
    /// Reads what was written outside.
    Events,
}

impl Kind {
    pub(super) fn parse(word: &str) -> Option<Self> {
        match word {
            "commit" => Some(Self::Commit),
            "load" => Some(Self::Load),
            "list" => Some(Self::List),
            "events" => Some(Self::Events),
            _ => None,
        }
    }
}

/// How one request is answered: whether the database does its work, what is sent back, and the
/// gates in front of each.
#[derive(Clone, Debug)]
pub struct Answer {
    pub(super) applies: bool,
    pub(super) before: Option<Gate>,
    pub(super) after: Option<Gate>,
    pub(super) reply: Reply,
}

/// What is sent back.
#[derive(Clone, Debug)]
pub enum Reply {
    /// What the database answered.
    Honest,
    /// A status, headers, and a body, whatever the database answered.
    Fixed(StatusCode, Vec<(String, String)>, Vec<u8>),
    /// These bytes instead of an HTTP response; then the connection ends.
    Raw(Vec<u8>),
    /// Bytes, and then the others again and again for as long as anybody takes them.
    Endless(Vec<u8>, Vec<u8>),
    /// Nothing; the connection ends in order.
    Close,
    /// Nothing; the connection is reset.
    Reset,
    /// Nothing, ever; the connection stays open.
    Silence,
    /// A head that announces a body, and nothing of the body.
    HeadOnly,
}

impl Answer {
    /// What an honest endpoint does.
    pub fn honest() -> Self {
        Self {
            applies: true,
            before: None,
            after: None,
            reply: Reply::Honest,
        }
    }

    /// The database does its work, and something else is sent back.
    pub fn applied_but(reply: Reply) -> Self {
        Self {
            reply,
            ..Self::honest()
        }
    }

    /// The database does nothing.
    pub fn unapplied(reply: Reply) -> Self {
        Self {
            applies: false,
            reply,
            ..Self::honest()
        }
    }

    /// The database does nothing; a bare status comes back.
    pub fn status(status: StatusCode) -> Self {
        Self::unapplied(Reply::Fixed(status, Vec::new(), Vec::new()))
    }

    /// The database does nothing; a status comes back with a JSON body.
    pub fn json(status: StatusCode, body: &Value) -> Self {
        Self::unapplied(Reply::Fixed(
            status,
            Vec::new(),
            body.to_string().into_bytes(),
        ))
    }

    /// The database does nothing; a status comes back with the body `{error, message}`.
    pub fn error(status: StatusCode, code: &str) -> Self {
        Self::json(
            status,
            &json!({"error": code, "message": format!("refused: {code}")}),
        )
    }

    /// Adds a header to a fixed reply.
    ///
    /// # Panics
    /// When the reply is none.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        let Reply::Fixed(_, headers, _) = &mut self.reply else {
            panic!("only a fixed reply has headers of its own");
        };
        headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Waits at a gate before the database does its work.
    #[must_use]
    pub fn once_open(mut self, gate: &Gate) -> Self {
        self.before = Some(gate.clone());
        self
    }

    /// Waits at a gate after the database did its work, before anything is sent back.
    #[must_use]
    pub fn replied_once_open(mut self, gate: &Gate) -> Self {
        self.after = Some(gate.clone());
        self
    }
}

/// Decides how each commit is answered that nothing else was said about.
pub(super) struct Character(pub(super) Box<dyn FnMut(&Arrival) -> Answer + Send>);

impl fmt::Debug for Character {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Character")
    }
}

impl Reply {
    /// The status that is sent, if one is.
    pub(super) fn status(&self, honest: StatusCode) -> Option<u16> {
        match self {
            Self::Honest => Some(honest.as_u16()),
            Self::Fixed(status, ..) => Some(status.as_u16()),
            Self::HeadOnly => Some(StatusCode::OK.as_u16()),
            Self::Raw(bytes) | Self::Endless(bytes, _) => {
                let status = bytes.strip_prefix(b"HTTP/1.1 ")?.get(..3)?;
                std::str::from_utf8(status).ok()?.parse().ok()
            }
            Self::Close | Self::Reset | Self::Silence => None,
        }
    }
}

/// Holds requests until it is opened. Clones are the same gate.
#[derive(Clone, Debug)]
pub struct Gate(Arc<watch::Sender<bool>>);

impl Gate {
    /// A gate that lets nothing through yet.
    pub fn closed() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }

    /// Whether a request waits at it.
    pub fn is_waited_at(&self) -> bool {
        self.0.receiver_count() > 0
    }

    /// Lets everything through, now and from now on.
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    pub(super) async fn passed(&self) {
        let mut gate = self.0.subscribe();
        gate.wait_for(|open| *open)
            .await
            .expect("the gate itself holds the sender");
    }
}
