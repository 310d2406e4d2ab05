//! What is listed of sources: themselves, their attempts, what is pending.

use proto::v1;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{DataSourcesApi, NAME};
use crate::api::{encode, names};
use crate::domain::Caller;
use crate::pages::{cut, limit, page_size};
use crate::refusal::Refusal;
use crate::store::attempts::{self, Position, Query};
use crate::store::pending::{self, Filter};
use crate::store::sources;

/// What page tokens of this service are bound to, with the organization and the parameters.
const LIST: &str = "data_sources.list";
const ATTEMPTS: &str = "data_sources.list_attempts";
const PENDING: &str = "data_sources.list_pending";

/// A [`Position`] as page tokens carry it: the start in nanoseconds since 1970.
type AttemptToken = (i128, u128, i32);

impl DataSourcesApi {
    pub(super) async fn sources(
        &self,
        caller: &Caller,
        request: v1::ListDataSourcesRequest,
    ) -> Result<v1::ListDataSourcesResponse, Refusal> {
        let (store, pages) = (&self.rooms.store, &self.rooms.pages);
        let asked = [LIST, caller.organization.as_str()];
        let size = page_size(request.page_size)?;
        let after: Option<String> = pages.open(&asked, &request.page_token)?;
        let organization = caller.organization.clone();
        let mut rows = sources::list(store, organization, after, limit(size)).await?;
        let more = cut(&mut rows, size);
        let last = rows.last().filter(|_| more);
        Ok(v1::ListDataSourcesResponse {
            next_page_token: last
                .map(|last| pages.seal(&asked, &last.id))
                .unwrap_or_default(),
            data_sources: rows.into_iter().map(encode::source).collect(),
        })
    }

    pub(super) async fn attempts(
        &self,
        caller: &Caller,
        request: v1::ListAttemptsRequest,
    ) -> Result<v1::ListAttemptsResponse, Refusal> {
        let (store, pages) = (&self.rooms.store, &self.rooms.pages);
        let source = names::parse_source(NAME, &request.name)?;
        let commit = names::display_name("client_tx_id", request.client_tx_id)?;
        self.stored(caller, source.clone()).await?;
        let asked = [ATTEMPTS, caller.organization.as_str(), &source, &commit];
        let size = page_size(request.page_size)?;
        let before = pages.open(&asked, &request.page_token)?.and_then(position);
        let query = Query {
            organization: caller.organization.clone(),
            source: source.clone(),
            client_tx_id: (!commit.is_empty()).then(|| commit.clone()),
            before,
            limit: limit(size),
        };
        let mut rows = attempts::list(store, query).await?;
        let more = cut(&mut rows, size);
        let last = rows.last().filter(|_| more);
        let token = last.map(|last| {
            let started = last.started_at.unix_timestamp_nanos();
            let position: AttemptToken = (started, last.commit.0.as_u128(), last.number);
            pages.seal(&asked, &position)
        });
        Ok(v1::ListAttemptsResponse {
            attempts: rows.into_iter().map(encode::attempt).collect(),
            next_page_token: token.unwrap_or_default(),
        })
    }

    pub(super) async fn pending(
        &self,
        caller: &Caller,
        request: v1::ListPendingRequest,
    ) -> Result<v1::ListPendingResponse, Refusal> {
        let (store, pages) = (&self.rooms.store, &self.rooms.pages);
        let source = names::parse_source(NAME, &request.name)?;
        let filter = filter(request.filter)?;
        let commit = names::display_name("client_tx_id", request.client_tx_id)?;
        self.stored(caller, source.clone()).await?;
        let key = (caller.organization.clone(), source.clone());
        if !commit.is_empty() {
            let found = pending::get(store, key, commit).await?;
            let found = found.filter(|one| filter.takes(one));
            return Ok(v1::ListPendingResponse {
                commits: found.into_iter().map(encode::pending).collect(),
                next_page_token: String::new(),
            });
        }
        let word = request.filter.to_string();
        let asked = [PENDING, caller.organization.as_str(), &source, &word];
        let size = page_size(request.page_size)?;
        let after: i64 = pages.open(&asked, &request.page_token)?.unwrap_or_default();
        let mut rows = pending::list(store, key, filter, after, limit(size)).await?;
        let more = cut(&mut rows, size);
        let last = rows.last().filter(|_| more);
        Ok(v1::ListPendingResponse {
            next_page_token: last
                .map(|last| pages.seal(&asked, &last.sequence))
                .unwrap_or_default(),
            commits: rows.into_iter().map(encode::pending).collect(),
        })
    }
}

fn filter(number: i32) -> Result<Filter, Refusal> {
    match v1::PendingFilter::try_from(number) {
        Ok(v1::PendingFilter::Unspecified) => Ok(Filter::All),
        Ok(v1::PendingFilter::Waiting) => Ok(Filter::Waiting),
        Ok(v1::PendingFilter::Failing) => Ok(Filter::Failing),
        Ok(v1::PendingFilter::Dead) => Ok(Filter::Dead),
        Err(_) => Err(Refusal::field("field_invalid", "filter", "is not known")),
    }
}

fn position((started, commit, number): AttemptToken) -> Option<Position> {
    let started_at = OffsetDateTime::from_unix_timestamp_nanos(started).ok()?;
    Some(Position {
        started_at,
        commit: Uuid::from_u128(commit),
        number,
    })
}
