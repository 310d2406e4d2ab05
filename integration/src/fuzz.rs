//! What strangers may send: each target takes bytes of any kind, and panics when a promise is broken.
//!
//! Tests run them over the committed corpus and mutations of it; `fuzz/` hands them to a
//! fuzzer, which looks for longer.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use backends::data_source::classify::{
    Outcome, commit_outcome, feed_outcome, list_outcome, load_outcome,
};
use backends::data_source::egress::EgressPolicy;
use backends::data_source::endpoint::EndpointUrl;
use backends::data_source::exchange::Exchange;
use backends::data_source::retry_after;
use backends::data_source::wire::parse_event;
use backends::json;
use backends::operation::{OnStale, Operation, OperationKind};
use coordinator::admit::Schema;
use coordinator::domain::OrganizationId;
use coordinator::keys::MasterKeys;
use coordinator::log::cursor::{Cursor, Cursors};
use serde_json::{Map, Value};
use url::{Host, Url};
use uuid::Uuid;

/// A target's name, which its corpus has too, and its body.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 6] = [
    ("endpoint_answers", endpoint_answers),
    ("event_pages", event_pages),
    ("retry_after", retry_afters),
    ("endpoint_urls", endpoint_urls),
    ("cursors", cursors),
    ("schema_documents", schema_documents),
];

const MODEL: &str = "airports";

fn operation(kind: OperationKind, id: &str) -> Operation {
    let fields = [("name".to_owned(), Value::from("Berlin"))];
    let input = match kind {
        OperationKind::Create | OperationKind::Update => Map::from_iter(fields),
        _ => Map::new(),
    };
    Operation {
        kind,
        model: MODEL.to_owned(),
        id: id.to_owned(),
        input,
        transaction_id: None,
        read_at: None,
        on_stale: OnStale::Reject,
    }
}

/// An endpoint's answer to a commit, a load and a list: three digits of a status, then the body.
///
/// # Panics
/// When an answer is taken for one that names rows of nobody's, or leaves out a row of ours, or whose
/// rows do not survive being written down.
pub fn endpoint_answers(data: &[u8]) {
    let (status, body) = data.split_at(data.len().min(3));
    let status = std::str::from_utf8(status)
        .ok()
        .and_then(|it| it.parse().ok());
    let exchange = Exchange::answered(status.unwrap_or(200), body.to_vec());
    let operations = [
        operation(OperationKind::Create, "a"),
        operation(OperationKind::Update, "b"),
        operation(OperationKind::Delete, "c"),
    ];
    let outcome = commit_outcome(&exchange, &operations, &[MODEL.to_owned()]);
    assert!(
        outcome
            .error()
            .is_none_or(|error| error.message.len() < 8_192)
    );
    if let Outcome::Applied(changes) = outcome {
        let answered: BTreeSet<_> = changes.iter().filter_map(|it| it.operation).collect();
        assert_eq!(
            answered.len(),
            operations.len(),
            "every operation is answered"
        );
        for change in changes {
            assert_eq!(change.model, MODEL);
            if let Some(at) = change.operation {
                assert_eq!(change.id, operations[at].id);
            }
            if let Some(row) = &change.row {
                survives(row.value());
            }
        }
    }
    if let Ok(Some(row)) = load_outcome(&exchange, "a") {
        assert_eq!(row.get("id").and_then(Value::as_str), Some("a"));
        survives(&row.into());
    }
    if let Ok(page) = list_outcome(&exchange) {
        for row in page.rows {
            survives(&row.into());
        }
    }
}

/// A row reads as it was written.
fn survives(row: &Value) {
    let written = json::canonical(row);
    let read = json::parse(written.as_bytes()).expect("what was read can be read again");
    assert!(json::same(row, &read), "{written}");
    assert_eq!(json::canonical(&read), written);
    assert!(!has_nul(row), "no database takes it");
}

fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(has_nul),
        Value::Object(fields) => fields
            .iter()
            .any(|(name, it)| name.contains('\0') || has_nul(it)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// A page of an endpoint's feed.
///
/// # Panics
/// When an event without a name or a row is taken for one.
pub fn event_pages(data: &[u8]) {
    let exchange = Exchange::answered(200, data.to_vec());
    let Ok(page) = feed_outcome(&exchange) else {
        return;
    };
    for told in page.events {
        let raw = match told {
            Ok(raw) => raw,
            Err(unreadable) => {
                // It is stored as it is.
                assert!(!unreadable.text.contains('\0') && !unreadable.rule.contains('\0'));
                continue;
            }
        };
        survives(&raw);
        if let Ok(event) = parse_event(raw) {
            for text in [&event.id, &event.model, &event.entity_id] {
                assert!(!text.is_empty());
            }
            survives(&event.data.unwrap_or_default().into());
        }
    }
}

/// `Retry-After`, a header a line.
///
/// # Panics
/// When a pause is longer than the longest.
pub fn retry_afters(data: &[u8]) {
    let cap = Duration::from_hours(1);
    let now = SystemTime::UNIX_EPOCH + Duration::from_hours(500_000);
    let pause = retry_after::parse(data.split(|it| *it == b'\n'), now, cap);
    assert!(pause.is_none_or(|pause| pause <= cap));
}

/// The URL of an endpoint, as an organization gives it.
///
/// # Panics
/// When one is accepted that leads into somebody's own network, or would not be accepted again.
pub fn endpoint_urls(data: &[u8]) {
    let policy = EgressPolicy {
        allowed_subnets: Vec::new(),
        allowed_ports: vec![443],
        own_addresses: Vec::new(),
    };
    let Ok(accepted) = EndpointUrl::parse(&String::from_utf8_lossy(data), &policy) else {
        return;
    };
    let again = EndpointUrl::parse(accepted.as_str(), &policy).expect("its own form is accepted");
    assert_eq!(again.as_str(), accepted.as_str());
    let url = Url::parse(accepted.as_str()).expect("it is a URL");
    assert_eq!(
        (url.scheme(), url.username(), url.password()),
        ("https", "", None)
    );
    assert_eq!(
        (url.port_or_known_default(), url.fragment()),
        (Some(443), None)
    );
    match url.host().expect("it has a host") {
        Host::Ipv4(address) => assert!(is_public(address), "{address}"),
        Host::Ipv6(address) => match address.to_canonical() {
            // An address in the clothes of another is judged by what it is.
            IpAddr::V4(address) => assert!(is_public(address), "{address}"),
            // Nothing but global unicast.
            IpAddr::V6(address) => assert_eq!(address.segments()[0] >> 13, 1, "{address}"),
        },
        Host::Domain(name) => {
            assert!(name.contains('.') && !name.ends_with('.'), "{name}");
            for ending in [".localhost", ".local", ".internal"] {
                assert!(!name.ends_with(ending), "{name}");
            }
        }
    }
}

fn is_public(address: Ipv4Addr) -> bool {
    !(address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_unspecified()
        || address.is_multicast()
        || address.is_broadcast()
        || address.is_documentation()
        || address.octets()[0] == 0
        || address.octets()[0] >= 240
        || (address.octets()[0] == 100 && address.octets()[1] & 0xc0 == 64))
}

static CURSORS: LazyLock<Cursors> = LazyLock::new(|| {
    let key = "fuzz:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
    Cursors::new(&MasterKeys::parse(key).expect("the key is well formed"))
});

/// A cursor, as a subscriber hands it back; and what becomes of a good one when it is tampered with.
///
/// # Panics
/// When one is taken that we did not make, or one that we made is not.
pub fn cursors(data: &[u8]) {
    let organization = OrganizationId::new("acme");
    let seal = CURSORS.seal(&organization);
    let text = String::from_utf8_lossy(data);
    if let Ok(cursor) = CURSORS.open(&organization, &text) {
        assert_eq!(seal.cursor(cursor), text, "only we make them");
    }
    let mut bytes = [0; 24];
    bytes
        .iter_mut()
        .zip(data)
        .for_each(|(to, from)| *to = *from);
    let (epoch, position) = bytes.split_at(16);
    let cursor = Cursor {
        epoch: Uuid::from_slice(epoch).expect("it has 16 bytes"),
        position: i64::from_be_bytes(position.try_into().expect("it has 8 bytes")),
    };
    let made = seal.cursor(cursor);
    assert_eq!(CURSORS.open(&organization, &made), Ok(cursor));
    assert!(CURSORS.open(&OrganizationId::new("other"), &made).is_err());
    let mut tampered = made.into_bytes();
    let at = data
        .first()
        .map_or(0, |it| usize::from(*it) % tampered.len());
    tampered[at] = if tampered[at] == b'A' { b'B' } else { b'A' };
    let tampered = String::from_utf8(tampered).expect("it is ASCII");
    assert!(CURSORS.open(&organization, &tampered).is_err());
}

/// A schema, as an organization pushes it.
///
/// # Panics
/// When one is accepted whose own text is not, or is another's.
pub fn schema_documents(data: &[u8]) {
    let Ok(schema) = Schema::compile(1, data) else {
        return;
    };
    let text = schema.canonical_document();
    let again = Schema::compile(1, text.as_bytes()).expect("its own text is accepted");
    assert_eq!(again.canonical_document(), text);
    assert_eq!(again.sources(), schema.sources());
}
