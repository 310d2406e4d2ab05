//! The short run: the corpus, and some thousands of mutations of it under a seed.

use std::fs;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use super::{TARGETS, Target};

const MUTATIONS: u32 = 3_000;
const SEED: u64 = 20_261_122;

/// What is likely to matter somewhere.
const WORDS: [&[u8]; 22] = [
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b":",
    b",",
    b"null",
    b"1e400",
    b"-0",
    b"\\u0000",
    b"\\ud800",
    b"\"id\"",
    b"\"rows\"",
    b"\"deltas\"",
    b"\xff",
    b"\0",
    b"@",
    b"%31",
    b"[::ffff:",
    b"$ref",
    b"99999999999999999999",
];

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../fuzz/corpus")
        .join(target);
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|it| it.unwrap().path())
        .collect();
    files.sort();
    files.iter().map(|it| fs::read(it).unwrap()).collect()
}

/// A few changes to one of the corpus.
fn mutated(corpus: &[Vec<u8>], random: &mut StdRng) -> Vec<u8> {
    let mut data = corpus.choose(random).unwrap().clone();
    for _ in 0..random.random_range(1..6) {
        let at = random.random_range(0..=data.len());
        let until = random.random_range(at..=data.len().min(at + 16));
        match random.random_range(0..6) {
            0 if at < data.len() => data[at] ^= 1 << random.random_range(0..8),
            1 => drop(data.drain(at..until)),
            2 => drop(data.splice(at..at, WORDS.choose(random).unwrap().iter().copied())),
            3 => {
                let again = data[at..until].repeat(random.random_range(1..40));
                drop(data.splice(at..at, again));
            }
            4 => {
                let other = corpus.choose(random).unwrap();
                let from = random.random_range(0..=other.len());
                data.truncate(at);
                data.extend(&other[from..]);
            }
            _ => data.insert(at, random.random()),
        }
    }
    data
}

fn run((name, body): Target) {
    let corpus = corpus(name);
    assert!(corpus.len() >= 3, "{name} has a corpus");
    // Not by a macro whose output the test harness keeps to itself.
    drop(writeln!(io::stderr(), "fuzz: {name}, seed {SEED}"));
    let mut random = StdRng::seed_from_u64(SEED);
    let mutations = (0..MUTATIONS).map(|_| mutated(&corpus, &mut random));
    for data in corpus.iter().cloned().chain(mutations.collect::<Vec<_>>()) {
        let outcome = catch_unwind(AssertUnwindSafe(|| body(&data)));
        assert!(
            outcome.is_ok(),
            "{name} breaks on {:?}",
            data.escape_ascii().to_string()
        );
    }
}

#[test]
fn no_answer_of_an_endpoint_breaks_its_reader() {
    run(TARGETS[0]);
}

#[test]
fn no_page_of_events_breaks_its_reader() {
    run(TARGETS[1]);
}

#[test]
fn no_retry_after_breaks_its_reader() {
    run(TARGETS[2]);
}

#[test]
fn no_endpoints_url_gets_past_the_guard() {
    run(TARGETS[3]);
}

#[test]
fn no_cursor_is_taken_but_ours() {
    run(TARGETS[4]);
}

#[test]
fn no_schema_is_accepted_whose_own_text_is_not() {
    run(TARGETS[5]);
}

#[test]
fn every_target_is_one_of_the_fuzzers() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
    let manifest = fs::read_to_string(fuzz.join("Cargo.toml")).unwrap();
    assert_eq!(manifest.matches("[[bin]]").count(), TARGETS.len());
    for (name, _) in TARGETS {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
        assert!(
            fuzz.join(format!("fuzz_targets/{name}.rs")).is_file(),
            "{name}"
        );
    }
}
