//! What an endpoint must do to be a Data Source (`integration/examples/WIRE.md`), tried out on it.
//!
//! The checks send what the coordinator sends, through the same client, and read the answers as the
//! coordinator reads them; so an endpoint that passes will do. They write rows of their own, under
//! fresh ids, and remove them at the end: they are meant for a test database all the same.

mod checks;
mod finding;
mod probe;
mod sample;

use std::fmt;

use backends::data_source::client::{BuildError, EndpointClient};
use backends::data_source::egress::EgressPolicy;
use backends::data_source::endpoint::{EndpointUrl, UrlFault};
use futures_util::future::BoxFuture;
use serde_json::{Map, Value, json};

use self::finding::Finding;
use self::probe::Probe;
use crate::config::Secret;

/// Changes the row with this id past the endpoint, as the customer's own programs do. An error is
/// for a person.
pub type WriteOutside = Box<dyn Fn(String) -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// The endpoint to check, and what it can be checked with.
pub struct Target {
    /// Where it is. Any address will do; plain HTTP is for loopback and other literal addresses.
    pub url: String,
    /// The key that it verifies signatures with.
    pub key: Secret,
    /// A model that it serves.
    pub model: String,
    /// Rows that the model accepts, as the endpoint would answer them; an `id` is left out. The
    /// first one is created, the others say what an update may write. At least one.
    pub rows: Vec<Map<String, Value>>,
    /// Needed to see that the feed tells of writes that did not come through the coordinator.
    pub write_outside: Option<WriteOutside>,
}

/// Why nothing was checked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is nothing to write.
    #[error("a sample row is needed")]
    NoRow,
    /// The URL cannot be used.
    #[error(transparent)]
    Url(#[from] UrlFault),
    /// There is no HTTP client.
    #[error(transparent)]
    Client(#[from] BuildError),
    /// Nobody answers there.
    #[error("the endpoint does not answer: {0}")]
    Unreachable(String),
}

/// What one check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckReport {
    /// What the endpoint should do, as a sentence.
    pub name: &'static str,
    /// Whether it does.
    pub verdict: Verdict,
}

/// Whether an endpoint does what it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It does.
    Passed,
    /// It does not.
    Failed {
        /// What was seen instead.
        seen: String,
        /// What to change.
        mend: &'static str,
    },
    /// It could not be tried out; the text says what is missing.
    Skipped(String),
}

/// One thing that an endpoint should do.
struct Check {
    name: &'static str,
    mend: &'static str,
    run: for<'a> fn(&'a Probe) -> BoxFuture<'a, Result<(), Finding>>,
}

/// Runs every check, in order, and removes the rows that they wrote.
///
/// # Errors
/// When there is nothing to check with; what the endpoint does wrong is in the reports.
pub async fn run(target: Target) -> Result<Vec<CheckReport>, Error> {
    if target.rows.is_empty() {
        return Err(Error::NoRow);
    }
    let policy = anywhere();
    let url = EndpointUrl::parse(&target.url, &policy)?;
    let probe = Probe::new(EndpointClient::new(policy)?, url, target);
    probe.reach().await.map_err(Error::Unreachable)?;
    let mut reports = Vec::new();
    for check in checks::all() {
        let found = (check.run)(&probe).await;
        reports.push(CheckReport {
            name: check.name,
            verdict: Verdict::of(found, check.mend),
        });
    }
    probe.remove_rows().await;
    Ok(reports)
}

/// Whoever runs the checks may reach what they name: they run on that person's machine.
fn anywhere() -> EgressPolicy {
    let everything = ["0.0.0.0/0", "::/0"];
    EgressPolicy {
        allowed_subnets: everything
            .map(|subnet| subnet.parse().expect("a subnet in CIDR form"))
            .to_vec(),
        allowed_ports: (1..=u16::MAX).collect(),
        own_addresses: Vec::new(),
    }
}

impl CheckReport {
    /// For a program.
    pub fn json(&self) -> Value {
        let mut report = json!({"check": self.name, "outcome": self.verdict.as_str()});
        match &self.verdict {
            Verdict::Passed => {}
            Verdict::Failed { seen, mend } => {
                report["seen"] = seen.as_str().into();
                report["mend"] = (*mend).into();
            }
            Verdict::Skipped(reason) => report["reason"] = reason.as_str().into(),
        }
        report
    }
}

impl Verdict {
    /// One word.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed { .. } => "failed",
            Self::Skipped(_) => "skipped",
        }
    }

    fn of(found: Result<(), Finding>, mend: &'static str) -> Self {
        match found {
            Ok(()) => Self::Passed,
            Err(Finding::Wrong(seen)) => Self::Failed { seen, mend },
            Err(Finding::Untried(reason)) => Self::Skipped(reason),
        }
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target")
            .field("url", &self.url)
            .field("model", &self.model)
            .finish_non_exhaustive()
    }
}
