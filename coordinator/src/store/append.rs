//! Writes what a batch decided, in one statement that moves the head.

mod versions;

use backends::json::Document;
use backends::operation::RowKey;
use sqlx::postgres::{PgArguments, PgExecutor, PgRow};
use sqlx::{Arguments, AssertSqlSafe, Encode, Postgres, Row, Type};
use time::OffsetDateTime;
use uuid::Uuid;

use super::Error;
use crate::broken::{self, Control};
use crate::decide::{
    Action, Append, AttemptClose, AttemptOpen, DeltaRow, Guard, InboxEntry, LedgerEntry, Source,
    State, StoredRow,
};
use crate::domain::{OrganizationId, RequestError, Trigger};

/// Batches that one statement appends at most: it tells those that it may by the bits of a `bigint`.
pub(super) const PLACES: usize = 64;

/// A batch that was written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Written {
    /// Its place, as [`Statement::of_several`] was given it.
    pub(super) place: usize,
    /// The epoch of the log that it was written to.
    pub(super) log_epoch: Uuid,
    /// The time by the clock of the database.
    pub(super) now: OffsetDateTime,
}

/// What a batch decided on a state of its organization.
#[derive(Clone, Copy)]
pub(crate) struct Batch<'a> {
    pub(crate) organization: &'a OrganizationId,
    /// Of the head, as it was read.
    pub(crate) version: i64,
    /// The time of the batch, see [`State::now`].
    pub(crate) now: OffsetDateTime,
    pub(crate) append: &'a Append,
}

impl<'a> Batch<'a> {
    pub(crate) fn new(organization: &'a OrganizationId, state: &State, append: &'a Append) -> Self {
        Self {
            organization,
            version: state.head.version,
            now: state.now,
            append,
        }
    }
}

/// The statement that appends what a batch decided: the head, and a part for each thing that the batch
/// writes. Only parts that have something to write are in it, so that a managed batch plans and runs
/// four.
pub(crate) struct Statement {
    sql: String,
    arguments: PgArguments,
    bound: usize,
}

impl Statement {
    /// Appends one batch.
    pub(crate) fn new(batch: Batch<'_>) -> Result<Self, Error> {
        let append = batch.append;
        let mut statement = Self::begin(include_str!("sql/append/head.sql"));
        statement.bind(batch.organization.as_str())?;
        statement.bind(batch.version)?;
        statement.bind(batch.now)?;
        statement.bind(append.last_sync_id)?;
        statement.bind(append.schema_version)?;
        managed(&mut statement, &[batch])?;
        settled(&mut statement, append)?;
        versions::put(&mut statement, append)?;
        groups(&mut statement, append)?;
        inbox(&mut statement, append)?;
        attempts(&mut statement, append)?;
        sources(&mut statement, append, batch.now)?;
        actions(&mut statement, append)?;
        super::feeds::append(&mut statement, append)?;
        Ok(statement.end("head"))
    }

    /// Appends batches of several organizations, which hold nothing but commits on managed rows.
    pub(crate) fn of_several(batches: &[Batch<'_>]) -> Result<Self, Error> {
        let mut statement = Self::begin(include_str!("sql/append/heads.sql"));
        let all: Vec<&Batch<'_>> = batches.iter().collect();
        statement.column(&all, |one| one.organization.as_str())?;
        statement.column(&all, |one| one.version)?;
        statement.column(&all, |one| one.now)?;
        statement.column(&all, |one| one.append.last_sync_id)?;
        statement.column(&all, |one| one.append.schema_version)?;
        statement.bind((0..).take(all.len()).collect::<Vec<i32>>())?;
        managed(&mut statement, batches)?;
        Ok(statement.end("moved"))
    }

    fn begin(sql: &str) -> Self {
        Self {
            sql: sql.trim_end().to_owned(),
            arguments: PgArguments::default(),
            bound: 0,
        }
    }

    fn end(mut self, written: &str) -> Self {
        self.sql.push_str(
            "
SELECT place, log_epoch, clock_timestamp() AS now FROM ",
        );
        self.sql.push_str(written);
        self
    }

    /// The batches that were written. Of another the head has moved since its state was read, or is
    /// held, and nothing happened.
    pub(super) async fn run(self, executor: impl PgExecutor<'_>) -> Result<Vec<Written>, Error> {
        let rows = sqlx::query_with(AssertSqlSafe(self.sql), self.arguments)
            .fetch_all(executor)
            .await?;
        let written = |row: &PgRow| {
            let place: i32 = row.try_get("place")?;
            Ok(Written {
                place: usize::try_from(place).unwrap_or(usize::MAX),
                log_epoch: row.try_get("log_epoch")?,
                now: row.try_get("now")?,
            })
        };
        rows.iter().map(written).collect()
    }

    /// Adds a part; its `?` stand for the values that are bound next, in order.
    pub(super) fn part(&mut self, name: &str, sql: &str) -> &mut Self {
        self.sql.push_str(",\n");
        self.sql.push_str(name);
        self.sql.push_str(" AS (\n");
        let mut next = self.bound;
        for character in sql.trim_end().chars() {
            if character == '?' {
                next += 1;
                self.sql.push('$');
                self.sql.push_str(&next.to_string());
            } else {
                self.sql.push(character);
            }
        }
        self.sql.push_str("\n)");
        self
    }

    fn bind<'q, T: Encode<'q, Postgres> + Type<Postgres> + 'q>(
        &mut self,
        value: T,
    ) -> Result<(), Error> {
        self.bound += 1;
        self.arguments
            .add(value)
            .map_err(|error| Error::from(sqlx::Error::Encode(error)))
    }

    /// Binds one column of a part's rows.
    pub(super) fn column<'a, R: 'a, T>(
        &mut self,
        rows: &[&'a R],
        column: impl Fn(&'a R) -> T,
    ) -> Result<(), Error>
    where
        Vec<T>: Encode<'a, Postgres> + Type<Postgres>,
    {
        let values: Vec<T> = rows.iter().map(|row| column(row)).collect();
        self.bound += 1;
        self.arguments
            .add(values)
            .map_err(|error| Error::from(sqlx::Error::Encode(error)))
    }
}

/// An array as Postgres writes it, for columns that hold arrays themselves.
pub(super) fn array<T: ToString>(values: &[T]) -> String {
    let values: Vec<String> = values.iter().map(ToString::to_string).collect();
    format!("{{{}}}", values.join(","))
}

/// As [`array()`], of texts.
fn text_array(values: &[String]) -> String {
    let mut array = String::from("{");
    for (index, value) in values.iter().enumerate() {
        array.push_str(if index == 0 { "\"" } else { ",\"" });
        for character in value.chars() {
            if matches!(character, '"' | '\\') {
                array.push('\\');
            }
            array.push(character);
        }
        array.push('"');
    }
    array.push('}');
    array
}

/// What each of some batches has of something, with the batch's place.
fn placed<'a, T>(batches: &[Batch<'a>], each: impl Fn(&'a Append) -> T) -> Vec<(i32, T::Item)>
where
    T: IntoIterator,
{
    let batches = batches.iter().zip(0..);
    let placed = batches.flat_map(|(batch, place)| {
        let all = each(batch.append).into_iter();
        all.map(move |one| (place, one))
    });
    placed.collect()
}

/// What commits on managed rows write.
fn managed(statement: &mut Statement, batches: &[Batch<'_>]) -> Result<(), Error> {
    commits(statement, batches)?;
    deltas(statement, batches)?;
    rows(statement, batches)
}

fn commits(statement: &mut Statement, batches: &[Batch<'_>]) -> Result<(), Error> {
    let new = placed(batches, |append| &append.commits);
    if new.is_empty() {
        return Ok(());
    }
    let new: Vec<&(i32, &LedgerEntry)> = new.iter().collect();
    let part = statement.part("commits_new", include_str!("sql/append/commits.sql"));
    part.column(&new, |(place, _)| *place)?;
    part.column(&new, |(_, one)| one.client_tx_id.as_str())?;
    part.column(&new, |(_, one)| one.id.0)?;
    part.column(&new, |(_, one)| one.fingerprint.as_slice())?;
    part.column(&new, |(_, one)| one.participant.id.as_str())?;
    part.column(&new, |(_, one)| one.participant.kind.as_str())?;
    part.column(&new, |(_, one)| one.source.as_deref())?;
    part.column(&new, |(_, one)| one.schema_version)?;
    part.column(&new, |(_, one)| one.state.as_str())?;
    part.column(&new, |(_, one)| one.sync_ids.map(|ids| ids.0))?;
    part.column(&new, |(_, one)| one.sync_ids.map(|ids| ids.1))?;
    part.column(&new, |(_, one)| array(&one.assigned))?;
    part.column(&new, |(_, one)| one.sequence)?;
    part.column(&new, |(_, one)| one.feed_read_at)
}

fn settled(statement: &mut Statement, append: &Append) -> Result<(), Error> {
    if !append.settled.is_empty() {
        let changed: Vec<&LedgerEntry> = append.settled.values().collect();
        let part = statement.part("commits_settled", include_str!("sql/append/settled.sql"));
        part.column(&changed, |one| one.client_tx_id.as_str())?;
        part.column(&changed, |one| one.state.as_str())?;
        part.column(&changed, |one| one.dead)?;
        part.column(&changed, |one| one.sync_ids.map(|ids| ids.0))?;
        part.column(&changed, |one| one.sync_ids.map(|ids| ids.1))?;
        part.column(&changed, |one| {
            one.error.as_ref().map(|error| error.0.as_str())
        })?;
        part.column(&changed, |one| {
            one.error.as_ref().map(|error| error.1.as_str())
        })?;
        part.column(&changed, |one| one.attempts)?;
        part.column(&changed, |one| one.reentered_at)?;
        part.column(&changed, |one| one.sequence)?;
    }
    Ok(())
}

fn deltas(statement: &mut Statement, batches: &[Batch<'_>]) -> Result<(), Error> {
    let new = placed(batches, |append| &append.deltas);
    if new.is_empty() {
        return Ok(());
    }
    let new: Vec<&(i32, &DeltaRow)> = new.iter().collect();
    let part = statement.part("deltas_new", include_str!("sql/append/deltas.sql"));
    part.column(&new, |(place, _)| *place)?;
    part.column(&new, |(_, one)| one.delta.sync_id)?;
    part.column(&new, |(_, one)| one.client_tx_id.as_deref())?;
    part.column(&new, |(_, one)| {
        one.delta
            .change
            .operation
            .and_then(|at| i32::try_from(at).ok())
    })?;
    part.column(&new, |(_, one)| one.delta.change.kind.as_str())?;
    part.column(&new, |(_, one)| one.delta.change.model.as_str())?;
    part.column(&new, |(_, one)| one.delta.change.id.as_str())?;
    part.column(&new, |(_, one)| {
        one.delta.change.row.as_ref().map(Document::text)
    })?;
    part.column(&new, |(_, one)| one.delta.change.transaction_id.as_deref())?;
    part.column(&new, |(_, one)| {
        one.participant.as_ref().map(|who| who.id.as_str())
    })?;
    part.column(&new, |(_, one)| {
        one.participant.as_ref().map(|who| who.kind.as_str())
    })?;
    part.column(&new, |(_, one)| one.delta.stale)?;
    part.column(&new, |(_, one)| text_array(&one.membership.groups))?;
    part.column(&new, |(_, one)| text_array(&one.membership.left))
}

fn rows(statement: &mut Statement, batches: &[Batch<'_>]) -> Result<(), Error> {
    let put = placed(batches, |append| {
        let put = append.rows.iter();
        put.filter_map(|(key, row)| {
            let row = row.as_ref()?;
            Some((key, row, append.rows_added.contains(key)))
        })
    });
    let (added, changed): (Vec<&_>, Vec<&_>) = put.iter().partition(|(_, (.., new))| *new);
    if !added.is_empty() {
        let part = statement.part("rows_added", include_str!("sql/append/rows_added.sql"));
        row_columns(part, &added)?;
    }
    if !changed.is_empty() {
        let part = statement.part("rows_put", include_str!("sql/append/rows_put.sql"));
        row_columns(part, &changed)?;
        part.column(&changed, |(_, (_, stored, _))| stored.stood_at.as_deref())?;
    }
    let removed = placed(batches, |append| {
        let rows = append.rows.iter();
        rows.filter_map(|(key, row)| row.is_none().then_some(key))
    });
    if !removed.is_empty() {
        let removed: Vec<&(i32, &RowKey)> = removed.iter().collect();
        let part = statement.part("rows_removed", include_str!("sql/append/rows_removed.sql"));
        part.column(&removed, |(place, _)| *place)?;
        part.column(&removed, |(_, key)| key.model.as_str())?;
        part.column(&removed, |(_, key)| key.id.as_str())?;
    }
    Ok(())
}

/// Rows as they stand after their batches, with the batch's place.
fn row_columns<'a>(
    part: &mut Statement,
    put: &[&'a (i32, (&'a RowKey, &'a StoredRow, bool))],
) -> Result<(), Error> {
    part.column(put, |(place, _)| *place)?;
    part.column(put, |(_, (key, ..))| key.model.as_str())?;
    part.column(put, |(_, (key, ..))| key.id.as_str())?;
    part.column(put, |(_, (_, stored, _))| stored.row.row.text())?;
    part.column(put, |(_, (_, stored, _))| stored.sync_id)?;
    part.column(put, |(_, (_, stored, _))| stored.row.archived)
}

fn groups(statement: &mut Statement, append: &Append) -> Result<(), Error> {
    if append.groups.is_empty() {
        return Ok(());
    }
    let put: Vec<_> = append.groups.iter().collect();
    let put: Vec<&_> = put.iter().collect();
    let part = statement.part("groups_put", include_str!("sql/append/groups.sql"));
    part.column(&put, |(key, _)| key.model.as_str())?;
    part.column(&put, |(key, _)| key.id.as_str())?;
    part.column(&put, |(_, groups)| text_array(groups))
}

fn inbox(statement: &mut Statement, append: &Append) -> Result<(), Error> {
    if !append.inbox.is_empty() {
        let new: Vec<&InboxEntry> = append.inbox.iter().collect();
        let part = statement.part("inbox_new", include_str!("sql/append/inbox.sql"));
        part.column(&new, |one| one.source.as_str())?;
        part.column(&new, |one| one.sequence)?;
        part.column(&new, |one| one.client_tx_id.as_str())?;
        part.column(&new, |one| one.id.0)?;
        part.column(&new, |one| one.body.to_vec())?;
        part.column(&new, |one| array(&one.lanes))?;
        part.column(&new, |one| array(&one.positions))?;
        part.column(&new, |one| array(&one.flagged))?;
        part.column(&new, |one| one.traceparent.as_deref())?;
        part.column(&new, |one| one.expires_at)?;
        part.column(&new, |one| guards(&one.guards))?;
        part.column(&new, |one| one.schema_version)?;
        part.column(&new, |one| one.attempts)?;
        part.column(&new, |one| one.open.map(|open| open.0))?;
        part.column(&new, |one| one.open.map(|open| open.1))?;
    }
    inbox_changed(statement, append)?;
    if !append.inbox_done.is_empty() {
        let done: Vec<_> = append.inbox_done.iter().collect();
        let part = statement.part("inbox_done", include_str!("sql/append/inbox_done.sql"));
        part.column(&done, |(source, _)| source.as_str())?;
        part.column(&done, |(_, sequence)| *sequence)?;
    }
    Ok(())
}

fn inbox_changed(statement: &mut Statement, append: &Append) -> Result<(), Error> {
    if append.inbox_changed.is_empty() {
        return Ok(());
    }
    let places: Vec<i64> = append.inbox_changed.keys().map(|(_, at)| *at).collect();
    let changed: Vec<&InboxEntry> = append.inbox_changed.values().collect();
    let error = |one: &'_ InboxEntry| one.last_error.clone();
    let part = statement.part(
        "inbox_changed",
        include_str!("sql/append/inbox_changed.sql"),
    );
    part.column(&changed, |one| one.source.as_str())?;
    part.bind(places)?;
    part.column(&changed, |one| one.dead)?;
    part.column(&changed, |one| one.attempts)?;
    part.column(&changed, |one| one.spent)?;
    part.column(&changed, |one| one.due_at)?;
    part.column(&changed, |one| one.failed_at)?;
    part.column(&changed, |one| one.open.map(|open| open.0))?;
    part.column(&changed, |one| one.open.map(|open| open.1))?;
    part.column(&changed, |one| one.may_apply_until)?;
    part.column(&changed, |one| error(one).map(|error| error.at))?;
    part.column(&changed, |one| error(one).map(|error| error.class))?;
    part.column(&changed, |one| error(one).map(|error| error.message))?;
    part.column(&changed, |one| error(one).map(|error| error.http_status))?;
    part.column(&changed, |one| one.next_cause.map(Trigger::as_str))?;
    part.column(&changed, |one| one.echoed)?;
    part.column(&changed, |one| one.first_failed_at)?;
    part.column(&changed, |one| one.read_back.as_ref().map(|read| read.0))?;
    part.column(&changed, |one| {
        one.read_back.as_ref().map(|read| read.1.as_str())
    })?;
    part.column(&changed, |one| array(&one.flagged))?;
    part.column(&changed, |one| one.sequence)
}

fn guards(guards: &[Guard]) -> Option<String> {
    (!guards.is_empty()).then(|| serde_json::to_string(guards).expect("text keys, no maps"))
}

fn attempts(statement: &mut Statement, append: &Append) -> Result<(), Error> {
    if broken::is(Control::OffRecord) {
        return Ok(());
    }
    if !append.attempts_opened.is_empty() {
        let new: Vec<&AttemptOpen> = append.attempts_opened.iter().collect();
        let part = statement.part(
            "attempts_opened",
            include_str!("sql/append/attempts_opened.sql"),
        );
        part.column(&new, |one| one.source.as_str())?;
        part.column(&new, |one| one.id.0)?;
        part.column(&new, |one| one.number)?;
        part.column(&new, |one| one.client_tx_id.as_str())?;
        part.column(&new, |one| one.trigger.as_str())?;
        part.column(&new, |one| one.node)?;
        part.column(&new, |one| one.deadline)?;
    }
    if !append.attempts_closed.is_empty() {
        let closed: Vec<&AttemptClose> = append.attempts_closed.iter().collect();
        let millis = |one: &AttemptClose| {
            one.duration
                .map(|took| i32::try_from(took.as_millis()).unwrap_or(i32::MAX))
        };
        let part = statement.part(
            "attempts_closed",
            include_str!("sql/append/attempts_closed.sql"),
        );
        part.column(&closed, |one| one.source.as_str())?;
        part.column(&closed, |one| one.client_tx_id.as_str())?;
        part.column(&closed, |one| one.id.0)?;
        part.column(&closed, |one| one.number)?;
        part.column(&closed, |one| one.started_at)?;
        part.column(&closed, millis)?;
        part.column(&closed, |one| one.http_status)?;
        part.column(&closed, |one| one.outcome)?;
        part.column(&closed, |one| {
            one.error.as_ref().map(|error| error.0.as_str())
        })?;
        part.column(&closed, |one| {
            one.error.as_ref().map(|error| error.1.as_str())
        })?;
        part.column(&closed, |one| one.excerpt.as_deref())?;
        part.column(&closed, |one| one.next_attempt_at)?;
    }
    Ok(())
}

fn sources(statement: &mut Statement, append: &Append, now: OffsetDateTime) -> Result<(), Error> {
    if !append.sources.is_empty() {
        let put: Vec<&(Source, bool)> = append.sources.values().collect();
        source_columns(statement, &put, now)?;
    }
    if !append.sources_removed.is_empty() {
        let gone: Vec<_> = append.sources_removed.iter().collect();
        let part = statement.part(
            "sources_removed",
            include_str!("sql/append/sources_removed.sql"),
        );
        part.column(&gone, |source: &String| source.as_str())?;
    }
    if !append.requests.is_empty() {
        let notes: Vec<_> = append.requests.iter().collect();
        let notes: Vec<&_> = notes.iter().collect();
        let error =
            |note: &crate::decide::RequestNote| -> Option<RequestError> { note.error.clone() };
        let part = statement.part("requests_noted", include_str!("sql/append/requests.sql"));
        part.column(&notes, |((source, _), _)| source.as_str())?;
        part.column(&notes, |((_, kind), _)| kind.as_str())?;
        part.column(&notes, |(_, note)| note.success_at)?;
        part.column(&notes, |(_, note)| error(note).map(|error| error.at))?;
        part.column(&notes, |(_, note)| error(note).map(|error| error.class))?;
        part.column(&notes, |(_, note)| error(note).map(|error| error.message))?;
        part.column(&notes, |(_, note)| {
            error(note).map(|error| error.http_status)
        })?;
    }
    if let Some((version, document)) = &append.schema {
        let part = statement.part("schema_new", include_str!("sql/append/schema.sql"));
        part.bind(*version)?;
        part.bind(document.as_str())?;
    }
    Ok(())
}

fn source_columns(
    statement: &mut Statement,
    put: &[&(Source, bool)],
    now: OffsetDateTime,
) -> Result<(), Error> {
    let millis = |pause: std::time::Duration| i64::try_from(pause.as_millis()).unwrap_or(i64::MAX);
    let part = statement.part("sources_put", include_str!("sql/append/sources.sql"));
    part.column(put, |(one, _)| one.id.as_str())?;
    part.column(put, |(one, _)| one.settings.url.as_str())?;
    part.column(put, |(one, _)| {
        let delays: Vec<i64> = one
            .settings
            .retry
            .delays
            .iter()
            .copied()
            .map(millis)
            .collect();
        array(&delays)
    })?;
    part.column(put, |(one, _)| millis(one.settings.request_timeout))?;
    part.column(put, |(one, _)| one.settings.max_in_flight)?;
    part.column(put, |(one, _)| one.state.as_str())?;
    part.column(put, |(one, _)| one.state_reason.as_str())?;
    part.column(put, |(one, _)| one.owner)?;
    part.column(put, |(one, _)| one.epoch)?;
    part.column(put, |(one, _)| one.inbox_sequence)?;
    part.column(put, |(one, _)| one.pending)?;
    part.column(put, |(one, _)| one.dead)?;
    part.column(put, |(one, _)| one.consecutive_failures)?;
    part.column(put, |(one, _)| one.backoff_until)?;
    part.column(put, |(one, _)| one.backoff_step)?;
    part.column(put, |(one, _)| one.recovered_at)?;
    part.column(put, |(one, _)| one.recovered_from)?;
    part.column(put, |(one, _)| array(&one.attempts))?;
    part.column(put, |(one, _)| array(&one.retries))?;
    part.column(put, |(one, _)| one.settings.max_per_second)?;
    part.column(put, |(one, _)| one.settings.max_pending)?;
    part.column(put, |(one, _)| millis(one.settings.feed_lag))?;
    part.column(put, |(one, _)| one.failing_since)?;
    part.column(put, |(one, _)| one.recent_outcomes)?;
    part.column(put, |(one, _)| one.certificate_expires_at)?;
    part.column(put, |(_, settings_changed)| settings_changed.then_some(now))?;
    part.column(put, |(one, _)| one.inbox_revision)
}

fn actions(statement: &mut Statement, append: &Append) -> Result<(), Error> {
    if append.actions.is_empty() {
        return Ok(());
    }
    let new: Vec<&Action> = append.actions.iter().collect();
    let part = statement.part("actions_new", include_str!("sql/append/actions.sql"));
    // Ordered by time, so that what happened at one moment is listed in its order.
    part.column(&new, |_| Uuid::now_v7())?;
    part.column(&new, |one| one.source.as_str())?;
    part.column(&new, |one| one.verb)?;
    part.column(&new, |one| one.client_tx_id.as_deref())?;
    part.column(&new, |one| one.by.key_id)?;
    part.column(&new, |one| one.by.actor.as_str())?;
    part.column(&new, |one| one.detail.as_str())
}
