//! What is sent, and what must be there in the end.

use std::fmt;

use proto::v1;
use serde_json::{Map, Number, Value, json};

use super::rows::{self, Row};

/// Both models.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) managed: Model,
    pub(super) source: Model,
}

/// One model's rows.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) name: &'static str,
    pub(super) histories: Vec<History>,
}

/// The life of one row.
#[derive(Debug)]
pub(super) struct History {
    pub(super) id: String,
    /// In the order in which they are sent; each has one operation.
    pub(super) commits: Vec<v1::CommitRequest>,
    /// How the row is in the end; absent when it was deleted.
    pub(super) end: Option<Map<String, Value>>,
    /// Each commit is sent twice at the same time.
    pub(super) twice: bool,
    /// Each commit is sent again when everything is settled.
    pub(super) again: bool,
}

impl Plan {
    pub(super) fn new() -> anyhow::Result<Self> {
        Ok(Self {
            managed: Model::new("weatherReports", "precipitation", rows::weather()?),
            source: Model::new("airports", "latitude", rows::airports()?),
        })
    }

    pub(super) fn histories(&self) -> impl Iterator<Item = &History> {
        self.managed.histories.iter().chain(&self.source.histories)
    }
}

impl Model {
    /// Some rows are updated in a number, some are deleted; some commits are sent more than once.
    fn new(name: &'static str, number: &str, rows: Vec<Row>) -> Self {
        let history = |(index, row): (usize, Row)| {
            let mut history = History {
                id: row.id,
                commits: Vec::new(),
                end: Some(row.fields.clone()),
                twice: index % 20 == 5,
                again: index % 50 == 10,
            };
            history.push(name, v1::OperationType::Create, Some(&row.fields));
            if index % 10 == 3 {
                let changed = longer(&row.fields[number]);
                let input = Map::from_iter([(number.to_owned(), changed.clone())]);
                history.push(name, v1::OperationType::Update, Some(&input));
                history.end.as_mut().expect("it was created").extend(input);
            }
            if index % 25 == 8 {
                history.push(name, v1::OperationType::Delete, None);
                history.end = None;
            }
            history
        };
        Self {
            name,
            histories: rows.into_iter().enumerate().map(history).collect(),
        }
    }

    pub(super) fn commit_count(&self) -> u64 {
        self.histories
            .iter()
            .map(|history| history.commits.len() as u64)
            .sum()
    }
}

impl History {
    fn push(&mut self, model: &str, kind: v1::OperationType, input: Option<&Map<String, Value>>) {
        let number = self.commits.len() + 1;
        self.commits.push(v1::CommitRequest {
            client_tx_id: format!("demo:{model}:{}:{number}", self.id),
            participant: Some(v1::Participant {
                id: "demo".to_owned(),
                kind: v1::ParticipantKind::System.into(),
            }),
            operations: vec![v1::Operation {
                r#type: kind.into(),
                model: model.to_owned(),
                id: self.id.clone(),
                input_json: input
                    .map(|input| json!(input).to_string())
                    .unwrap_or_default()
                    .into(),
                ..v1::Operation::default()
            }],
            wait: v1::Wait::Confirmed.into(),
            ..v1::CommitRequest::default()
        });
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = (self.managed.histories.len(), self.source.histories.len());
        let twice = self.histories().filter(|it| it.twice || it.again).count();
        let gone = self.histories().filter(|it| it.end.is_none()).count();
        write!(
            f,
            "{} managed and {} data source rows in {} commits; {gone} rows are deleted again, the \
             commits of {twice} are sent twice",
            rows.0,
            rows.1,
            self.managed.commit_count() + self.source.commit_count(),
        )
    }
}

/// The same number with one more digit: equal as a float, another as a decimal text.
fn longer(number: &Value) -> Value {
    let text = number.to_string();
    let text = if text.contains('.') {
        text + "0"
    } else {
        text + ".0"
    };
    Value::Number(
        text.parse::<Number>()
            .expect("one more digit leaves it a number"),
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_kind_of_history_occurs_and_every_commit_has_its_own_name() {
        let plan = Plan::new().unwrap();
        for model in [&plan.managed, &plan.source] {
            let lengths: BTreeSet<_> = model.histories.iter().map(|it| it.commits.len()).collect();
            assert_eq!(lengths, BTreeSet::from([1, 2, 3]));
            assert!(
                model
                    .histories
                    .iter()
                    .any(|it| it.end.is_none() && it.twice || it.again)
            );
        }
        let names = plan
            .histories()
            .flat_map(|it| &it.commits)
            .map(|it| &it.client_tx_id);
        let distinct: BTreeSet<_> = names.collect();
        let count = plan.managed.commit_count() + plan.source.commit_count();
        assert_eq!(distinct.len() as u64, count);
    }

    #[test]
    fn a_longer_number_is_the_same_number() {
        assert_eq!(longer(&json!(7)).to_string(), "7.0");
        assert_eq!(
            longer(&serde_json::from_str("31.20").unwrap()).to_string(),
            "31.200"
        );
    }
}
