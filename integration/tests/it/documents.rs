//! What the documents name is there, and what rooms keep to themselves stays in them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    let integration = Path::new(env!("CARGO_MANIFEST_DIR"));
    integration.parent().unwrap().to_owned()
}

fn document(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap()
}

/// Every Rust file of ours, with its text.
fn sources() -> Vec<(PathBuf, String)> {
    let mut folders: Vec<_> = ["backends", "coordinator", "integration", "proto"]
        .map(|name| root().join(name))
        .into();
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("node_modules") {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                sources.push((path.strip_prefix(root()).unwrap().to_owned(), text));
            }
        }
    }
    sources
}

/// What a document puts between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .flat_map(|line| line.split('`').skip(1).step_by(2))
}

#[test]
fn every_path_that_the_documents_name_exists() {
    let places = ["", "coordinator/src", "coordinator/src/store"];
    for name in ["README.md", "ARCHITECTURE.md"] {
        let text = document(name);
        let paths = quoted(&text).filter(|one| {
            let path = !one.contains([' ', ':', '$', '<', '{']) && !one.starts_with(['-', '/']);
            path && (one.contains('/') || Path::new(one).extension().is_some_and(|it| it == "rs"))
        });
        for path in paths {
            let there = places
                .iter()
                .any(|place| root().join(place).join(path).exists());
            let made = ["~/.coordinator", "dataSources/{id}"].contains(&path);
            assert!(there || made, "{name} names {path}, which is not there");
        }
    }
}

/// A test's name, with the module before it if that is said: `module::a_sentence_of_many_words`.
fn test_name(quoted: &str) -> Option<(Option<&str>, &str)> {
    let (module, sentence) = match quoted.split_once("::") {
        Some((module, sentence)) => (Some(module), sentence),
        None => (None, quoted),
    };
    let words = |it: &str| it.bytes().all(|it| it.is_ascii_lowercase() || it == b'_');
    let is_test = sentence.matches('_').count() >= 4 && words(sentence);
    is_test.then_some((module, sentence))
}

/// Whether a module's tests stand in this file: in its own, or in `tests.rs` beneath it.
fn is_module(path: &Path, module: &str) -> bool {
    let named = |path: &Path| path.file_stem().is_some_and(|stem| stem == module);
    named(path) || path.ends_with("tests.rs") && path.parent().is_some_and(named)
}

#[test]
fn every_test_that_the_architecture_names_exists() {
    let text = document("ARCHITECTURE.md");
    let sources = sources();
    let named: Vec<_> = quoted(&text).filter_map(test_name).collect();
    for (module, sentence) in &named {
        let function = format!("fn {sentence}(");
        let there = sources.iter().any(|(path, text)| {
            text.contains(&function) && module.is_none_or(|module| is_module(path, module))
        });
        assert!(there, "there is no test {module:?} {sentence}");
    }
    let named = named.len();
    assert!(named > 15, "the promises name their tests");
}

/// Files of the service that contain a text, tests left out.
fn files_with(text: &str) -> BTreeSet<String> {
    let ours = sources().into_iter().filter(|(path, source)| {
        let path = path.to_string_lossy();
        path.starts_with("coordinator/src")
            && !path.ends_with("tests.rs")
            && !path.contains("/tests/")
            && !path.ends_with("scratch.rs")
            && source
                .split("#[cfg(test)]\nmod tests")
                .next()
                .unwrap()
                .contains(text)
    });
    ours.map(|(path, _)| path.to_string_lossy().into_owned())
        .collect()
}

#[test]
fn rooms_keep_to_themselves_what_they_alone_own() {
    let only = |text: &str, rooms: &[&str]| {
        for file in files_with(text) {
            let inside = rooms
                .iter()
                .any(|room| file.starts_with(&format!("coordinator/src/{room}")));
            assert!(inside, "{file} uses {text}");
        }
    };
    only("sqlx::query", &["store", "migrate", "cluster"]);
    only("Status::with_error_details", &["api/status.rs"]);
    only("Status::new(", &["api/status.rs"]);
    only("use backoff", &["flush/pace.rs"]);
    only("std::env::var", &["config", "cluster", "broken.rs"]);
    assert!(
        files_with("use reqwest").is_empty(),
        "requests leave through backends"
    );
}
