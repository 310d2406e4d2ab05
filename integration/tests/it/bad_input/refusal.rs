//! What a refused call says, as far as programs may depend on it.

use tonic::{Code, Status};
use tonic_types::StatusExt;

/// Words that would show what is inside.
const INTERNALS: [&str; 12] = [
    "select ",
    "insert ",
    "update ",
    "constraint",
    "relation",
    "syntax error",
    "sqlx",
    "postgres",
    "panicked",
    ".rs:",
    "src/",
    "sqlstate",
];

/// Texts travel in trailers: these many characters, and an ellipsis.
const LONGEST_TEXT: usize = 501;

/// A refusal: its code, its reason, and the fields at fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: Code,
    pub(crate) reason: String,
    pub(crate) fields: Vec<String>,
}

/// A field of the request breaks a rule.
pub(crate) fn field(reason: &str, field: &str) -> Refusal {
    Refusal {
        code: Code::InvalidArgument,
        reason: reason.to_owned(),
        fields: vec![field.to_owned()],
    }
}

/// The request is well-formed, but not to be had.
pub(crate) fn refused(code: Code, reason: &str) -> Refusal {
    Refusal {
        code,
        reason: reason.to_owned(),
        fields: Vec::new(),
    }
}

impl Refusal {
    /// Reads a status, which must have a reason and tell nothing internal.
    pub(crate) fn of(status: &Status) -> Self {
        assert_ne!(status.code(), Code::Unknown, "{status:?}");
        let details = status.get_error_details();
        let info = details.error_info().expect("every error has a reason");
        assert_eq!(info.domain, "coordinator.ablo");
        let violations = details
            .bad_request()
            .map_or(&[][..], |request| &request.field_violations);
        assert!(violations.iter().all(|one| !one.description.is_empty()));
        let rules = violations.iter().map(|one| one.description.as_str());
        for text in rules.chain([status.message()]) {
            assert!(text.chars().count() <= LONGEST_TEXT, "{text}");
            let text = text.to_lowercase();
            let told = INTERNALS.iter().find(|word| text.contains(**word));
            assert_eq!(told, None, "{text}");
        }
        Self {
            code: status.code(),
            reason: info.reason.clone(),
            fields: violations.iter().map(|one| one.field.clone()).collect(),
        }
    }
}
