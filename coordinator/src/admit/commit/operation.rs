//! One operation of a commit, checked against its model.

use backends::json;
use backends::operation::{OnStale, Operation, OperationKind};
use proto::v1;
use serde_json::Value;

use crate::admit::model::Model;
use crate::admit::schema::Schema;
use crate::admit::text;
use crate::domain::CommitId;
use crate::refusal::Refusal;

/// An operation that passed.
#[derive(Debug)]
pub(in crate::admit) struct Admitted<'s> {
    /// What to do; its id is there.
    pub(in crate::admit) operation: Operation,
    /// Its model.
    pub(in crate::admit) model: &'s Model,
    /// The input's canonical text, as the caller gave it; none for operations that take none.
    pub(in crate::admit) input: Option<String>,
    /// The caller gave no id, so we did.
    pub(in crate::admit) assigned: bool,
}

/// Where an operation stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// Its commit.
    pub(super) commit: CommitId,
    /// Its position there.
    pub(super) index: usize,
}

/// What is wrong with an operation: reason, field of the operation, rule.
type Fault = (&'static str, String, String);

/// The refusal of the operation at `index`, for one of its fields.
pub(super) fn refusal(
    reason: &'static str,
    index: usize,
    model: &str,
    field: &str,
    rule: impl Into<String>,
) -> Refusal {
    let model: String = model.chars().take(text::MAX_CHARACTERS).collect();
    Refusal::field(reason, format!("operations[{index}].{field}"), rule)
        .at_operation(index)
        .with("model", model)
}

/// Checks one operation.
///
/// # Errors
/// The first rule that it breaks, in the order of its fields.
pub(super) fn admit(
    given: v1::Operation,
    place: Place,
    schema: &Schema,
) -> Result<Admitted<'_>, Refusal> {
    let refused = |(reason, field, rule): Fault| {
        let refusal = refusal(reason, place.index, &given.model, &field, rule);
        match field.strip_prefix("input_json.") {
            Some(field) => refusal.with("field", field),
            None => refusal,
        }
    };
    let kind = kind(given.r#type).map_err(refused)?;
    let model = schema.model(&given.model).ok_or_else(|| {
        let rule = format!("the schema has no model {}", text::quoted(&given.model));
        refused(("model_unknown", "model".to_owned(), rule))
    })?;
    let mut input = input(kind, &given.input_json).map_err(refused)?;
    let named = row_id(kind, &given.id, input.as_ref()).map_err(refused)?;
    let assigned = named.is_none();
    let id = named.map_or_else(|| place.commit.assigned_id(place.index), str::to_owned);
    let canonical = input.as_ref().map(json::canonical);
    let (read_at, on_stale) = staleness(given.read_at, given.on_stale).map_err(refused)?;
    let transaction_id = transaction_id(&given.transaction_id).map_err(refused)?;
    if let Some(input) = &mut input {
        check(kind, model, &id, input).map_err(|fault| fault.refusal(place.index, &model.name))?;
    }
    let input = match input {
        Some(Value::Object(fields)) => fields,
        _ => serde_json::Map::new(),
    };
    let model_name = given.model;
    let operation = Operation {
        kind,
        model: model_name,
        id,
        input,
        transaction_id,
        read_at,
        on_stale,
    };
    Ok(Admitted {
        operation,
        model,
        input: canonical,
        assigned,
    })
}

fn fault(reason: &'static str, field: &str, rule: impl Into<String>) -> Fault {
    (reason, field.to_owned(), rule.into())
}

fn kind(given: i32) -> Result<OperationKind, Fault> {
    match v1::OperationType::try_from(given) {
        Ok(v1::OperationType::Create) => Ok(OperationKind::Create),
        Ok(v1::OperationType::Update) => Ok(OperationKind::Update),
        Ok(v1::OperationType::Delete) => Ok(OperationKind::Delete),
        Ok(v1::OperationType::Archive) => Ok(OperationKind::Archive),
        Ok(v1::OperationType::Unarchive) => Ok(OperationKind::Unarchive),
        Ok(v1::OperationType::Unspecified) | Err(_) => Err(fault(
            "operation_type_invalid",
            "type",
            "must be CREATE, UPDATE, DELETE, ARCHIVE or UNARCHIVE",
        )),
    }
}

fn input(kind: OperationKind, bytes: &[u8]) -> Result<Option<Value>, Fault> {
    const FIELD: &str = "input_json";
    match (kind, bytes) {
        (OperationKind::Create | OperationKind::Update, []) => {
            Err(fault("input_required", FIELD, "is required"))
        }
        (OperationKind::Create | OperationKind::Update, bytes) => json::parse_object(bytes)
            .map(|fields| Some(Value::Object(fields)))
            .map_err(|error| {
                let field = text::joined(FIELD, &error.path);
                (error.rule.code(), field, error.rule.to_string())
            }),
        (_, []) => Ok(None),
        (_, _) => {
            let rule = format!("must be empty for {}", kind.as_str());
            Err(fault("input_unexpected", FIELD, rule))
        }
    }
}

/// The id that the caller gave, in the operation or, for a CREATE, in its input.
fn row_id<'a>(
    kind: OperationKind,
    given: &'a str,
    input: Option<&'a Value>,
) -> Result<Option<&'a str>, Fault> {
    let named = match input.and_then(|input| input.get("id")) {
        None => None,
        Some(Value::String(id)) => Some(id.as_str()),
        Some(_) => return Err(fault("id_invalid", "input_json.id", "must be a string")),
    };
    let (id, field) = match (given, named) {
        ("", None) if kind == OperationKind::Create => return Ok(None),
        ("", Some(named)) if kind == OperationKind::Create => (named, "input_json.id"),
        ("", _) => return Err(fault("id_required", "id", "is required")),
        (given, Some(named)) if given != named => {
            let rule = "differs from the operation's id";
            return Err(fault("id_mismatch", "input_json.id", rule));
        }
        (given, _) => (given, "id"),
    };
    if text::is_name(id) {
        Ok(Some(id))
    } else {
        let rule = "must be 1 to 255 characters without control characters";
        Err(fault("id_invalid", field, rule))
    }
}

fn staleness(read_at: Option<i64>, on_stale: i32) -> Result<(Option<i64>, OnStale), Fault> {
    if read_at.is_some_and(i64::is_negative) {
        return Err(fault("read_at_invalid", "read_at", "must not be negative"));
    }
    let on_stale = match v1::OnStale::try_from(on_stale) {
        Ok(v1::OnStale::Unspecified) => return Ok((read_at, OnStale::Reject)),
        Ok(v1::OnStale::Reject) => OnStale::Reject,
        Ok(v1::OnStale::Force) => OnStale::Force,
        Ok(v1::OnStale::Flag) => OnStale::Flag,
        Err(_) => {
            let rule = "must be REJECT, FORCE or FLAG";
            return Err(fault("on_stale_invalid", "on_stale", rule));
        }
    };
    if read_at.is_none() {
        let rule = "must be absent without read_at";
        return Err(fault("on_stale_without_read_at", "on_stale", rule));
    }
    Ok((read_at, on_stale))
}

fn transaction_id(given: &str) -> Result<Option<String>, Fault> {
    if given.is_empty() {
        Ok(None)
    } else if text::is_printable(given) {
        Ok(Some(given.to_owned()))
    } else {
        let rule = "must be at most 255 printable characters";
        Err(fault("transaction_id_invalid", "transaction_id", rule))
    }
}

/// Checks the input, which is left as it was given.
fn check(
    kind: OperationKind,
    model: &Model,
    id: &str,
    input: &mut Value,
) -> Result<(), crate::admit::FieldFault> {
    if kind != OperationKind::Create {
        return model.check_field_values(input);
    }
    if input.get("id").is_some() {
        return model.check_value(input);
    }
    input["id"] = Value::from(id);
    let checked = model.check_value(input);
    if let Value::Object(fields) = input {
        fields.remove("id");
    }
    checked
}
