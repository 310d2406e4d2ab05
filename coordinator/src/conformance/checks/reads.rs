//! What load and list find.

use backends::data_source::wire::Row;
use backends::query::{Condition, Operator, OrderBy, Query};
use serde_json::{Value, json};

use super::super::finding::{Finding, ensure, wrong};
use super::super::probe::Probe;
use super::super::sample::carries;

pub(super) async fn loads(probe: &Probe) -> Result<(), Finding> {
    let id = probe.created().await?;
    carries(&probe.found(&id).await?, &probe.sample.row())?;
    ensure(probe.load(&probe.new_id()).await?.is_none(), || {
        "load answered a row for an id that was never written".to_owned()
    })
}

pub(super) async fn conditions(probe: &Probe) -> Result<(), Finding> {
    let [a, b, c] = three_rows(probe).await?;
    let all = json!([a, b, c]);
    let cases = [
        (Operator::Eq, json!(b), vec![&b]),
        (Operator::Ne, json!(b), vec![&a, &c]),
        (Operator::Lt, json!(b), vec![&a]),
        (Operator::Le, json!(b), vec![&a, &b]),
        (Operator::Gt, json!(b), vec![&c]),
        (Operator::Ge, json!(b), vec![&b, &c]),
        (Operator::In, json!([a, c]), vec![&a, &c]),
        (Operator::NotIn, json!([a, c]), vec![&b]),
        (Operator::Is, Value::Null, vec![]),
        (Operator::IsNot, Value::Null, vec![&a, &b, &c]),
    ];
    for (operator, value, expected) in cases {
        let query = Query {
            conditions: vec![
                on_id(Operator::In, all.clone()),
                on_id(operator, value.clone()),
            ],
            ..by_id(10)
        };
        let found = ids(&probe.list(&query).await?.rows);
        if found.iter().ne(expected.iter().copied()) {
            let operator = operator.as_str();
            return wrong(format!(
                "[\"id\", \"{operator}\", {value}] found {}, not {}",
                told(&found),
                told(&expected)
            ));
        }
    }
    Ok(())
}

pub(super) async fn order(probe: &Probe) -> Result<(), Finding> {
    let [a, b, c] = three_rows(probe).await?;
    for (descending, expected) in [(false, [&a, &b, &c]), (true, [&c, &b, &a])] {
        let mut query = by_id(10);
        query.conditions = vec![on_id(Operator::In, json!([a, b, c]))];
        query.order = Some(OrderBy {
            field: "id".to_owned(),
            descending,
        });
        let found = ids(&probe.list(&query).await?.rows);
        ensure(found.iter().eq(expected), || {
            let direction = if descending { "desc" } else { "asc" };
            format!(
                "{direction}: found {}, not {}",
                told(&found),
                told(&expected)
            )
        })?;
    }
    Ok(())
}

pub(super) async fn pages(probe: &Probe) -> Result<(), Finding> {
    let expected = three_rows(probe).await?;
    let mut query = by_id(2);
    query.conditions = vec![on_id(Operator::In, json!(expected))];
    let mut found = Vec::new();
    // One page more than the rows need: a cursor may lead to an empty page.
    for _ in 0..=expected.len() {
        let page = probe.list(&query).await?;
        ensure(page.rows.len() <= 2, || {
            format!("a limit of 2 was answered with {} rows", page.rows.len())
        })?;
        found.extend(page.rows);
        query.cursor = page.next_cursor;
        if query.cursor.is_none() {
            break;
        }
    }
    let found = ids(&found);
    ensure(query.cursor.is_none(), || {
        "the last page still has a nextCursor".to_owned()
    })?;
    ensure(found == expected, || {
        format!("the pages have {}, not {}", told(&found), told(&expected))
    })
}

/// Three rows of one commit; their ids, in order.
async fn three_rows(probe: &Probe) -> Result<[String; 3], Finding> {
    let mut ids = [probe.new_id(), probe.new_id(), probe.new_id()];
    ids.sort_unstable();
    let creates = ids.iter().map(|id| probe.create(id)).collect();
    probe.apply(&probe.commit(creates)).await?;
    Ok(ids)
}

fn by_id(limit: u32) -> Query {
    Query {
        conditions: Vec::new(),
        order: Some(OrderBy {
            field: "id".to_owned(),
            descending: false,
        }),
        limit,
        cursor: None,
    }
}

fn on_id(operator: Operator, value: Value) -> Condition {
    Condition {
        field: "id".to_owned(),
        operator,
        value,
    }
}

fn ids(rows: &[Row]) -> Vec<String> {
    let ids = rows.iter().map(|row| &row["id"]);
    ids.map(|id| id.as_str().map_or_else(|| id.to_string(), str::to_owned))
        .collect()
}

/// Ids for a person: a few of them, and how many.
fn told(ids: &[impl AsRef<str>]) -> String {
    const SHOWN: usize = 3;
    let shown: Vec<_> = ids.iter().take(SHOWN).map(AsRef::as_ref).collect();
    let more = ids.len().saturating_sub(SHOWN);
    match (shown.is_empty(), more) {
        (true, _) => "no row".to_owned(),
        (false, 0) => shown.join(", "),
        (false, more) => format!("{} and {more} more", shown.join(", ")),
    }
}
