//! A database for one test, migrated, with one organization `acme`.

use sqlx::Executor;

use super::Store;
use crate::cluster::{Cluster, ClusterOptions, Durability};
use crate::domain::OrganizationId;

/// A cluster of its own, gone when it is dropped.
#[derive(Debug)]
pub(crate) struct Scratch {
    pub(crate) store: Store,
    _cluster: Cluster,
    _folder: tempfile::TempDir,
}

impl Scratch {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = ClusterOptions {
            folder: folder.path().to_owned(),
            binaries: None,
            durability: Durability::Fast,
            settings: Vec::new(),
        };
        let cluster = Cluster::start(options).await.unwrap();
        crate::migrate::migrate(&cluster.connect_options("postgres"))
            .await
            .unwrap();
        let store = Store::open(cluster.connect_options("postgres"), 4, 4);
        let scratch = Self {
            store,
            _cluster: cluster,
            _folder: folder,
        };
        scratch
            .run(
                "INSERT INTO organizations (org_id, display_name, mode)
                 VALUES ('acme', 'Acme', 'test');
                 INSERT INTO heads (org_id, last_sync_id) VALUES ('acme', 41)",
            )
            .await;
        scratch
    }

    /// Runs statements without values.
    pub(crate) async fn run(&self, sql: &'static str) {
        self.store.reads.execute(sqlx::raw_sql(sql)).await.unwrap();
    }
}

/// The organization that every scratch database has.
pub(crate) fn acme() -> OrganizationId {
    OrganizationId::new("acme")
}
