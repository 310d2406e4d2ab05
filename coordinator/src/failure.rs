//! Why a command or the process failed, what the person can do about it, and the exit code that
//! says so.

use std::time::Duration;

use serde_json::{Value, json};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::duration;
use crate::migrate::SchemaError;

/// A command that did not succeed.
#[derive(Debug)]
pub struct Failure {
    kind: Kind,
    message: String,
    reason: Option<String>,
    metadata: Vec<(String, String)>,
    violations: Vec<(String, String)>,
    retry_after: Option<Duration>,
}

/// What failed, as exit codes tell it; the numbers are those of `sysexits.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The coordinator refused the call, or the commit was rejected.
    Refused = 1,
    /// The configuration is wrong.
    Config = 64,
    /// A file is not what it should be.
    Input = 65,
    /// The other end does not answer.
    Unavailable = 69,
    /// The program is at fault, this or the other one.
    Internal = 70,
}

impl Failure {
    fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            reason: None,
            metadata: Vec::new(),
            violations: Vec::new(),
            retry_after: None,
        }
    }

    /// The commit was rejected, or some of many were.
    pub fn refused(message: impl Into<String>) -> Self {
        Self::new(Kind::Refused, message)
    }

    /// The configuration is wrong.
    pub fn config(message: impl Into<String>) -> Self {
        Self::new(Kind::Config, message)
    }

    /// A file is not what it should be.
    pub fn input(message: impl Into<String>) -> Self {
        Self::new(Kind::Input, message)
    }

    /// The other end does not answer.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Kind::Unavailable, message)
    }

    /// The program is at fault.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Kind::Internal, message)
    }

    /// The schema is not fit to run on, or could not be made so.
    pub fn from_schema(error: SchemaError) -> Self {
        match error {
            SchemaError::Unavailable(cause) => {
                Self::unavailable(format!("the database did not answer: {cause}"))
            }
            SchemaError::Behind(_) | SchemaError::Differs(_) => Self::config(error.to_string()),
            SchemaError::Failed(cause) => Self::internal(format!("a migration failed: {cause}")),
        }
    }

    /// Adds the snake-case code that programs may depend on.
    #[must_use]
    pub fn because(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    /// The exit code.
    pub fn exit_code(&self) -> u8 {
        self.kind as u8
    }

    /// When the same call may succeed; `None` when it will not.
    pub fn retry_after(&self) -> Option<Duration> {
        let unavailable = (self.kind == Kind::Unavailable).then_some(Duration::from_millis(500));
        self.retry_after.or(unavailable)
    }

    /// For a person.
    pub fn text(&self) -> String {
        let reason = self
            .reason
            .as_ref()
            .map_or(String::new(), |reason| format!(" ({reason})"));
        let mut text = format!("error: {}{reason}", self.message);
        if let (Some(operation), []) = (self.told("operation"), self.violations.as_slice()) {
            text.push_str("\n  operations[");
            text.push_str(operation);
            text.push(']');
            if let (Some(model), Some(id)) = (self.told("model"), self.told("id")) {
                for part in [": ", model, "/", id] {
                    text.push_str(part);
                }
            }
        }
        for (field, rule) in &self.violations {
            text.push_str("\n  ");
            text.push_str(field);
            text.push_str(": ");
            text.push_str(rule);
        }
        if let Some(delay) = self.retry_after {
            text.push_str("\n  the same call may succeed after ");
            text.push_str(&duration::format(delay));
        }
        text
    }

    fn told(&self, name: &str) -> Option<&str> {
        let mut metadata = self.metadata.iter();
        metadata.find_map(|(key, value)| (key == name).then_some(value.as_str()))
    }

    /// For a program.
    pub fn json(&self) -> Value {
        let violations = self
            .violations
            .iter()
            .map(|(field, rule)| json!({"field": field, "description": rule}));
        let metadata = self
            .metadata
            .iter()
            .cloned()
            .map(|(key, value)| (key, Value::from(value)));
        json!({"error": {
            "message": self.message,
            "reason": self.reason,
            "metadata": Value::Object(metadata.collect()),
            "violations": violations.collect::<Vec<_>>(),
            "retryAfter": self.retry_after.map(duration::format),
        }})
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let kind = match status.code() {
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => Kind::Unavailable,
            Code::Internal | Code::Unknown | Code::Unimplemented | Code::DataLoss => Kind::Internal,
            _ => Kind::Refused,
        };
        let details = status.get_error_details();
        let mut failure = Self::new(kind, status.message());
        if let Some(info) = details.error_info() {
            failure.reason = Some(info.reason.clone());
            let metadata = info.metadata.iter();
            failure.metadata = metadata
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect();
            failure.metadata.sort_unstable();
        }
        if failure.message.is_empty() {
            status.code().description().clone_into(&mut failure.message);
        }
        if let Some(request) = details.bad_request() {
            let faults = request.field_violations.iter();
            failure.violations = faults
                .map(|fault| (fault.field.clone(), fault.description.clone()))
                .collect();
        }
        failure.retry_after = details.retry_info().and_then(|info| info.retry_delay);
        failure
    }
}
