//! The words of the gRPC interface as types: organizations, participants, commits, receipts, sources.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use backends::data_source::schedule::RetrySchedule;
use backends::operation::{Change, Operation};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use uuid::Uuid;

/// Declares an enum whose variants are words of the wire and of the database.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name {
            $($(#[$doc])* $variant,)+
        }

        impl $name {
            /// Every variant, in the order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word, as on the wire and in the database.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }

            /// Reads [`Self::as_str`] back.
            pub fn parse(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|one| one.as_str() == word)
            }
        }
    };
}

/// The tenant that everything belongs to, by the id its operator chose.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OrganizationId(Arc<str>);

impl OrganizationId {
    /// Takes an id as it stands in the database or as the operator gave it.
    pub fn new(id: &str) -> Self {
        Self(Arc::from(id))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for OrganizationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

words! {
    /// Whether an organization's data is real; fixed at its creation.
    Mode {
        /// Keys begin with `sk_live_`.
        Live = "live",
        /// Keys begin with `sk_test_`.
        Test = "test",
    }
}

/// Who a call is from, found from its API key.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The key's organization.
    pub organization: OrganizationId,
    /// The organization's mode.
    pub mode: Mode,
    /// The key that the call carried.
    pub key_id: Uuid,
}

words! {
    /// What kind of participant writes.
    ParticipantKind {
        /// A person.
        User = "user",
        /// A program that acts for a person.
        Agent = "agent",
        /// The application itself.
        System = "system",
    }
}

/// Who writes, as the front-end says on each call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Participant {
    /// 1 to 255 printable characters.
    pub id: String,
    /// What kind.
    pub kind: ParticipantKind,
}

/// The coordinator's name for a commit: a `UUIDv7`, written without hyphens on every wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CommitId(pub Uuid);

impl CommitId {
    /// A new name, ordered by time.
    pub fn generate() -> Self {
        Self(Uuid::now_v7())
    }

    /// The id of the row that operation `index` creates without naming it: a `UUIDv7` with the
    /// commit's time, derived from the commit's name so that every replay finds the same.
    pub fn assigned_id(self, index: usize) -> String {
        let mut hash = Sha256::new();
        hash.update(self.0.as_bytes());
        hash.update((index as u64).to_be_bytes());
        let digest = hash.finalize();
        let mut bytes = *self.0.as_bytes();
        bytes[6..].copy_from_slice(&digest[..10]);
        uuid::Builder::from_bytes(bytes)
            .with_version(uuid::Version::SortRand)
            .with_variant(uuid::Variant::RFC4122)
            .into_uuid()
            .to_string()
    }
}

impl fmt::Display for CommitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_simple().fmt(f)
    }
}

/// Where a commit's rows live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// In the coordinator's Postgres.
    Managed,
    /// Behind the Data Source with this id.
    Source(String),
}

/// A commit as its caller meant it, checked against the schema and ready to be decided.
#[derive(Clone, Debug)]
pub struct Commit {
    /// The caller's name for it.
    pub client_tx_id: String,
    /// Our name for it, if it turns out to be new.
    pub id: CommitId,
    /// SHA-256 of the canonical JSON of the intent (sent as `intentHash`).
    pub fingerprint: [u8; 32],
    /// Who writes.
    pub participant: Participant,
    /// What to do; ids are assigned already.
    pub operations: Vec<Operation>,
    /// Positions of the CREATEs whose ids were assigned.
    pub assigned: Vec<i16>,
    /// Where the rows live.
    pub route: Route,
    /// The caller's groups, for `scope`.
    pub required_sync_groups: Vec<String>,
    /// W3C trace context of the call that brought it.
    pub traceparent: Option<String>,
    /// No attempt starts after this.
    pub expires_at: Option<OffsetDateTime>,
}

words! {
    /// Where a commit stands.
    CommitState {
        /// Durable, not settled.
        Queued = "queued",
        /// Applied.
        Confirmed = "confirmed",
        /// Refused by its backing, finally.
        Rejected = "rejected",
    }
}

/// A confirmed change of one row, at its position in the organization's log.
#[derive(Clone, Debug, PartialEq)]
pub struct Delta {
    /// The position.
    pub sync_id: i64,
    /// What changed.
    pub change: Change,
    /// The row had changed after `read_at`, and the operation said FLAG.
    pub stale: bool,
}

/// What a commit came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Receipt {
    /// The caller's name for the commit.
    pub client_tx_id: String,
    /// Ours.
    pub id: CommitId,
    /// Where it stands.
    pub state: CommitState,
    /// What changed; empty unless confirmed.
    pub deltas: Vec<Delta>,
    /// Confirmed, but the log no longer holds the changes.
    pub changes_expired: bool,
    /// Code and message, when rejected.
    pub error: Option<(String, String)>,
    /// The Data Source, unless managed.
    pub source: Option<String>,
    /// When it became durable.
    pub accepted_at: OffsetDateTime,
    /// When it was confirmed or rejected.
    pub settled_at: Option<OffsetDateTime>,
    /// Requests made so far.
    pub attempts: i32,
    /// Positions of the operations whose ids were assigned.
    pub assigned: Vec<i16>,
    /// Attempts are exhausted; an operator decides.
    pub dead: bool,
    /// When an operator recovered it after it was dead: it then took a new place.
    pub reentered_at: Option<OffsetDateTime>,
    /// When it was accepted, the source's feed had last been read to its end at this time.
    pub feed_read_at: Option<OffsetDateTime>,
}

words! {
    /// What a source does with commits.
    SourceState {
        /// Takes and delivers.
        Enabled = "enabled",
        /// Takes; delivery backs off.
        Failing = "failing",
        /// Refuses new commits; keeps what is pending.
        Disabled = "disabled",
        /// Takes; delivers nothing until it is resumed.
        Paused = "paused",
    }
}

words! {
    /// Whether a source's feed of changes made outside is polled.
    FeedState {
        /// It is.
        Polling = "polling",
        /// The endpoint has no feed.
        None = "none",
        /// The endpoint does not know our cursor any more; an operator decides.
        Refused = "refused",
    }
}

/// What an operator sets on a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceSettings {
    /// The endpoint, canonical and judged.
    pub url: String,
    /// Pauses before the second attempt, the third …
    pub retry: RetrySchedule,
    /// The longest that one request may take, body included.
    pub request_timeout: Duration,
    /// Commit requests in flight at most.
    pub max_in_flight: i32,
    /// Commit requests started per second at most; 0 for no limit.
    pub max_per_second: i32,
    /// Commits that may be pending; beyond, new ones are refused.
    pub max_pending: i64,
    /// How far the sweep of the feed trails its newest cursor.
    pub feed_lag: Duration,
}

/// What an operator changes of a source's settings; what is absent stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SettingsPatch {
    /// See [`SourceSettings`], also for the others.
    pub url: Option<String>,
    /// Pauses between attempts.
    pub retry: Option<RetrySchedule>,
    /// The longest request.
    pub request_timeout: Option<Duration>,
    /// Requests in flight.
    pub max_in_flight: Option<i32>,
    /// Requests per second.
    pub max_per_second: Option<i32>,
    /// Commits that may be pending.
    pub max_pending: Option<i64>,
    /// The sweep's lag.
    pub feed_lag: Option<Duration>,
}

impl SettingsPatch {
    /// Changes what is named.
    pub fn apply(&self, settings: &mut SourceSettings) {
        fn put<T: Clone>(from: Option<&T>, to: &mut T) {
            if let Some(from) = from {
                to.clone_from(from);
            }
        }
        put(self.url.as_ref(), &mut settings.url);
        put(self.retry.as_ref(), &mut settings.retry);
        put(self.request_timeout.as_ref(), &mut settings.request_timeout);
        put(self.max_in_flight.as_ref(), &mut settings.max_in_flight);
        put(self.max_per_second.as_ref(), &mut settings.max_per_second);
        put(self.max_pending.as_ref(), &mut settings.max_pending);
        put(self.feed_lag.as_ref(), &mut settings.feed_lag);
    }
}

impl From<SourceSettings> for SettingsPatch {
    fn from(settings: SourceSettings) -> Self {
        Self {
            url: Some(settings.url),
            retry: Some(settings.retry),
            request_timeout: Some(settings.request_timeout),
            max_in_flight: Some(settings.max_in_flight),
            max_per_second: Some(settings.max_per_second),
            max_pending: Some(settings.max_pending),
            feed_lag: Some(settings.feed_lag),
        }
    }
}

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestError {
    /// When it ended.
    pub at: OffsetDateTime,
    /// A class in snake case.
    pub class: String,
    /// For a person.
    pub message: String,
    /// 0 when no status line came.
    pub http_status: i32,
}

words! {
    /// The kinds of request that a source is sent.
    RequestKind {
        /// Delivers a commit.
        Commit = "commit",
        /// Reads one row.
        Load = "load",
        /// Reads rows.
        List = "list",
        /// Polls for changes made outside.
        Events = "events",
    }
}

words! {
    /// Why an attempt is made.
    Trigger {
        /// The commit was accepted.
        Accept = "accept",
        /// The schedule.
        Schedule = "schedule",
        /// A failing spell of the source ended.
        Recovery = "recovery",
        /// The node that made the attempt before was lost.
        Takeover = "takeover",
        /// An operator asked for it.
        Manual = "manual",
        /// The feed showed that it was applied; its answer had been lost.
        Echo = "echo",
    }
}
