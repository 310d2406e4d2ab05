//! Load and List: the same call over either backing.
//!
//! A managed row is read from Postgres together with the log's position, in one snapshot. A row
//! behind a Data Source is asked for at its endpoint; the position answered is the one from before
//! the request, so it never claims to have seen more than the row shows.

mod gate;
mod source;

use std::sync::Arc;

use backends::data_source::client::EndpointClient;
use backends::data_source::wire::Scope;
use backends::json::canonical;
use backends::query::Query;
use proto::v1;
use serde::{Deserialize, Serialize};

use self::source::{SourcePosition, SourceReader};
use crate::admit::query::{self, Listing, Reader};
use crate::admit::{Backing, Schema};
use crate::domain::Caller;
use crate::keys::KeyRing;
use crate::pages::PageTokens;
use crate::refusal::Refusal;
use crate::schemas::SchemaCache;
use crate::store::Store;
use crate::store::rows::{self, After, PageRequest};

/// Answers Load and List. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Reads {
    store: Store,
    schemas: Arc<SchemaCache>,
    pages: Arc<PageTokens>,
    sources: Arc<SourceReader>,
}

/// Where a page token goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Position {
    Managed(After),
    Source(SourcePosition),
}

impl Reads {
    /// Reads over this store, and through this client with the organizations' own keys.
    pub fn new(
        store: Store,
        schemas: Arc<SchemaCache>,
        client: EndpointClient,
        keys: Arc<KeyRing>,
        pages: Arc<PageTokens>,
    ) -> Self {
        let sources = Arc::new(SourceReader::new(store.clone(), client, keys));
        Self {
            store,
            schemas,
            pages,
            sources,
        }
    }

    /// One row, as its backing has it now.
    ///
    /// # Errors
    /// What `admit::query::load` refuses; for a row behind a Data Source `source_disabled`,
    /// `source_misconfigured` and `source_unavailable`; what the store answers when it fails.
    pub async fn load(
        &self,
        caller: &Caller,
        request: v1::LoadRequest,
    ) -> Result<v1::LoadResponse, Refusal> {
        let check = |schema: &Schema| {
            query::load(&request, schema).map(|(model, reader)| (model.backing.clone(), reader))
        };
        let checked = self.schemas.checked(&caller.organization, check).await?;
        let (_, (backing, reader)) = checked;
        let v1::LoadRequest {
            model: name, id, ..
        } = request;
        match &backing {
            Backing::Managed => {
                let loaded = rows::load(&self.store, caller.organization.clone(), name, id).await?;
                let archived = loaded.row.as_ref().is_some_and(|row| row.archived);
                let row_json = loaded.row.map(|row| row.json.into());
                Ok(v1::LoadResponse {
                    row_json,
                    read_at: loaded.last_sync_id,
                    archived,
                })
            }
            Backing::Source(source) => {
                let asked = source::Asked {
                    caller,
                    source,
                    model: &name,
                    reader: &reader,
                };
                let (read_at, row) = self.sources.load(asked, &id).await?;
                let row_json = row.map(Into::into);
                Ok(v1::LoadResponse {
                    row_json,
                    read_at,
                    archived: false,
                })
            }
        }
    }

    /// A page of rows.
    ///
    /// # Errors
    /// As [`Self::load`], and `page_token_invalid`.
    pub async fn list(
        &self,
        caller: &Caller,
        request: v1::ListRequest,
    ) -> Result<v1::ListResponse, Refusal> {
        let check = |schema: &Schema| {
            query::list(&request, schema).map(|(model, listing)| (model.backing.clone(), listing))
        };
        let checked = self.schemas.checked(&caller.organization, check).await?;
        let (_, (backing, listing)) = checked;
        let asked = binding(caller, &request.model, &backing, &listing);
        let asked: Vec<&str> = asked.iter().map(String::as_str).collect();
        let position = self.pages.open(&asked, &request.page_token)?;
        let (rows_json, next, read_at, incomplete) = match &backing {
            Backing::Managed => {
                let page = self.managed_page(caller, request.model, listing, position);
                let (rows, next, read_at) = page.await?;
                (rows, next, read_at, false)
            }
            Backing::Source(source) => {
                let Listing { query, reader, .. } = &listing;
                let asked = source::Asked {
                    caller,
                    source,
                    model: &request.model,
                    reader,
                };
                let from = match position {
                    Some(Position::Source(position)) => position,
                    _ => SourcePosition::default(),
                };
                let page = self.sources.list(asked, query, from).await?;
                let next = page.next.map(Position::Source);
                (page.rows, next, page.read_at, page.incomplete)
            }
        };
        let rows_json = rows_json.into_iter().map(Into::into).collect();
        let next_page_token = next.map_or_else(String::new, |next| self.pages.seal(&asked, &next));
        Ok(v1::ListResponse {
            rows_json,
            next_page_token,
            read_at,
            incomplete,
        })
    }

    async fn managed_page(
        &self,
        caller: &Caller,
        model: String,
        listing: Listing,
        position: Option<Position>,
    ) -> Result<(Vec<String>, Option<Position>, i64), Refusal> {
        let after = match position {
            Some(Position::Managed(after)) => Some(after),
            _ => None,
        };
        let request = PageRequest {
            organization: caller.organization.clone(),
            model,
            query: listing.query,
            include_archived: listing.include_archived,
            after,
        };
        let page = rows::list(&self.store, request).await?;
        Ok((
            page.rows,
            page.next.map(Position::Managed),
            page.last_sync_id,
        ))
    }
}

/// What a page token is bound to: everything that says which rows come, and in which order. The
/// backing is part of it, so a position is always of the kind that the backing understands.
fn binding(caller: &Caller, model: &str, backing: &Backing, listing: &Listing) -> Vec<String> {
    let Query {
        conditions, order, ..
    } = &listing.query;
    let backing = match backing {
        Backing::Managed => "managed".to_owned(),
        Backing::Source(id) => format!("source {id}"),
    };
    let mut asked = vec![
        "Coordinator.List".to_owned(),
        caller.organization.to_string(),
        model.to_owned(),
        backing,
        listing.include_archived.to_string(),
        conditions.len().to_string(),
    ];
    for condition in conditions {
        asked.push(condition.field.clone());
        asked.push(condition.operator.as_str().to_owned());
        asked.push(canonical(&condition.value));
    }
    if let Some(order) = order {
        asked.push(order.field.clone());
        asked.push(order.descending.to_string());
    }
    asked
}

/// On whose behalf an endpoint is asked.
fn scope(caller: &Caller, reader: &Reader) -> Scope {
    let participant = reader.participant.as_ref();
    Scope {
        participant_id: participant.map(|participant| participant.id.clone()),
        participant_kind: participant.map(|participant| participant.kind.as_str().to_owned()),
        organization_id: Some(caller.organization.to_string()),
        required_sync_groups: reader.required_sync_groups.clone(),
        mode: Some(caller.mode.as_str().to_owned()),
    }
}

#[cfg(test)]
mod tests;
