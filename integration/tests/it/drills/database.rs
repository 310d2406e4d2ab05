//! A database in trouble.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::process::Command;

use coordinator::cluster::Cluster;
use integration::app::eventually;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sqlx::Connection;
use sqlx::postgres::PgConnection;
use tempfile::TempDir;
use tonic_health::pb::health_check_response::ServingStatus;

use super::{Drill, delivered, managed};

/// The server and each process that it has started.
fn processes(cluster: &Cluster) -> Vec<Pid> {
    let server = cluster.pid();
    let children = fs::read_to_string(format!("/proc/{server}/task/{server}/children")).unwrap();
    let children = children.split_whitespace().map(|pid| pid.parse().unwrap());
    [server]
        .into_iter()
        .chain(children)
        .map(Pid::from_raw)
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_freezes_is_told_of_in_time_and_gone_on_with_when_it_thaws() {
    let drill = Drill::start(&[]).await;
    drill.tenant.confirm(managed("before")).await;
    drill.tenant.confirm(delivered("before-too")).await;
    assert_eq!(drill.health().await, ServingStatus::Serving);
    // The server first, so that it starts no others.
    let frozen = processes(&drill.cluster);
    for process in &frozen {
        kill(*process, Signal::SIGSTOP).unwrap();
    }
    tokio::join!(
        drill.is_unavailable(),
        drill.says(ServingStatus::NotServing)
    );
    for process in &frozen {
        kill(*process, Signal::SIGCONT).unwrap();
    }
    drill.says(ServingStatus::Serving).await;
    drill.went_on(&["before", "before-too"]).await;
    drill.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_froze_for_good_and_was_replaced_is_gone_on_with() {
    let mut drill = Drill::start(&[]).await;
    drill.tenant.confirm(managed("before")).await;
    let frozen = processes(&drill.cluster);
    for process in &frozen {
        kill(*process, Signal::SIGSTOP).unwrap();
    }
    drill.says(ServingStatus::NotServing).await;
    for process in frozen {
        // Some follow the server by themselves.
        let _ended = kill(process, Signal::SIGKILL);
    }
    drill.cluster.ended().await;
    drop(drill.cluster);
    drill.cluster = Cluster::start(drill.options.clone()).await.unwrap();
    drill.says(ServingStatus::Serving).await;
    drill.went_on(&["before"]).await;
    drill.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_without_a_connection_to_spare_is_told_of_and_gone_on_with_when_it_has_some() {
    let drill = Drill::start(&[("max_connections", "30")]).await;
    drill.tenant.confirm(managed("before")).await;
    let options = drill.cluster.connect_options("ledger");
    let mut crowd = vec![PgConnection::connect_with(&options).await.unwrap()];
    // Whatever the node lets go of is taken at once.
    eventually("all connections", async || {
        let terminate = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                         WHERE application_name LIKE 'coordinator%'";
        sqlx::query(terminate).execute(&mut crowd[0]).await.unwrap();
        while let Ok(connection) = PgConnection::connect_with(&options).await {
            crowd.push(connection);
        }
        let others =
            "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'coordinator%'";
        let others: i64 = sqlx::query_scalar(others)
            .fetch_one(&mut crowd[0])
            .await
            .unwrap();
        (others == 0 && crowd.len() == 30).then_some(())
    })
    .await;
    tokio::join!(
        drill.is_unavailable(),
        drill.says(ServingStatus::NotServing)
    );
    for connection in crowd {
        connection.close().await.unwrap();
    }
    drill.says(ServingStatus::Serving).await;
    drill.went_on(&["before"]).await;
    drill.end().await;
}

/// A disk of its own, which is unmounted in the end.
struct Disk(TempDir);

impl Disk {
    /// None where nobody may mount one.
    fn mounted(mebibytes: u32) -> Option<Self> {
        let folder = integration::node::temporary_folder("coordinator-disk-").unwrap();
        let size = format!("size={mebibytes}m,mode=755");
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(folder.path())
            .output();
        mount.ok()?.status.success().then_some(Self(folder))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(self.path()).status();
        assert!(unmounted.unwrap().success());
    }
}

/// Writes until nothing more fits.
fn fill(path: &Path) {
    let mut file = File::create(path).unwrap();
    for size in [1 << 20, 4 << 10] {
        while file.write_all(&vec![0; size]).is_ok() {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_whose_disk_is_full_is_told_of_and_gone_on_with_when_there_is_room() {
    let Some(disk) = Disk::mounted(256) else {
        // Past the harness, which keeps to itself what a test prints that passes.
        let told = writeln!(
            io::stderr(),
            "NOT SHOWN: a full disk, since nobody may mount one here"
        );
        return told.unwrap();
    };
    let folder = tempfile::Builder::new()
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .tempdir_in(disk.path())
        .unwrap();
    let small = [("max_wal_size", "64MB"), ("wal_recycle", "off")];
    let mut drill = Drill::start_in(folder, &small).await;
    drill.tenant.confirm(managed("before")).await;
    let filler = disk.path().join("filler");
    fill(&filler);
    // There is room in what was set aside before; then there is none.
    let mut acknowledged = vec!["before".to_owned()];
    let refused = loop {
        let name = format!("filling-{}", acknowledged.len());
        let text = "t".repeat(500_000);
        let create =
            integration::app::intent::create("notes", &name, &serde_json::json!({"text": text}));
        match drill
            .tenant
            .commit(integration::app::intent::commit(&name, vec![create]))
            .await
        {
            Ok(_) => acknowledged.push(name),
            Err(status) => break status,
        }
    };
    assert_eq!(refused.code(), tonic::Code::Unavailable, "{refused:?}");
    fs::remove_file(filler).unwrap();
    // A server that could not even end in order has to be started again, by whoever looks after it.
    drop(drill.cluster);
    drill.cluster = Cluster::start(drill.options.clone()).await.unwrap();
    drill.says(ServingStatus::Serving).await;
    let acknowledged: Vec<&str> = acknowledged.iter().map(String::as_str).collect();
    drill.went_on(&acknowledged).await;
    drill.end().await;
}
