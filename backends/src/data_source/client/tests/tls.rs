//! Certificates: who is trusted, and what is said when nobody is.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair,
    date_time_ymd,
};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
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
        let params = params(name, year);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        server(&certificate, &key)
    }
}

fn self_signed(name: &str, year: i32) -> ServerConfig {
    let params = params(name, year);
    let key = KeyPair::generate().unwrap();
    server(&params.self_signed(&key).unwrap(), &key)
}

fn params(name: &str, year: i32) -> CertificateParams {
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(year, 1, 1);
    params
}

fn server(certificate: &Certificate, key: &KeyPair) -> ServerConfig {
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap()
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

/// Answers whatever it is greeted with by these bytes.
#[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
async fn deaf_server(bytes: Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut greeting = [0; 4_096];
            let _length = stream.read(&mut greeting).await.unwrap();
            stream.write_all(&bytes).await.unwrap();
            // Until the peer has read it and left.
            let _end = stream.read(&mut greeting).await;
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

fn refused_with(exchange: &Exchange, words: &str) {
    assert_eq!(class(exchange), Some(FailureClass::Tls));
    assert!(exchange.not_sent());
    let message = &exchange.failure.as_ref().unwrap().message;
    assert!(message.contains(words), "{message}");
}

/// The first moment of a year.
fn beginning(year: i32) -> SystemTime {
    date_time_ymd(year, 1, 1).into()
}

#[tokio::test]
async fn a_certificate_of_a_trusted_authority_is_accepted_and_its_end_is_told() {
    let authority = Authority::new("ours");
    let address = https_server(authority.certify("127.0.0.1", 2100)).await;
    let exchange = trusting(&authority, address).await;
    assert_eq!((exchange.status, class(&exchange)), (Some(200), None));
    assert_eq!(exchange.certificate_expires_at, Some(beginning(2100)));
}

#[tokio::test]
async fn a_certificate_that_cannot_be_trusted_is_refused_with_the_reason_and_its_dates() {
    let (authority, stranger) = (Authority::new("ours"), Authority::new("stranger"));
    let dates = |until| format!("(valid from Wed, 01 Jan 2020 00:00:00 GMT to {until} GMT)");
    let table = [
        (
            authority.certify("127.0.0.1", 2021),
            "certificate has expired",
            (2021, "Fri, 01 Jan 2021 00:00:00"),
        ),
        (
            authority.certify("other.example", 2100),
            "is for another name",
            (2100, "Fri, 01 Jan 2100 00:00:00"),
        ),
        (
            stranger.certify("127.0.0.1", 2100),
            "an authority that is not trusted",
            (2100, "Fri, 01 Jan 2100 00:00:00"),
        ),
        (
            self_signed("127.0.0.1", 2100),
            "is self-signed",
            (2100, "Fri, 01 Jan 2100 00:00:00"),
        ),
    ];
    for (tls, reason, (year, until)) in table {
        let exchange = trusting(&authority, https_server(tls).await).await;
        refused_with(&exchange, reason);
        refused_with(&exchange, &dates(until));
        assert_eq!(exchange.certificate_expires_at, Some(beginning(year)));
    }
}

#[tokio::test]
async fn an_endpoint_that_speaks_no_tls_of_today_is_refused() {
    // TLS 1.0: an alert that the version is not spoken, and a hello that chooses 1.0.
    let alert = b"\x15\x03\x01\x00\x02\x02\x46".to_vec();
    let hello = [
        &b"\x16\x03\x01\x00\x2a\x02\x00\x00\x26\x03\x01"[..],
        &[7; 32],
        b"\x00\x00\x2f\x00",
    ]
    .concat();
    for (bytes, words) in [(alert, "ProtocolVersion"), (hello, "Tls12Or13")] {
        let exchange = trusting(&Authority::new("ours"), deaf_server(bytes).await).await;
        refused_with(&exchange, words);
    }
    let plain = deaf_server(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()).await;
    refused_with(&trusting(&Authority::new("ours"), plain).await, "no TLS");
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
