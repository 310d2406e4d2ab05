//! The control plane: schemas, sources, and who delivers to them.

use std::sync::Arc;

use uuid::Uuid;

use super::append::{Action, Append};
use super::operate::Operator;
use super::state::{Feed, Source, State, Touched};
use super::{Control, Reply};
use crate::admit::schema::Schema;
use crate::domain::{FeedState, SourceSettings, SourceState};
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
        Control::UpdateSource(source, _)
        | Control::EnableSource(source)
        | Control::ResetFeed(source, _) => {
            touched.sources.push(source.clone());
            touched.feeds.push(source.clone());
        }
        Control::CreateSource(source, _)
        | Control::DisableSource(source, _)
        | Control::PauseSource(source, _)
        | Control::ResumeSource(source)
        | Control::DeleteSource { source, .. }
        | Control::ClaimSource { source, .. }
        | Control::ReleaseSource { source, .. } => touched.sources.push(source.clone()),
        Control::By(_, asked) => touch(asked, touched),
    }
}

pub(super) fn control(state: &mut State, append: &mut Append, control: &Control) -> Reply {
    let now = state.now;
    let result = match control {
        Control::PushSchema(push) => push_schema(state, append, push),
        Control::CreateSource(source, settings) => create(state, append, source, settings),
        Control::UpdateSource(source, patch) => {
            let stood = state.sources.get(source).map(|one| &one.settings.url);
            if stood.is_some_and(|url| patch.url.as_ref().is_some_and(|new| new != url)) {
                look_for_feed(state, append, source);
            }
            change(state, append, source, |source| {
                let url = source.settings.url.clone();
                patch.apply(Arc::make_mut(&mut source.settings));
                if source.settings.url != url {
                    source.start_afresh(now);
                    source.certificate_expires_at = None;
                }
            })
        }
        Control::EnableSource(source) => {
            look_for_feed(state, append, source);
            change(state, append, source, |source| {
                if source.state == SourceState::Disabled {
                    source.state = SourceState::Failing;
                    source.start_afresh(now);
                }
            })
        }
        Control::ResetFeed(source, cursor) => reset_feed(state, append, source, cursor.as_ref()),
        Control::DisableSource(source, reason) => change(state, append, source, |source| {
            source.state = SourceState::Disabled;
            source.state_reason.clone_from(reason);
        }),
        Control::PauseSource(source, reason) => pause(state, append, source, reason),
        Control::ResumeSource(source) => change(state, append, source, |source| {
            if source.state == SourceState::Paused {
                source.state = SourceState::Failing;
                source.start_afresh(now);
            }
        }),
        Control::By(operator, asked) => return on_record(state, append, operator, asked),
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

/// Does what an operator asks for; what that changes goes on record.
fn on_record(
    state: &mut State,
    append: &mut Append,
    operator: &Operator,
    asked: &Control,
) -> Reply {
    let (verb, source) = match asked {
        Control::CreateSource(source, _) => ("create", source),
        Control::UpdateSource(source, _) => ("update", source),
        Control::EnableSource(source) => ("enable", source),
        Control::DisableSource(source, _) => ("disable", source),
        Control::PauseSource(source, _) => ("pause", source),
        Control::ResumeSource(source) => ("resume", source),
        Control::DeleteSource { source, .. } => ("delete", source),
        Control::ResetFeed(source, _) => ("reset_feed", source),
        Control::PushSchema(_)
        | Control::ClaimSource { .. }
        | Control::ReleaseSource { .. }
        | Control::By(..) => return control(state, append, asked),
    };
    let before = state.sources.get(source).cloned();
    let reply = control(state, append, asked);
    let after = state.sources.get(source);
    let resets = matches!(asked, Control::ResetFeed(..));
    if matches!(reply, Reply::Done) && (resets || before.as_ref() != after) {
        append.actions.push(Action {
            source: source.clone(),
            verb,
            client_tx_id: None,
            by: operator.clone(),
            detail: particulars(asked, before.as_ref().zip(after)),
        });
    }
    reply
}

/// What there is to say of it, beside the verb.
fn particulars(asked: &Control, change: Option<(&Source, &Source)>) -> String {
    match (asked, change) {
        (Control::DisableSource(_, reason) | Control::PauseSource(_, reason), _) => reason.clone(),
        (Control::UpdateSource(..), Some((before, after))) => {
            let (old, settings) = (&before.settings, &after.settings);
            let fields = [
                ("url", old.url != settings.url),
                ("retry_policy", old.retry != settings.retry),
                (
                    "request_timeout",
                    old.request_timeout != settings.request_timeout,
                ),
                ("max_in_flight", old.max_in_flight != settings.max_in_flight),
                (
                    "max_per_second",
                    old.max_per_second != settings.max_per_second,
                ),
                ("max_pending", old.max_pending != settings.max_pending),
                ("feed_lag", old.feed_lag != settings.feed_lag),
            ];
            let changed = fields.into_iter().filter(|(_, changed)| *changed);
            changed.map(|(name, _)| name).collect::<Vec<_>>().join(", ")
        }
        _ => String::new(),
    }
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
    state.schema = Some(Arc::clone(&push.schema));
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

/// An endpoint that had no feed may have one now.
fn look_for_feed(state: &mut State, append: &mut Append, source: &str) {
    let feed = state.feeds.get_mut(source);
    if let Some(feed) = feed.filter(|feed| feed.state == FeedState::None) {
        feed.state = FeedState::Polling;
        append.feeds.insert(source.to_owned(), feed.clone());
    }
}

/// What was taken in stays known by its id; only the place changes from which the feed is read.
fn reset_feed(
    state: &mut State,
    append: &mut Append,
    id: &str,
    cursor: Option<&String>,
) -> Result<Reply, Refusal> {
    let done = change(state, append, id, |_| {})?;
    let stands = state.feeds.get(id).cloned();
    let anew = Feed::from(cursor.cloned());
    let feed = Feed {
        state: anew.state,
        trail: anew.trail.clone(),
        ..stands.unwrap_or(anew)
    };
    append.feeds.insert(id.to_owned(), feed.clone());
    state.feeds.insert(id.to_owned(), feed);
    Ok(done)
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
    let source = state
        .sources
        .get_mut(id)
        .ok_or_else(|| Refusal::no_source(id))?;
    change(source);
    append.put_source(source, true);
    Ok(Reply::Done)
}

fn pause(state: &mut State, append: &mut Append, id: &str, reason: &str) -> Result<Reply, Refusal> {
    let stands = state
        .sources
        .get(id)
        .ok_or_else(|| Refusal::no_source(id))?;
    match stands.state {
        SourceState::Disabled => Err(disabled(id)),
        SourceState::Paused => Ok(Reply::Done),
        SourceState::Enabled | SourceState::Failing => change(state, append, id, |source| {
            source.state = SourceState::Paused;
            reason.clone_into(&mut source.state_reason);
        }),
    }
}

/// The refusal of what a disabled source cannot do.
pub(super) fn disabled(id: &str) -> Refusal {
    let message = "the Data Source is disabled";
    Refusal::new(Class::Precondition, "source_disabled", message).with("data_source", id)
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
    let source = state
        .sources
        .get(id)
        .ok_or_else(|| Refusal::no_source(id))?;
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
    let source = state
        .sources
        .get_mut(id)
        .ok_or_else(|| Refusal::no_source(id))?;
    if source.owner.is_some() && source.owner != gone {
        return Ok(Reply::Fenced);
    }
    source.owner = Some(node);
    source.epoch += 1;
    append.put_source(source, false);
    Ok(Reply::Claimed(Box::new(source.clone())))
}

fn release(state: &mut State, append: &mut Append, id: &str, epoch: i64) -> Result<Reply, Refusal> {
    let source = state
        .sources
        .get_mut(id)
        .ok_or_else(|| Refusal::no_source(id))?;
    if source.epoch != epoch {
        return Ok(Reply::Fenced);
    }
    source.owner = None;
    append.put_source(source, false);
    Ok(Reply::Done)
}
