//! What every reader of a log must have seen: the checker of the tests, itself tested against
//! readers that are known to be wrong.

use std::collections::BTreeMap;

use proto::v1;

/// A change as a reader saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its position.
    pub position: i64,
    /// Which row it changed.
    pub row: String,
    /// What tells the change from every other of that row; empty when it removed the row.
    pub token: String,
}

impl Seen {
    /// A change of a stream, told by the row's text.
    pub fn of(change: &v1::Change) -> Self {
        Self {
            position: change.sync_id,
            row: format!("{}/{}", change.model, change.id),
            token: String::from_utf8_lossy(&change.row_json).into_owned(),
        }
    }
}

/// Every position from the first to `last` was seen once, in order.
///
/// # Errors
/// The first position that was not.
pub fn dense(seen: &[Seen], first: i64, last: i64) -> Result<(), String> {
    let mut expected = first;
    for one in seen {
        if one.position != expected {
            let place = one.position;
            return Err(format!(
                "position {place} came where {expected} should have"
            ));
        }
        expected += 1;
    }
    if expected <= last {
        return Err(format!(
            "position {expected} never came; the last is {last}"
        ));
    }
    Ok(())
}

/// The last change that was seen of each row is what the row holds, and no row is missing.
///
/// # Errors
/// The first row that differs.
pub fn ends_on(seen: &[Seen], rows: &BTreeMap<String, String>) -> Result<(), String> {
    let mut last: BTreeMap<&str, &str> = BTreeMap::new();
    for one in seen {
        last.insert(&one.row, &one.token);
    }
    last.retain(|_, token| !token.is_empty());
    for (row, holds) in rows {
        match last.remove(row.as_str()) {
            Some(token) if token == holds => {}
            other => {
                return Err(format!(
                    "{row} holds {holds}, its last change was {other:?}"
                ));
            }
        }
    }
    match last.pop_first() {
        None => Ok(()),
        Some((row, token)) => Err(format!("{row} is gone, its last change was {token}")),
    }
}

/// Two readers saw the same.
///
/// # Errors
/// The first place where they differ.
pub fn same(one: &[Seen], other: &[Seen]) -> Result<(), String> {
    let differs = one.iter().zip(other).find(|(one, other)| one != other);
    match differs {
        Some((one, other)) => Err(format!("one saw {one:?}, another {other:?}")),
        None if one.len() == other.len() => Ok(()),
        None => Err(format!("one saw {}, another {}", one.len(), other.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(changes: &[(i64, &str, &str)]) -> Vec<Seen> {
        let changes = changes.iter().map(|(position, row, token)| Seen {
            position: *position,
            row: (*row).to_owned(),
            token: (*token).to_owned(),
        });
        changes.collect()
    }

    #[test]
    fn what_is_missing_repeated_or_out_of_order_is_found() {
        let good = seen(&[(1, "a", "1"), (2, "b", "2")]);
        assert!(dense(&good, 1, 2).is_ok());
        assert!(dense(&good, 1, 3).unwrap_err().contains("3 never came"));
        assert!(dense(&good[1..], 1, 2).is_err());
        assert!(dense(&[good.clone(), good.clone()].concat(), 1, 2).is_err());
        let swapped = [good[1].clone(), good[0].clone()];
        assert!(dense(&swapped, 1, 2).is_err());
    }

    #[test]
    fn a_row_that_does_not_hold_its_last_change_is_found() {
        let changes = seen(&[(1, "a", "1"), (2, "a", "2"), (3, "b", "1"), (4, "b", "")]);
        let rows = |token: &str| BTreeMap::from([("a".to_owned(), token.to_owned())]);
        assert!(ends_on(&changes, &rows("2")).is_ok());
        assert!(ends_on(&changes, &rows("1")).is_err());
        assert!(ends_on(&changes, &BTreeMap::new()).is_err());
        assert!(ends_on(&changes[..3], &rows("2")).is_err());
    }
}
