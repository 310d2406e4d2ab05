//! Certificates: those that endpoints show, and our own.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use integration::app::{Flags, OPERATOR_TOKEN, Source, Tenant, TestApp, eventually, intent};
use integration::endpoint::{Endpoint, Kind};
use proto::v1;
use proto::v1::admin_client::AdminClient;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair,
};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::json;
use time::OffsetDateTime;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tonic::Request;
use tonic::transport::{Certificate as Root, Channel, ClientTlsConfig};

use crate::command::{EXECUTABLE, run, told};

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    /// Writes the root where a program can be told to find it.
    fn written(&self, folder: &Path) -> String {
        let path = folder.join("root.pem");
        std::fs::write(&path, self.0.pem()).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn certify(&self, ends: OffsetDateTime) -> (Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let certificate = loopback(ends).signed_by(&key, &self.0).unwrap();
        (certificate, key)
    }
}

/// A certificate for 127.0.0.1 that begins long ago.
fn loopback(ends: OffsetDateTime) -> CertificateParams {
    let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    params.not_before = OffsetDateTime::UNIX_EPOCH;
    params.not_after = ends;
    params
}

fn in_days(days: i64) -> OffsetDateTime {
    let ends = OffsetDateTime::now_utc() + time::Duration::days(days) + time::Duration::hours(1);
    ends.replace_nanosecond(0).unwrap()
}

/// Speaks TLS in front of an endpoint. Dropping it closes its port.
struct Front {
    address: SocketAddr,
    _server: JoinSet<()>,
}

impl Front {
    async fn start(endpoint: &Endpoint, (certificate, key): (Certificate, KeyPair)) -> Self {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let tls = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let behind = endpoint.address();
        let mut server = JoinSet::new();
        server.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                connections.spawn(async move {
                    if let Ok(mut stream) = acceptor.accept(stream).await {
                        let mut endpoint = TcpStream::connect(behind).await.unwrap();
                        // Either side may end it.
                        drop(copy_bidirectional(&mut stream, &mut endpoint).await);
                    }
                });
            }
        });
        Self {
            address,
            _server: server,
        }
    }

    fn source(&self, endpoint: &Endpoint) -> Source {
        Source {
            url: format!("https://{}/ablo", self.address),
            request_timeout: Duration::from_secs(10),
            ..Source::at(endpoint)
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificates_end_is_told_before_it_comes_and_after() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new("ours");
    let app = TestApp::without_nodes(Flags::default()).await;
    let trusted = vec![("SSL_CERT_FILE", authority.written(folder.path()))];
    let node = app.spawn_node_in(EXECUTABLE, trusted).await;
    let endpoint = Endpoint::start("").await.unwrap();
    let ends = in_days(3);
    let front = Front::start(&endpoint, authority.certify(ends)).await;
    let tenant = Tenant::create(node.address(), "acme").await;
    endpoint.set_keys(&[tenant.key()]);
    tenant.prepare(&front.source(&endpoint)).await;
    assert_eq!(tenant.status().await.certificate_expire_time, None);
    confirm(&tenant, "a").await;
    let status = tenant.status().await;
    let told = status.certificate_expire_time.unwrap();
    assert_eq!(told.seconds, ends.unix_timestamp());
    let words = format!("certificate ends on {}, in 3 days", ends.date());
    assert_eq!(status.warnings.len(), 1);
    assert!(status.warnings[0].contains(&words), "{:?}", status.warnings);
    let request = v1::VerifyDataSourceRequest {
        name: "dataSources/crm".to_owned(),
    };
    let found = tenant.sources().verify(request).await.unwrap().into_inner();
    assert!(found.ok, "{found:#?}");
    assert_eq!(found.certificate_expire_time, Some(told));

    // Renewed: there is nothing to warn of. Expired: nothing is sent, and the reason is told.
    let renewed = Front::start(&endpoint, authority.certify(in_days(90))).await;
    tenant.update_source(&renewed.source(&endpoint)).await;
    confirm(&tenant, "b").await;
    assert!(tenant.status().await.warnings.is_empty());
    let expired = Front::start(&endpoint, authority.certify(in_days(-2))).await;
    refused(&tenant, (&expired, &endpoint), "has expired").await;
    let status = tenant.status().await;
    assert!(
        status.warnings[0].contains("certificate ended on"),
        "{:?}",
        status.warnings
    );

    tenant.update_source(&renewed.source(&endpoint)).await;
    confirm(&tenant, "refused for: it has expired").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_trusted_is_sent_nothing_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let (authority, stranger) = (Authority::new("ours"), Authority::new("stranger"));
    let app = TestApp::without_nodes(Flags::default()).await;
    let trusted = vec![("SSL_CERT_FILE", authority.written(folder.path()))];
    let node = app.spawn_node_in(EXECUTABLE, trusted).await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = Tenant::create(node.address(), "acme").await;
    tenant.prepare(&Source::at(&endpoint)).await;
    let unknown = Front::start(&endpoint, stranger.certify(in_days(90))).await;
    refused(
        &tenant,
        (&unknown, &endpoint),
        "an authority that is not trusted",
    )
    .await;
    let key = KeyPair::generate().unwrap();
    let own = loopback(in_days(90)).self_signed(&key).unwrap();
    let own = Front::start(&endpoint, (own, key)).await;
    refused(&tenant, (&own, &endpoint), "is self-signed").await;
    assert!(
        endpoint.arrivals_of(Kind::Commit).is_empty(),
        "no commit arrives, in plain text neither"
    );
    app.leaves_pending("nobody can be trusted with them");
}

async fn confirm(tenant: &Tenant, name: &str) {
    let create = intent::create("airports", name, &json!({}));
    tenant.confirm(intent::commit(name, vec![create])).await;
}

/// A commit to that endpoint fails before anything is sent, for this reason.
async fn refused(tenant: &Tenant, (front, endpoint): (&Front, &Endpoint), reason: &str) {
    tenant.update_source(&front.source(endpoint)).await;
    let name = &format!("refused for: it {reason}");
    let create = intent::create("airports", name, &json!({}));
    tenant
        .commit(intent::queued(name, vec![create]))
        .await
        .unwrap();
    let message = eventually("an attempt that fails for the reason", async || {
        let attempts = tenant.attempts(name).await;
        let mut messages = attempts.into_iter().filter(|it| it.error_class == "tls");
        messages.find(|it| it.message.contains(reason))
    });
    let attempt = message.await;
    assert!(
        attempt.message.contains("(valid from Thu, 01 Jan 1970"),
        "{attempt:?}"
    );
    assert_eq!(
        (attempt.outcome.as_str(), attempt.http_status),
        ("retry", 0)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_a_certificate_speaks_tls_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new("ours");
    let root = authority.written(folder.path());
    let (certificate, key) = authority.certify(in_days(1));
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(path("server.pem"), certificate.pem()).unwrap();
    std::fs::write(path("server.key"), key.serialize_pem()).unwrap();
    let flags = Flags::default()
        .with("tls-certificate", path("server.pem"))
        .with("tls-key", path("server.key"));
    let app = TestApp::without_nodes(flags).await;
    let mut node = app.spawn_node(EXECUTABLE).await;
    let url = format!("https://{}", node.address());

    let tls = ClientTlsConfig::new().ca_certificate(Root::from_pem(authority.0.pem()));
    let channel = Channel::from_shared(url.clone())
        .unwrap()
        .tls_config(tls)
        .unwrap();
    let mut admin = AdminClient::new(channel.connect().await.unwrap());
    let mut request = Request::new(v1::ListOrganizationsRequest::default());
    let token = format!("Bearer {OPERATOR_TOKEN}").parse().unwrap();
    request.metadata_mut().insert("authorization", token);
    admin.list_organizations(request).await.unwrap();

    let org = [
        "org",
        "list",
        "--operator-token",
        OPERATOR_TOKEN,
        "--server",
    ];
    let (code, said) = told(&run(&[&org[..], &[&url, "--ca", &root]].concat()).await);
    assert_eq!(code, 0, "{said}");
    // Neither plain text nor a root that did not sign it gets an answer.
    let plain = format!("http://{}", node.address());
    let (code, said) = told(&run(&[&org[..], &[&plain]].concat()).await);
    assert_ne!(code, 0, "{said}");
    let other = tempfile::tempdir().unwrap();
    let other = Authority::new("stranger").written(other.path());
    let (code, said) = told(&run(&[&org[..], &[&url, "--ca", &other]].concat()).await);
    assert_eq!(code, 69, "{said}");
    drop(admin);
    assert_eq!(node.stop().await.code(), Some(0), "{}", node.log());
}
