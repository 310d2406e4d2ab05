//! Which addresses a request may go to.
//!
//! Endpoint URLs come from customers, and the coordinator stands inside a network: without a
//! guard, a URL is a way to make it speak to its neighbours. Addresses are judged by what is
//! allowed, public unicast, so that a range nobody thought of is refused. They are judged where a
//! connection is about to be made, on the very addresses that it will be made to, so that a name
//! which changes its mind between two look-ups wins nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

mod resolver;

pub use resolver::{JudgingResolver, ResolveFault};

/// The port that is always allowed.
const HTTPS_PORT: u16 = 443;

/// Where requests may go. The default is production's: public addresses, port 443.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct EgressPolicy {
    /// For development and tests: these addresses are allowed although they are not public, on any
    /// port, over plain HTTP as well, and under the name `localhost` if they are loopback.
    pub allowed_subnets: Vec<IpNet>,
    /// Ports other than 443 that URLs may name.
    pub allowed_ports: Vec<u16>,
    /// Where the coordinator and its database listen. Refused, on every port unless
    /// `allowed_subnets` has the address; an unspecified one stands for every loopback address.
    pub own_addresses: Vec<SocketAddr>,
}

/// An address is not one that requests may go to.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the endpoint's address is not a public one")]
pub struct Forbidden;

impl EgressPolicy {
    /// Judges an address, whatever its port.
    ///
    /// # Errors
    /// [`Forbidden`], for everything that is not public unicast, IPv6 forms that embed another
    /// address included, and for the coordinator's own addresses.
    pub fn judge(&self, address: IpAddr) -> Result<(), Forbidden> {
        let address = address.to_canonical();
        if self.is_exempt(address) {
            return Ok(());
        }
        let own = self
            .own_addresses
            .iter()
            .any(|own| own.ip().to_canonical() == address);
        if own || !is_public(address) {
            Err(Forbidden)
        } else {
            Ok(())
        }
    }

    /// Judges an address with its port: also where development allows an address, the
    /// coordinator's own listeners on it are refused.
    ///
    /// # Errors
    /// As [`EgressPolicy::judge`].
    pub fn judge_socket(&self, socket: SocketAddr) -> Result<(), Forbidden> {
        let address = socket.ip().to_canonical();
        let own = self.own_addresses.iter().any(|own| {
            let everywhere = own.ip().is_unspecified() && address.is_loopback();
            own.port() == socket.port() && (everywhere || own.ip().to_canonical() == address)
        });
        if own {
            Err(Forbidden)
        } else {
            self.judge(address)
        }
    }

    /// Whether a development subnet has the address.
    pub(super) fn is_exempt(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.allowed_subnets
            .iter()
            .any(|subnet| subnet.contains(&address))
    }

    /// Whether anything that production refuses is allowed.
    pub(super) fn is_development(&self) -> bool {
        !self.allowed_subnets.is_empty()
    }

    pub(super) fn allows_port(&self, port: u16) -> bool {
        port == HTTPS_PORT || self.allowed_ports.contains(&port)
    }

    /// The loopback addresses that `localhost` stands for here; none in production.
    pub(super) fn localhost(&self) -> Vec<IpAddr> {
        let loopback = [
            IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(Ipv6Addr::LOCALHOST),
        ];
        loopback
            .into_iter()
            .filter(|address| self.is_exempt(*address))
            .collect()
    }
}

fn is_public(canonical: IpAddr) -> bool {
    match canonical {
        IpAddr::V4(address) => !RESERVED_V4.iter().any(|net| net.contains(&address)),
        IpAddr::V6(address) => {
            UNICAST_V6.contains(&address) && !RESERVED_V6.iter().any(|net| net.contains(&address))
        }
    }
}

const fn v4(a: u8, b: u8, c: u8, d: u8, length: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length)
}

const fn v6(a: u16, b: u16, length: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, 0, 0, 0, 0, 0, 0), length)
}

/// What is not public unicast (IANA's special-purpose registry), and one host's own address.
const RESERVED_V4: [Ipv4Net; 16] = [
    v4(0, 0, 0, 0, 8),
    v4(10, 0, 0, 0, 8),
    v4(100, 64, 0, 0, 10),
    v4(127, 0, 0, 0, 8),
    v4(169, 254, 0, 0, 16),
    v4(172, 16, 0, 0, 12),
    v4(192, 0, 0, 0, 24),
    v4(192, 0, 2, 0, 24),
    v4(192, 88, 99, 0, 24),
    v4(192, 168, 0, 0, 16),
    v4(198, 18, 0, 0, 15),
    v4(198, 51, 100, 0, 24),
    v4(203, 0, 113, 0, 24),
    v4(224, 0, 0, 0, 4),
    v4(240, 0, 0, 0, 4),
    // Azure's virtual host: it answers inside every virtual network there, and looks public.
    v4(168, 63, 129, 16, 32),
];

/// All that IANA has given out as unicast. Everything else, `64:ff9b::/96` and `fc00::/7` for
/// instance, is outside.
const UNICAST_V6: Ipv6Net = v6(0x2000, 0, 3);

/// What is reserved within it: protocol assignments (Teredo among them), documentation twice, 6to4.
const RESERVED_V6: [Ipv6Net; 4] = [
    v6(0x2001, 0, 23),
    v6(0x2001, 0x0db8, 32),
    v6(0x2002, 0, 16),
    v6(0x3fff, 0, 20),
];

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::EgressPolicy;

    const ALLOWED: &str = "\
        1.1.1.1 8.8.8.8 93.184.216.34 100.63.255.255 100.128.0.0 172.15.0.1 172.32.0.1 \
        192.0.1.1 198.17.0.1 198.20.0.1 223.255.255.255 168.63.129.17 2606:4700::1111 \
        2001:200::1 2400::1 2a00:1450::1 ::ffff:8.8.8.8";

    const FORBIDDEN: &str = "\
        0.0.0.0 0.1.2.3 10.0.0.1 100.64.0.1 127.0.0.1 127.255.255.255 169.254.169.254 \
        172.16.0.1 172.31.255.255 192.0.0.1 192.0.2.1 192.88.99.1 192.168.0.1 198.18.0.1 \
        198.19.255.255 198.51.100.1 203.0.113.1 224.0.0.1 239.255.255.255 240.0.0.1 \
        255.255.255.255 168.63.129.16 :: ::1 ::127.0.0.1 ::ffff:127.0.0.1 \
        ::ffff:10.0.0.1 ::8.8.8.8 64:ff9b::808:808 64:ff9b:1::1 100::1 2001::1 \
        2001:1ff::1 2001:db8::1 2002:7f00:1:: 2002:808:808:: 3fff::1 3fff:fff::1 4000::1 \
        5f00::1 fc00::1 fd00::1 fe80::1 fec0::1 ff02::1 ffff::1";

    #[test]
    fn only_public_addresses_are_allowed() {
        let policy = EgressPolicy::default();
        for address in ALLOWED.split_whitespace() {
            assert_eq!(policy.judge(address.parse().unwrap()), Ok(()), "{address}");
        }
        for address in FORBIDDEN.split_whitespace() {
            assert!(policy.judge(address.parse().unwrap()).is_err(), "{address}");
        }
    }

    #[test]
    fn a_development_subnet_is_an_exception() {
        let policy = EgressPolicy {
            allowed_subnets: vec!["127.0.0.1/32".parse().unwrap()],
            ..EgressPolicy::default()
        };
        let judge = |address: &str| policy.judge(address.parse::<IpAddr>().unwrap());
        assert!(judge("127.0.0.1").is_ok());
        assert!(judge("::ffff:127.0.0.1").is_ok());
        assert!(judge("127.0.0.2").is_err());
        assert!(judge("::1").is_err());
        assert_eq!(policy.localhost(), ["127.0.0.1".parse::<IpAddr>().unwrap()]);
        assert_eq!(EgressPolicy::default().localhost(), [] as [IpAddr; 0]);
    }

    #[test]
    fn our_own_listeners_are_refused() {
        let policy = EgressPolicy {
            allowed_subnets: vec!["127.0.0.0/8".parse().unwrap()],
            own_addresses: vec![
                "127.0.0.1:5432".parse().unwrap(),
                "8.8.8.8:50051".parse().unwrap(),
                "0.0.0.0:8080".parse().unwrap(),
            ],
            ..EgressPolicy::default()
        };
        let judge = |socket: &str| policy.judge_socket(socket.parse().unwrap());
        assert!(judge("127.0.0.1:5432").is_err());
        assert!(judge("[::ffff:127.0.0.1]:5432").is_err());
        assert!(judge("127.0.0.1:5433").is_ok());
        assert!(judge("127.0.0.2:8080").is_err());
        assert!(judge("8.8.8.8:443").is_err());
        assert!(judge("8.8.4.4:443").is_ok());
    }
}
