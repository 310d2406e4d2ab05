//! What operators live through: a database that freezes, is full, or takes no more connections, one
//! that is ahead of its programs, one that was restored. Nothing that was acknowledged is lost, calls
//! are told in time, and all goes on without help.

mod database;
mod versions;

use coordinator::cluster::{Cluster, ClusterOptions, Durability};
use integration::app::{Flags, Tenant, TestApp, eventually, intent};
use integration::endpoint::Endpoint;
use integration::node::temporary_folder;
use proto::v1;
use serde_json::json;
use tempfile::TempDir;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

/// A cluster of its own, so that it can be maltreated, and a node over it.
struct Drill {
    app: TestApp,
    tenant: Tenant,
    endpoint: Endpoint,
    cluster: Cluster,
    options: ClusterOptions,
    _folder: TempDir,
}

impl Drill {
    async fn start(settings: &[(&str, &str)]) -> Self {
        Self::start_in(temporary_folder("coordinator-drill-").unwrap(), settings).await
    }

    async fn start_in(folder: TempDir, settings: &[(&str, &str)]) -> Self {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let options = ClusterOptions {
            folder: folder.path().join("postgres"),
            binaries: None,
            durability: Durability::Kept,
            settings: settings.iter().map(owned).collect(),
        };
        let cluster = Cluster::start(options.clone()).await.unwrap();
        cluster.create_database("ledger").await.unwrap();
        let connect = cluster.connect_options("ledger");
        coordinator::migrate::migrate(&connect).await.unwrap();
        let mut app = TestApp::over(cluster.url("ledger"), connect, Flags::default());
        app.add_node().await;
        let endpoint = Endpoint::start("").await.unwrap();
        let tenant = app.tenant(&endpoint).await;
        Self {
            app,
            tenant,
            endpoint,
            cluster,
            options,
            _folder: folder,
        }
    }

    async fn health(&self) -> ServingStatus {
        health(self.tenant.address()).await
    }

    /// Waits until health says so.
    async fn says(&self, status: ServingStatus) {
        eventually("health to say so", async || {
            (self.health().await == status).then_some(())
        })
        .await;
    }

    /// Whatever is asked is answered, with UNAVAILABLE and the time to return.
    async fn is_unavailable(&self) {
        let tenant = &self.tenant;
        let (managed, delivered, loaded, listed, receipt) = tokio::join!(
            tenant.commit(managed("meanwhile")),
            tenant.commit(delivered("meanwhile-too")),
            tenant.load("notes", "before"),
            tenant.list("notes"),
            tenant.receipt("before"),
        );
        let answers = [
            managed.map(drop),
            delivered.map(drop),
            loaded.map(drop),
            listed.map(drop),
            receipt.map(drop),
        ];
        for answer in answers {
            let status = answer.expect_err("there is no database");
            let told = (status.code(), integration::app::reason(&status));
            let away = (tonic::Code::Unavailable, "store_unavailable".to_owned());
            let full = (tonic::Code::ResourceExhausted, "overloaded".to_owned());
            assert!(told == away || told == full, "{status:?}");
        }
    }

    /// All that was acknowledged is there, once, and what was not can be sent again.
    async fn went_on(&self, acknowledged: &[&str]) {
        for name in acknowledged {
            // A look-up may still meet a connection of before, and is then made again, as callers do.
            let receipt = eventually(name, async || match self.tenant.receipt(name).await {
                Err(status) if status.code() == tonic::Code::Unavailable => None,
                receipt => Some(receipt.unwrap()),
            })
            .await;
            assert_eq!(receipt.state(), v1::CommitState::Confirmed, "{name}");
        }
        self.tenant.confirm(managed("meanwhile")).await;
        self.tenant.confirm(delivered("meanwhile-too")).await;
        let effects = self.endpoint.executions();
        let names: std::collections::BTreeSet<_> =
            effects.iter().map(|it| it.client_tx_id.clone()).collect();
        assert_eq!(names.len(), effects.len(), "{names:?}");
        let (last, count): (i64, i64) = sqlx::query_as("SELECT max(sync_id), count(*) FROM deltas")
            .fetch_one(&self.app.pool())
            .await
            .unwrap();
        assert_eq!(last, count, "the log has no gaps");
    }

    async fn end(mut self) {
        self.app.stop().await;
        self.end_stopped().await;
    }

    /// The same when the node has stopped already.
    async fn end_stopped(self) {
        drop(self.app);
        self.cluster.stop().await.unwrap();
    }
}

async fn health(address: &str) -> ServingStatus {
    let channel = Channel::from_shared(format!("http://{address}")).unwrap();
    let mut client = HealthClient::new(channel.connect().await.unwrap());
    let check = client.check(HealthCheckRequest::default()).await;
    check.unwrap().into_inner().status()
}

fn managed(name: &str) -> v1::CommitRequest {
    intent::commit(
        name,
        vec![intent::create("notes", name, &json!({"text": name}))],
    )
}

fn delivered(name: &str) -> v1::CommitRequest {
    intent::commit(
        name,
        vec![intent::create("airports", name, &json!({"text": name}))],
    )
}
