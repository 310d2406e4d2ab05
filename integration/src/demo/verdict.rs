//! Both databases, row by row, against the plan.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Value};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::types::Json;
use sqlx::{AssertSqlSafe, Connection};

use super::plan::{Model, Plan};

const MANAGED_ROWS: &str = "SELECT row_id, row FROM managed_rows WHERE model = 'weatherReports'";
const SOURCE_ROWS: &str = "SELECT id, to_jsonb(airports) - 'archived_at' FROM airports";
/// One entry for each effect: the coordinator's log for managed rows, and for the customer's the
/// feed that a trigger of its own database wrote.
const MANAGED_EFFECTS: &str =
    "SELECT client_tx_id, count(*) FROM deltas WHERE model = 'weatherReports' GROUP BY 1";
const SOURCE_EFFECTS: &str = "SELECT client_tx_id, count(*) FROM outbox GROUP BY 1";
/// Every confirmed commit of the source is in the coordinator's log as well.
const SOURCE_DELTAS: &str =
    "SELECT client_tx_id, count(*) FROM deltas WHERE model = 'airports' GROUP BY 1";
/// Differences that are shown in full.
const SHOWN: usize = 20;

/// What the comparison found.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    managed: usize,
    source: usize,
    lost: Vec<String>,
    doubled: Vec<String>,
    wrong: Vec<String>,
}

/// Compares what is in the coordinator's database and in the customer's with the plan.
pub(super) async fn compare(
    plan: &Plan,
    coordinator: &PgConnectOptions,
    customer: &PgConnectOptions,
) -> anyhow::Result<Verdict> {
    let mut verdict = Verdict::default();
    let mut coordinator = PgConnection::connect_with(coordinator).await?;
    let mut customer = PgConnection::connect_with(customer).await?;
    verdict.managed =
        verdict.judge_rows(&plan.managed, rows(&mut coordinator, MANAGED_ROWS).await?);
    verdict.source = verdict.judge_rows(&plan.source, rows(&mut customer, SOURCE_ROWS).await?);
    verdict.judge_effects(
        &plan.managed,
        effects(&mut coordinator, MANAGED_EFFECTS).await?,
    );
    verdict.judge_effects(&plan.source, effects(&mut customer, SOURCE_EFFECTS).await?);
    verdict.judge_effects(
        &plan.source,
        effects(&mut coordinator, SOURCE_DELTAS).await?,
    );
    coordinator.close().await?;
    customer.close().await?;
    Ok(verdict)
}

impl Verdict {
    pub(super) fn is_good(&self) -> bool {
        self.lost.is_empty() && self.doubled.is_empty() && self.wrong.is_empty()
    }

    /// What differs, for a person.
    pub(super) fn differences(&self) -> String {
        let all: Vec<_> = [&self.lost, &self.doubled, &self.wrong]
            .into_iter()
            .flatten()
            .collect();
        let mut lines: Vec<String> = all.iter().take(SHOWN).map(ToString::to_string).collect();
        if all.len() > SHOWN {
            lines.push(format!("… and {} more", all.len() - SHOWN));
        }
        lines.join("\n")
    }

    /// Counts the rows that are as planned; one that was deleted is, when it is not there.
    fn judge_rows(
        &mut self,
        model: &Model,
        mut found: BTreeMap<String, Map<String, Value>>,
    ) -> usize {
        let mut good = 0;
        for history in &model.histories {
            let id = &history.id;
            match (&history.end, found.remove(id)) {
                (None, None) => good += 1,
                (Some(end), Some(row)) if *end == row => good += 1,
                (Some(_), None) => self.lost.push(format!("{} {id} is missing", model.name)),
                (None, Some(_)) => self
                    .lost
                    .push(format!("{} {id} was deleted, but is there", model.name)),
                (Some(end), Some(row)) => self.wrong.push(format!(
                    "{} {id} is {} instead of {}",
                    model.name,
                    Value::Object(row),
                    Value::Object(end.clone())
                )),
            }
        }
        self.wrong.extend(
            found
                .keys()
                .map(|id| format!("{} {id} was never sent", model.name)),
        );
        good
    }

    /// Every commit must have had its one effect.
    fn judge_effects(&mut self, model: &Model, mut found: BTreeMap<String, i64>) {
        for commit in model.histories.iter().flat_map(|history| &history.commits) {
            let name = &commit.client_tx_id;
            match found.remove(name).unwrap_or(0) {
                0 => self.lost.push(format!("{name} had no effect")),
                1 => {}
                count => self.doubled.push(format!("{name} had {count} effects")),
            }
        }
        self.wrong.extend(
            found
                .keys()
                .map(|name| format!("an effect of {name:?}, never sent")),
        );
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} managed + {} data source rows verified, {} lost, {} doubled",
            self.managed,
            self.source,
            self.lost.len(),
            self.doubled.len()
        )?;
        match self.wrong.len() {
            0 => Ok(()),
            wrong => write!(f, ", {wrong} wrong"),
        }
    }
}

async fn rows(
    connection: &mut PgConnection,
    sql: &'static str,
) -> Result<BTreeMap<String, Map<String, Value>>, sqlx::Error> {
    let rows: Vec<(String, Json<Map<String, Value>>)> = sqlx::query_as(AssertSqlSafe(sql))
        .fetch_all(connection)
        .await?;
    let without_id = |(id, Json(mut row)): (String, Json<Map<String, Value>>)| {
        row.remove("id");
        (id, row)
    };
    Ok(rows.into_iter().map(without_id).collect())
}

async fn effects(
    connection: &mut PgConnection,
    sql: &'static str,
) -> Result<BTreeMap<String, i64>, sqlx::Error> {
    let effects: Vec<(Option<String>, i64)> = sqlx::query_as(AssertSqlSafe(sql))
        .fetch_all(connection)
        .await?;
    Ok(effects
        .into_iter()
        .map(|(name, count)| (name.unwrap_or_default(), count))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn perfect(plan: &Plan) -> (BTreeMap<String, Map<String, Value>>, BTreeMap<String, i64>) {
        let histories = &plan.source.histories;
        let rows = histories
            .iter()
            .filter_map(|it| Some((it.id.clone(), it.end.clone()?)));
        let commits = histories.iter().flat_map(|it| &it.commits);
        (
            rows.collect(),
            commits.map(|it| (it.client_tx_id.clone(), 1)).collect(),
        )
    }

    #[test]
    fn what_is_as_planned_is_good_a_deleted_row_by_its_absence() {
        let plan = Plan::new().unwrap();
        let (rows, effects) = perfect(&plan);
        let mut verdict = Verdict::default();
        verdict.source = verdict.judge_rows(&plan.source, rows);
        verdict.managed = 1_461;
        verdict.judge_effects(&plan.source, effects);
        assert!(verdict.is_good(), "{}", verdict.differences());
        let line = "1461 managed + 3376 data source rows verified, 0 lost, 0 doubled";
        assert_eq!(verdict.to_string(), line);
    }

    #[test]
    fn a_lost_a_doubled_and_a_changed_row_are_each_found() {
        let plan = Plan::new().unwrap();
        let (mut rows, mut effects) = perfect(&plan);
        rows.remove("00M").unwrap();
        rows.get_mut("00R")
            .unwrap()
            .insert("latitude".to_owned(), "30.68586110".into());
        *effects.get_mut("demo:airports:00V:1").unwrap() = 2;
        let mut verdict = Verdict::default();
        assert_eq!(verdict.judge_rows(&plan.source, rows), 3_374);
        verdict.judge_effects(&plan.source, effects);
        assert!(!verdict.is_good());
        assert!(
            verdict.to_string().ends_with("1 lost, 1 doubled, 1 wrong"),
            "{verdict}"
        );
    }
}
