//! Our side: nodes, each a process of its own, over one database.

use std::sync::Arc;

use proto::v1;
use serde_json::json;

use super::allocations;
use super::ground::{Database, Ground};
use crate::app::{Flags, Tenant, TestNode};

/// The model that the coordinator itself holds.
pub(super) const MANAGED: &str = "notes";

/// Nodes as an operator would start them, but on loopback.
fn flags() -> Flags {
    Flags::default()
        .with("node-lease", "3s")
        .with("node-renewal", "1s")
}

/// A coordinator, with as many nodes as were added.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) database: Database,
    pub(super) nodes: Vec<TestNode>,
}

/// Where a Data Source is.
#[derive(Clone, Debug)]
pub(super) struct At {
    /// Also its model's name.
    pub(super) source: String,
    pub(super) url: String,
    pub(super) in_flight: i32,
}

impl Service {
    /// One node over a migrated database.
    pub(super) async fn start(database: Database) -> anyhow::Result<Self> {
        let mut service = Self {
            database,
            nodes: Vec::new(),
        };
        service.add_node().await?;
        Ok(service)
    }

    pub(super) async fn add_node(&mut self) -> anyhow::Result<()> {
        let executable = std::env::current_exe()?;
        let executable = executable.to_string_lossy();
        let environment = allocations::environment(&self.database.folder);
        let node = TestNode::start(&executable, &self.database.url, flags(), environment).await;
        self.nodes.push(node);
        Ok(())
    }

    /// Ends the nodes, and removes their database.
    pub(super) async fn end(self, ground: &Ground) -> anyhow::Result<()> {
        drop(self.nodes);
        ground.clear(self.database).await
    }

    /// Where the first node serves.
    pub(super) fn address(&self) -> &str {
        self.nodes[0].address()
    }

    /// An organization whose model `notes` is managed and that has a model for each source.
    pub(super) async fn organization(&self, name: &str, sources: &[At]) -> anyhow::Result<Tenant> {
        let tenant = Tenant::create(self.address(), name).await;
        for at in sources {
            let request = v1::CreateDataSourceRequest {
                data_source_id: at.source.clone(),
                data_source: Some(v1::DataSource {
                    url: at.url.clone(),
                    max_in_flight: at.in_flight,
                    ..v1::DataSource::default()
                }),
                ..v1::CreateDataSourceRequest::default()
            };
            tenant.sources().create(request).await?;
        }
        tenant.push(&schema(sources)).await;
        Ok(tenant)
    }

    /// Several organizations with managed rows.
    pub(super) async fn organizations(&self, count: u32) -> anyhow::Result<Vec<Arc<Tenant>>> {
        let mut all = Vec::new();
        for number in 0..count {
            let tenant = self.organization(&format!("org-{number}"), &[]).await?;
            all.push(Arc::new(tenant));
        }
        Ok(all)
    }
}

fn schema(sources: &[At]) -> String {
    let fields = json!({
        "type": "object",
        "properties": {"text": {"type": "string"}, "number": {"type": "number"}},
        "required": ["text", "number"],
        "additionalProperties": false,
    });
    let mut models = serde_json::Map::new();
    models.insert(
        MANAGED.to_owned(),
        json!({"backing": "managed", "schema": fields}),
    );
    for at in sources {
        let backing = json!({"dataSource": at.source});
        models.insert(
            at.source.clone(),
            json!({"backing": backing, "schema": fields}),
        );
    }
    json!({"models": models}).to_string()
}
