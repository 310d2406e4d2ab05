//! What a batch of commands comes to, given what they touch: pure code, no clock, no I/O.
//!
//! An organization is a state machine. [`decide`] takes the [`State`] that one snapshot showed and
//! turns commands into replies and one [`Append`]. The append applies only if the head has not
//! moved since; otherwise the commands are decided again on what stands then. Inside a batch, each
//! command sees what the ones before it did.

mod accept;
mod append;
mod breaker;
mod control;
mod events;
mod groups;
mod operate;
mod over;
mod settle;
mod start;
mod state;
mod terms;
#[cfg(test)]
mod tests;
mod versions;

use std::sync::Arc;

use time::OffsetDateTime;
use uuid::Uuid;

use crate::admit::schema::Schema;
use crate::domain::{Commit, OrganizationId, SettingsPatch, SourceSettings};
use crate::refusal::Refusal;

pub use accept::lane;
pub use append::{Action, Append, AttemptClose, AttemptOpen, DeltaRow, Quarantined, RequestNote};
pub use breaker::Recovery;
pub use control::PushSchema;
pub use events::{EchoOf, ExternalEvent, Misfit, Step, TakeEvents, Taken};
pub use groups::Membership;
pub use operate::{Operate, Operator, Target, Verb, pending_not_found};
pub use over::Expire;
pub use settle::{ReadBack, SIGNATURE_TOLERANCE, Settle};
pub use start::{Start, Started};
pub use state::{
    Feed, Head, InboxEntry, LedgerEntry, OUTCOMES, RowVersion, Source, State, StoredRow, Touched,
};
pub use terms::{Guard, Terms};
pub use versions::VersionChange;

/// Something that changes an organization's state.
#[derive(Clone, Debug)]
pub enum Command {
    /// Take in a commit.
    Accept(Accept),
    /// Record an attempt before its first byte leaves.
    Start(Start),
    /// Record what an attempt came to.
    Settle(Settle),
    /// Reject a commit whose time is over.
    Expire(Expire),
    /// Take in changes made outside.
    TakeEvents(TakeEvents),
    /// What an operator or a node asks for.
    Control(Control),
    /// What an operator does to commits that wait.
    Operate(Operate),
}

/// A commit, with the schema that it was admitted under.
#[derive(Clone, Debug)]
pub struct Accept {
    /// What to do.
    pub commit: Arc<Commit>,
    /// Refused as [`Reply::SchemaMoved`] if another version is active.
    pub schema: Arc<Schema>,
    /// For Data Sources: the exact bytes to send.
    pub body: Option<bytes::Bytes>,
    /// Bytes of the caller's inputs, for the size of a batch.
    pub weight: usize,
}

/// The control plane.
#[derive(Clone, Debug)]
pub enum Control {
    /// Make a schema the active one.
    PushSchema(PushSchema),
    /// Register a source.
    CreateSource(String, SourceSettings),
    /// Change some of a source's settings.
    UpdateSource(String, SettingsPatch),
    /// Take and deliver commits again.
    EnableSource(String),
    /// Refuse new commits, for this reason.
    DisableSource(String, String),
    /// Take commits and deliver none, for this reason.
    PauseSource(String, String),
    /// Deliver again, if it is paused.
    ResumeSource(String),
    /// One of the others, asked for by an operator: what it changes goes on record with who asked.
    By(Operator, Box<Control>),
    /// Forget a source that the active schema does not name.
    DeleteSource {
        /// The source.
        source: String,
        /// The schema that was looked at.
        schema_version: i32,
        /// Whether that schema names the source.
        named: bool,
    },
    /// Deliver to a source from now on, under the next epoch, unless its owner is another node that
    /// was not seen to be gone.
    ClaimSource {
        /// The source.
        source: String,
        /// Who claims it.
        node: Uuid,
        /// The owner whose lease was seen to be over.
        gone: Option<Uuid>,
    },
    /// Give a source up, if it is still owned under this epoch.
    ReleaseSource {
        /// The source.
        source: String,
        /// The epoch.
        epoch: i64,
    },
    /// Read a source's feed anew, from this cursor or from its start.
    ResetFeed(String, Option<String>),
}

/// What a command came to.
#[derive(Clone, Debug)]
pub enum Reply {
    /// A managed commit was applied.
    Confirmed(Box<crate::domain::Receipt>),
    /// A commit for a Data Source is durable, at this place in its inbox.
    Queued(Box<LedgerEntry>, i64),
    /// The same commit is in the ledger already.
    Replay(Box<LedgerEntry>),
    /// Another schema than the commit's is active.
    SchemaMoved(i32),
    /// An attempt may leave now.
    Started(Box<Started>),
    /// An attempt was recorded: the entry as it stands now, or `None` when it is finished.
    Settled(Option<Box<InboxEntry>>, Box<Source>),
    /// An attempt was recorded, and the commit rejected, although the feed had shown that it was
    /// applied: what its rows came to is not in the log.
    Denied(Box<Source>),
    /// No attempt may leave now.
    NotStartable(NotStartable),
    /// The source has another owner now.
    Fenced,
    /// Done.
    Done,
    /// The schema's version.
    Pushed(i32),
    /// The source is claimed, under this epoch.
    Claimed(Box<Source>),
    /// The commits were operated on: how many, and the names of those that took a new place.
    Operated(usize, Vec<String>),
    /// A commit does not stand where it was looked up: look again. Nothing was changed.
    Moved,
    /// What events came to.
    Taken(Box<Taken>),
    /// Refused; nothing was changed.
    Refused(Box<Refusal>),
}

/// Why no attempt may leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotStartable {
    /// The commit is settled or dead.
    Finished,
    /// The source is disabled.
    Disabled,
    /// An operator changed the inbox since it was read: read it anew first.
    Reread,
    /// It must wait for this time first.
    Until(OffsetDateTime),
}

/// Decides a batch in order.
pub fn decide(
    organization: &OrganizationId,
    state: &mut State,
    commands: &[Command],
) -> (Vec<Reply>, Append) {
    let mut append = Append::default();
    let replies = commands
        .iter()
        .map(|command| match command {
            Command::Accept(accept) => accept::accept(organization, state, &mut append, accept),
            Command::Start(start) => start::start(state, &mut append, start),
            Command::Settle(settle) => settle::settle(state, &mut append, settle),
            Command::Expire(expire) => over::expire(state, &mut append, expire),
            Command::TakeEvents(take) => events::take(state, &mut append, take),
            Command::Control(control) => control::control(state, &mut append, control),
            Command::Operate(operate) => operate::operate(state, &mut append, operate),
        })
        .collect();
    append.last_sync_id = state.head.last_sync_id;
    append.schema_version = state.head.schema_version;
    (replies, append)
}

impl Command {
    /// The command's kind, for traces.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Accept(_) => "accept",
            Self::Start(_) => "start",
            Self::Settle(_) => "settle",
            Self::Expire(_) => "expire",
            Self::TakeEvents(_) => "take_events",
            Self::Control(_) => "control",
            Self::Operate(_) => "operate",
        }
    }

    /// About how many bytes it adds to a batch, as it is read or as it is written.
    pub fn weight(&self) -> usize {
        match self {
            Self::Accept(accept) => accept.weight + 256 * accept.commit.operations.len(),
            Self::Start(start) => 1_024 + start.weight,
            Self::Settle(settle) => 1_024 + settle.weight(),
            Self::Expire(expire) => 1_024 + expire.weight,
            Self::Control(_) => 1_024,
            Self::Operate(operate) => operate.weight(),
            Self::TakeEvents(take) => take.weight(),
        }
    }

    /// Adds what this command touches to what is read for its batch.
    pub fn touch(&self, touched: &mut Touched) {
        match self {
            Self::Accept(accept) => accept::touch(accept, touched),
            Self::Start(start) => start::touch(start, touched),
            Self::Settle(settle) => settle::touch(settle, touched),
            Self::Expire(expire) => over::touch(expire, touched),
            Self::TakeEvents(take) => events::touch(take, touched),
            Self::Control(control) => control::touch(control, touched),
            Self::Operate(operate) => operate::touch(operate, touched),
        }
    }
}
