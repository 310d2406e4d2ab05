//! What a caller is told when a call is refused: what to do about it, why, and where.

use std::time::Duration;

/// What the caller can do. `api/status.rs` turns each into one gRPC code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Mend the request.
    Invalid,
    /// Name something that exists.
    NotFound,
    /// Choose another name, or accept what stands.
    Exists,
    /// Read again, then decide again.
    Aborted,
    /// Change the state of the system first.
    Precondition,
    /// Start anew: what was asked for is not kept any more.
    OutOfRange,
    /// Come back later with the same call.
    Exhausted,
    /// Send the same call again.
    Unavailable,
    /// Show a valid key.
    Unauthenticated,
    /// Nothing: the deadline passed before anything was accepted.
    Deadline,
    /// Nothing: the fault is ours.
    Internal,
}

/// One field of the request that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Path from the request, `operations[2].input_json.temp_max` say.
    pub field: String,
    /// The rule, for a person.
    pub description: String,
}

/// A refused call. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What the caller can do.
    pub class: Class,
    /// `ErrorInfo.reason`: a code in snake case that programs may depend on.
    pub reason: &'static str,
    /// For a person; nothing internal.
    pub message: String,
    /// `ErrorInfo.metadata`.
    pub metadata: Vec<(&'static str, String)>,
    /// `BadRequest.field_violations`.
    pub violations: Vec<Violation>,
    /// `RetryInfo.retry_delay`.
    pub retry_after: Option<Duration>,
}

impl Refusal {
    /// A refusal without details yet.
    pub fn new(class: Class, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            class,
            reason,
            message: message.into(),
            metadata: Vec::new(),
            violations: Vec::new(),
            retry_after: None,
        }
    }

    /// The organization has no Data Source of this id.
    pub fn no_source(id: &str) -> Self {
        let message = "the organization has no such source";
        Self::new(Class::NotFound, "source_not_found", message).with("data_source", id)
    }

    /// The fault is ours, and was logged where it was found.
    pub fn internal() -> Self {
        let message = "the fault is the coordinator's; it is logged";
        Self::new(Class::Internal, "internal", message)
    }

    /// A field of the request breaks a rule: the message is also the field's violation.
    pub fn field(reason: &'static str, field: impl Into<String>, rule: impl Into<String>) -> Self {
        let (field, description) = (field.into(), rule.into());
        let mut refusal = Self::new(Class::Invalid, reason, format!("{field}: {description}"));
        refusal.violations.push(Violation { field, description });
        refusal
    }

    /// Adds to the metadata.
    #[must_use]
    #[expect(
        clippy::needless_pass_by_value,
        reason = "calls read better without a borrow"
    )]
    pub fn with(mut self, key: &'static str, value: impl ToString) -> Self {
        self.metadata.push((key, value.to_string()));
        self
    }

    /// Names the operation at fault, by position.
    #[must_use]
    pub fn at_operation(self, index: usize) -> Self {
        self.with("operation", index)
    }

    /// Says when the same call may succeed.
    #[must_use]
    pub fn retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }
}
