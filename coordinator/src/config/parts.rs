//! The parts of the config, each judged from its settings. `None` means that a mistake was noted.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use url::Url;

use super::reading::{self, Reading};
use super::secret::Secret;
use super::settings::Settings;
use super::{
    Calls, Credentials, Database, Delivery, Egress, Listener, LogFormat, Retention, Streams,
    TelemetryConfig, Times,
};
use crate::keys::MasterKeys;

/// The shortest operator token: 24 characters of base64 are 144 bits.
const TOKEN_MIN: usize = 24;
/// The longest that history may be kept: ten years.
const MOST_DAYS: u16 = 3_650;
/// A customer may repeat an id this long after it was settled.
const SHORTEST_LEDGER: u16 = 35;
/// A feed that is read again from an old cursor must not be taken in twice.
const SHORTEST_FEED: u16 = 30;
/// A lease above this could not be taken over within 10 s of a crash.
const LEASE_MAX: Duration = Duration::from_secs(8);
/// How far the node's idea of a second may differ from the database's within one lease.
const LEASE_SKEW: Duration = Duration::from_millis(500);

pub(super) fn database(reading: &mut Reading, settings: &Settings) -> Option<Database> {
    let url = settings.database_url.as_ref().map(Secret::expose);
    let options = reading.required("database-url", url, Database::parse_url);
    let ledger = reading.number(
        "ledger-connections",
        &settings.ledger_connections,
        1..=1_000,
    );
    let reads = reading.number("read-connections", &settings.read_connections, 1..=1_000);
    let shared = reading.number(
        "organizations-per-statement",
        &settings.organizations_per_statement,
        1..=256,
    );
    Some(Database {
        options: options?,
        ledger_connections: ledger?.into(),
        read_connections: reads?.into(),
        organizations_per_statement: shared?.into(),
    })
}

pub(super) fn listener(reading: &mut Reading, settings: &Settings) -> Option<Listener> {
    let address = reading.required("listen", Some(settings.listen.as_str()), socket_address);
    let admin = reading.optional(
        "admin-listen",
        settings.admin_listen.as_deref(),
        socket_address,
    );
    if let (Some(address), Some(Some(admin))) = (address, admin)
        && address == admin
        && address.port() != 0
    {
        reading.mistake::<()>("admin-listen", "must differ from --listen");
    }
    let certificate = reading.optional(
        "tls-certificate",
        settings.tls_certificate.as_deref(),
        pem_file,
    );
    let key = reading.optional("tls-key", settings.tls_key.as_deref(), pem_file);
    let tls = match (certificate?, key?) {
        (Some(certificate), Some(key)) => Some((certificate.into_bytes(), Secret::new(key))),
        (None, None) => None,
        (Some(_), None) => return reading.mistake("tls-key", "required with --tls-certificate"),
        (None, Some(_)) => return reading.mistake("tls-certificate", "required with --tls-key"),
    };
    Some(Listener {
        address: address?,
        admin: admin?,
        tls,
    })
}

pub(super) fn credentials(reading: &mut Reading, settings: &Settings) -> Option<Credentials> {
    let token = reading.secret(
        "operator-token",
        settings.operator_token.as_ref(),
        settings.operator_token_file.as_deref(),
    );
    let operator_token = token.and_then(|token| match operator_token(token.expose()) {
        Ok(()) => Some(token),
        Err(rule) => reading.mistake("operator-token", rule),
    });
    let keys = reading.secret(
        "master-keys",
        settings.master_keys.as_ref(),
        settings.master_keys_file.as_deref(),
    );
    let master_keys = keys.and_then(|keys| match MasterKeys::parse(keys.expose()) {
        Ok(_) => Some(keys),
        Err(fault) => reading.mistake("master-keys", &fault.to_string()),
    });
    Some(Credentials {
        operator_token: operator_token?,
        master_keys: master_keys?,
    })
}

pub(super) fn times(reading: &mut Reading, settings: &Settings) -> Option<Times> {
    let wait_cap = reading.span("wait-cap", &settings.wait_cap);
    let drain_deadline = reading.span("drain-deadline", &settings.drain_deadline);
    let drain_grace = reading.span_or_none("drain-grace", &settings.drain_grace);
    let node_lease = reading.span("node-lease", &settings.node_lease);
    let node_renewal = reading.span("node-renewal", &settings.node_renewal);
    if drain_grace? >= drain_deadline? {
        reading.mistake::<()>("drain-grace", "must be shorter than --drain-deadline");
    }
    if node_lease? > LEASE_MAX {
        reading.mistake::<()>("node-lease", "must be at most 8 s");
    }
    if node_renewal? * 2 + LEASE_SKEW > node_lease? {
        reading.mistake::<()>(
            "node-renewal",
            "twice this and 500 ms must fit in --node-lease",
        );
    }
    Some(Times {
        wait_cap: wait_cap?,
        drain_deadline: drain_deadline?,
        drain_grace: drain_grace?,
        node_lease: node_lease?,
        node_renewal: node_renewal?,
    })
}

pub(super) fn egress(reading: &mut Reading, settings: &Settings) -> Option<Egress> {
    let subnets = reading.each("allow-subnet", &settings.allow_subnet, |text| {
        text.parse()
            .map_err(|_| format!("`{text}` is not a network: write 10.0.0.0/8"))
    });
    let ports = reading.each("allow-port", &settings.allow_port, |text| {
        match text.parse() {
            Ok(0) | Err(_) => Err(format!("`{text}` is not a port")),
            Ok(port) => Ok(port),
        }
    });
    Some(Egress {
        allowed_subnets: subnets?,
        allowed_ports: ports?,
    })
}

pub(super) fn delivery(reading: &mut Reading, settings: &Settings) -> Option<Delivery> {
    let attempts = reading.number(
        "attempts-in-flight",
        &settings.attempts_in_flight,
        16..=65_535,
    );
    Some(Delivery {
        attempts_in_flight: attempts?.into(),
    })
}

pub(super) fn streams(reading: &mut Reading, settings: &Settings) -> Option<Streams> {
    let all = reading.number("streams", &settings.streams, 1..=65_535);
    let each = reading.number(
        "streams-per-organization",
        &settings.streams_per_organization,
        1..=65_535,
    );
    Some(Streams {
        all: all?.into(),
        each: each?.into(),
    })
}

pub(super) fn calls(reading: &mut Reading, settings: &Settings) -> Option<Calls> {
    let all = reading.number("calls-in-flight", &settings.calls_in_flight, 1..=65_535);
    let each = reading.number(
        "calls-in-flight-per-organization",
        &settings.calls_in_flight_per_organization,
        1..=65_535,
    );
    Some(Calls {
        in_flight: all?.into(),
        per_organization: each?.into(),
    })
}

pub(super) fn retention(reading: &mut Reading, settings: &Settings) -> Option<Retention> {
    let mut days = |setting, text: &str, least| reading.number(setting, text, least..=MOST_DAYS);
    let deltas = days("delta-retention-days", &settings.delta_retention_days, 1);
    let attempts = days(
        "attempt-retention-days",
        &settings.attempt_retention_days,
        1,
    );
    let managed = days(
        "managed-commit-retention-days",
        &settings.managed_commit_retention_days,
        1,
    );
    let source = match settings.source_commit_retention_days.as_deref() {
        None | Some("") => Some(None),
        Some(text) => days("source-commit-retention-days", text, SHORTEST_LEDGER).map(Some),
    };
    let events = days(
        "feed-event-retention-days",
        &settings.feed_event_retention_days,
        SHORTEST_FEED,
    );
    let quarantined = days(
        "quarantined-event-retention-days",
        &settings.quarantined_event_retention_days,
        1,
    );
    let actions = days("action-retention-days", &settings.action_retention_days, 1);
    Some(Retention {
        delta_days: deltas?,
        attempt_days: attempts?,
        managed_commit_days: managed?,
        source_commit_days: source?,
        feed_event_days: events?,
        quarantined_event_days: quarantined?,
        action_days: actions?,
    })
}

pub(super) fn telemetry(reading: &mut Reading, settings: &Settings) -> Option<TelemetryConfig> {
    let format =
        reading.required(
            "log-format",
            Some(settings.log_format.as_str()),
            |text| match text {
                "text" => Ok(LogFormat::Text),
                "json" => Ok(LogFormat::Json),
                _ => Err(format!("`{text}` is neither text nor json")),
            },
        );
    let filter = reading.required("log-filter", Some(settings.log_filter.as_str()), |text| {
        tracing_subscriber::EnvFilter::try_new(text)
            .map(|_| text.to_owned())
            .map_err(|error| error.to_string())
    });
    let otlp_endpoint = reading.optional(
        "otlp-endpoint",
        settings.otlp_endpoint.as_deref(),
        |text| match Url::parse(text) {
            Ok(url) if url.scheme() == "http" && url.has_host() => Ok(url),
            _ => Err(format!("`{text}` is not an http:// URL")),
        },
    );
    let service_name = reading.required(
        "service-name",
        Some(settings.service_name.as_str()),
        |text| Ok(text.to_owned()),
    );
    Some(TelemetryConfig {
        format: format?,
        filter: filter?,
        otlp_endpoint: otlp_endpoint?,
        service_name: service_name?,
    })
}

fn socket_address(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| format!("`{text}` is not an address: write 127.0.0.1:7654"))
}

fn pem_file(path: &str) -> Result<String, String> {
    match reading::file(Path::new(path))? {
        text if text.contains("-----BEGIN ") => Ok(text),
        _ => Err(format!("{path} is not a PEM file")),
    }
}

fn operator_token(token: &str) -> Result<(), &'static str> {
    if token.len() < TOKEN_MIN {
        return Err("must have at least 24 characters");
    }
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("must be printable ASCII without spaces");
    }
    Ok(())
}
