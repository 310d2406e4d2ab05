//! An endpoint's URL: judged once when a customer gives it, and kept in one form.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use url::{Host, Url};

use super::egress::EgressPolicy;

/// The longest URL that is accepted, in bytes.
const MAX_BYTES: usize = 2_048;

/// The longest host name (RFC 1035).
const MAX_HOST_BYTES: usize = 253;

/// Names that mean something inside a network only, with all that ends in them.
const LOCAL_SUFFIXES: [&str; 5] = ["localhost", "local", "internal", "home.arpa", "localdomain"];

/// A URL that requests may be sent to, in canonical form.
///
/// Its host, when it is an address, has been judged; a name is judged at each connection.
#[derive(Clone, Eq, PartialEq)]
pub struct EndpointUrl {
    url: Url,
}

/// Why a URL is not accepted.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum UrlFault {
    /// It cannot be read as one.
    #[error("not a URL of at most {MAX_BYTES} bytes without white space or control characters")]
    Invalid,
    /// It does not start with `https:`.
    #[error("the URL must start with https://")]
    HttpsRequired,
    /// It names a user.
    #[error("the URL must not contain a user name or a password")]
    UserinfoRefused,
    /// It has a fragment, which no server would see.
    #[error("the URL must not contain a fragment (#…)")]
    FragmentRefused,
    /// It names a port that is not allowed.
    #[error("the URL's port is not allowed; leave it out for 443")]
    PortRefused,
    /// Its host is an address that is not public.
    #[error("the URL's address is not a public one")]
    AddressForbidden,
    /// Its host is a name that cannot be a public one.
    #[error("the URL's host is not a public, fully qualified name")]
    HostForbidden,
}

impl UrlFault {
    /// The fault's name on the wire.
    pub fn code(self) -> &'static str {
        match self {
            Self::Invalid => "url_invalid",
            Self::HttpsRequired => "https_required",
            Self::UserinfoRefused => "userinfo_refused",
            Self::FragmentRefused => "fragment_refused",
            Self::PortRefused => "port_refused",
            Self::AddressForbidden => "address_forbidden",
            Self::HostForbidden => "host_forbidden",
        }
    }
}

impl EndpointUrl {
    /// Reads a URL under a policy. Only its canonical form is kept: parts that browsers forgive
    /// (backslashes, numeric addresses, percent-encoded hosts) are judged as what they become.
    ///
    /// # Errors
    /// The first [`UrlFault`].
    pub fn parse(raw: &str, policy: &EgressPolicy) -> Result<Self, UrlFault> {
        let unclean = |character: char| character.is_control() || character.is_whitespace();
        if raw.len() > MAX_BYTES || raw.contains(unclean) {
            return Err(UrlFault::Invalid);
        }
        // Its canonical form may be longer, and is read anew for each request.
        let url = Url::parse(raw).ok();
        let url = url.filter(|it| it.as_str().len() <= MAX_BYTES);
        let url = url.ok_or(UrlFault::Invalid)?;
        let exempt = is_exempt(&url, policy);
        if url.scheme() != "https" && !(url.scheme() == "http" && exempt) {
            return Err(UrlFault::HttpsRequired);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(UrlFault::UserinfoRefused);
        }
        if url.fragment().is_some() {
            return Err(UrlFault::FragmentRefused);
        }
        let port = url.port_or_known_default().ok_or(UrlFault::Invalid)?;
        if port == 0 || !(exempt || policy.allows_port(port)) {
            return Err(UrlFault::PortRefused);
        }
        let endpoint = Self { url };
        match endpoint.url.host() {
            Some(Host::Domain(name)) if !exempt => judge_name(name)?,
            Some(_) => endpoint.judge_literal(policy)?,
            None => return Err(UrlFault::Invalid),
        }
        Ok(endpoint)
    }

    /// The canonical form.
    pub fn as_str(&self) -> &str {
        self.url.as_str()
    }

    /// Judges the host when it is an address: no resolver sees it. A name passes.
    ///
    /// # Errors
    /// [`UrlFault::AddressForbidden`].
    pub(super) fn judge_literal(&self, policy: &EgressPolicy) -> Result<(), UrlFault> {
        let port = self.url.port_or_known_default().unwrap_or_default();
        let sockets: Vec<SocketAddr> = match self.url.host() {
            Some(Host::Ipv4(address)) => vec![SocketAddr::new(IpAddr::V4(address), port)],
            Some(Host::Ipv6(address)) => vec![SocketAddr::new(IpAddr::V6(address), port)],
            Some(Host::Domain("localhost")) => policy
                .localhost()
                .into_iter()
                .map(|ip| SocketAddr::new(ip, port))
                .collect(),
            Some(Host::Domain(_)) | None => Vec::new(),
        };
        sockets
            .into_iter()
            .try_for_each(|socket| policy.judge_socket(socket))
            .map_err(|_| UrlFault::AddressForbidden)
    }

    pub(super) fn to_url(&self) -> Url {
        self.url.clone()
    }
}

impl fmt::Debug for EndpointUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("EndpointUrl").field(&self.as_str()).finish()
    }
}

impl fmt::Display for EndpointUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether the host is one that the development switch names.
fn is_exempt(url: &Url, policy: &EgressPolicy) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" && !policy.localhost().is_empty(),
        Some(Host::Ipv4(address)) => policy.is_exempt(IpAddr::V4(address)),
        Some(Host::Ipv6(address)) => policy.is_exempt(IpAddr::V6(address)),
        None => false,
    }
}

/// `name` is lower case and ASCII: the URL parser has seen to it.
fn judge_name(name: &str) -> Result<(), UrlFault> {
    let local = LOCAL_SUFFIXES.iter().any(|suffix| {
        name.strip_suffix(suffix)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    });
    let qualified = name.contains('.') && !name.ends_with('.') && name.len() <= MAX_HOST_BYTES;
    if local || !qualified || name.starts_with("metadata.") {
        Err(UrlFault::HostForbidden)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
