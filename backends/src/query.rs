//! Which rows a List answers with, and in which order. Pure, for rows in memory.

use std::cmp::Ordering;

use serde_json::{Map, Value};

use crate::json::{canonical, compare_numbers, same};

mod like;

/// The most values that IN and NOT IN compare with.
pub const MAX_ALTERNATIVES: usize = 1_000;

/// The longest pattern of LIKE and its kin, in characters.
pub const MAX_PATTERN: usize = 1_000;

/// How a condition compares a row's field with its value.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Operator {
    /// Same type and value.
    Eq,
    /// Another type or value.
    Ne,
    /// Less.
    Lt,
    /// Less or same.
    Le,
    /// More.
    Gt,
    /// More or same.
    Ge,
    /// Same as one of the array's items.
    In,
    /// Same as none of the array's items.
    NotIn,
    /// Null (or absent), true, or false.
    Is,
    /// Not so.
    IsNot,
    /// Matches the pattern: `%` is any text, `_` any character, `\` escapes.
    Like,
    /// Does not.
    NotLike,
    /// Matches the pattern without regard to case.
    ILike,
    /// Does not.
    NotILike,
}

impl Operator {
    /// Every operator.
    pub const ALL: [Self; 14] = [
        Self::Eq,
        Self::Ne,
        Self::Lt,
        Self::Le,
        Self::Gt,
        Self::Ge,
        Self::In,
        Self::NotIn,
        Self::Is,
        Self::IsNot,
        Self::Like,
        Self::NotLike,
        Self::ILike,
        Self::NotILike,
    ];

    /// Its spelling on the Data Source wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Eq => "=",
            Self::Ne => "!=",
            Self::Lt => "<",
            Self::Le => "<=",
            Self::Gt => ">",
            Self::Ge => ">=",
            Self::In => "IN",
            Self::NotIn => "NOT IN",
            Self::Is => "IS",
            Self::IsNot => "IS NOT",
            Self::Like => "LIKE",
            Self::NotLike => "NOT LIKE",
            Self::ILike => "ILIKE",
            Self::NotILike => "NOT ILIKE",
        }
    }

    /// The operator of that spelling; none for another.
    pub fn parse(spelling: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|operator| operator.as_str() == spelling)
    }
}

/// One condition on one field.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    /// A top-level field, or `id`.
    pub field: String,
    /// How to compare.
    pub operator: Operator,
    /// What to compare with.
    pub value: Value,
}

/// Which order rows come in; ties are by `id`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct OrderBy {
    /// A top-level field, or `id`.
    pub field: String,
    /// Largest first.
    pub descending: bool,
}

/// What a List asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    /// All must hold.
    pub conditions: Vec<Condition>,
    /// By `id` when there is none.
    pub order: Option<OrderBy>,
    /// At most this many rows.
    pub limit: u32,
    /// Where to go on, in the backing's own words.
    pub cursor: Option<String>,
}

/// Why a value does not fit its operator.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ConditionFault {
    /// IN and NOT IN need an array.
    #[error("the operator needs an array of strings, numbers or booleans")]
    NotAnArray,
    /// The array is too long.
    #[error("the array has more than {MAX_ALTERNATIVES} items")]
    TooManyItems,
    /// IS and IS NOT need one of three words.
    #[error("the operator needs null, true or false")]
    NotATruthValue,
    /// LIKE and its kin need a string.
    #[error("the operator needs a string")]
    NotAPattern,
    /// A pattern must not end within an escape, nor be too long.
    #[error("the pattern ends with a lone backslash, or has more than {MAX_PATTERN} characters")]
    BadPattern,
    /// Comparisons need one value that is not null.
    #[error("the operator needs a string, a number or a boolean; use IS for null")]
    NotAScalar,
}

impl ConditionFault {
    /// The fault's name on the wire.
    pub fn code(self) -> &'static str {
        match self {
            Self::NotAnArray => "condition_not_array",
            Self::TooManyItems => "condition_too_many_items",
            Self::NotATruthValue => "condition_not_truth_value",
            Self::NotAPattern => "condition_not_string",
            Self::BadPattern => "condition_pattern_invalid",
            Self::NotAScalar => "condition_not_scalar",
        }
    }
}

impl Condition {
    /// Whether the value fits the operator.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn check(&self) -> Result<(), ConditionFault> {
        use Operator::{
            Eq, Ge, Gt, ILike, In, Is, IsNot, Le, Like, Lt, Ne, NotILike, NotIn, NotLike,
        };
        match (self.operator, &self.value) {
            (In | NotIn, Value::Array(items)) if items.len() > MAX_ALTERNATIVES => {
                Err(ConditionFault::TooManyItems)
            }
            (In | NotIn, Value::Array(items)) if items.iter().all(is_scalar) => Ok(()),
            (In | NotIn, _) => Err(ConditionFault::NotAnArray),
            (Is | IsNot, Value::Null | Value::Bool(_)) => Ok(()),
            (Is | IsNot, _) => Err(ConditionFault::NotATruthValue),
            (Like | NotLike | ILike | NotILike, Value::String(pattern)) => {
                if like::is_whole(pattern) && pattern.chars().nth(MAX_PATTERN).is_none() {
                    Ok(())
                } else {
                    Err(ConditionFault::BadPattern)
                }
            }
            (Like | NotLike | ILike | NotILike, _) => Err(ConditionFault::NotAPattern),
            (Eq | Ne | Lt | Le | Gt | Ge, value) if is_scalar(value) => Ok(()),
            (Eq | Ne | Lt | Le | Gt | Ge, _) => Err(ConditionFault::NotAScalar),
        }
    }
}

/// Whether a row meets a condition, as SQL would have it: a field that is absent or null meets
/// only IS and IS NOT.
///
/// Numbers compare by exact value, strings by code point, false comes before true. A field whose
/// type differs from the value's is not the same (so `!=`, NOT IN and NOT LIKE hold), and neither
/// less nor more.
pub fn matches(row: &Map<String, Value>, condition: &Condition) -> bool {
    let field = row.get(&condition.field).filter(|field| !field.is_null());
    match (condition.operator, field) {
        (Operator::Is, field) => is(field, &condition.value),
        (Operator::IsNot, field) => !is(field, &condition.value),
        (_, None) => false,
        (operator, Some(field)) => compares(field, operator, &condition.value),
    }
}

/// Orders two rows as `order` says, then by `id` (ties are by `id`, upwards).
///
/// Values of different types come in the order string, number, boolean, array, object; null and
/// absent come last, or first when descending, as in Postgres.
pub fn compare_rows(
    order: Option<&OrderBy>,
    a: &Map<String, Value>,
    b: &Map<String, Value>,
) -> Ordering {
    let of =
        |row: &'_ Map<String, Value>, field: &str| row.get(field).cloned().unwrap_or(Value::Null);
    let ordered = order.map_or(Ordering::Equal, |order| {
        compare_fields(order, &of(a, &order.field), &of(b, &order.field))
    });
    ordered.then_with(|| compare_any(&of(a, "id"), &of(b, "id")))
}

/// Orders two rows by what they hold in the field of `order`, as [`compare_rows`] does, ties left as
/// they are; an absent field is null.
pub fn compare_fields(order: &OrderBy, a: &Value, b: &Value) -> Ordering {
    let upwards = compare_any(a, b);
    if order.descending {
        upwards.reverse()
    } else {
        upwards
    }
}

fn is_scalar(value: &Value) -> bool {
    matches!(value, Value::Bool(_) | Value::Number(_) | Value::String(_))
}

fn is(field: Option<&Value>, word: &Value) -> bool {
    field.unwrap_or(&Value::Null) == word
}

fn compares(field: &Value, operator: Operator, value: &Value) -> bool {
    let order = || compare_same_type(field, value);
    let among = || {
        value
            .as_array()
            .is_some_and(|items| items.iter().any(|item| same(field, item)))
    };
    let like = |fold| match (field, value) {
        (Value::String(text), Value::String(pattern)) => like::matches(text, pattern, fold),
        _ => false,
    };
    match operator {
        Operator::Eq => same(field, value),
        Operator::Ne => !value.is_null() && !same(field, value),
        Operator::Lt => order().is_some_and(Ordering::is_lt),
        Operator::Le => order().is_some_and(Ordering::is_le),
        Operator::Gt => order().is_some_and(Ordering::is_gt),
        Operator::Ge => order().is_some_and(Ordering::is_ge),
        Operator::In => among(),
        Operator::NotIn => !among(),
        Operator::Like => like(false),
        Operator::NotLike => !like(false),
        Operator::ILike => like(true),
        Operator::NotILike => !like(true),
        Operator::Is => is(Some(field), value),
        Operator::IsNot => !is(Some(field), value),
    }
}

fn compare_same_type(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => Some(compare_numbers(a, b)),
        // UTF-8 compares as its code points do.
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        _ => None,
    }
}

fn compare_any(a: &Value, b: &Value) -> Ordering {
    compare_same_type(a, b).unwrap_or_else(|| {
        rank(a)
            .cmp(&rank(b))
            .then_with(|| canonical(a).cmp(&canonical(b)))
    })
}

fn rank(value: &Value) -> u8 {
    match value {
        Value::String(_) => 0,
        Value::Number(_) => 1,
        Value::Bool(_) => 2,
        Value::Array(_) => 3,
        Value::Object(_) => 4,
        Value::Null => 5,
    }
}

#[cfg(test)]
mod tests;
