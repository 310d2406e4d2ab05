//! The example of a customer's app, as a process.

use std::ffi::OsStr;
use std::path::Path;

use integration::postgres::TestDatabase;
use integration::process::{Launch, Process, Role};

fn launch(listen: &str, database_url: &str, log: &Path) -> Process {
    let arguments = ["--listen", listen, "--database-url", database_url];
    Process::start(&Launch {
        executable: env!("CARGO_BIN_EXE_demo").into(),
        role: Role::CustomerApp,
        arguments: &arguments.map(OsStr::new),
        environment: &[("ABLO_API_KEY", "sk_test_demo_key")],
        log,
    })
    .unwrap()
}

#[tokio::test]
async fn the_app_comes_back_on_its_port_after_a_kill_and_stops_when_asked() {
    let database = TestDatabase::empty().await;
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut app = launch("127.0.0.1:0", &database.url(), log.path());
    let address = app.ready("listen").unwrap().to_owned();
    assert!(!app.kill().unwrap().success());
    let again = launch(&address, &database.url(), log.path());
    assert_eq!(again.ready("listen").unwrap(), address);
    again.stop().unwrap();
}
