//! What the database answered, sorted by what can be done about it. All SQLSTATE knowledge is here.

/// A failed statement.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database did not answer, or not in time. Whether a write happened is unknown: look it up
    /// by its key.
    #[error("the database did not answer")]
    Unavailable(#[source] sqlx::Error),
    /// Another transaction was in the way; nothing happened. Read again, decide again.
    #[error("another transaction was in the way")]
    Conflict(#[source] sqlx::Error),
    /// A row that must be unique exists already; nothing happened.
    #[error("the row exists already")]
    Exists(#[source] sqlx::Error),
    /// The statement took too long and was cancelled; nothing happened.
    #[error("the statement took too long")]
    TooSlow(#[source] sqlx::Error),
    /// The pool had no free connection in time; nothing happened.
    #[error("no database connection was free in time")]
    Exhausted,
    /// What stands in the database contradicts the code.
    #[error("inconsistent {table}.{column} at {row}")]
    Corrupt {
        /// The table.
        table: &'static str,
        /// The column.
        column: &'static str,
        /// The row's key.
        row: String,
    },
    /// The statement itself is wrong; nothing happened.
    #[error("the database refused a statement")]
    Refused(#[source] sqlx::Error),
}

impl Error {
    /// Whether another statement may do, and this one will not: the database is well.
    pub fn is_about_the_statement(&self) -> bool {
        matches!(
            self,
            Self::Refused(_) | Self::Exists(_) | Self::Corrupt { .. }
        )
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        let state = match &error {
            sqlx::Error::PoolTimedOut => return Self::Exhausted,
            sqlx::Error::Database(answer) => answer.code().map(std::borrow::Cow::into_owned),
            sqlx::Error::Decode(_)
            | sqlx::Error::ColumnDecode { .. }
            | sqlx::Error::ColumnNotFound(_)
            | sqlx::Error::Encode(_) => return Self::Refused(error),
            _ => return Self::Unavailable(error),
        };
        match state.as_deref() {
            Some("23505") => Self::Exists(error),
            // 25P03: a round that held the head's lock fell silent for too long and lost it.
            Some("40001" | "40P01" | "55P03" | "25P03") => Self::Conflict(error),
            Some("57014") => Self::TooSlow(error),
            // 08 connection, 53 resources, 57 operator intervention, 58 system, XX internal
            Some(state) if ["08", "53", "57", "58", "XX"].contains(&&state[..2]) => {
                Self::Unavailable(error)
            }
            _ => Self::Refused(error),
        }
    }
}
