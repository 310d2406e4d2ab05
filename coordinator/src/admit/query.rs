//! Reads as their callers ask for them, checked against the model.

use backends::json;
use backends::query::{Condition, Operator, OrderBy, Query};
use proto::v1;

use super::commit::participant;
use super::model::Model;
use super::schema::Schema;
use super::text;
use crate::domain::Participant;
use crate::pages::page_size;
use crate::refusal::Refusal;

/// The most conditions of one List.
pub const MAX_CONDITIONS: usize = 50;

/// Who reads, as far as the caller says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reader {
    /// Optional for reads; passed to a Data Source.
    pub participant: Option<Participant>,
    /// Passed to a Data Source.
    pub required_sync_groups: Vec<String>,
}

/// A List that passed.
#[derive(Clone, Debug, PartialEq)]
pub struct Listing {
    /// Which rows, in which order, how many; without its cursor.
    pub query: Query,
    /// Archived rows too.
    pub include_archived: bool,
    /// Who reads.
    pub reader: Reader,
}

/// Checks a Load.
///
/// # Errors
/// The first rule that it breaks.
pub fn load<'s>(
    request: &v1::LoadRequest,
    schema: &'s Schema,
) -> Result<(&'s Model, Reader), Refusal> {
    let model = model(schema, &request.model)?;
    if !text::is_name(&request.id) {
        let rule = "must be 1 to 255 characters without control characters";
        return Err(Refusal::field("id_invalid", "id", rule).with("model", &model.name));
    }
    Ok((
        model,
        reader(request.participant.as_ref(), &request.required_sync_groups)?,
    ))
}

/// Checks a List; the page token is the reader's to open.
///
/// # Errors
/// The first rule that it breaks.
pub fn list<'s>(
    request: &v1::ListRequest,
    schema: &'s Schema,
) -> Result<(&'s Model, Listing), Refusal> {
    let model = model(schema, &request.model)?;
    if request.r#where.len() > MAX_CONDITIONS {
        let rule = format!("must be at most {MAX_CONDITIONS} conditions");
        return Err(Refusal::field("conditions_count", "where", rule));
    }
    let conditions = request.r#where.iter().enumerate();
    let conditions = conditions
        .map(|(index, given)| {
            condition(given, model).map_err(|(reason, field, rule)| {
                Refusal::field(reason, format!("where[{index}].{field}"), rule)
                    .with("condition", index)
                    .with("model", &model.name)
            })
        })
        .collect::<Result<Vec<_>, _>>()?;
    let order = order(&request.order_by, model)?;
    let limit = page_size(request.page_size)?;
    let listing = Listing {
        query: Query {
            conditions,
            order,
            limit,
            cursor: None,
        },
        include_archived: request.include_archived,
        reader: reader(request.participant.as_ref(), &request.required_sync_groups)?,
    };
    Ok((model, listing))
}

fn model<'s>(schema: &'s Schema, name: &str) -> Result<&'s Model, Refusal> {
    schema.model(name).ok_or_else(|| {
        let rule = format!("the schema has no model {}", text::quoted(name));
        let name: String = name.chars().take(text::MAX_CHARACTERS).collect();
        Refusal::field("model_unknown", "model", rule).with("model", name)
    })
}

fn reader(given: Option<&v1::Participant>, groups: &[String]) -> Result<Reader, Refusal> {
    let participant = given.map(participant).transpose()?;
    text::sync_groups(groups)?;
    Ok(Reader {
        participant,
        required_sync_groups: groups.to_vec(),
    })
}

fn condition(
    given: &v1::Condition,
    model: &Model,
) -> Result<Condition, (&'static str, String, String)> {
    if !model.has_field(&given.field) {
        let rule = format!("{} has no field {}", model.name, text::quoted(&given.field));
        return Err(("field_unknown", "field".to_owned(), rule));
    }
    let operator = operator(given.operator).ok_or_else(|| {
        let rule = "must be one of the operators".to_owned();
        ("operator_invalid", "operator".to_owned(), rule)
    })?;
    let value = json::parse(&given.value_json).map_err(|error| {
        let field = text::joined("value_json", &error.path);
        (error.rule.code(), field, error.rule.to_string())
    })?;
    let condition = Condition {
        field: given.field.clone(),
        operator,
        value,
    };
    match condition.check() {
        Ok(()) => Ok(condition),
        Err(fault) => Err((fault.code(), "value_json".to_owned(), fault.to_string())),
    }
}

fn operator(given: i32) -> Option<Operator> {
    Some(match v1::Operator::try_from(given).ok()? {
        v1::Operator::Unspecified => return None,
        v1::Operator::Eq => Operator::Eq,
        v1::Operator::Ne => Operator::Ne,
        v1::Operator::Lt => Operator::Lt,
        v1::Operator::Le => Operator::Le,
        v1::Operator::Gt => Operator::Gt,
        v1::Operator::Ge => Operator::Ge,
        v1::Operator::In => Operator::In,
        v1::Operator::NotIn => Operator::NotIn,
        v1::Operator::Is => Operator::Is,
        v1::Operator::IsNot => Operator::IsNot,
        v1::Operator::Like => Operator::Like,
        v1::Operator::NotLike => Operator::NotLike,
        v1::Operator::Ilike => Operator::ILike,
        v1::Operator::NotIlike => Operator::NotILike,
    })
}

/// Reads `field`, `field asc` or `field desc`. A field whose own name ends so is meant first.
fn order(given: &str, model: &Model) -> Result<Option<OrderBy>, Refusal> {
    if given.is_empty() {
        return Ok(None);
    }
    let declared = |field: &str| model.declares(field);
    let (field, descending) = match (given.strip_suffix(" desc"), given.strip_suffix(" asc")) {
        _ if declared(given) => (given, false),
        (Some(field), _) => (field, true),
        (_, Some(field)) => (field, false),
        (None, None) => (given, false),
    };
    if !model.has_field(field) {
        let rule = format!("{} has no field {}", model.name, text::quoted(field));
        return Err(Refusal::field("field_unknown", "order_by", rule).with("model", &model.name));
    }
    Ok(Some(OrderBy {
        field: field.to_owned(),
        descending,
    }))
}

#[cfg(test)]
mod tests;
