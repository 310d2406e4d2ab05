//! What a batch of commands comes to, given what they touch: pure code, no clock, no I/O.
//!
//! An organization is a state machine. [`decide`] takes the [`State`] that one snapshot showed and
//! turns commands into replies and one [`Append`]. The append applies only if the head has not
//! moved since; otherwise the commands are decided again on what stands then. Inside a batch, each
//! command sees what the ones before it did.

mod accept;
mod append;
mod control;
mod settle;
mod start;
mod state;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use time::OffsetDateTime;
use uuid::Uuid;

use crate::admit::schema::Schema;
use crate::domain::{Commit, OrganizationId, SourceSettings};
use crate::refusal::Refusal;

pub use append::{Append, AttemptClose, AttemptOpen, DeltaRow, RequestNote};
pub use control::PushSchema;
pub use settle::{SIGNATURE_TOLERANCE, Settle};
pub use start::{Start, Started};
pub use state::{Head, InboxEntry, LedgerEntry, OUTCOMES, Source, State, StoredRow, Touched};

/// Something that changes an organization's state.
#[derive(Clone, Debug)]
pub enum Command {
    /// Take in a commit.
    Accept(Accept),
    /// Record an attempt before its first byte leaves.
    Start(Start),
    /// Record what an attempt came to.
    Settle(Settle),
    /// What an operator or a node asks for.
    Control(Control),
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
    /// Replace a source's settings.
    UpdateSource(String, SourceSettings),
    /// Take and deliver commits again.
    EnableSource(String),
    /// Refuse new commits, for this reason.
    DisableSource(String, String),
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
            Command::Control(control) => control::control(state, &mut append, control),
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
            Self::Control(_) => "control",
        }
    }

    /// About how many bytes it adds to a batch.
    pub fn weight(&self) -> usize {
        match self {
            Self::Accept(accept) => accept.weight + 256 * accept.commit.operations.len(),
            Self::Start(_) | Self::Settle(_) | Self::Control(_) => 1_024,
        }
    }

    /// Adds what this command touches to what is read for its batch.
    pub fn touch(&self, touched: &mut Touched) {
        match self {
            Self::Accept(accept) => accept::touch(accept, touched),
            Self::Start(start) => touched.entry(&start.source, start.sequence, true),
            Self::Settle(settle) => settle::touch(settle, touched),
            Self::Control(control) => control::touch(control, touched),
        }
    }
}
