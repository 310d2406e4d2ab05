use std::path::Path;

use super::*;

fn options(folder: &Path) -> ClusterOptions {
    ClusterOptions {
        folder: folder.to_owned(),
        binaries: None,
        durability: Durability::Fast,
        settings: vec![("max_connections".to_owned(), "23".to_owned())],
    }
}

async fn text(cluster: &Cluster, database: &str, sql: &'static str) -> String {
    let url = cluster.url(database);
    let mut connection = PgConnection::connect(&url).await.unwrap();
    sqlx::query_scalar(sql)
        .fetch_one(&mut connection)
        .await
        .unwrap()
}

#[tokio::test]
async fn what_was_written_is_there_after_a_stop_and_a_start() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(options(folder.path())).await.unwrap();
    assert!(cluster.create_database("a \"b\"/c").await.unwrap());
    assert!(!cluster.create_database("a \"b\"/c").await.unwrap());
    assert_eq!(
        text(&cluster, "a \"b\"/c", "SHOW max_connections").await,
        "23"
    );
    assert!(cluster.copy_database("copy", "a \"b\"/c").await.unwrap());
    cluster.stop().await.unwrap();

    let again = Cluster::start(options(folder.path())).await.unwrap();
    assert_eq!(
        text(&again, "copy", "SELECT current_database()::text").await,
        "copy"
    );
    again.drop_database("copy").await.unwrap();
    again.drop_database("copy").await.unwrap();
}

#[tokio::test]
async fn a_folder_serves_one_process_at_a_time_and_is_free_after_a_drop() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(options(folder.path())).await.unwrap();
    let refusal = Cluster::start(options(folder.path())).await.unwrap_err();
    assert!(matches!(refusal, ClusterError::InUse { .. }), "{refusal}");
    let pid = cluster.pid();
    drop(cluster);
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
    assert!(!folder.path().join("socket").exists());
    Cluster::start(options(folder.path())).await.unwrap();
}

#[tokio::test]
async fn a_server_that_was_left_behind_is_stopped_at_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(options(folder.path())).await.unwrap();
    cluster.stop().await.unwrap();

    let account = Account::find().unwrap();
    let binaries = Binaries::find(None).unwrap().remove(0);
    let data = folder.path().join("data");
    let mut left = account
        .command(binaries.postgres(), folder.path(), false)
        .arg("-D")
        .arg(&data)
        .args([
            "-c",
            "listen_addresses=",
            "-c",
            "unix_socket_directories=../",
        ])
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let claim = data.join("postmaster.pid");
    while !std::fs::read_to_string(&claim).is_ok_and(|text| text.contains("ready")) {
        assert!(
            left.try_wait().unwrap().is_none(),
            "it ended before it was ready"
        );
        std::thread::yield_now();
    }
    let reaper = std::thread::spawn(move || left.wait().unwrap());

    let cluster = Cluster::start(options(folder.path())).await.unwrap();
    assert!(reaper.join().unwrap().success());
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn a_claim_by_a_process_that_is_no_server_is_cleared() {
    let folder = tempfile::tempdir().unwrap();
    Cluster::start(options(folder.path()))
        .await
        .unwrap()
        .stop()
        .await
        .unwrap();
    let claim = folder.path().join("data/postmaster.pid");
    std::fs::write(&claim, format!("{}\n", std::process::id())).unwrap();
    Cluster::start(options(folder.path())).await.unwrap();
}

#[tokio::test]
async fn a_server_that_dies_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(options(folder.path())).await.unwrap();
    let pid = nix::unistd::Pid::from_raw(cluster.pid());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGQUIT).unwrap();
    let ended = cluster.ended().await;
    assert_eq!(cluster.server.status(), Some(ended));
}

#[tokio::test]
async fn a_setting_that_postgres_refuses_is_quoted_from_its_log() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = options(folder.path());
    options
        .settings
        .push(("no_such_setting".to_owned(), "1".to_owned()));
    let refusal = Cluster::start(options).await.unwrap_err().to_string();
    assert!(refusal.contains("no_such_setting"), "{refusal}");
}

#[tokio::test]
async fn a_folder_with_a_long_path_has_its_socket_elsewhere() {
    let outer = tempfile::tempdir().unwrap();
    std::fs::set_permissions(
        outer.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    let cluster = Cluster::start(options(&outer.path().join("long-".repeat(30))))
        .await
        .unwrap();
    let socket = cluster.folder.socket().to_owned();
    assert!(socket.starts_with(std::env::temp_dir()));
    assert_eq!(text(&cluster, "postgres", "SELECT 'yes'").await, "yes");
    cluster.stop().await.unwrap();
    assert!(!socket.exists());
}
