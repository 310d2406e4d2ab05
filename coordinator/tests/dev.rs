//! The embedded default, as a person meets it: the real binary, started, asked, stopped, started
//! again.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// `coordinator dev`, running.
struct Dev {
    process: Child,
    ready: Value,
}

impl Dev {
    /// Starts it and waits for its line.
    fn start(data_dir: &Path) -> Self {
        let mut process = coordinator()
            .args(["dev", "--json", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(data_dir)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let ready = serde_json::from_str(&line).unwrap();
        Self { process, ready }
    }

    fn field(&self, name: &str) -> &str {
        self.ready[name].as_str().unwrap()
    }

    /// Asks it with its own key and token.
    fn ask(&self, arguments: &[&str]) -> Output {
        coordinator()
            .args(arguments)
            .env("COORDINATOR_SERVER", self.field("listen"))
            .env("COORDINATOR_KEY", self.field("key"))
            .env("COORDINATOR_OPERATOR_TOKEN", self.field("operator_token"))
            .output()
            .unwrap()
    }

    /// What it answers, which must be a success.
    fn answer(&self, arguments: &[&str]) -> String {
        let output = self.ask(arguments);
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {complaint}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// SIGTERM, and the exit code.
    fn stop(mut self) -> Option<i32> {
        kill(
            Pid::from_raw(self.process.id().try_into().unwrap()),
            Signal::SIGTERM,
        )
        .unwrap();
        self.process.wait().unwrap().code()
    }
}

/// A failed test leaves nothing running in a folder that is about to go.
impl Drop for Dev {
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            self.process.kill().unwrap();
            self.process.wait().unwrap();
        }
    }
}

/// The binary, without what the environment of the test run may say.
fn coordinator() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_coordinator"));
    for setting in [
        "DATABASE_URL",
        "COORDINATOR_OPERATOR_TOKEN",
        "COORDINATOR_MASTER_KEYS",
    ] {
        command.env_remove(setting);
    }
    command
}

#[test]
fn a_row_that_was_written_is_there_after_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    // Postgres may run as another account, which must be able to pass through.
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let data_dir = folder.path().join("data");

    let dev = Dev::start(&data_dir);
    assert_eq!(dev.field("organization"), "dev");
    assert!(dev.field("key").starts_with("sk_test_"));
    assert_eq!(dev.ready["pid"], dev.process.id());
    assert!(dev.answer(&["org", "list"]).contains("Development"));
    let schema = folder.path().join("schema.json");
    let document = r#"{"models":{"notes":{"backing":"managed","schema":
        {"type":"object","properties":{"n":{"type":"number"}}}}}}"#;
    std::fs::write(&schema, document).unwrap();
    dev.answer(&["schema", "push", schema.to_str().unwrap()]);
    let commit = [
        "commit",
        "--create",
        "notes",
        "--row",
        "n1",
        "--input",
        r#"{"n":1.10}"#,
        "--id",
        "t1",
    ];
    assert!(dev.answer(&commit).contains("confirmed"));
    assert!(
        dev.answer(&commit).contains("confirmed"),
        "once, however often it is sent"
    );
    let key = dev.field("key").to_owned();
    assert_eq!(dev.stop(), Some(0));

    let dev = Dev::start(&data_dir);
    assert_eq!(dev.field("key"), key);
    assert!(dev.answer(&["load", "notes", "n1"]).contains("1.10"));
    let again = dev.ask(&["commit", "--create", "notes", "--row", "n1"]);
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains("entity_exists"));
    assert_eq!(dev.stop(), Some(0));
}

#[test]
fn mistakes_in_the_settings_are_listed_and_end_with_64() {
    let output = coordinator()
        .args(["serve", "--wait-cap", "soon"])
        .output()
        .unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64));
    for setting in [
        "DATABASE_URL",
        "COORDINATOR_OPERATOR_TOKEN",
        "COORDINATOR_WAIT_CAP",
    ] {
        assert!(complaint.contains(setting), "{complaint}");
    }
}

#[test]
fn a_database_that_is_not_there_ends_with_69() {
    let url = "postgres://127.0.0.1:1/nothing";
    let output = coordinator()
        .args(["migrate", "--database-url", url])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(69));
}
