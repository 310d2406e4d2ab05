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

/// What a reader joined since it began, or began anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// It began behind this position.
    pub after: i64,
    /// What it then held.
    pub seen: Vec<Seen>,
    /// It was told to begin anew: where its cursor stood, and the oldest position that the log may
    /// still have held.
    pub reset: Option<(i64, i64)>,
}

/// A reader that was told to begin anew whenever what followed was gone, and only then, held exactly
/// the log otherwise, to its end. `log` is all of it, from position 1.
///
/// # Errors
/// The first place where it did not.
pub fn whole(spans: &[Joined], log: &[Seen]) -> Result<(), String> {
    dense(log, 1, i64::try_from(log.len()).unwrap_or(i64::MAX))?;
    let mut reached = 0;
    for span in spans {
        if span.after < reached {
            return Err(format!("it began behind {}, and had {reached}", span.after));
        }
        let next = usize::try_from(span.after).unwrap_or(usize::MAX);
        let there = log.get(next..).unwrap_or_default();
        let there = &there[..span.seen.len().min(there.len())];
        dense(&span.seen, span.after + 1, 0)?;
        same(&span.seen, there)?;
        reached = span.after + i64::try_from(span.seen.len()).unwrap_or(i64::MAX);
        if let Some((cursor, floor)) = span.reset.filter(|(cursor, floor)| cursor + 1 >= *floor) {
            return Err(format!(
                "it stood at {cursor} and was told to begin anew; the log held {floor}"
            ));
        }
    }
    let complete = log.last().map_or(0, |last| last.position);
    let open = spans.last().is_some_and(|last| last.reset.is_none());
    if reached != complete || !open {
        return Err(format!("it had {reached} in the end, of {complete}"));
    }
    Ok(())
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

    #[test]
    fn a_reader_that_begins_anew_without_need_or_lacks_something_is_found() {
        let tokens = ["1", "2", "3", "4", "5"];
        let log = (1..).zip(tokens).map(|(at, token)| (at, "a", token));
        let log = seen(&log.collect::<Vec<_>>());
        let span = |after: usize, to: usize, floor: Option<i64>| Joined {
            after: i64::try_from(after).unwrap(),
            seen: log[after..to].to_vec(),
            reset: floor.map(|floor| (i64::try_from(to).unwrap(), floor)),
        };
        let good = [span(0, 2, Some(4)), span(3, 5, None)];
        assert_eq!(whole(&good, &log), Ok(()));
        assert_eq!(whole(&[span(0, 5, None)], &log), Ok(()));
        let needless = [span(0, 2, Some(3)), span(3, 5, None)];
        assert!(whole(&needless, &log).unwrap_err().contains("held 3"));
        // It died before it kept the cursor behind the last one.
        let mut behind = span(0, 2, Some(3));
        behind.reset = Some((1, 3));
        assert_eq!(whole(&[behind, span(3, 5, None)], &log), Ok(()));
        let back = [span(0, 2, Some(9)), span(1, 5, None)];
        assert!(whole(&back, &log).unwrap_err().contains("had 2"));
        assert!(whole(&good[..1], &log).is_err(), "it never went on");
        assert!(whole(&[span(0, 4, None)], &log).is_err(), "the end");
        let mut skipped = span(0, 5, None);
        skipped.seen.remove(2);
        let found = whole(&[skipped], &log).unwrap_err();
        assert!(found.contains("4 came where 3"), "{found}");
        let mut changed = span(0, 5, None);
        changed.seen[1].token = "other".to_owned();
        assert!(whole(&[changed], &log).unwrap_err().contains("other"));
    }
}
