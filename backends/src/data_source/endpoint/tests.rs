use super::{EndpointUrl, UrlFault};
use crate::data_source::egress::EgressPolicy;

fn parsed(raw: &str, policy: &EgressPolicy) -> Result<String, &'static str> {
    let url = EndpointUrl::parse(raw, policy);
    url.map(|url| url.as_str().to_owned())
        .map_err(UrlFault::code)
}

const REFUSED: &[(&str, &str)] = &[
    ("http://example.com/", "https_required"),
    ("http://127.0.0.1/", "https_required"),
    ("gopher://example.com/", "https_required"),
    ("ftp://example.com/", "https_required"),
    ("file:///etc/passwd", "https_required"),
    ("unix:/run/socket", "https_required"),
    ("data:text/plain,x", "https_required"),
    ("https://2130706433/", "address_forbidden"),
    ("https://0x7f000001/", "address_forbidden"),
    ("https://0177.0.0.1/", "address_forbidden"),
    ("https://127.1/", "address_forbidden"),
    ("https://0/", "address_forbidden"),
    ("https://127。0。0。1/", "address_forbidden"),
    ("https://①②⑦.0.0.1/", "address_forbidden"),
    ("https://%31%36%39.254.169.254/", "address_forbidden"),
    ("https://169.254.169.254./", "address_forbidden"),
    (r"https:/\/\169.254.169.254", "address_forbidden"),
    ("https://[::ffff:169.254.169.254]/", "address_forbidden"),
    ("https://[::ffff:a9fe:a9fe]/", "address_forbidden"),
    ("https://[::127.0.0.1]/", "address_forbidden"),
    ("https://[64:ff9b::a9fe:a9fe]/", "address_forbidden"),
    ("https://[2002:7f00:1::]/", "address_forbidden"),
    ("https://[::1]/", "address_forbidden"),
    ("https://[fe80::1%25eth0]/", "url_invalid"),
    ("https://256.256.256.256/", "url_invalid"),
    ("https://exam\0ple.com/", "url_invalid"),
    ("https://exa\tmple.com/", "url_invalid"),
    (" https://example.com/", "url_invalid"),
    ("https://example.com/\n", "url_invalid"),
    ("https://", "url_invalid"),
    ("", "url_invalid"),
    ("example.com", "url_invalid"),
    ("https://example.com:65536/", "url_invalid"),
    ("https://ok.example@169.254.169.254/", "userinfo_refused"),
    ("https://user:pw@example.com/", "userinfo_refused"),
    ("https://:pw@example.com/", "userinfo_refused"),
    ("https://ok.example#@169.254.169.254/", "fragment_refused"),
    ("https://example.com/#", "fragment_refused"),
    ("https://example.com:22/", "port_refused"),
    ("https://example.com:6379/", "port_refused"),
    ("https://example.com:80/", "port_refused"),
    ("https://example.com:0/", "port_refused"),
    ("https://localhost/", "host_forbidden"),
    ("https://localhost./", "host_forbidden"),
    ("https://app.localhost/", "host_forbidden"),
    ("https://printer.local/", "host_forbidden"),
    ("https://metadata.google.internal/", "host_forbidden"),
    ("https://metadata.example.com/", "host_forbidden"),
    ("https://intranet/", "host_forbidden"),
    ("https://example.com./", "host_forbidden"),
];

#[test]
fn urls_that_could_reach_a_neighbour_are_refused() {
    for (raw, code) in REFUSED {
        assert_eq!(parsed(raw, &EgressPolicy::default()), Err(*code), "{raw:?}");
    }
    let long = format!("https://example.com/{}", "x".repeat(8_192));
    assert_eq!(parsed(&long, &EgressPolicy::default()), Err("url_invalid"));
    let host = format!("https://{}com/", "label.".repeat(50));
    assert_eq!(
        parsed(&host, &EgressPolicy::default()),
        Err("host_forbidden")
    );
}

#[test]
fn what_is_kept_is_the_canonical_form() {
    let table = [
        ("https://example.com", "https://example.com/"),
        ("HTTPS://Example.COM:443/a?b=c", "https://example.com/a?b=c"),
        (
            r"https://ok.example\@169.254.169.254/",
            "https://ok.example/@169.254.169.254/",
        ),
        ("https://bücher.example/", "https://xn--bcher-kva.example/"),
        ("https://8.8.8.8/hook", "https://8.8.8.8/hook"),
        ("https://notlocal.example/", "https://notlocal.example/"),
        ("https://example.com/a/../b", "https://example.com/b"),
    ];
    for (raw, canonical) in table {
        assert_eq!(
            parsed(raw, &EgressPolicy::default()),
            Ok(canonical.to_owned()),
            "{raw}"
        );
        assert_eq!(
            parsed(canonical, &EgressPolicy::default()),
            Ok(canonical.to_owned())
        );
    }
}

#[test]
fn a_port_can_be_allowed() {
    let policy = EgressPolicy {
        allowed_ports: vec![8443],
        ..EgressPolicy::default()
    };
    assert!(parsed("https://example.com:8443/", &policy).is_ok());
    assert_eq!(
        parsed("https://127.0.0.1:8443/", &policy),
        Err("address_forbidden")
    );
    assert_eq!(
        parsed("https://example.com:8444/", &policy),
        Err("port_refused")
    );
}

#[test]
fn development_allows_its_subnets_and_nothing_else() {
    let policy = EgressPolicy {
        allowed_subnets: vec!["127.0.0.1/32".parse().unwrap()],
        own_addresses: vec!["127.0.0.1:50051".parse().unwrap()],
        ..EgressPolicy::default()
    };
    assert!(parsed("http://127.0.0.1:3000/api", &policy).is_ok());
    assert!(parsed("https://127.0.0.1:3000/api", &policy).is_ok());
    assert!(parsed("http://localhost:3000/api", &policy).is_ok());
    assert_eq!(
        parsed("http://127.0.0.1:50051/", &policy),
        Err("address_forbidden")
    );
    assert_eq!(
        parsed("http://localhost:50051/", &policy),
        Err("address_forbidden")
    );
    assert_eq!(
        parsed("http://127.0.0.2:3000/", &policy),
        Err("https_required")
    );
    assert_eq!(
        parsed("https://127.0.0.2/", &policy),
        Err("address_forbidden")
    );
    assert_eq!(
        parsed("http://example.com/", &policy),
        Err("https_required")
    );
    assert_eq!(
        parsed("https://example.com:3000/", &policy),
        Err("port_refused")
    );
    assert_eq!(
        parsed("http://app.localhost:3000/", &policy),
        Err("https_required")
    );
}

#[test]
fn a_url_is_as_long_as_its_canonical_form() {
    let url = |length| format!("https://crm.example/{}", "é".repeat(length));
    // Each is written in two bytes, and sent in six.
    let longest = (super::MAX_BYTES - url(0).len()) / 6;
    let accepted = EndpointUrl::parse(&url(longest), &EgressPolicy::default()).unwrap();
    assert!(EndpointUrl::parse(accepted.as_str(), &EgressPolicy::default()).is_ok());
    let refused = EndpointUrl::parse(&url(longest + 1), &EgressPolicy::default());
    assert_eq!(refused.unwrap_err(), UrlFault::Invalid);
}
