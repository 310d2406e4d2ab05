//! What a batch tells of rows in Data Sources.

use super::Statement;
use crate::decide::Append;
use crate::store::Error;

pub(super) fn put(statement: &mut Statement, append: &Append) -> Result<(), Error> {
    let (put, done): (Vec<_>, Vec<_>) = append
        .versions
        .iter()
        .partition(|(_, change)| change.tells());
    if !put.is_empty() {
        let put: Vec<&_> = put.iter().collect();
        let part = statement.part("versions_put", include_str!("../sql/append/versions.sql"));
        part.column(&put, |(key, _)| key.model.as_str())?;
        part.column(&put, |(key, _)| key.id.as_str())?;
        part.column(&put, |(_, change)| change.sync_id)?;
        part.column(&put, |(_, change)| change.unsettled)?;
    }
    if !done.is_empty() {
        let done: Vec<&_> = done.iter().collect();
        for (name, sql) in [
            (
                "versions_settled",
                include_str!("../sql/append/versions_settled.sql"),
            ),
            (
                "versions_dropped",
                include_str!("../sql/append/versions_dropped.sql"),
            ),
        ] {
            let part = statement.part(name, sql);
            part.column(&done, |(key, _)| key.model.as_str())?;
            part.column(&done, |(key, _)| key.id.as_str())?;
            part.column(&done, |(_, change)| change.unsettled)?;
        }
    }
    Ok(())
}
