use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::config::ResolverConfig;

use super::{JudgingResolver, ResolveFault};
use crate::data_source::egress::EgressPolicy;
use crate::data_source::name_server::name_server;

async fn resolver(allowed: &[&str]) -> JudgingResolver {
    let policy = EgressPolicy {
        allowed_subnets: allowed
            .iter()
            .map(|subnet| subnet.parse().unwrap())
            .collect(),
        ..EgressPolicy::default()
    };
    JudgingResolver::asking(Arc::new(policy), name_server().await).unwrap()
}

#[tokio::test]
async fn a_name_with_public_addresses_resolves_to_them() {
    let addresses = resolver(&[])
        .await
        .addresses("public.example")
        .await
        .unwrap();
    let expected: [IpAddr; 2] = [
        "93.184.216.34".parse().unwrap(),
        "2606:4700::1111".parse().unwrap(),
    ];
    assert_eq!(addresses, expected);
}

#[tokio::test]
async fn a_name_with_any_forbidden_address_is_refused() {
    let resolver = resolver(&[]).await;
    for name in [
        "private.example",
        "mixed.example",
        "half.example",
        "local.example",
    ] {
        assert_eq!(
            resolver.addresses(name).await,
            Err(ResolveFault::Forbidden),
            "{name}"
        );
    }
}

#[tokio::test]
async fn a_development_subnet_also_counts_for_names() {
    let resolver = resolver(&["127.0.0.0/8"]).await;
    let loopback = vec![IpAddr::V4(Ipv4Addr::LOCALHOST)];
    assert_eq!(
        resolver.addresses("local.example").await,
        Ok(loopback.clone())
    );
    assert_eq!(resolver.addresses("localhost").await, Ok(loopback));
    assert_eq!(
        resolver.addresses("private.example").await,
        Err(ResolveFault::Forbidden)
    );
}

#[tokio::test]
async fn a_name_that_does_not_exist_has_no_address() {
    let resolver = resolver(&[]).await;
    assert_eq!(
        resolver.addresses("missing.example").await,
        Err(ResolveFault::NoAnswer)
    );
}

#[tokio::test]
async fn a_silent_name_server_is_given_up_on_within_the_budget() {
    let resolver = resolver(&[]).await;
    let started = tokio::time::Instant::now();
    assert_eq!(
        resolver.addresses("silent.example").await,
        Err(ResolveFault::Timeout)
    );
    assert!(started.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn without_name_servers_no_name_resolves() {
    let policy = Arc::new(EgressPolicy::default());
    let resolver = JudgingResolver::asking(policy, ResolverConfig::default()).unwrap();
    assert!(resolver.addresses("public.example").await.is_err());
}
