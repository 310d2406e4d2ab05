use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::{Effect, ManagedRow, Refusal, apply};
use crate::operation::{OnStale, Operation, OperationKind};

fn operation(kind: OperationKind, input: Value) -> Operation {
    let Value::Object(input) = input else {
        panic!("an input is an object")
    };
    Operation {
        kind,
        model: "tasks".to_owned(),
        id: "t1".to_owned(),
        input,
        transaction_id: None,
        read_at: None,
        on_stale: OnStale::Reject,
    }
}

fn row(fields: Value, archived: bool) -> ManagedRow {
    let Value::Object(row) = fields else {
        panic!("a row is an object")
    };
    ManagedRow {
        row: row.into(),
        archived,
    }
}

#[test]
fn a_created_row_carries_the_operations_id() {
    let create = operation(OperationKind::Create, json!({"id": "other", "title": "a"}));
    let effect = apply(None, &create).unwrap();
    assert_eq!(
        effect,
        Effect::Put(row(json!({"id": "t1", "title": "a"}), false))
    );
}

#[test]
fn a_row_exists_even_when_it_is_archived() {
    let archived = row(json!({"id": "t1"}), true);
    let create = operation(OperationKind::Create, json!({}));
    assert_eq!(apply(Some(&archived), &create), Err(Refusal::Exists));
}

#[test]
fn an_update_merges_one_level_deep() {
    let current = row(json!({"id": "t1", "a": {"x": 1, "y": 2}, "b": 1}), true);
    let update = operation(OperationKind::Update, json!({"a": {"x": 3}, "c": null}));
    let merged = row(json!({"id": "t1", "a": {"x": 3}, "b": 1, "c": null}), true);
    assert_eq!(apply(Some(&current), &update), Ok(Effect::Put(merged)));
}

#[test]
fn an_update_without_fields_changes_nothing() {
    let current = row(json!({"id": "t1", "a": 1}), false);
    for input in [json!({}), json!({"id": "t2"})] {
        let update = operation(OperationKind::Update, input);
        assert_eq!(apply(Some(&current), &update), Ok(Effect::Unchanged));
        assert_eq!(apply(None, &update), Err(Refusal::NotFound));
    }
}

/// The naive model: whether the row is there, its fields, and whether it is archived.
#[derive(Clone, Debug, Default, PartialEq)]
struct Naive {
    there: bool,
    archived: bool,
    fields: BTreeMap<String, i64>,
}

impl Naive {
    fn apply(&mut self, kind: OperationKind, fields: &BTreeMap<String, i64>) -> bool {
        use OperationKind::{Archive, Create, Delete, Unarchive, Update};
        if kind != Delete && (kind == Create) == self.there {
            return false;
        }
        match kind {
            Create => {
                *self = Self {
                    there: true,
                    archived: false,
                    fields: fields.clone(),
                }
            }
            Update => self.fields.extend(fields.clone()),
            Delete => *self = Self::default(),
            Archive => self.archived = true,
            Unarchive => self.archived = false,
        }
        true
    }

    fn row(&self) -> Option<ManagedRow> {
        let id = ("id".to_owned(), json!("t1"));
        let fields = self
            .fields
            .iter()
            .map(|(key, value)| (key.clone(), json!(value)));
        self.there.then(|| ManagedRow {
            row: fields.chain([id]).collect::<Map<_, _>>().into(),
            archived: self.archived,
        })
    }
}

fn any_step() -> impl Strategy<Value = (OperationKind, BTreeMap<String, i64>)> {
    let kind = prop::sample::select(OperationKind::ALL.to_vec());
    (kind, prop::collection::btree_map("[a-c]", 0_i64..3, 0..3))
}

proptest! {
    #[test]
    fn any_sequence_ends_where_the_naive_model_ends(
        steps in prop::collection::vec(any_step(), 0..20),
    ) {
        let mut naive = Naive::default();
        let mut current: Option<ManagedRow> = None;
        for (kind, fields) in steps {
            let before = current.clone();
            let has_input = matches!(kind, OperationKind::Create | OperationKind::Update);
            let input = if has_input { json!(fields) } else { json!({}) };
            let effect = apply(current.as_ref(), &operation(kind, input));
            prop_assert_eq!(effect.is_ok(), naive.apply(kind, &fields));
            match effect {
                Ok(Effect::Put(row)) => current = Some(row),
                Ok(Effect::Remove) => current = None,
                Ok(Effect::Unchanged) => prop_assert_eq!(&before, &naive.row()),
                Err(_) => {}
            }
            prop_assert_eq!(&current, &naive.row());
        }
    }
}
