//! One page out of what an endpoint answered.

use backends::data_source::classify::ListPage;
use backends::query::{OrderBy, Query, compare_fields, compare_rows, matches};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The longest text that a page token carries of the last row, in bytes.
const LONGEST_LAST: usize = 256;

/// Where a list goes on: how many rows of the endpoint's page behind `cursor` were answered.
///
/// An endpoint may answer with more rows than it was asked for; what is over waits there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::reads) struct SourcePosition {
    pub(super) cursor: Option<String>,
    pub(super) answered: u32,
    /// The endpoint gives no cursor: it is asked for all that it gives at once.
    #[serde(default)]
    pub(super) at_once: bool,
    /// What the row of those behind a cursor that comes last in the order asked for holds in its field,
    /// if it was asked for and that is short: no later row comes before it.
    #[serde(default)]
    last: Option<Value>,
}

/// Whether there may be more rows than the endpoint's only page holds, and no way to ask for them.
/// One that has given a cursor before knows what its absence says; one that gives more rows than it
/// was asked for gives all that it has.
pub(super) fn is_cut_off(page: &ListPage, from: &SourcePosition, limit: u32) -> bool {
    let only = from.cursor.is_none() && page.next_cursor.is_none();
    only && page.rows.len() == limit as usize
}

/// Cuts one page out of what the endpoint answered, says where the next one begins, and whether all
/// rows that were seen came in the order asked for.
pub(super) fn cut(
    mut rows: Vec<Map<String, Value>>,
    next_cursor: Option<String>,
    query: &Query,
    from: SourcePosition,
) -> (Vec<Map<String, Value>>, Option<SourcePosition>, bool) {
    rows.retain(|row| {
        query
            .conditions
            .iter()
            .all(|condition| matches(row, condition))
    });
    let order = query.order.as_ref();
    let in_parts = from.cursor.is_some() || next_cursor.is_some();
    let mut in_order = true;
    if !in_parts {
        rows.sort_by(|a, b| compare_rows(order, a, b));
    } else if let Some(order) = order {
        in_order =
            rows.is_sorted_by(|a, b| compare_fields(order, held(a, order), held(b, order)).is_le());
    }
    let end = from.answered.saturating_add(query.limit);
    let more = rows.len() > end as usize;
    let mut page: Vec<_> = rows
        .into_iter()
        .skip(from.answered as usize)
        .take(query.limit as usize)
        .collect();
    let mut last = from.last;
    if let Some(order) = order.filter(|_| in_parts) {
        // After the cut, so that none is lost or told twice when the next part is longer.
        page.sort_by(|a, b| compare_rows(Some(order), a, b));
        in_order &= !page
            .first()
            .is_some_and(|row| is_before(last.as_ref(), held(row, order), order));
        last = further(last, &page, order);
    }
    let next = if more {
        Some(SourcePosition {
            cursor: from.cursor,
            answered: end,
            at_once: from.at_once,
            last,
        })
    } else {
        // The cursor that was sent, come back, would go round in circles.
        next_cursor
            .filter(|next| from.cursor.as_ref() != Some(next))
            .map(|next| SourcePosition {
                cursor: Some(next),
                last,
                ..SourcePosition::default()
            })
    };
    (page, next, in_order)
}

fn is_before(last: Option<&Value>, row: &Value, order: &OrderBy) -> bool {
    last.is_some_and(|last| compare_fields(order, row, last).is_lt())
}

/// Where the pages end, this one included, if a page token has room for that.
fn further(last: Option<Value>, page: &[Map<String, Value>], order: &OrderBy) -> Option<Value> {
    let end = page.last().map(|row| held(row, order));
    let end = end.filter(|end| !is_before(last.as_ref(), end, order));
    end.cloned().or(last).filter(|end| match end {
        Value::String(text) => text.len() <= LONGEST_LAST,
        Value::Array(_) | Value::Object(_) => false,
        Value::Null | Value::Bool(_) | Value::Number(_) => true,
    })
}

fn held<'a>(row: &'a Map<String, Value>, order: &OrderBy) -> &'a Value {
    row.get(&order.field).unwrap_or(&Value::Null)
}
