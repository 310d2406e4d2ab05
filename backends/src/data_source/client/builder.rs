//! How the HTTP client is set: one request per call, straight to a judged address.

use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::config::ResolverConfig;
use hickory_resolver::net::NetError;
use reqwest::redirect::Policy;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::Verifier;

use super::EndpointClient;
use super::certificate::Explaining;
use crate::data_source::clock::{Clock, SystemClock};
use crate::data_source::egress::{EgressPolicy, JudgingResolver};

/// How long a connection, with name look-up and TLS, may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// How long an idle connection is kept: less than the 5 s after which common servers close it, so
/// that requests seldom meet a connection that is just being closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);

/// How many idle connections are kept per endpoint.
const IDLE_CONNECTIONS: usize = 256;

const USER_AGENT: &str = concat!("coordinator/", env!("CARGO_PKG_VERSION"));

/// Puts an [`EndpointClient`] together.
#[derive(Debug)]
pub struct EndpointClientBuilder {
    policy: EgressPolicy,
    clock: Arc<dyn Clock>,
    name_servers: Option<ResolverConfig>,
    roots: Vec<CertificateDer<'static>>,
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The name resolver.
    #[error("the name resolver cannot be set up")]
    Resolver(#[source] NetError),
    /// TLS; most often the system has no root certificates.
    #[error("TLS cannot be set up; are the system's root certificates installed?")]
    Tls(#[source] rustls::Error),
    /// The HTTP client.
    #[error("the HTTP client cannot be set up")]
    Http(#[source] reqwest::Error),
}

impl EndpointClientBuilder {
    pub(super) fn new(policy: EgressPolicy) -> Self {
        Self {
            policy,
            clock: Arc::new(SystemClock),
            name_servers: None,
            roots: Vec::new(),
        }
    }

    /// Signs with this clock's time.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Asks these name servers, not the system's.
    #[must_use]
    pub fn name_servers(mut self, servers: ResolverConfig) -> Self {
        self.name_servers = Some(servers);
        self
    }

    /// Trusts this root certificate as well as the system's.
    #[must_use]
    pub fn root_certificate(mut self, certificate: CertificateDer<'static>) -> Self {
        self.roots.push(certificate);
        self
    }

    /// The client.
    ///
    /// # Errors
    /// [`BuildError`].
    pub fn build(self) -> Result<EndpointClient, BuildError> {
        let policy = Arc::new(self.policy);
        let resolver = match self.name_servers {
            Some(servers) => JudgingResolver::asking(Arc::clone(&policy), servers),
            None => JudgingResolver::system(Arc::clone(&policy)),
        };
        let resolver = resolver.map_err(BuildError::Resolver)?;
        let tls = tls(self.roots, policy.is_development()).map_err(BuildError::Tls)?;
        let http = reqwest::Client::builder()
            .user_agent(USER_AGENT)
            .tls_backend_preconfigured(tls)
            .tls_info(true)
            .dns_resolver(resolver)
            .https_only(!policy.is_development())
            .redirect(Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .no_proxy()
            .http1_only()
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .tcp_nodelay(true)
            .build()
            .map_err(BuildError::Http)?;
        Ok(EndpointClient {
            http,
            policy,
            clock: self.clock,
        })
    }
}

fn tls(
    roots: Vec<CertificateDer<'static>>,
    development: bool,
) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(ring::default_provider());
    match Verifier::new_with_extra_roots(roots, Arc::clone(&provider)) {
        Ok(verifier) => Ok(versions(provider)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Explaining(verifier)))
            .with_no_client_auth()),
        Err(error) if development => {
            tracing::warn!(%error, "no root certificates: endpoints can be reached by HTTP only");
            let none = RootCertStore::empty();
            Ok(versions(provider)?
                .with_root_certificates(none)
                .with_no_client_auth())
        }
        Err(error) => Err(error),
    }
}

fn versions(
    provider: Arc<CryptoProvider>,
) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, rustls::Error> {
    ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()
}
