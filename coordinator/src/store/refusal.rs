//! What a caller is told when the database failed.

use std::time::Duration;

use super::Error;
use crate::refusal::{Class, Refusal};

/// The end of a store error: it is logged here, once, and nothing of it reaches the caller.
impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        match error {
            Error::Unavailable(cause) => {
                tracing::warn!(error = %cause, "the database did not answer a call");
                unavailable("the store could not be reached; send the same call again")
            }
            Error::TooSlow(cause) => {
                tracing::warn!(error = %cause, "a statement was cancelled for taking too long");
                unavailable("the store took too long; ask for less, or later")
            }
            Error::Conflict(cause) => {
                tracing::warn!(error = %cause, "a call lost every race for its rows");
                unavailable("another call was in the way; send the same call again")
            }
            Error::Exhausted => {
                tracing::warn!("a call found no free database connection");
                Self::new(Class::Exhausted, "overloaded", "too much is in flight")
                    .retry_after(Duration::from_secs(1))
            }
            Error::Exists(cause) | Error::Refused(cause) => {
                tracing::error!(error = %cause, "the database refused a statement");
                Self::internal()
            }
            Error::Corrupt { .. } => {
                tracing::error!(%error, "the database contradicts the code");
                Self::internal()
            }
        }
    }
}

fn unavailable(message: &str) -> Refusal {
    Refusal::new(Class::Unavailable, "store_unavailable", message)
        .retry_after(Duration::from_millis(500))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unreachable_store_asks_for_the_same_call_again() {
        let refusal = Refusal::from(Error::Unavailable(sqlx::Error::PoolClosed));
        assert_eq!(
            (refusal.class, refusal.reason),
            (Class::Unavailable, "store_unavailable")
        );
        assert!(refusal.retry_after.is_some());
    }

    #[test]
    fn an_exhausted_pool_says_when_to_return() {
        let refusal = Refusal::from(Error::Exhausted);
        assert_eq!(
            (refusal.class, refusal.reason),
            (Class::Exhausted, "overloaded")
        );
        assert!(refusal.retry_after.is_some());
    }

    #[test]
    fn a_contradiction_in_the_database_tells_the_caller_nothing_about_it() {
        let corrupt = Error::Corrupt {
            table: "api_keys",
            column: "sealed",
            row: "acme".into(),
        };
        let refusal = Refusal::from(corrupt);
        assert_eq!(
            (refusal.class, refusal.reason),
            (Class::Internal, "internal")
        );
        assert!(!refusal.message.contains("api_keys"));
    }
}
