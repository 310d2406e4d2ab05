//! Clients that mean harm, frame by frame: each is bounded in what it may take, and meanwhile the
//! others are served.

mod crowds;
mod floods;
mod frames;
mod unread;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use integration::app::{Flags, Tenant, TestApp, TestNode, eventually, intent};
use serde_json::json;
use tokio::task::JoinSet;

use crate::command::EXECUTABLE;

/// What a hostile client may cost a node, in bytes.
const COST: u64 = 100 << 20;

/// Everybody's schema.
const SCHEMA: &str = r#"{"models": {"notes": {"schema": {
    "type": "object", "properties": {"text": {"type": "string"}}}}}}"#;

/// A node in a process of its own, and an organization that goes on writing.
struct Stage {
    tenant: Tenant,
    node: TestNode,
    _app: TestApp,
    before: u64,
    served: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
    bystander: JoinSet<()>,
}

impl Stage {
    async fn set() -> Self {
        Self::with(Flags::default()).await
    }

    async fn with(flags: Flags) -> Self {
        let app = TestApp::without_nodes(flags).await;
        let node = app.spawn_node(EXECUTABLE).await;
        let tenant = Tenant::create(node.address(), "acme").await;
        tenant.push(SCHEMA).await;
        let mut stage = Self {
            tenant,
            node,
            _app: app,
            before: 0,
            served: Arc::default(),
            over: Arc::default(),
            bystander: JoinSet::new(),
        };
        stage.go_on();
        stage.served(50).await;
        stage.before = stage.node.peak_memory();
        stage
    }

    /// One commit after another, none of which may fail, on a connection of its own.
    fn go_on(&mut self) {
        let (served, over) = (Arc::clone(&self.served), Arc::clone(&self.over));
        let tenant = self.tenant.connected_anew();
        self.bystander.spawn(async move {
            while !over.load(Ordering::Relaxed) {
                let name = served.load(Ordering::Relaxed).to_string();
                let create = intent::create("notes", &name, &json!({}));
                let receipt = tenant.commit(intent::commit(&name, vec![create])).await;
                receipt.expect("a bystander is served");
                served.fetch_add(1, Ordering::Relaxed);
            }
        });
    }

    /// Returns when the bystander was served so many times more.
    async fn served(&self, more: usize) {
        let until = self.served.load(Ordering::Relaxed) + more;
        eventually("the bystander", async || {
            (self.served.load(Ordering::Relaxed) >= until).then_some(())
        })
        .await;
    }

    /// What has been going on cost little, and everybody is served afterwards.
    async fn end(self) {
        self.end_keeping(0).await;
    }

    /// The same, where a node keeps so many bytes for who does not read.
    async fn end_keeping(mut self, kept: u64) {
        self.served(50).await;
        self.over.store(true, Ordering::Relaxed);
        while let Some(ended) = self.bystander.join_next().await {
            ended.unwrap();
        }
        let cost = self.node.peak_memory().saturating_sub(self.before);
        assert!(cost < COST + kept, "{} MiB", cost >> 20);
        let (code, log) = (self.node.stop().await.code(), self.node.log());
        assert_eq!(code, Some(0), "{log}");
        assert!(!log.contains("panicked"), "{log}");
        assert!(log.lines().count() < 1_000, "the log is flooded too");
    }
}
