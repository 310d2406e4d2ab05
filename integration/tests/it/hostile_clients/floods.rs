//! More than anybody needs.

use std::collections::BTreeMap;

use tokio::io::AsyncWriteExt;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::Stage;
use super::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, Frame, GOAWAY, HEADERS,
    MAX_CONCURRENT_STREAMS, PING, REFUSED_STREAM, RST_STREAM, Reading, SETTINGS, WINDOW_UPDATE,
    call, fields, frame, hello, setting,
};

const COMMIT: &str = "/ablo.coordinator.v1.Coordinator/Commit";
const HEALTH: &str = "/grpc.health.v1.Health/Check";
const CANCEL: [u8; 4] = 8_u32.to_be_bytes();

/// Streams of a client, by number.
fn streams(count: u32) -> impl Iterator<Item = u32> {
    (0..count).map(|it| 2 * it + 1)
}

/// Writes until the server takes no more; how many of the parts it took.
async fn pour(writing: &mut OwnedWriteHalf, parts: impl Iterator<Item = Vec<u8>>) -> usize {
    let mut taken = 0;
    for part in parts {
        if writing.write_all(&part).await.is_err() {
            break;
        }
        taken += 1;
    }
    taken
}

/// Reads while somebody writes.
#[expect(clippy::disallowed_methods, reason = "ends with the connection")]
fn gathered(reading: Reading) -> JoinHandle<Vec<Frame>> {
    tokio::spawn(reading.all())
}

/// Errors that a server told, by kind of frame and code.
fn errors(frames: &[Frame]) -> BTreeMap<(u8, u32), usize> {
    let mut errors = BTreeMap::new();
    for frame in frames {
        if let Some(code) = frame.error() {
            *errors.entry((frame.kind, code)).or_default() += 1;
        }
    }
    errors
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_beyond_the_limit_are_refused() {
    let stage = Stage::set().await;
    let (mut reading, mut writing) = hello(stage.node.address(), &[]).await.unwrap();
    let limit = loop {
        let frame = reading.frame().await.expect("settings come first");
        if let Some(limit) = frame.setting(MAX_CONCURRENT_STREAMS) {
            break limit;
        }
    };
    assert_eq!(limit, 256);
    // Calls that never say what they want.
    let block = call(COMMIT, stage.tenant.key());
    let opened = streams(10_000).map(|it| frame(HEADERS, END_HEADERS, it, &block));
    let frames = gathered(reading);
    let opened = pour(&mut writing, opened).await;
    stage.served(50).await;
    drop(writing);
    let frames = frames.await.unwrap();
    let told = errors(&frames);
    let refused = told
        .get(&(RST_STREAM, REFUSED_STREAM))
        .copied()
        .unwrap_or(0);
    let calm = told.contains_key(&(GOAWAY, ENHANCE_YOUR_CALM));
    // Each is refused, or all of them at once.
    assert!(calm || refused == opened - 256, "{opened} opened: {told:?}");
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_are_taken_back_at_once_cost_nobody_else_anything() {
    let stage = Stage::set().await;
    for path in [COMMIT, HEALTH] {
        let (reading, mut writing) = hello(stage.node.address(), &[]).await.unwrap();
        let block = call(path, stage.tenant.key());
        let pairs = streams(100_000).map(|it| {
            let opened = frame(HEADERS, END_HEADERS, it, &block);
            [opened, frame(RST_STREAM, 0, it, &CANCEL)].concat()
        });
        let frames = gathered(reading);
        let taken = pour(&mut writing, pairs).await;
        stage.served(20).await;
        drop(writing);
        let told = errors(&frames.await.unwrap());
        let calm = told.contains_key(&(GOAWAY, ENHANCE_YOUR_CALM));
        assert!(calm || taken == 100_000, "{path}: {taken} taken: {told:?}");
    }
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_makes_the_server_take_calls_back_is_sent_away() {
    let stage = Stage::set().await;
    let (reading, mut writing) = hello(stage.node.address(), &[]).await.unwrap();
    // A window opened too far is an error of its stream, which the server takes back, while what was
    // begun for it goes on.
    let block = call(COMMIT, stage.tenant.key());
    let everything = 0x7fff_ffff_u32.to_be_bytes();
    let pairs = streams(100_000).map(|it| {
        let opened = frame(HEADERS, END_HEADERS, it, &block);
        [opened, frame(WINDOW_UPDATE, 0, it, &everything)].concat()
    });
    let frames = gathered(reading);
    let taken = pour(&mut writing, pairs).await;
    let told = errors(&frames.await.unwrap());
    assert!(
        told.contains_key(&(GOAWAY, ENHANCE_YOUR_CALM)),
        "{taken} taken: {told:?}"
    );
    assert!(taken < 100_000, "{told:?}");
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_and_pings_that_nobody_reads_the_answers_to_fill_no_memory() {
    let stage = Stage::set().await;
    let ping = frame(PING, 0, 0, &[7; 8]);
    let settings = setting(MAX_CONCURRENT_STREAMS, 100);
    let empty = frame(DATA, 0, 1, &[]);
    let opened = frame(HEADERS, END_HEADERS, 1, &call(COMMIT, stage.tenant.key()));
    for (first, flood) in [(&[][..], ping), (&[], settings), (&opened, empty)] {
        let (_unread, mut writing) = hello(stage.node.address(), first).await.unwrap();
        let some = flood.repeat(1_000);
        let flood = pour(&mut writing, (0..1_000).map(|_| some.clone()));
        // The server stops reading, sends it away, or bears it.
        tokio::select! {
            _ = flood => {}
            () = stage.served(100) => {}
        }
    }
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_that_do_not_end_end_the_connection() {
    let stage = Stage::set().await;
    let filler = fields(&[("x-filler", &"f".repeat(16_000))]);
    let many = fields(&[("x", "y")]);
    for part in [&filler[..], &many, &[]] {
        let (reading, mut writing) = hello(stage.node.address(), &[]).await.unwrap();
        let begun = frame(HEADERS, 0, 1, &call(COMMIT, stage.tenant.key()));
        let goes_on = frame(CONTINUATION, 0, 1, part);
        let parts = [begun]
            .into_iter()
            .chain(std::iter::repeat_n(goes_on, 100_000));
        let frames = gathered(reading);
        let taken = pour(&mut writing, parts).await;
        let frames = timeout(integration::app::PATIENCE, frames).await;
        let told = errors(&frames.expect("the server ends it").unwrap());
        assert!(taken < 100_000, "{} bytes each: {told:?}", part.len());
    }
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_that_nobody_may_send_end_their_own_connection_alone() {
    let stage = Stage::set().await;
    let block = call(HEALTH, stage.tenant.key());
    let cases: [(&str, Vec<u8>); 9] = [
        ("data before headers", frame(DATA, 0, 1, b"x")),
        (
            "headers on no stream",
            frame(HEADERS, END_HEADERS, 0, &block),
        ),
        (
            "headers on a stream of ours",
            frame(HEADERS, END_HEADERS, 2, &block),
        ),
        (
            "a window that overflows",
            frame(WINDOW_UPDATE, 0, 0, &0x7fff_ffff_u32.to_be_bytes()),
        ),
        ("settings of five bytes", frame(SETTINGS, 0, 0, &[0; 5])),
        ("a ping of seven", frame(PING, 0, 0, &[0; 7])),
        (
            "a continuation of nothing",
            frame(CONTINUATION, END_HEADERS, 1, &block),
        ),
        (
            "fields that are no HPACK",
            frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0xff; 64]),
        ),
        (
            "a frame beyond the limit",
            frame(DATA, 0, 1, &vec![0; 1 << 20]),
        ),
    ];
    for (case, bytes) in cases {
        let (reading, mut writing) = hello(stage.node.address(), &[]).await.unwrap();
        // It may be gone before all is written.
        drop(writing.write_all(&bytes).await);
        let frames = timeout(integration::app::PATIENCE, reading.all()).await;
        let frames = frames.unwrap_or_else(|_| panic!("{case} ends nothing"));
        let told = errors(&frames);
        assert!(
            told.keys().any(|(kind, _)| *kind == GOAWAY),
            "{case}: {told:?}"
        );
        drop(writing);
    }
    stage.end().await;
}
