//! Secrets, and what a settled commit wrote, are looked for wherever a node leaves a trace: its most
//! talkative log, what it exports, what it answers and prints, and a dump of its database.

#![expect(
    clippy::too_many_lines,
    reason = "all that may leave a trace is a long list"
)]

mod collector;
mod dump;

use std::time::Duration;

use axum::http::StatusCode;
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use coordinator::keys::MasterKeys;
use integration::app::{
    Flags, OPERATOR_TOKEN, Source, Tenant, TestApp, TestNode, eventually, intent,
};
use integration::endpoint::{Answer, Endpoint, Kind, Reply};
use integration::postgres::TestDatabase;
use proto::v1;
use secrecy::ExposeSecret;
use serde_json::json;

use self::collector::Collector;
use self::dump::Dump;
use crate::command::{EXECUTABLE, run, told};

/// Part of the URL of the database, which does not ask for it.
const PASSWORD: &str = "canary-password-0c5a";
/// What a commit for the Data Source writes.
const PAYLOAD: &str = "canary-payload-88e1";
const SOURCE: &str = "dataSources/crm";

/// The ways in which a secret may be written: as it is, in hexadecimal, in base64; and a key in
/// base64 as the bytes that it stands for.
fn spellings(secret: &str) -> Vec<String> {
    let bytes = BASE64_STANDARD
        .decode(secret)
        .ok()
        .filter(|it| it.len() == 32);
    let meanings = [Some(secret.as_bytes().to_vec()), bytes];
    let written = meanings.into_iter().flatten().flat_map(|it| {
        let hexadecimal: Vec<String> = it.iter().map(|byte| format!("{byte:02x}")).collect();
        let listed = format!("{it:?}");
        [
            hexadecimal.concat(),
            BASE64_URL_SAFE_NO_PAD.encode(&it),
            listed[1..listed.len() - 1].to_owned(),
        ]
    });
    written
        .chain([secret.trim_end_matches('=').to_owned()])
        .collect()
}

/// Everything that was said, and by whom.
#[derive(Default)]
struct Said(Vec<(String, String)>);

impl Said {
    fn note(&mut self, who: &str, text: impl Into<String>) {
        self.0.push((who.to_owned(), text.into()));
    }

    /// Who told one of the secrets, and around which words.
    fn leaks(&self, secrets: &[String]) -> Vec<String> {
        let mut leaks = Vec::new();
        for (number, secret) in secrets.iter().enumerate() {
            for spelling in spellings(secret) {
                for (who, text) in &self.0 {
                    if let Some(at) = text.find(&spelling) {
                        let line = text[..at].rfind('\n').map_or(0, |it| it + 1);
                        leaks.push(format!(
                            "{who} tells secret {number}: {:.200}",
                            &text[line..]
                        ));
                    }
                }
            }
        }
        leaks
    }
}

/// A node that says all it can, and an organization at it.
struct Stage {
    app: TestApp,
    node: TestNode,
    collector: Collector,
    endpoint: Endpoint,
    tenant: Tenant,
    said: Said,
    secrets: Vec<String>,
}

impl Stage {
    async fn set(master: &str) -> Self {
        let database = TestDatabase::migrated().await;
        let collector = Collector::start().await;
        let flags = Flags::default()
            .with("log-filter", "trace")
            .with("master-keys", master)
            .with("otlp-endpoint", collector.url());
        let url = format!("{}&password={PASSWORD}", database.url());
        let app = TestApp::over(url, database.connect_options(), flags);
        let node = app.spawn_node(EXECUTABLE).await;
        let endpoint = Endpoint::start("").await.unwrap();
        let tenant = Tenant::create(node.address(), "acme").await;
        endpoint.set_keys(&[tenant.key()]);
        let (_, master) = master.split_once(':').unwrap();
        let secrets = [master, tenant.key(), OPERATOR_TOKEN, PASSWORD];
        let secrets = secrets.map(str::to_owned).to_vec();
        Self {
            app,
            node,
            collector,
            endpoint,
            tenant,
            said: Said::default(),
            secrets,
        }
    }

    fn note(&mut self, answer: &impl std::fmt::Debug) {
        self.said.note("an answer", format!("{answer:?}"));
    }

    /// A line of the command line, with the organization's key; what it says is noted.
    async fn line(&mut self, arguments: &[&str]) -> i32 {
        let server = format!("http://{}", self.node.address());
        let key = self.tenant.key().to_owned();
        let context = [
            "--server",
            &server,
            "--key",
            &key,
            "--operator-token",
            OPERATOR_TOKEN,
        ];
        let output = run(&[arguments, &context].concat()).await;
        let (code, text) = told(&output);
        self.said.note(&arguments.join(" "), text);
        code
    }

    async fn make_key(&mut self) -> v1::CreateApiKeyResponse {
        let parent = "organizations/acme".to_owned();
        let request = v1::CreateApiKeyRequest {
            parent,
            display_name: String::new(),
        };
        let made = self
            .tenant
            .admin()
            .create_api_key(request)
            .await
            .unwrap()
            .into_inner();
        self.secrets.push(made.key.clone());
        made
    }
}

fn written(name: &str) -> v1::CommitRequest {
    let create = intent::create("airports", name, &json!({"text": PAYLOAD}));
    intent::commit(name, vec![create])
}

/// Whatever an endpoint can do to a commit, each once, and the commit again.
async fn deliveries(stage: &mut Stage) {
    let html = b"<html>out of order</html>".to_vec();
    let answers = [
        Answer::error(StatusCode::SERVICE_UNAVAILABLE, "later"),
        Answer::unapplied(Reply::Fixed(StatusCode::OK, Vec::new(), html)),
        Answer::applied_but(Reply::Close),
        Answer::unapplied(Reply::Reset),
        Answer::unapplied(Reply::Raw(b"SSH-2.0-OpenSSH_9.9\r\n".to_vec())),
        Answer::applied_but(Reply::HeadOnly),
    ];
    for (number, answer) in answers.into_iter().enumerate() {
        stage.endpoint.script(Kind::Commit, answer);
        let receipt = stage
            .tenant
            .confirm(written(&format!("answered-{number}")))
            .await;
        stage.note(&receipt);
    }
    stage
        .endpoint
        .script(Kind::Commit, Answer::error(StatusCode::CONFLICT, "no"));
    let refused = stage.tenant.settle(written("refused")).await;
    stage.note(&refused);
    // A key that the endpoint does not take: it backs off, and says why.
    stage.endpoint.set_keys(&["another"]);
    let mut request = written("unsigned");
    request.set_wait(v1::Wait::Queued);
    stage.tenant.commit(request).await.unwrap();
    let attempts = stage.tenant.ended_attempts("unsigned", 1).await;
    stage.note(&attempts);
    stage.endpoint.set_keys(&[stage.tenant.key()]);
    stage.tenant.confirm(written("unsigned")).await;
    let status = stage.tenant.status().await;
    stage.note(&status);
}

async fn reads(stage: &mut Stage) {
    for kind in [Kind::Load, Kind::List] {
        stage.endpoint.script(
            kind,
            Answer::error(StatusCode::SERVICE_UNAVAILABLE, "later"),
        );
    }
    for _ in 0..2 {
        let loaded = stage.tenant.load("airports", "none").await;
        stage.note(&loaded);
        let listed = stage.tenant.list("notes").await;
        stage.note(&listed);
    }
    let verify = v1::VerifyDataSourceRequest {
        name: SOURCE.to_owned(),
    };
    let verified = stage.tenant.sources().verify(verify).await;
    stage.note(&verified);
    stage.endpoint.set_keys(&["another"]);
    let verify = v1::VerifyDataSourceRequest {
        name: SOURCE.to_owned(),
    };
    let verified = stage.tenant.sources().verify(verify).await;
    stage.note(&verified);
    stage.endpoint.set_keys(&[stage.tenant.key()]);
}

/// Keys that come and go, and callers with the wrong one.
async fn keys(stage: &mut Stage) {
    let made = stage.make_key().await;
    stage.tenant.confirm(written("two-keys")).await;
    let holder = stage.tenant.with(&made.key);
    let answer = holder.list("notes").await;
    stage.note(&answer);
    let name = made.api_key.unwrap().name;
    let revoked = stage
        .tenant
        .admin()
        .revoke_api_key(v1::RevokeApiKeyRequest { name })
        .await;
    stage.note(&revoked);
    eventually("the key to be refused", async || {
        holder.list("notes").await.err()
    })
    .await;
    let answer = holder.list("notes").await;
    stage.note(&answer);
    // Somebody who mixes the two up.
    let mixed = stage.tenant.with(OPERATOR_TOKEN).list("notes").await;
    stage.note(&mixed);
    let keys = v1::ListApiKeysRequest {
        parent: "organizations/acme".to_owned(),
        ..v1::ListApiKeysRequest::default()
    };
    let keys = stage.tenant.admin().list_api_keys(keys).await;
    stage.note(&keys);
}

async fn command_line(stage: &mut Stage, master: &str) {
    let row = format!(r#"{{"text": "{PAYLOAD}"}}"#);
    for line in [
        &["commit", "--create", "notes", "--id", "n", "--row", &row][..],
        &["load", "notes", "n"],
        &["list", "airports"],
        &["receipt", "answered-0"],
        &["source", "list"],
        &["source", "status", "crm"],
        &["source", "attempts", "crm"],
        &["source", "verify", "crm"],
        &["source", "show", "nothing"],
        &["key", "list", "acme"],
        &["org", "list", "--json"],
        &["schema", "show"],
        &["nonsense"],
    ] {
        stage.line(line).await;
    }
    let address = "postgres://me:canary-password-0c5a@127.0.0.1:1/ledger";
    let odd = format!("postgres://me:{PASSWORD}@[/ledger");
    let broken = format!("{master}!");
    let token = OPERATOR_TOKEN;
    for line in [
        &["migrate", "--database-url", address][..],
        &["migrate", "--database-url", &odd],
        &[
            "serve",
            "--database-url",
            address,
            "--operator-token",
            token,
            "--master-keys",
            master,
        ],
        &[
            "serve",
            "--database-url",
            &odd,
            "--operator-token",
            token,
            "--master-keys",
            &broken,
        ],
        &[
            "serve",
            "--database-url",
            address,
            "--operator-token",
            token,
            "--master-keys",
            "x",
            "--listen",
            token,
        ],
        &["reseal", "--database-url", address, "--master-keys", master],
        &[
            "load",
            "notes",
            "n",
            "--server",
            "http://127.0.0.1:1",
            "--key",
            token,
        ],
    ] {
        let output = run(line).await;
        let (code, text) = told(&output);
        assert_ne!(code, 0, "{line:?}: {text}");
        // What was said instead of an address may be said back.
        if !line.contains(&"--listen") {
            stage.said.note(line[0], text);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_is_in_logs_exports_answers_or_a_dump() {
    let master = MasterKeys::generate("canary");
    let master = master.expose_secret();
    let mut stage = Stage::set(master).await;
    let source = Source::at(&stage.endpoint);
    stage.tenant.prepare(&source).await;
    deliveries(&mut stage).await;
    reads(&mut stage).await;
    keys(&mut stage).await;
    command_line(&mut stage, master).await;
    assert!(stage.node.stop().await.success());

    let log = stage.node.log();
    let exported = stage.collector.heard();
    let dump = Dump::of(&stage.app.pool(), stage.app.database_url()).await;
    // They are where something would be found.
    assert!(
        log.contains("TRACE") && log.lines().count() > 1_000,
        "the log is talkative"
    );
    for name in ["attempt", "coordinator.attempt.duration"] {
        assert!(exported.contains(name), "{name} is exported");
    }
    assert!(dump.text().contains("canary") && dump.text().contains("sk_test_"));
    let mut said = std::mem::take(&mut stage.said);
    said.note("the log", log);
    said.note("the exports", exported);
    let payload = said.0.iter().filter(|(who, _)| who.starts_with("the "));
    assert_eq!(
        payload.filter(|(_, text)| text.contains(PAYLOAD)).count(),
        0,
        "a row is told"
    );
    said.note("the dump", dump.text());
    for spelling in stage.secrets.iter().flat_map(|it| spellings(it)) {
        let mut told = Said::default();
        told.note("somebody", format!("in passing: {spelling}."));
        assert_ne!(told.leaks(&stage.secrets).len(), 0, "it would be noticed");
    }
    let leaks = said.leaks(&stage.secrets);
    assert!(leaks.is_empty(), "{}", leaks.join("\n"));

    // What commits for the Data Source wrote is where subscribers read it, and nowhere else; the one
    // managed row is where it lives.
    let tables = dump.tables_with(PAYLOAD);
    let others = tables.iter().copied();
    let others = others.filter(|it| !it.starts_with("deltas"));
    assert_eq!(others.collect::<Vec<_>>(), ["managed_rows"], "{tables:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_data_source_commit_wrote_is_kept_in_its_deltas_alone_however_it_ended() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    tenant
        .update_source(&Source {
            retry_delays: vec![Duration::from_millis(20)],
            ..Source::at(&endpoint)
        })
        .await;
    endpoint.hold(Kind::Commit);
    let mut request = written("held");
    request.set_wait(v1::Wait::Queued);
    tenant.commit(request).await.unwrap();
    // The look-out finds it while it must be there.
    let dump = Dump::of(&app.pool(), app.database_url()).await;
    assert_eq!(dump.tables_with(PAYLOAD), ["inbox"]);
    endpoint.release(Kind::Commit);
    tenant.confirm(written("held")).await;

    endpoint.script(Kind::Commit, Answer::error(StatusCode::CONFLICT, "no"));
    tenant.settle(written("refused")).await;
    // Not what was asked for, so that rows are read back.
    let nothing = Answer::applied_but(Reply::Fixed(StatusCode::OK, Vec::new(), b"{}".to_vec()));
    endpoint.script(Kind::Commit, nothing);
    tenant.confirm(written("read-back")).await;
    let busy = json!({"error": "busy", "retryable": true});
    let busy = Answer::json(StatusCode::CONFLICT, &busy);
    for name in ["discarded", "resolved"] {
        endpoint.always_for(name, busy.clone());
        assert!(tenant.settle(written(name)).await.dead);
        // The breaker stays closed.
        tenant.confirm(written(&format!("after-{name}"))).await;
    }
    let discard = v1::DiscardCommitsRequest {
        name: SOURCE.to_owned(),
        client_tx_ids: vec!["discarded".to_owned()],
        force: true,
        ..v1::DiscardCommitsRequest::default()
    };
    tenant.sources().discard_commits(discard).await.unwrap();
    let row = json!({"id": "resolved", "text": PAYLOAD})
        .to_string()
        .into_bytes();
    let applied = v1::ResolvedApplied {
        rows_json: vec![row.into()],
    };
    let resolve = v1::ResolveCommitRequest {
        name: SOURCE.to_owned(),
        client_tx_id: "resolved".to_owned(),
        resolution: Some(v1::resolve_commit_request::Resolution::Applied(applied)),
        force: true,
        actor: String::new(),
    };
    tenant.sources().resolve_commit(resolve).await.unwrap();
    let event = v1::ExternalEvent {
        event_id: "pushed".to_owned(),
        model: "airports".to_owned(),
        id: "outside".to_owned(),
        r#type: v1::OperationType::Update.into(),
        row_json: json!({"id": "outside", "text": PAYLOAD})
            .to_string()
            .into_bytes()
            .into(),
        ..v1::ExternalEvent::default()
    };
    let push = v1::PushEventsRequest {
        name: SOURCE.to_owned(),
        events: vec![event],
    };
    tenant.sources().push_events(push).await.unwrap();
    eventually("the event to be taken in", async || {
        let status = tenant.status().await;
        (status.feed?.pushed_count == 0).then_some(())
    })
    .await;
    let dump = Dump::of(&app.pool(), app.database_url()).await;
    let found = dump.tables_with(PAYLOAD);
    assert!(
        !found.is_empty() && found.iter().all(|it| it.starts_with("deltas")),
        "{found:?}"
    );
}
