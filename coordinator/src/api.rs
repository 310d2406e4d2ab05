//! The gRPC surface: who calls, how long they wait, what they are told. It decides nothing about
//! commits; the rooms behind [`Rooms`] do.

mod admin;
mod auth;
mod commit_stream;
mod coordinator;
mod data_sources;
mod deadline;
mod edge;
mod encode;
mod log;
mod names;
mod schemas;
#[cfg(test)]
mod scratch;
mod seats;
pub mod server;
mod status;
mod unread;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use backends::data_source::egress::EgressPolicy;
use secrecy::SecretString;

use crate::keys::KeyRing;
use crate::log::Logs;
use crate::pages::PageTokens;
use crate::reads::Reads;
use crate::service::Service;
use crate::store::Store;
use crate::verify::Verifier;

/// What the calls are answered from.
pub struct Rooms {
    /// Everything that changes an organization's state.
    pub service: Arc<Service>,
    /// Rows.
    pub reads: Reads,
    /// Lists and status.
    pub store: Store,
    /// Looks at endpoints.
    pub verifier: Verifier,
    /// Who calls.
    pub keys: Arc<KeyRing>,
    /// Where a Data Source may be.
    pub egress: EgressPolicy,
    /// Opens the Admin service; without one, nobody can call it.
    pub operator_token: Option<SecretString>,
    /// The longest that Commit waits for a commit to settle.
    pub wait_cap: Duration,
    /// What subscribers follow.
    pub logs: Arc<Logs>,
    /// What list calls continue by.
    pub pages: Arc<PageTokens>,
}

impl fmt::Debug for Rooms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rooms")
            .field("wait_cap", &self.wait_cap)
            .finish_non_exhaustive()
    }
}
