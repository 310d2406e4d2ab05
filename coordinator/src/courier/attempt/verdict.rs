//! What an attempt's answer comes to, with what loads of the commit's rows show where it does not say.

use std::sync::Arc;
use std::time::Duration;

use backends::data_source::classify::{AttemptError, Outcome, RESPONSE_INVALID, commit_outcome};
use backends::data_source::endpoint::{EndpointUrl, UrlFault};
use backends::data_source::exchange::Exchange;
use backends::operation::{Change, Operation};

use super::read_back::Reader;
use super::{Equipment, canonical};
use crate::admit::Schema;
use crate::courier::desk::Desk;
use crate::decide::{ReadBack, Started};

/// An attempt whose answer is to be judged.
pub(super) struct Case<'a> {
    pub(super) desk: &'a Desk,
    pub(super) started: &'a Started,
    pub(super) equipment: &'a Equipment,
    /// What is sent.
    pub(super) operations: &'a [Operation],
    /// Where to, unless nothing may be sent there.
    pub(super) url: Result<EndpointUrl, UrlFault>,
}

/// What it came to.
pub(super) struct Verdict {
    pub(super) outcome: Outcome,
    /// What the rows showed, if they were read.
    pub(super) read_back: Option<ReadBack>,
}

impl Case<'_> {
    /// Rows that the commit creates, read before it is sent yet again to an endpoint that failed.
    pub(super) async fn look_first(&self, within: Duration) -> Option<ReadBack> {
        let looks = self.started.looks_first && !within.is_zero();
        let reader = self.reader().filter(|_| looks)?;
        reader.existing(self.operations, within).await
    }

    /// What the answer means. A 200 that does not fit the commit, or whose rows are none of their
    /// models, is checked by loading the rows: applied only if every one carries its effect.
    pub(super) async fn judge(&self, exchange: &Exchange) -> Verdict {
        let schema = self.schema().await;
        let schema = schema.as_deref();
        let active = self.equipment.schema.as_deref();
        let models = active.map_or(&[][..], |schema| schema.models_of(&self.desk.source));
        let outcome = commit_outcome(exchange, self.operations, models);
        let (misfit, outcome) = match outcome {
            Outcome::Applied(changes) => match canonical::misfit(&changes, schema) {
                None => (None, Outcome::Applied(changes)),
                Some(message) => {
                    let class = RESPONSE_INVALID.to_owned();
                    let error = AttemptError { class, message };
                    (Some(error.clone()), Outcome::Unknown { error })
                }
            },
            Outcome::Unknown { error } => {
                let misfits = exchange.status == Some(200) && error.class == RESPONSE_INVALID;
                (misfits.then(|| error.clone()), Outcome::Unknown { error })
            }
            outcome => (None, outcome),
        };
        let undecided = Verdict {
            outcome,
            read_back: None,
        };
        match (misfit, self.reader()) {
            (Some(misfit), Some(reader)) => {
                let read = reader.effects(self.operations, schema, self.started.timeout);
                match read.await {
                    Some((read_back, changes)) => undecided.shown(read_back, changes, misfit),
                    None => undecided,
                }
            }
            _ => undecided,
        }
    }

    fn reader(&self) -> Option<Reader<'_>> {
        Some(Reader {
            endpoints: &self.desk.tools.endpoints,
            url: self.url.as_ref().ok()?,
            keys: &self.equipment.keys,
            body: &self.started.body,
        })
    }

    /// The schema that the commit was admitted under: a newer one does not judge its answer.
    async fn schema(&self) -> Option<Arc<Schema>> {
        let active = self.equipment.schema.clone();
        let Some(version) = self.started.schema_version else {
            return active;
        };
        if active.as_ref().is_some_and(|it| it.version == version) {
            return active;
        }
        let (tools, organization) = (&self.desk.tools, &self.desk.organization);
        let found = tools.schemas.of_version(organization, version);
        found.await.ok().or(active)
    }
}

impl Verdict {
    /// With what the rows showed: changes, when every one carries its effect.
    fn shown(
        self,
        mut read_back: ReadBack,
        changes: Option<Vec<Change>>,
        misfit: AttemptError,
    ) -> Self {
        tracing::info!(
            class = misfit.class,
            "an answer did not fit its commit; {}",
            read_back.text
        );
        read_back.misfit = changes.is_some().then_some(misfit);
        Self {
            outcome: changes.map_or(self.outcome, Outcome::Applied),
            read_back: Some(read_back),
        }
    }
}
