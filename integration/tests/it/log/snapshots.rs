//! Snapshots: rows and the position they stand at, while others write.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use integration::app::follower::{from_oldest, from_snapshot};
use integration::app::{Follower, Tenant, TestApp, intent, reason};
use integration::endpoint::Endpoint;
use proto::v1;
use proto::v1::SubscribeRequest;
use proto::v1::subscribe_response::Frame;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::note;

/// Pairs of rows whose numbers come to nothing together.
const PAIRS: usize = 400;
/// Snapshots taken while others write.
const SNAPSHOTS: usize = 12;

/// What a customer would keep: rows by name.
#[derive(Debug, Default, PartialEq)]
struct Replica(BTreeMap<String, Value>);

impl Replica {
    fn put(&mut self, id: &str, row: &[u8]) {
        let row = serde_json::from_slice(row).unwrap();
        self.0.insert(id.to_owned(), row);
    }

    fn change(&mut self, change: &v1::Change) {
        if change.row_json.is_empty() {
            self.0.remove(&change.id);
        } else {
            self.put(&change.id, &change.row_json);
        }
    }

    fn total(&self) -> i64 {
        let numbers = self.0.values().map(|row| row["number"].as_i64().unwrap());
        numbers.sum()
    }
}

/// Moves ones between the rows of pairs of its own, both rows in one commit; now and then removes a
/// pair, or makes it anew. Returns how many commits it made.
async fn transfer(tenant: Tenant, writer: usize, enough: Arc<AtomicBool>) -> usize {
    let own: Vec<usize> = (0..PAIRS).filter(|pair| pair % 4 == writer).collect();
    let mut missing = None;
    let mut number = 0;
    while !enough.load(Ordering::Relaxed) {
        let pair = own[(number * 37) % own.len()];
        let (left, right) = (format!("{pair}-left"), format!("{pair}-right"));
        let amount = i64::try_from(number).unwrap();
        let numbers = [(left, amount), (right, -amount)];
        let operations = numbers.map(|(id, number)| match missing {
            Some(gone) if gone == pair => intent::create("notes", &id, &json!({"number": number})),
            None if number % 10 == 9 || number % 10 == -9 => intent::delete("notes", &id),
            _ => intent::update("notes", &id, &json!({"number": number})),
        });
        match missing {
            Some(gone) if gone == pair => missing = None,
            None if number % 10 == 9 => missing = Some(pair),
            _ => {}
        }
        let name = format!("w{writer}-{number}");
        tenant
            .confirm(intent::commit(&name, operations.to_vec()))
            .await;
        number += 1;
    }
    number
}

/// What a snapshot comes to, and where it is complete.
async fn snapshot(tenant: &Tenant) -> (Replica, i64) {
    let stream = tenant.log().subscribe(from_snapshot()).await;
    let mut stream = stream.unwrap().into_inner();
    let mut replica = Replica::default();
    loop {
        match stream.message().await.unwrap().unwrap().frame.unwrap() {
            Frame::SnapshotRow(row) => replica.put(&row.id, &row.row_json),
            Frame::Change(change) => replica.change(&change),
            Frame::SnapshotEnd(end) => return (replica, end.sync_id),
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_is_what_was_there_at_its_end_whoever_writes_meanwhile() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    for pairs in (0..PAIRS).collect::<Vec<_>>().chunks(200) {
        let rows = pairs.iter().flat_map(|pair| {
            ["left", "right"].map(|side| {
                intent::create("notes", &format!("{pair}-{side}"), &json!({"number": 0}))
            })
        });
        let name = format!("pairs-{}", pairs[0]);
        tenant.confirm(intent::commit(&name, rows.collect())).await;
    }
    let mut log = Follower::start(&tenant, from_oldest()).await.unwrap();
    let enough = Arc::new(AtomicBool::new(false));
    let mut writers = JoinSet::new();
    for writer in 0..4 {
        writers.spawn(transfer(
            tenant.connected_anew(),
            writer,
            Arc::clone(&enough),
        ));
    }
    let mut snapshots = Vec::new();
    for _ in 0..SNAPSHOTS {
        snapshots.push(snapshot(&tenant).await);
    }
    enough.store(true, Ordering::Relaxed);
    let commits: usize = writers.join_all().await.into_iter().sum();
    snapshots.push(snapshot(&tenant).await);
    // The log, replayed from its beginning, passes through each of them.
    let mut replayed = Replica::default();
    let mut position = 0;
    for (replica, end) in &snapshots {
        assert_eq!(replica.total(), 0, "half a commit at {end}");
        while position < *end {
            let change = log.change().await;
            position = change.sync_id;
            replayed.change(&change);
        }
        assert_eq!(&replayed, replica, "at {end}");
    }
    let differing = snapshots.windows(2).filter(|pair| pair[0].1 < pair[1].1);
    assert!(differing.count() > SNAPSHOTS / 2, "{commits} commits only");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_goes_on_as_a_stream_and_keeps_numbers_and_archived_rows() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    let mut create = note("a", "one");
    create.operations[0].input_json = br#"{"number":1.50}"#.to_vec().into();
    tenant.confirm(create).await;
    let archive = intent::archive("notes", "a");
    tenant
        .confirm(intent::commit("archive", vec![archive]))
        .await;
    // Its first frame is a heartbeat, as long as there is nothing to resume from.
    let mut follower = Follower::start(&tenant, from_snapshot()).await.unwrap();
    let row = follower.frame().await.unwrap();
    assert!(matches!(row, Frame::SnapshotRow(_)), "{row:?}");
    let Frame::SnapshotEnd(end) = follower.frame().await.unwrap() else {
        panic!("the snapshot has one row")
    };
    assert_eq!(end.sync_id, 2);
    tenant.confirm(note("b", "two")).await;
    assert_eq!(follower.change().await.sync_id, 3);
    let mut stream = tenant
        .log()
        .subscribe(from_snapshot())
        .await
        .unwrap()
        .into_inner();
    let row = loop {
        let frame = stream.message().await.unwrap().unwrap().frame.unwrap();
        if let Frame::SnapshotRow(row) = frame {
            break row;
        }
    };
    assert!(row.archived);
    assert_eq!(row.sync_id, 2);
    let text = String::from_utf8(row.row_json.to_vec()).unwrap();
    assert!(text.contains("1.50"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_of_a_data_source_is_refused_and_of_nothing_is_empty() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    let request = SubscribeRequest {
        models: vec!["airports".to_owned()],
        ..from_snapshot()
    };
    let refused = tenant.log().subscribe(request).await.unwrap_err();
    assert_eq!(reason(&refused), "snapshot_not_managed");
    let (replica, end) = snapshot(&tenant).await;
    assert_eq!((replica, end), (Replica::default(), 0));
}
