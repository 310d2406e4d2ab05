//! Why an endpoint gave no rows, as on the record and as told to the caller.

use std::time::Duration;

use backends::data_source::classify::{ReadFault, ReadFaultKind};

use super::RETRY_AFTER;
use crate::refusal::{Class, Refusal};
use crate::store::source_requests::FailedRequest;

/// Why a question has no answer.
pub(super) struct Failure {
    pub(super) fault: ReadFault,
    pub(super) http_status: i32,
    pub(super) retry_after: Option<Duration>,
}

impl Failure {
    /// A request that cannot be sent as the source is set up.
    pub(super) fn before_sending(class: &str, message: String) -> Self {
        let kind = ReadFaultKind::Misconfigured;
        let fault = ReadFault {
            kind,
            class: class.to_owned(),
            message,
        };
        Self {
            fault,
            http_status: 0,
            retry_after: None,
        }
    }

    /// What is left on the record.
    pub(super) fn record(&self) -> FailedRequest {
        FailedRequest {
            class: self.fault.class.clone(),
            message: self.fault.message.clone(),
            http_status: self.http_status,
        }
    }

    /// What the caller is told.
    pub(super) fn refusal(self, source: &str) -> Refusal {
        let Self {
            fault, retry_after, ..
        } = self;
        let message = format!("the Data Source `{source}` gave no rows: {}", fault.message);
        let refusal = match fault.kind {
            ReadFaultKind::Unavailable => {
                Refusal::new(Class::Unavailable, "source_unavailable", message)
                    .retry_after(retry_after.unwrap_or(RETRY_AFTER))
            }
            ReadFaultKind::Refused => Refusal::new(Class::Precondition, "source_refused", message),
            ReadFaultKind::Misconfigured | ReadFaultKind::NotConfigured | ReadFaultKind::Gone => {
                Refusal::new(Class::Precondition, "source_misconfigured", message)
            }
        };
        refusal
            .with("data_source", source)
            .with("class", fault.class)
    }
}
