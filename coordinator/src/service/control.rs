//! The control plane: schemas and sources, decided like any other command.

use std::sync::Arc;

use super::commit::{SCHEMA_MOVES, unexpected};
use super::{SchemaVersion, Service};
use crate::admit::compatibility::Losses;
use crate::admit::model::Backing;
use crate::admit::schema::Schema;
use crate::decide::{Command, Control, Operator, PushSchema, Reply};
use crate::domain::{Caller, SettingsPatch, SourceSettings};
use crate::refusal::{Class, Refusal};
use crate::store::feeds::{self, Push};
use crate::store::schemas;

impl Service {
    /// Makes a document the organization's schema; an equal one changes nothing.
    pub async fn push_schema(
        &self,
        caller: &Caller,
        document: &[u8],
        force: bool,
    ) -> Result<SchemaVersion, Refusal> {
        let organization = &caller.organization;
        let document = document.to_vec();
        let compiled = tokio::task::spawn_blocking(move || Schema::compile(0, &document)).await;
        let schema = Arc::new(compiled.map_err(|_| Refusal::internal())??);
        for _ in 0..SCHEMA_MOVES {
            let stands = self.schemas.latest(organization).await?;
            if let Some(stands) = &stands
                && stands.canonical_document() == schema.canonical_document()
            {
                return self.schema_version(caller, stands.version).await;
            }
            let push = push(&schema, stands.as_deref(), force);
            let reply = self.submit(caller, Control::PushSchema(push)).await?;
            match reply {
                Reply::Pushed(version) => {
                    self.schemas.refresh(organization, version).await?;
                    return self.schema_version(caller, version).await;
                }
                Reply::SchemaMoved(version) => {
                    self.schemas.refresh(organization, version).await?;
                }
                reply => return Err(refused(reply)),
            }
        }
        Err(moving())
    }

    async fn schema_version(
        &self,
        caller: &Caller,
        version: i32,
    ) -> Result<SchemaVersion, Refusal> {
        let found = schemas::get(&self.store, caller.organization.clone(), version).await?;
        found.ok_or_else(moving)
    }

    /// Registers a source; its courier starts at once.
    pub async fn create_source(
        &self,
        caller: &Caller,
        id: &str,
        settings: SourceSettings,
        actor: &str,
    ) -> Result<(), Refusal> {
        self.control_source(
            caller,
            Control::CreateSource(id.to_owned(), settings),
            actor,
        )
        .await?;
        self.couriers.look();
        Ok(())
    }

    /// Changes some of a source's settings. Attempts in flight keep what they started with.
    pub async fn update_source(
        &self,
        caller: &Caller,
        id: &str,
        patch: SettingsPatch,
        actor: &str,
    ) -> Result<(), Refusal> {
        let update = Control::UpdateSource(id.to_owned(), patch);
        self.control_source(caller, update, actor).await
    }

    /// Forgets a source, unless the active schema names it or it has unsettled commits.
    pub async fn delete_source(
        &self,
        caller: &Caller,
        id: &str,
        actor: &str,
    ) -> Result<(), Refusal> {
        for _ in 0..SCHEMA_MOVES {
            let schema = self.schemas.latest(&caller.organization).await?;
            let delete = Control::DeleteSource {
                source: id.to_owned(),
                schema_version: schema.as_ref().map_or(0, |schema| schema.version),
                named: schema
                    .as_ref()
                    .is_some_and(|schema| schema.sources().contains(id)),
            };
            match self.submit(caller, by(caller, actor, delete)).await? {
                Reply::Done => return Ok(()),
                Reply::SchemaMoved(version) => {
                    self.schemas.refresh(&caller.organization, version).await?;
                }
                reply => return Err(refused(reply)),
            }
        }
        Err(moving())
    }

    /// Has an operator's control over a source decided, and recorded with who asked for it.
    pub async fn control_source(
        &self,
        caller: &Caller,
        control: Control,
        actor: &str,
    ) -> Result<(), Refusal> {
        match self.submit(caller, by(caller, actor, control)).await? {
            Reply::Done => Ok(()),
            reply => Err(refused(reply)),
        }
    }

    /// Keeps events that were pushed, JSON as on the wire, until they are taken in.
    pub async fn push_events(
        &self,
        caller: &Caller,
        id: &str,
        events: Vec<String>,
    ) -> Result<Push, Refusal> {
        let organization = caller.organization.clone();
        let pushed = feeds::push(&self.store, organization, id.to_owned(), events).await?;
        self.wake.ring_feed(&caller.organization, id);
        Ok(pushed)
    }

    /// Reads a source's feed anew, from this cursor or from its start.
    pub async fn reset_feed(
        &self,
        caller: &Caller,
        id: &str,
        cursor: Option<String>,
        actor: &str,
    ) -> Result<(), Refusal> {
        let reset = Control::ResetFeed(id.to_owned(), cursor);
        self.control_source(caller, reset, actor).await
    }

    async fn submit(&self, caller: &Caller, control: Control) -> Result<Reply, Refusal> {
        let command = Command::Control(control);
        Ok(self.flushers.submit(&caller.organization, command).await?)
    }
}

/// What an operator asks for, with who asks.
fn by(caller: &Caller, actor: &str, control: Control) -> Control {
    let operator = Operator {
        key_id: caller.key_id,
        actor: actor.to_owned(),
    };
    Control::By(operator, Box::new(control))
}

fn push(schema: &Arc<Schema>, stands: Option<&Schema>, force: bool) -> PushSchema {
    let losses = stands
        .map(|stands| Losses::between(stands, schema))
        .unwrap_or_default();
    let held = |model: String| {
        let old = stands
            .and_then(|stands| stands.model(&model))
            .map(|old| &old.backing);
        let source = match old {
            Some(Backing::Source(source)) => Some(source.clone()),
            _ => None,
        };
        (model, source)
    };
    PushSchema {
        schema: Arc::clone(schema),
        document: schema.canonical_document().to_owned(),
        replaces: stands.map_or(0, |stands| stands.version),
        drops: losses.dropped.into_iter().map(held).collect(),
        moves: losses.moved.into_iter().map(held).collect(),
        force,
    }
}

fn refused(reply: Reply) -> Refusal {
    match reply {
        Reply::Refused(refusal) => *refusal,
        reply => unexpected(&reply),
    }
}

fn moving() -> Refusal {
    let message = "the schema changed again and again while the call was decided";
    Refusal::new(Class::Unavailable, "schema_moving", message)
        .retry_after(std::time::Duration::from_secs(1))
}
