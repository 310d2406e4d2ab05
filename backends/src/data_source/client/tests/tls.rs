//! Certificates: who is trusted, and what is said when nobody is.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd,
};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::server::{Script, converse};
use super::{class, development, reply, sent};
use crate::data_source::client::EndpointClient;
use crate::data_source::egress::EgressPolicy;
use crate::data_source::endpoint::EndpointUrl;
use crate::data_source::exchange::{Exchange, FailureClass};
use crate::data_source::name_server::name_server;

struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { issuer }
    }

    fn root(&self) -> CertificateDer<'static> {
        self.issuer.as_ref().der().clone()
    }

    /// A server's certificate and key; expired when `year` has passed.
    fn certify(&self, name: &str, year: i32) -> ServerConfig {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap()
    }
}

#[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
async fn https_server(tls: ServerConfig) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(stream) = acceptor.accept(stream).await {
                let script = Script::Reply(reply("200 OK", "{}"));
                converse(stream, script, Arc::new(Mutex::new(Vec::new()))).await;
            }
        }
    });
    address
}

async fn trusting(authority: &Authority, address: SocketAddr) -> Exchange {
    let client = EndpointClient::builder(development());
    let client = client.root_certificate(authority.root()).build().unwrap();
    let url = EndpointUrl::parse(&format!("https://{address}/"), &development()).unwrap();
    sent(&client, &url, Duration::from_secs(10)).await
}

fn refused_with(exchange: &Exchange, word: &str) {
    assert_eq!(class(exchange), Some(FailureClass::Tls));
    assert!(exchange.not_sent());
    let message = &exchange.failure.as_ref().unwrap().message;
    assert!(message.contains(word), "{message}");
}

#[tokio::test]
async fn a_certificate_of_a_trusted_authority_is_accepted() {
    let authority = Authority::new("ours");
    let address = https_server(authority.certify("127.0.0.1", 2100)).await;
    let exchange = trusting(&authority, address).await;
    assert_eq!((exchange.status, class(&exchange)), (Some(200), None));
}

#[tokio::test]
async fn a_certificate_that_cannot_be_trusted_is_refused_with_the_reason() {
    let (authority, stranger) = (Authority::new("ours"), Authority::new("stranger"));
    let expired = https_server(authority.certify("127.0.0.1", 2021)).await;
    refused_with(&trusting(&authority, expired).await, "expired");
    let other_name = https_server(authority.certify("other.example", 2100)).await;
    refused_with(
        &trusting(&authority, other_name).await,
        "not valid for name",
    );
    let unknown = https_server(stranger.certify("127.0.0.1", 2100)).await;
    refused_with(&trusting(&authority, unknown).await, "UnknownIssuer");
}

#[tokio::test]
async fn a_handshake_that_hangs_is_given_up_on() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let exchange = trusting(&Authority::new("ours"), address).await;
    assert_eq!(class(&exchange), Some(FailureClass::TimeoutConnect));
    assert!(exchange.not_sent() && exchange.elapsed < Duration::from_secs(5));
}

#[tokio::test]
async fn a_name_is_connected_to_where_it_resolves_to() {
    let authority = Authority::new("ours");
    let address = https_server(authority.certify("local.example", 2100)).await;
    let policy = EgressPolicy {
        allowed_ports: vec![address.port()],
        ..development()
    };
    let ours = EgressPolicy {
        own_addresses: vec![address],
        ..policy.clone()
    };
    for (policy, expected) in [(policy, None), (ours, Some(FailureClass::AddressForbidden))] {
        let raw = format!("https://local.example:{}/", address.port());
        let url = EndpointUrl::parse(&raw, &policy).unwrap();
        let client = EndpointClient::builder(policy).name_servers(name_server().await);
        let client = client.root_certificate(authority.root()).build().unwrap();
        let exchange = sent(&client, &url, Duration::from_secs(10)).await;
        assert_eq!((exchange.peer, class(&exchange)), (Some(address), expected));
        assert!(!exchange.not_sent());
    }
}
