//! An operator's verbs for commits that wait: retried, recovered, resolved, discarded.

use std::time::Duration;

use backends::data_source::classify::{Outcome, commit_outcome};
use backends::data_source::exchange::Exchange;
use backends::data_source::wire;
use backends::json;
use backends::operation::{Change, Operation, OperationKind};
use bytes::Bytes;
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::Service;
use super::commit::unexpected;
use crate::admit::schema::Schema;
use crate::decide::{Command, Operate, Operator, Reply, Target, Verb, pending_not_found};
use crate::domain::{Caller, OrganizationId, Receipt};
use crate::refusal::{Class, Refusal};
use crate::store::pending::{self, Stretch};

/// Commits recovered by one command, which reads the bodies of those that are dead.
const CHUNK: usize = 64;

/// How often commits are looked up again that are moved by somebody else at the same time.
const LOOKS: usize = 8;

/// An operator's call about commits of one source.
#[derive(Clone, Debug)]
pub struct OperatorCall {
    /// Whose key the call carried.
    pub caller: Caller,
    /// Who asks, as the caller says.
    pub actor: String,
    /// The source.
    pub source: String,
}

impl OperatorCall {
    fn key(&self) -> (OrganizationId, String) {
        (self.caller.organization.clone(), self.source.clone())
    }
}

impl Service {
    /// Makes the next attempt of these commits now; answers which took a new place. All or none.
    pub async fn retry(
        &self,
        call: &OperatorCall,
        client_tx_ids: Vec<String>,
    ) -> Result<Vec<String>, Refusal> {
        self.operate(call, client_tx_ids, Verb::Retry).await
    }

    /// Retries every commit that is dead or failing and whose last attempt failed at `since` or
    /// later, a chunk at a time; answers how many. After a failure, what was retried stays so, and
    /// the same call goes on with the rest.
    pub async fn recover(
        &self,
        call: &OperatorCall,
        since: Option<OffsetDateTime>,
    ) -> Result<usize, Refusal> {
        // What re-enters behind this is not met again.
        let last = pending::newest(&self.store, call.key()).await?;
        let last = last.ok_or_else(|| Refusal::no_source(&call.source))?;
        let (mut after, mut count) = (0, 0);
        loop {
            let limit = i64::try_from(CHUNK).unwrap_or(i64::MAX);
            let stretch = Stretch { after, last, limit };
            let targets = pending::failed(&self.store, call.key(), since, stretch).await?;
            let full = targets.len() == CHUNK;
            after = targets.last().map_or(last, |target| target.sequence);
            // Also when there are none: whether the source can deliver is decided there.
            match self.submit_to(call, targets, Verb::Recover(since)).await? {
                Reply::Operated(recovered, _) => count += recovered,
                Reply::Refused(refusal) => return Err(*refusal),
                reply => return Err(unexpected(&reply)),
            }
            if !full {
                return Ok(count);
            }
        }
    }

    /// Settles a commit as applied, with these rows: a JSON object for each operation that is sent,
    /// in order; empty for a DELETE.
    ///
    /// # Panics
    /// When the inbox holds a body that is not ours.
    pub async fn resolve_applied(
        &self,
        call: &OperatorCall,
        client_tx_id: String,
        rows: &[Bytes],
    ) -> Result<Receipt, Refusal> {
        let asked = pending::asked(&self.store, call.key(), client_tx_id.clone()).await?;
        let asked = asked.ok_or_else(|| pending_not_found(&client_tx_id))?;
        let operations =
            wire::operations(&asked.body).expect("the inbox holds bodies that we wrote");
        let organization = &call.caller.organization;
        let schema = self
            .schemas
            .of_version(organization, asked.schema_version)
            .await?;
        let changes = fitted(&operations, rows, &schema)?;
        self.settle_by_hand(call, vec![client_tx_id.clone()], Verb::Apply(changes))
            .await?;
        self.receipt(&call.caller, &client_tx_id).await
    }

    /// Settles commits as the verb says. All or none.
    pub async fn settle_by_hand(
        &self,
        call: &OperatorCall,
        client_tx_ids: Vec<String>,
        verb: Verb,
    ) -> Result<(), Refusal> {
        self.operate(call, client_tx_ids, verb).await.map(drop)
    }

    /// Looks the commits up and submits the verb, again if one has moved in between.
    async fn operate(
        &self,
        call: &OperatorCall,
        mut client_tx_ids: Vec<String>,
        verb: Verb,
    ) -> Result<Vec<String>, Refusal> {
        client_tx_ids.sort_unstable();
        client_tx_ids.dedup();
        for _ in 0..LOOKS {
            let names = client_tx_ids.clone();
            let targets = pending::places(&self.store, call.key(), names).await?;
            let found = |name: &&String| targets.iter().any(|one| one.client_tx_id == **name);
            if let Some(missing) = client_tx_ids.iter().find(|name| !found(name)) {
                let newest = pending::newest(&self.store, call.key()).await?;
                newest.ok_or_else(|| Refusal::no_source(&call.source))?;
                return Err(pending_not_found(missing));
            }
            match self.submit_to(call, targets, verb.clone()).await? {
                Reply::Operated(_, reentered) => return Ok(reentered),
                Reply::Refused(refusal) => return Err(*refusal),
                Reply::Moved => {}
                reply => return Err(unexpected(&reply)),
            }
        }
        let message = "the commits were moved again and again while the call was decided";
        Err(Refusal::new(Class::Unavailable, "commits_moving", message)
            .retry_after(Duration::from_secs(1)))
    }

    async fn submit_to(
        &self,
        call: &OperatorCall,
        targets: Vec<Target>,
        verb: Verb,
    ) -> Result<Reply, Refusal> {
        let operate = Operate {
            source: call.source.clone(),
            targets,
            verb,
            by: Operator {
                key_id: call.caller.key_id,
                actor: call.actor.clone(),
            },
        };
        let organization = &call.caller.organization;
        let reply = self
            .flushers
            .submit(organization, Command::Operate(operate))
            .await?;
        Ok(reply)
    }
}

/// The changes that an operator's rows tell, as if the endpoint had answered with them; each is
/// checked against its model.
fn fitted(
    operations: &[Operation],
    rows: &[Bytes],
    schema: &Schema,
) -> Result<Vec<Change>, Refusal> {
    if rows.len() != operations.len() {
        let rule = format!(
            "has {} rows for {} operations",
            rows.len(),
            operations.len()
        );
        return Err(mismatched("applied.rows_json", rule));
    }
    let mut values = Vec::with_capacity(rows.len());
    for (index, (bytes, operation)) in rows.iter().zip(operations).enumerate() {
        values.push(row(index, bytes, operation, schema)?);
    }
    let answer = Exchange::answered(200, json!({"rows": values}).to_string());
    match commit_outcome(&answer, operations, &[]) {
        Outcome::Applied(changes) => Ok(changes),
        other => {
            let rule = other.error().map(|error| error.message);
            Err(mismatched("applied.rows_json", rule.unwrap_or_default()))
        }
    }
}

fn row(
    index: usize,
    bytes: &Bytes,
    operation: &Operation,
    schema: &Schema,
) -> Result<Value, Refusal> {
    let field = format!("applied.rows_json[{index}]");
    if bytes.is_empty() && operation.kind == OperationKind::Delete {
        return Ok(Value::Null);
    }
    let row = json::parse_object(bytes).map_err(|error| mismatched(&field, error.to_string()))?;
    let row = Value::Object(row);
    if operation.kind == OperationKind::Delete {
        return Ok(row);
    }
    if let Some(model) = schema.model(&operation.model) {
        model
            .check_held(&row)
            .map_err(|fault| mismatched(format!("{field}.{}", fault.field), fault.rule))?;
    }
    Ok(row)
}

fn mismatched(field: impl Into<String>, rule: impl Into<String>) -> Refusal {
    Refusal::field("rows_mismatched", field, rule)
}

#[cfg(test)]
mod tests;
