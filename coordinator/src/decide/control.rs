//! The control plane: schemas, sources, and who delivers to them.

use std::sync::Arc;

use time::OffsetDateTime;
use uuid::Uuid;

use super::append::Append;
use super::state::{Source, State, Touched};
use super::{Control, Reply};
use crate::admit::schema::Schema;
use crate::domain::{SourceSettings, SourceState};
use crate::refusal::{Class, Refusal};

pub(super) fn touch(control: &Control, touched: &mut Touched) {
    match control {
        Control::PushSchema(push) => {
            touched
                .sources
                .extend(push.schema.sources().into_iter().map(str::to_owned));
            for (model, source) in push.drops.iter().chain(&push.moves) {
                touched.models.push(model.clone());
                touched.sources.extend(source.clone());
            }
        }
        Control::CreateSource(source, _)
        | Control::UpdateSource(source, _)
        | Control::EnableSource(source)
        | Control::DisableSource(source, _)
        | Control::DeleteSource { source, .. }
        | Control::ClaimSource { source, .. }
        | Control::ReleaseSource { source, .. } => touched.sources.push(source.clone()),
    }
}

pub(super) fn control(state: &mut State, append: &mut Append, control: &Control) -> Reply {
    let now = state.now;
    let result = match control {
        Control::PushSchema(push) => push_schema(state, append, push),
        Control::CreateSource(source, settings) => create(state, append, source, settings),
        Control::UpdateSource(source, settings) => change(state, append, source, |source| {
            if source.settings.url != settings.url {
                start_afresh(source, now);
            }
            source.settings.clone_from(settings);
        }),
        Control::EnableSource(source) => change(state, append, source, |source| {
            if source.state == SourceState::Disabled {
                source.state = SourceState::Failing;
                start_afresh(source, now);
            }
        }),
        Control::DisableSource(source, reason) => change(state, append, source, |source| {
            source.state = SourceState::Disabled;
            source.state_reason.clone_from(reason);
        }),
        Control::DeleteSource {
            source,
            schema_version,
            named,
        } => delete(state, append, source, (*schema_version, *named)),
        Control::ClaimSource { source, node, gone } => claim(state, append, source, (*node, *gone)),
        Control::ReleaseSource { source, epoch } => release(state, append, source, *epoch),
    };
    result.unwrap_or_else(|refusal| Reply::Refused(Box::new(refusal)))
}

/// A document that is to become the schema.
#[derive(Clone, Debug)]
pub struct PushSchema {
    /// Its models; the version is assigned by the decision.
    pub schema: Arc<Schema>,
    /// Its canonical document.
    pub document: String,
    /// The version that it was compared with.
    pub replaces: i32,
    /// Models that it drops, with the sources that hold their rows.
    pub drops: Vec<(String, Option<String>)>,
    /// Models that it moves to another backing, with the sources that hold their rows now.
    pub moves: Vec<(String, Option<String>)>,
    /// Do so although they have rows.
    pub force: bool,
}

fn push_schema(
    state: &mut State,
    append: &mut Append,
    push: &PushSchema,
) -> Result<Reply, Refusal> {
    if state.head.schema_version != push.replaces {
        return Ok(Reply::SchemaMoved(state.head.schema_version));
    }
    let named = push.schema.sources();
    if let Some(source) = named
        .into_iter()
        .find(|one| !state.sources.contains_key(*one))
    {
        let message = format!("there is no Data Source {source:?}");
        return Err(Refusal::new(Class::Precondition, "source_unknown", message)
            .with("data_source", source));
    }
    if !push.force {
        refuse_while_used(
            state,
            &push.drops,
            ("schema_drops_rows", "would be dropped"),
        )?;
        refuse_while_used(
            state,
            &push.moves,
            ("schema_moves_rows", "would change its backing"),
        )?;
    }
    state.head.schema_version += 1;
    append.schema = Some((state.head.schema_version, push.document.clone()));
    Ok(Reply::Pushed(state.head.schema_version))
}

fn refuse_while_used(
    state: &State,
    models: &[(String, Option<String>)],
    (reason, fate): (&'static str, &str),
) -> Result<(), Refusal> {
    let pending = |source: &Option<String>| {
        let source = source.as_ref().and_then(|source| state.sources.get(source));
        source.is_some_and(|source| source.pending + source.dead > 0)
    };
    let used = models
        .iter()
        .find(|(model, source)| state.models_in_use.contains(model) || pending(source));
    used.map_or(Ok(()), |(model, _)| {
        let message = format!("{model} {fate}, but has rows or pending commits");
        Err(Refusal::new(Class::Precondition, reason, message).with("model", model))
    })
}

/// What failed at an endpoint that was left, or before an operator mended it, is no reason to wait.
fn start_afresh(source: &mut Source, now: OffsetDateTime) {
    if source.state == SourceState::Failing {
        source.state = SourceState::Enabled;
        source.state_reason.clear();
    }
    source.consecutive_failures = 0;
    source.backoff_step = 0;
    source.backoff_until = None;
    source.recovered_at = Some(now);
}

fn not_found(source: &str) -> Refusal {
    Refusal::new(
        Class::NotFound,
        "source_not_found",
        "there is no such Data Source",
    )
    .with("data_source", source)
}

fn create(
    state: &mut State,
    append: &mut Append,
    id: &str,
    settings: &SourceSettings,
) -> Result<Reply, Refusal> {
    if state.sources.contains_key(id) {
        let message = "a Data Source with this id exists already";
        return Err(Refusal::new(Class::Exists, "source_exists", message).with("data_source", id));
    }
    let source = Source::new(id, settings.clone());
    append.sources_added.insert(id.to_owned());
    append.put_source(&source, true);
    state.sources.insert(id.to_owned(), source);
    Ok(Reply::Done)
}

fn change(
    state: &mut State,
    append: &mut Append,
    id: &str,
    change: impl FnOnce(&mut Source),
) -> Result<Reply, Refusal> {
    let source = state.sources.get_mut(id).ok_or_else(|| not_found(id))?;
    change(source);
    append.put_source(source, true);
    Ok(Reply::Done)
}

fn delete(
    state: &mut State,
    append: &mut Append,
    id: &str,
    (schema_version, named): (i32, bool),
) -> Result<Reply, Refusal> {
    if state.head.schema_version != schema_version {
        return Ok(Reply::SchemaMoved(state.head.schema_version));
    }
    let source = state.sources.get(id).ok_or_else(|| not_found(id))?;
    let why = if named {
        "the active schema names it"
    } else if source.pending > 0 {
        "it has pending commits"
    } else if source.dead > 0 {
        "it has dead commits"
    } else {
        append.sources.remove(id);
        if !append.sources_added.remove(id) {
            append.sources_removed.insert(id.to_owned());
        }
        state.sources.remove(id);
        return Ok(Reply::Done);
    };
    Err(Refusal::new(
        Class::Precondition,
        "source_in_use",
        format!("{id} cannot go: {why}"),
    )
    .with("data_source", id))
}

fn claim(
    state: &mut State,
    append: &mut Append,
    id: &str,
    (node, gone): (Uuid, Option<Uuid>),
) -> Result<Reply, Refusal> {
    let source = state.sources.get_mut(id).ok_or_else(|| not_found(id))?;
    if source.owner.is_some() && source.owner != gone {
        return Ok(Reply::Fenced);
    }
    source.owner = Some(node);
    source.epoch += 1;
    append.put_source(source, false);
    Ok(Reply::Claimed(Box::new(source.clone())))
}

fn release(state: &mut State, append: &mut Append, id: &str, epoch: i64) -> Result<Reply, Refusal> {
    let source = state.sources.get_mut(id).ok_or_else(|| not_found(id))?;
    if source.epoch != epoch {
        return Ok(Reply::Fenced);
    }
    source.owner = None;
    append.put_source(source, false);
    Ok(Reply::Done)
}
