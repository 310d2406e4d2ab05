//! Settings in, config or every mistake out.

use std::fmt::Write;
use std::path::Path;

use clap::{Args, Command, FromArgMatches};

use super::*;

const TOKEN: &str = "an-operator-token-of-36-characters--";
const KEYS: &str = "k1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

fn settings(flags: &[&str]) -> Settings {
    // Flags win over whatever the environment of the test run holds.
    let sound = [
        "serve",
        "--database-url=postgres://me:hunter2@db.example/c?sslmode=verify-full",
        "--listen=[::1]:0",
    ];
    let tokens = [
        format!("--operator-token={TOKEN}"),
        format!("--master-keys={KEYS}"),
    ];
    let arguments = sound
        .iter()
        .copied()
        .chain(tokens.iter().map(String::as_str));
    let matches = command()
        .args_override_self(true)
        .get_matches_from(arguments.chain(flags.iter().copied()));
    Settings::from_arg_matches(&matches).unwrap()
}

fn command() -> Command {
    Settings::augment_args(Command::new("serve"))
}

fn mistakes(flags: &[&str]) -> Vec<String> {
    Config::read(&settings(flags)).unwrap_err().0
}

#[test]
fn what_is_not_said_has_its_default() {
    let config = Config::read(&settings(&[])).unwrap();
    assert_eq!(config.listener.address, "[::1]:0".parse().unwrap());
    assert_eq!(config.times.wait_cap, Duration::from_secs(30));
    assert_eq!(config.times.node_lease, Duration::from_secs(3));
    assert_eq!(config.egress.allowed_ports, [443]);
    assert!(config.egress.allowed_subnets.is_empty());
    assert_eq!(config.telemetry.format, LogFormat::Text);
    assert!(config.warnings().is_empty());
}

#[test]
fn every_mistake_is_reported_at_once() {
    let found = mistakes(&[
        "--database-url=",
        "--listen=here",
        "--operator-token=short",
        "--master-keys=k1:AAAA",
        "--ledger-connections=0",
        "--wait-cap=30",
        "--allow-subnet=10.0.0.0/40",
        "--allow-port=0",
        "--tls-key=/nowhere.pem",
        "--delta-retention-days=x",
        "--log-format=xml",
        "--log-filter=a=b=c",
        "--otlp-endpoint=collector:4317",
    ]);
    let settings: Vec<_> = found
        .iter()
        .map(|one| one.split(['(', ':']).next().unwrap())
        .collect();
    assert_eq!(
        settings,
        [
            "--database-url ",
            "--ledger-connections ",
            "--listen ",
            "--tls-key ",
            "--operator-token ",
            "--master-keys ",
            "--wait-cap ",
            "--allow-subnet ",
            "--allow-port ",
            "--delta-retention-days ",
            "--log-format ",
            "--log-filter ",
            "--otlp-endpoint ",
        ]
    );
    assert_eq!(found[0], "--database-url (DATABASE_URL): is required");
}

#[test]
fn no_secret_is_ever_shown() {
    let config = Config::read(&settings(&[])).unwrap();
    let broken = mistakes(&[
        "--database-url=hunter2",
        "--operator-token=hunter2",
        "--master-keys=hunter2",
    ]);
    for text in [
        format!("{config:?}"),
        format!("{:?}", settings(&[])),
        broken.join(" "),
        command().render_long_help().to_string(),
    ] {
        assert!(
            !text.contains("hunter2") && !text.contains(TOKEN) && !text.contains("AAAA"),
            "{text}"
        );
    }
}

#[test]
fn a_secret_comes_from_its_file_or_itself_but_not_from_both() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys");
    std::fs::write(&path, format!("{KEYS}\nold:{}\n", &KEYS[3..])).unwrap();
    let file = format!("--master-keys-file={}", path.display());
    let config = Config::read(&settings(&["--master-keys=", &file])).unwrap();
    assert_eq!(
        config.credentials.master_keys.expose(),
        format!("{KEYS}\nold:{}", &KEYS[3..])
    );
    assert!(mistakes(&[&file])[0].contains("not both"));
    assert!(mistakes(&["--operator-token="])[0].contains("or --operator-token-file is required"));
    assert!(
        mistakes(&["--operator-token=", "--operator-token-file=/nowhere"])[0].contains("/nowhere")
    );
}

#[test]
fn master_keys_are_checked_one_by_one() {
    for (keys, rule) in [
        ("k1", "master key 1"),
        (":AAAA", "master key 1"),
        ("k1:AAAA", "k1"),
        (&format!("{KEYS},{KEYS}"), "k1"),
    ] {
        let found = mistakes(&[&format!("--master-keys={keys}")]);
        assert!(found[0].contains(rule), "{found:?}");
    }
}

#[test]
fn relations_between_settings_hold() {
    for (flags, rule) in [
        (&["--node-lease=9s"][..], "at most 8 s"),
        (&["--node-renewal=1300ms"], "must fit in --node-lease"),
        (
            &["--listen=127.0.0.1:7654", "--admin-listen=127.0.0.1:7654"],
            "must differ",
        ),
        (&["--tls-certificate=/dev/null"], "not a PEM file"),
        (&["--wait-cap=0s"], "must not be zero"),
    ] {
        let found = mistakes(flags);
        assert!(found[0].contains(rule), "{found:?}");
    }
}

#[test]
fn what_should_be_known_is_a_warning() {
    let flags = [
        "--listen=0.0.0.0:7654",
        "--allow-subnet=127.0.0.0/8,::1/128",
        "--database-url=postgres://me:hunter2@db.example/c",
    ];
    let warnings = Config::read(&settings(&flags)).unwrap().warnings();
    assert_eq!(warnings.len(), 3, "{warnings:?}");
    assert!(warnings[0].contains("127.0.0.0/8, ::1/128"), "{warnings:?}");
    assert!(warnings[1].contains("db.example is reached without sslmode=verify-full"));
    assert!(warnings[2].contains("without TLS"));
    let local = ["--database-url=postgres://127.0.0.1/c"];
    assert!(
        Config::read(&settings(&local))
            .unwrap()
            .warnings()
            .is_empty()
    );
}

/// The README's table, made from the settings themselves.
fn table() -> String {
    let mut table = "| flag | variable | default | meaning |\n|---|---|---|---|\n".to_owned();
    for argument in command().get_arguments() {
        let flag = argument.get_long().unwrap();
        let variable = argument.get_env().unwrap().to_str().unwrap();
        let default = argument.get_default_values().first();
        let default = default.map_or(String::new(), |text| format!("`{}`", text.display()));
        let meaning = argument.get_help().unwrap();
        writeln!(
            table,
            "| `--{flag}` | `{variable}` | {default} | {meaning}. |"
        )
        .unwrap();
    }
    table
}

#[test]
fn the_readme_has_every_setting() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = std::fs::read_to_string(path).unwrap();
    assert!(
        readme.contains(&table()),
        "README.md should have this table:\n{}",
        table()
    );
}
