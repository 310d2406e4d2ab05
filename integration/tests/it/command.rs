//! The command line, as a person calls it.

use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};

use integration::process::Role;

pub(crate) const EXECUTABLE: &str = env!("CARGO_BIN_EXE_demo");

/// `coordinator`, with these arguments, not started yet.
pub(crate) fn coordinator(arguments: &[&str]) -> Command {
    let mut command = Command::new(EXECUTABLE);
    command
        .arg0(Role::Coordinator.name())
        .args(arguments)
        .stdin(Stdio::null());
    command
}

/// What `coordinator` with these arguments comes to.
pub(crate) async fn run(arguments: &[&str]) -> Output {
    let mut command = coordinator(arguments);
    let ended = tokio::task::spawn_blocking(move || command.output()).await;
    ended.unwrap().unwrap()
}

/// What it said, on both ways, and its exit code.
pub(crate) fn told(output: &Output) -> (i32, String) {
    let text = [&output.stdout[..], &output.stderr].concat();
    let code = output.status.code().expect("it ends by itself");
    (code, String::from_utf8(text).unwrap())
}
