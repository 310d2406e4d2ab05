//! What an endpoint's answers say of it. Pure.

use std::time::Duration;

use backends::data_source::classify::{
    Outcome, ReadFault, ReadFaultKind, SKEW_TOLD, commit_outcome, events_outcome, list_outcome,
    load_outcome,
};
use backends::data_source::clock::Skew;
use backends::data_source::endpoint::UrlFault;
use backends::data_source::excerpt::excerpt;
use backends::data_source::exchange::{Exchange, FailureClass};
use backends::data_source::wire::parse_error;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Check, KeyCheck, Verification};
use crate::domain::RequestKind;
use crate::store::source_requests::{FailedRequest, LastRequests};

/// Receivers refuse timestamps that are further off.
const SKEW_REFUSED: Duration = Duration::from_mins(5);

/// From here on a certificate's end is near.
const CERTIFICATE_ENDS_SOON: time::Duration = time::Duration::days(14);

/// What an endpoint says that finds our timestamp too old, or too far ahead.
const TIMESTAMP_EXPIRED: &str = "source_timestamp_expired";

/// What came of every request.
pub(super) struct Answers {
    pub(super) https: bool,
    /// Whether the model that was asked for exists.
    pub(super) model_known: bool,
    /// The row that was asked for.
    pub(super) row: String,
    pub(super) now: OffsetDateTime,
    pub(super) events: Exchange,
    pub(super) load: Exchange,
    pub(super) list: Exchange,
    pub(super) commit: Exchange,
    /// To a key that nobody has; `None` when it was not asked.
    pub(super) stranger: Option<Exchange>,
    /// To each live key alone.
    pub(super) alone: Vec<Alone>,
}

/// What came of a request that one key signed.
pub(super) struct Alone {
    pub(super) id: Uuid,
    /// As much of the key as may be shown.
    pub(super) shown: String,
    pub(super) answer: Exchange,
}

/// Says that a certificate ends soon, or has ended; nothing otherwise.
pub fn certificate_ending(ends: OffsetDateTime, now: OffsetDateTime) -> Option<String> {
    let left = ends - now;
    if left <= time::Duration::ZERO {
        return Some(format!(
            "the endpoint's certificate ended on {}: renew it",
            ends.date()
        ));
    }
    (left <= CERTIFICATE_ENDS_SOON).then(|| {
        let days = left.whole_days();
        format!(
            "the endpoint's certificate ends on {}, in {days} days: renew it",
            ends.date()
        )
    })
}

impl Verification {
    /// Of a URL that nothing may be sent to.
    pub(super) fn of_forbidden(fault: UrlFault) -> Self {
        let message = format!("{fault}; mend the URL");
        Self {
            checks: vec![check("reachable", Err(message), None)],
            keys: Vec::new(),
            skew: None,
            certificate_expires_at: None,
            requests: Vec::new(),
        }
    }
}

impl Answers {
    /// Whether the endpoint answered at all.
    pub(super) fn any_came(&self) -> bool {
        self.all().iter().any(|answer| answer.status.is_some())
    }

    pub(super) fn judged(&self) -> Verification {
        let mut checks = vec![
            check("reachable", self.reachable(), Some(&self.events)),
            check("tls", self.tls(), None),
        ];
        if self.any_came() {
            let stranger = self.stranger.as_ref();
            checks.extend([
                check("signature", self.signature(), stranger),
                check("clock", self.clock(), None),
                check("commit", self.commit(), Some(&self.commit)),
                check("load", self.load(), Some(&self.load)),
                check("list", self.list(), Some(&self.list)),
                check("events", self.events(), Some(&self.events)),
            ]);
        }
        let ends = self.all().iter().find_map(|it| it.certificate_expires_at);
        Verification {
            checks,
            keys: self.keys(),
            skew: self.skew(),
            certificate_expires_at: ends.map(OffsetDateTime::from),
            requests: self.requests(),
        }
    }

    fn all(&self) -> [&Exchange; 4] {
        [&self.events, &self.load, &self.list, &self.commit]
    }

    fn reachable(&self) -> Result<String, String> {
        if self.any_came() {
            return Ok("the endpoint answers".to_owned());
        }
        let failure = self.events.failure.as_ref();
        let (class, message) = failure.map_or((FailureClass::Closed, "no answer"), |failure| {
            (failure.class, failure.message.as_str())
        });
        let mend = match class {
            FailureClass::Tls => {
                return Ok("the endpoint is there, but no TLS connection comes about".to_owned());
            }
            FailureClass::AddressForbidden | FailureClass::RequestInvalid => "mend the URL",
            FailureClass::Dns | FailureClass::DnsTimeout => "mend the URL or the name's records",
            FailureClass::Connect | FailureClass::TimeoutConnect => {
                "start the app, let the coordinator through its firewall, or mend the URL"
            }
            _ => "see that the app answers POST requests at this URL",
        };
        Err(format!("{message}; {mend}"))
    }

    fn tls(&self) -> Result<String, String> {
        if !self.https {
            return Ok("no TLS: for development only".to_owned());
        }
        let failures = self.all().into_iter().filter_map(|it| it.failure.as_ref());
        let mut refused = failures.filter(|failure| failure.class == FailureClass::Tls);
        if let Some(failure) = refused.next() {
            let mend = "give the endpoint a certificate for its name, by a public authority, with \
                        its whole chain, and TLS 1.2 or later";
            return Err(format!("{}; {mend}", failure.message));
        }
        let ends = self.all().iter().find_map(|it| it.certificate_expires_at);
        let Some(ends) = ends.map(OffsetDateTime::from) else {
            return Err("no TLS connection came about".to_owned());
        };
        let valid = || format!("the certificate is valid until {}", ends.date());
        Ok(certificate_ending(ends, self.now).unwrap_or_else(valid))
    }

    fn signature(&self) -> Result<String, String> {
        if self.timestamp_refused() {
            return Err("not known: the endpoint refuses the timestamp; see `clock`".to_owned());
        }
        if let Some(refused) = self.all().iter().find(|it| it.status == Some(401)) {
            let shown = self.alone.iter().map(|key| format!("{}…", key.shown));
            let shown = shown.collect::<Vec<_>>().join(", ");
            return Err(format!(
                "answered {}: the endpoint's key is not one of this organization's: {shown}; give \
                 it one of them, and verify the raw body",
                told(refused)
            ));
        }
        let Some(stranger) = &self.stranger else {
            return Err("not known: no answer came".to_owned());
        };
        match stranger.status {
            Some(401) => Ok(format!(
                "a key that nobody has is refused; {}",
                self.taken()
            )),
            Some(_) => Err(format!(
                "a request signed with a key that nobody has was answered {}: verify \
                 webhook-signature before anything else, and answer 401 \
                 {{\"error\": \"source_signature_invalid\"}}",
                told(stranger)
            )),
            None => Err(format!(
                "not known: to a request signed with a key that nobody has, {}",
                told(stranger)
            )),
        }
    }

    /// Which live keys the endpoint takes.
    fn taken(&self) -> String {
        let all = self.alone.len();
        let taken = self.alone.iter().filter(|key| key.accepted() == Some(true));
        let taken: Vec<_> = taken.map(|key| format!("{}…", key.shown)).collect();
        match taken.len() {
            0 => "no live key was seen to be taken alone".to_owned(),
            count => format!("taken: {count} of {all} live keys: {}", taken.join(", ")),
        }
    }

    fn timestamp_refused(&self) -> bool {
        self.all()
            .iter()
            .any(|it| it.status == Some(401) && code(it).as_deref() == Some(TIMESTAMP_EXPIRED))
    }

    /// The least: answers that waited for their turn tell an older time.
    fn skew(&self) -> Option<Skew> {
        let skews = self.all().into_iter().filter_map(Exchange::clock_skew);
        skews.min_by_key(|skew| skew.by)
    }

    fn clock(&self) -> Result<String, String> {
        let skew = self.skew();
        let off = skew.map(|skew| format!("the endpoint's clock is {skew} ours"));
        if self.timestamp_refused() {
            let off = off.unwrap_or_else(|| "it sends no Date to compare with".to_owned());
            return Err(format!(
                "answered 401 {TIMESTAMP_EXPIRED}: {off}; set the clocks by a time server"
            ));
        }
        match (skew, off) {
            (Some(skew), Some(off)) if skew.by >= SKEW_REFUSED => Err(format!(
                "{off}: signatures are refused from 5 min on; set the clocks by a time server"
            )),
            (Some(skew), Some(off)) if skew.by > SKEW_TOLD => Ok(format!(
                "{off}: at 5 min signatures are refused; set the clocks by a time server"
            )),
            (Some(_), _) => Ok("the clocks agree".to_owned()),
            (None, _) => Ok("not known: the endpoint sends no Date".to_owned()),
        }
    }

    fn commit(&self) -> Result<String, String> {
        match commit_outcome(&self.commit, &[], &[]) {
            Outcome::Refused { .. } => Ok(format!(
                "commits are served: an empty one was refused, {}",
                told(&self.commit)
            )),
            Outcome::Applied(_) => Ok("commits are served: an empty one was taken".to_owned()),
            other => {
                let error = other.error().map(|error| error.message).unwrap_or_default();
                let mend = match self.commit.status {
                    Some(401) => "see `signature` and `clock`",
                    Some(404) => "serve commits at this URL",
                    _ => "refuse an empty commit with 400 {\"error\": \"source_commit_invalid\"}",
                };
                Err(format!("{error}; {mend}"))
            }
        }
    }

    fn load(&self) -> Result<String, String> {
        let read = load_outcome(&self.load, &self.row).map(|_| ());
        self.read(read, (&self.load, "load", r#"{"row": object or null}"#))
    }

    fn list(&self) -> Result<String, String> {
        let read = list_outcome(&self.list).map(|_| ());
        self.read(read, (&self.list, "list", r#"{"rows": […]}"#))
    }

    fn events(&self) -> Result<String, String> {
        let read = events_outcome(&self.events).map(|_| ());
        self.read(read, (&self.events, "events", r#"{"events": […]}"#))
    }

    fn read(
        &self,
        read: Result<(), ReadFault>,
        (answer, kind, form): (&Exchange, &str, &str),
    ) -> Result<String, String> {
        let Err(fault) = read else {
            return Ok(format!("{kind} requests are served"));
        };
        if fault.kind == ReadFaultKind::NotConfigured {
            return Ok(format!("{kind} requests are not served, and need not be"));
        }
        let refuses_model = kind != "events" && !self.model_known && is_about_the_request(answer);
        if refuses_model {
            let said = told(answer);
            return Ok(format!("{kind} requests are served: of no model, {said}"));
        }
        let mend = match answer.status {
            Some(401) => "see `signature` and `clock`".to_owned(),
            _ => format!("answer 200 {form}"),
        };
        Err(format!("{}; {mend}", fault.message))
    }

    fn keys(&self) -> Vec<KeyCheck> {
        let checks = self.alone.iter().map(|key| KeyCheck {
            id: key.id,
            accepted: key.accepted(),
        });
        checks.collect()
    }

    /// Reads as every read leaves them on record; what is not served is no failure.
    fn requests(&self) -> Vec<(RequestKind, LastRequests)> {
        let reads = [
            (
                RequestKind::Load,
                &self.load,
                load_outcome(&self.load, &self.row).err(),
            ),
            (
                RequestKind::List,
                &self.list,
                list_outcome(&self.list).err(),
            ),
            (
                RequestKind::Events,
                &self.events,
                events_outcome(&self.events).err(),
            ),
        ];
        let known = reads.into_iter().filter(|(kind, answer, fault)| {
            let of_no_model =
                *kind != RequestKind::Events && !self.model_known && is_about_the_request(answer);
            let served = |fault: &ReadFault| fault.kind != ReadFaultKind::NotConfigured;
            !of_no_model && fault.as_ref().is_none_or(served)
        });
        known
            .map(|(kind, answer, fault)| {
                let failed = fault.map(|fault| FailedRequest {
                    class: fault.class,
                    message: fault.message,
                    http_status: answer.status.map_or(0, i32::from),
                });
                let succeeded = failed.is_none();
                (kind, LastRequests { succeeded, failed })
            })
            .collect()
    }
}

impl Alone {
    /// Whether the endpoint took the key, if the answer says so: whoever answers for another reason
    /// has verified before.
    fn accepted(&self) -> Option<bool> {
        match self.answer.status? {
            401 if code(&self.answer).as_deref() == Some(TIMESTAMP_EXPIRED) => None,
            401 => Some(false),
            200 | 400 | 404 | 422 => Some(true),
            _ => None,
        }
    }
}

fn check(name: &'static str, found: Result<String, String>, answer: Option<&Exchange>) -> Check {
    Check {
        name,
        ok: found.is_ok(),
        message: found.unwrap_or_else(|fault| fault),
        latency: answer.map(|answer| answer.elapsed),
    }
}

/// A refusal that names a code, and none of the signature or of who asks.
fn is_about_the_request(answer: &Exchange) -> bool {
    matches!(answer.status, Some(400 | 404 | 422)) && code(answer).is_some()
}

fn code(answer: &Exchange) -> Option<String> {
    let code = parse_error(&answer.body).map(|body| body.error);
    code.filter(|code| !code.is_empty())
}

/// Status and code, or why there is none.
fn told(answer: &Exchange) -> String {
    match (answer.status, &answer.failure) {
        (Some(status), _) => match code(answer) {
            Some(code) => {
                let code: String = excerpt(code.as_bytes()).chars().take(128).collect();
                format!("{status} {code}")
            }
            None => status.to_string(),
        },
        (None, Some(failure)) => failure.message.clone(),
        (None, None) => "nothing was answered".to_owned(),
    }
}
