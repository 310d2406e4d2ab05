//! A page of a feed: each event is read by itself, so that one that cannot be read takes nothing with it.

use serde_json::Value;

use super::answer::{AnswerFault, cursor, fault, fields, id_text};
use crate::json::{JsonError, lossy_string, parse, raw_fields, raw_items};

/// A page of a feed, its events unjudged: one that is at fault does not take its neighbours with it.
#[derive(Clone, Debug, PartialEq)]
pub struct FeedPage {
    /// In the feed's order; each that can be read is to be judged with [`super::parse_event`].
    pub events: Vec<Result<Value, Unreadable>>,
    /// Where to go on; absent means: keep the cursor you had.
    pub next_cursor: Option<String>,
}

/// An event that is JSON, and breaks a rule that all JSON has to keep here: it can be shown.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Unreadable {
    /// Its own id, if that can be read.
    pub id: Option<String>,
    /// Its text as it came; bytes that are no text are replaced.
    pub text: String,
    /// The rule that it breaks, and where, for a person.
    pub rule: String,
}

impl Unreadable {
    /// An event that was refused with this error.
    pub fn new(raw: &[u8], error: &JsonError) -> Self {
        let fields = raw_fields(raw).unwrap_or_default();
        let mut ids = fields
            .iter()
            .filter(|(key, _)| lossy_string(key).as_deref() == Some("id"));
        let id = match (ids.next(), ids.next()) {
            (Some((_, id)), None) => parse(id).ok(),
            _ => None,
        };
        Self {
            id: id.as_ref().and_then(id_text).map(ToOwned::to_owned),
            text: String::from_utf8_lossy(raw).into_owned(),
            rule: error.to_string(),
        }
    }
}

/// Reads `{events: [...], nextCursor?}`; fields beside these may be what they like.
///
/// # Errors
/// When it is something else.
pub fn parse_feed(body: &[u8]) -> Result<FeedPage, AnswerFault> {
    let given = raw_fields(body).ok_or_else(|| fault("the answer is not a JSON object"))?;
    let mut events = None;
    // What is left without the events has to keep all rules.
    let mut rest: Vec<Vec<u8>> = Vec::new();
    for (key, value) in given {
        let name = lossy_string(key).unwrap_or_default();
        if !["events", "nextCursor", "error"].contains(&name.as_str()) {
            continue;
        }
        let items = raw_items(value).filter(|_| name == "events");
        let left = if items.is_some() { &b"[]"[..] } else { value };
        rest.push([key, b":", left].concat());
        events = items.or(events);
    }
    let rest = [&b"{"[..], &rest.join(&b","[..]), b"}"].concat();
    let answer = fields(&rest)?;
    let events = events.ok_or_else(|| fault("the answer has no array `events`"))?;
    let read = |raw: &[u8]| parse(raw).map_err(|error| Unreadable::new(raw, &error));
    Ok(FeedPage {
        events: events.into_iter().map(read).collect(),
        next_cursor: cursor(&answer)?,
    })
}

#[cfg(test)]
mod tests {
    use super::super::parse_event;
    use super::*;

    #[test]
    fn an_event_at_fault_leaves_its_page_whole() {
        let page = parse_feed(br#"{"events":[{"id":"1"},7],"nextCursor":"c"}"#).unwrap();
        let events = page.events.into_iter().map(Result::unwrap);
        assert_eq!(events.map(parse_event).filter(Result::is_err).count(), 2);
        assert_eq!(page.next_cursor.as_deref(), Some("c"));
    }

    #[test]
    fn an_event_that_cannot_be_read_leaves_its_neighbours_and_can_be_shown() {
        let deep = format!(r#"{{"id":"e","n":{}{}}}"#, "[".repeat(80), "]".repeat(80));
        let cases: [(&[u8], Option<&str>, &str); 8] = [
            (br#"{"id":"e","s":"\u0000"}"#, Some("e"), "s: a string that"),
            (br#"{"id":"e\u0000","n":1}"#, None, "id: a string that"),
            (br#"{"id":7,"n":1e400}"#, Some("7"), "n: a number out"),
            (br#"{"id":"e","n":1,"n":2}"#, Some("e"), "n: the key"),
            (br#"{"id":"e","id":"f"}"#, None, "id: the key"),
            (
                br#"{"id":"e","s":"\ud800"}"#,
                Some("e"),
                "s: not valid UTF-8",
            ),
            (
                b"{\"id\":\"e\",\"s\":\"\xff\"}",
                Some("e"),
                "not valid UTF-8",
            ),
            (deep.as_bytes(), Some("e"), "n["),
        ];
        for (raw, id, rule) in cases {
            let body = [
                br#"{"events":[{"id":"a"},"#,
                raw,
                br#",8],"nextCursor":"c"}"#,
            ]
            .concat();
            let page = parse_feed(&body).unwrap();
            assert_eq!(
                (page.events.len(), page.next_cursor.as_deref()),
                (3, Some("c"))
            );
            assert!(page.events[0].is_ok() && page.events[2].is_ok());
            let event = page.events[1].clone().unwrap_err();
            assert_eq!(event.id.as_deref(), id, "{event:?}");
            assert!(event.rule.starts_with(rule), "{event:?}");
            assert_eq!(event.text, String::from_utf8_lossy(raw));
            assert!(!event.text.contains('\0'));
        }
    }

    #[test]
    fn what_is_beside_the_events_is_of_no_matter_unless_it_is_the_cursor_or_an_error() {
        let beside = parse_feed(br#"{"a":"\u0000","events":[],"nextCursor":"","a":1e400}"#);
        assert_eq!(beside.unwrap().next_cursor, None);
        for body in [
            "",
            "[]",
            "{}",
            r#"{"events":{}}"#,
            r#"{"events":[],"events":[]}"#,
            r#"{"events":[],"events":7}"#,
            r#"{"events":[],"nextCursor":"\u0000"}"#,
            r#"{"events":[],"nextCursor":"a","nextCursor":"b"}"#,
            r#"{"events":[],"error":"x"}"#,
            r#"{"events":[{"id":"a"}"#,
        ] {
            assert!(parse_feed(body.as_bytes()).is_err(), "{body}");
        }
    }
}
