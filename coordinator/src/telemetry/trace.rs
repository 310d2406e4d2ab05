//! W3C trace context: a write's trace spans the caller, the accepting node, and the attempts that
//! may be made hours later, which link to it.

use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use rand::RngExt;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// Length of a version 00 header: `00-{32}-{16}-{2}`.
const LENGTH: usize = 55;

/// Reads a `traceparent` header (W3C Trace Context, section 3.2). Anything malformed is `None`: the
/// caller goes on as if there were no header.
pub fn parse(traceparent: &str) -> Option<SpanContext> {
    let header = traceparent.get(..LENGTH)?;
    let rest = &traceparent[LENGTH..];
    let mut parts = header.split('-');
    let version = hexadecimal(parts.next()?, 2)?;
    let trace = hexadecimal(parts.next()?, 32)?;
    let span = hexadecimal(parts.next()?, 16)?;
    let flags = hexadecimal(parts.next()?, 2)?;
    // A later version may add fields behind these; 00 may not, and ff is no version.
    let extended = if version == 0 {
        rest.is_empty()
    } else {
        rest.is_empty() || rest.starts_with('-')
    };
    if parts.next().is_some() || version == 0xff || !extended {
        return None;
    }
    let (span, flags) = (u64::try_from(span).ok()?, u8::try_from(flags).ok()?);
    let context = SpanContext::new(
        TraceId::from(trace),
        SpanId::from(span),
        TraceFlags::new(flags) & TraceFlags::SAMPLED,
        true,
        TraceState::NONE,
    );
    context.is_valid().then_some(context)
}

/// Writes a context as a version 00 header.
pub fn format(context: &SpanContext) -> String {
    let flags = context.trace_flags() & TraceFlags::SAMPLED;
    format!(
        "00-{}-{}-{flags:02x}",
        context.trace_id(),
        context.span_id()
    )
}

/// Makes the sender of a header the parent of a span that has not been entered yet. A malformed
/// header, or a process that does not trace, changes nothing.
pub fn adopt(span: &Span, traceparent: &str) {
    if let Some(remote) = parse(traceparent)
        && let Err(error) = span.set_parent(Context::new().with_remote_span_context(remote))
    {
        tracing::trace!(%error, "a span was left without its remote parent");
    }
}

/// Points from a span, of an attempt say, to the one that caused it in another trace.
pub fn link(span: &Span, traceparent: &str) {
    if let Some(cause) = parse(traceparent) {
        span.add_link(cause);
    }
}

/// The header that names the current span; `None` when the process does not trace.
pub fn current() -> Option<String> {
    let context = Span::current().context();
    let span = context.span();
    span.span_context()
        .is_valid()
        .then(|| format(span.span_context()))
}

/// The header for a request that leaves: the current span's, else a new, unsampled span in the trace
/// of the one who submitted the write, else a new trace.
pub fn outgoing(submitted: Option<&str>) -> String {
    current().unwrap_or_else(|| {
        let submitted = submitted.and_then(parse);
        let mut random = rand::rng();
        let trace = submitted.as_ref().map_or_else(
            || TraceId::from(random.random_range(1..=u128::MAX)),
            SpanContext::trace_id,
        );
        let flags = submitted
            .as_ref()
            .map_or(TraceFlags::NOT_SAMPLED, SpanContext::trace_flags);
        let span = SpanId::from(random.random_range(1..=u64::MAX));
        format(&SpanContext::new(
            trace,
            span,
            flags,
            false,
            TraceState::NONE,
        ))
    })
}

fn hexadecimal(digits: &str, length: usize) -> Option<u128> {
    let lower = digits
        .bytes()
        .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    (lower && digits.len() == length)
        .then(|| u128::from_str_radix(digits, 16).ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_header_reads_and_writes_the_same() {
        let context = parse(HEADER).unwrap();
        assert!(context.is_remote() && context.is_sampled());
        assert_eq!(format(&context), HEADER);
    }

    #[test]
    fn a_later_version_may_carry_more() {
        let later = format!("cc{}-more", &HEADER[2..]);
        assert_eq!(format(&parse(&later).unwrap()), HEADER);
        assert!(parse(&format!("cc{}more", &HEADER[2..])).is_none());
    }

    #[test]
    fn malformed_headers_are_no_headers() {
        for header in [
            "",
            "00",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0x",
            "00-0af7651916cd43dd8448eb211c80319-cb7ad6b7169203331-01",
            "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0é",
        ] {
            assert!(parse(header).is_none(), "{header}");
        }
    }

    #[test]
    fn a_request_that_leaves_stays_in_the_submitters_trace() {
        let header = outgoing(Some(HEADER));
        assert_eq!(header[..36], HEADER[..36]);
        assert_ne!(header, HEADER);
        assert!(parse(&header).is_some());
        assert_ne!(outgoing(None)[..36], outgoing(Some("nonsense"))[..36]);
    }
}
