//! The same from the command line, as a person works.

use std::os::unix::process::CommandExt;
use std::process::Command;

use integration::process::Role;

use super::*;

/// Runs `coordinator source …` at the desk's node; what it printed.
async fn run(app: &TestApp, desk: &Desk, arguments: &[&str]) -> String {
    let mut command = Command::new(EXECUTABLE);
    command
        .arg0(Role::Coordinator.name())
        .arg("source")
        .args(arguments)
        .args(["--server", &app.address(), "--key", desk.0.key()])
        .args(["--actor", ACTOR]);
    let ran = tokio::task::spawn_blocking(move || command.output());
    let output = ran.await.unwrap().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_source_is_mended_from_the_command_line() {
    let app = TestApp::start().await;
    let (desk, endpoint) = desk(&app).await;
    for name in ["a", "b", "c", "d"] {
        desk.dead(&endpoint, update(name, "1")).await;
    }
    let listed = run(&app, &desk, &["pending", "crm", "--dead"]).await;
    assert_eq!(listed.lines().count(), 5, "{listed}");
    assert!(listed.contains("still_running"), "{listed}");
    assert_eq!(
        run(&app, &desk, &["pending", "crm", "--waiting"]).await,
        "none\n"
    );
    let retried = run(&app, &desk, &["retry", "crm", "a"]).await;
    assert!(retried.contains("at the end"), "{retried}");
    desk.settled("a").await;
    let row = r#"{"id":"1","text":"by hand"}"#;
    let resolve = ["resolve", "crm", "b", "--applied", row, "--json"];
    let receipt: Value = serde_json::from_str(&run(&app, &desk, &resolve).await).unwrap();
    assert_eq!(receipt["changes"][0]["row"]["text"], "by hand");
    run(
        &app,
        &desk,
        &["resolve", "crm", "c", "--rejected", "--code", "sold_out"],
    )
    .await;
    let recovered = run(&app, &desk, &["recover", "crm", "--since", "1h"]).await;
    assert_eq!(recovered, "recovered  1\n");
    desk.settled("d").await;
    let paused = run(&app, &desk, &["pause", "crm", "--reason", "upgrade"]).await;
    assert!(paused.contains("paused"), "{paused}");
    desk.0.commit(update("e", "1")).await.unwrap();
    run(&app, &desk, &["discard", "crm", "e", "--reason", "not now"]).await;
    run(&app, &desk, &["resume", "crm"]).await;
    let actions = run(&app, &desk, &["actions", "crm", "--json"]).await;
    let verbs: Vec<_> = actions
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|action| action["actor"] == ACTOR)
        .map(|action| action["verb"].as_str().unwrap().to_owned())
        .collect();
    let wanted = [
        "resume", "discard", "pause", "recover", "resolve", "resolve", "retry",
    ];
    assert_eq!(verbs, wanted);
}
