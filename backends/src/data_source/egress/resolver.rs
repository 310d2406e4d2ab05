//! Name look-ups for requests: every answer is judged, and only judged addresses are connected to.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, ResolverConfig, ResolverOpts};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::EgressPolicy;

/// How long one look-up may take, with all its questions and repetitions.
const BUDGET: Duration = Duration::from_secs(2);

/// How long one question waits for its answer.
const QUESTION_TIMEOUT: Duration = Duration::from_millis(900);

/// At most so many of a name's addresses are connected to; all of them are judged.
const ADDRESSES: usize = 8;

/// Why a name gave no address to connect to.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ResolveFault {
    /// There is no such name, or it has no address, or nobody could say.
    #[error("the endpoint's name could not be resolved")]
    NoAnswer,
    /// The budget was used up.
    #[error("resolving the endpoint's name took more than 2 seconds")]
    Timeout,
    /// At least one of its addresses is forbidden.
    #[error("the endpoint's name resolves to an address that is not a public one")]
    Forbidden,
}

/// Resolves names for the HTTP client: asks for IPv4 and IPv6 addresses, and refuses the name if
/// any of its addresses is forbidden.
#[derive(Clone)]
pub struct JudgingResolver {
    policy: Arc<EgressPolicy>,
    dns: TokioResolver,
}

impl std::fmt::Debug for JudgingResolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JudgingResolver")
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

impl JudgingResolver {
    /// Asks the name servers that the system is configured with; where there is no such
    /// configuration, every name stays unresolved.
    ///
    /// # Errors
    /// When the resolver cannot be built.
    pub fn system(policy: Arc<EgressPolicy>) -> Result<Self, NetError> {
        match TokioResolver::builder_tokio() {
            Ok(builder) => {
                let mut builder = builder;
                tune(builder.options_mut());
                Ok(Self {
                    policy,
                    dns: builder.build()?,
                })
            }
            Err(error) => {
                tracing::warn!(%error, "no name servers: endpoints can be reached by address only");
                Self::asking(policy, ResolverConfig::default())
            }
        }
    }

    /// Asks the given name servers.
    ///
    /// # Errors
    /// When the resolver cannot be built.
    pub fn asking(policy: Arc<EgressPolicy>, servers: ResolverConfig) -> Result<Self, NetError> {
        let provider = TokioRuntimeProvider::default();
        let mut builder = TokioResolver::builder_with_config(servers, provider);
        tune(builder.options_mut());
        Ok(Self {
            policy,
            dns: builder.build()?,
        })
    }

    /// The addresses that a connection to this name may be made to.
    ///
    /// # Errors
    /// A [`ResolveFault`]; within 2 s.
    pub async fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, ResolveFault> {
        let localhost = self.policy.localhost();
        if name == "localhost" && !localhost.is_empty() {
            return Ok(localhost);
        }
        // With its final dot a name is never tried under the system's search domains.
        let answer = tokio::time::timeout(BUDGET, self.dns.lookup_ip(format!("{name}."))).await;
        let addresses = match answer {
            Err(_elapsed) => return Err(ResolveFault::Timeout),
            Ok(Err(NetError::Timeout)) => return Err(ResolveFault::Timeout),
            Ok(Err(_)) => return Err(ResolveFault::NoAnswer),
            Ok(Ok(addresses)) => addresses,
        };
        let mut judged = Vec::new();
        for address in addresses.iter() {
            self.policy
                .judge(address)
                .map_err(|_| ResolveFault::Forbidden)?;
            judged.push(address);
        }
        judged.truncate(ADDRESSES);
        if judged.is_empty() {
            Err(ResolveFault::NoAnswer)
        } else {
            Ok(judged)
        }
    }
}

fn tune(options: &mut ResolverOpts) {
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.timeout = QUESTION_TIMEOUT;
    options.attempts = 1;
    options.try_tcp_on_error = true;
}

impl Resolve for JudgingResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let resolver = self.clone();
        Box::pin(async move {
            let addresses = resolver.addresses(name.as_str()).await?;
            // Port 0 is replaced by the URL's.
            let sockets = addresses
                .into_iter()
                .map(|address| SocketAddr::new(address, 0));
            Ok(Box::new(sockets) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests;
