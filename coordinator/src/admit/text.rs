//! The rules for the names that callers choose.

use crate::refusal::Refusal;

/// The longest name, in characters.
pub(super) const MAX_CHARACTERS: usize = 255;

/// The most sync groups that a request may name.
pub(super) const MAX_SYNC_GROUPS: usize = 100;

/// Whether a text is 1 to 255 printable characters: no control characters, and no white space but
/// the plain space.
pub(super) fn is_printable(text: &str) -> bool {
    let printable = |c: char| c == ' ' || !(c.is_control() || c.is_whitespace());
    has_length(text) && text.chars().all(printable)
}

/// Whether a text is 1 to 255 characters without control characters, as the ids of rows and the
/// names of fields are.
pub(crate) fn is_name(text: &str) -> bool {
    has_length(text) && !text.chars().any(char::is_control)
}

/// The beginning of a text that someone else chose, to quote it in a message.
pub(super) fn quoted(text: &str) -> String {
    const MAX_QUOTED: usize = 64;
    let beginning: String = text.chars().take(MAX_QUOTED).collect();
    let more = if beginning.len() < text.len() {
        "…"
    } else {
        ""
    };
    format!("`{}{more}`", beginning.escape_debug())
}

/// Checks that a field of the request is printable.
pub(super) fn printable(reason: &'static str, field: &str, text: &str) -> Result<(), Refusal> {
    if is_printable(text) {
        Ok(())
    } else {
        Err(Refusal::field(
            reason,
            field,
            "must be 1 to 255 printable characters",
        ))
    }
}

/// Checks the groups that a caller must belong to.
pub(super) fn sync_groups(groups: &[String]) -> Result<(), Refusal> {
    const FIELD: &str = "required_sync_groups";
    if groups.len() > MAX_SYNC_GROUPS {
        let rule = format!("must be at most {MAX_SYNC_GROUPS}");
        return Err(Refusal::field("sync_groups_count", FIELD, rule));
    }
    groups.iter().enumerate().try_for_each(|(index, group)| {
        printable("sync_group_invalid", &format!("{FIELD}[{index}]"), group)
    })
}

/// Where something stands: `base`, or `base.path`, or `base[3]`.
pub(super) fn joined(base: &str, path: &str) -> String {
    if path.is_empty() {
        base.to_owned()
    } else if base.is_empty() || path.starts_with('[') {
        format!("{base}{path}")
    } else {
        format!("{base}.{path}")
    }
}

fn has_length(text: &str) -> bool {
    !text.is_empty() && text.chars().nth(MAX_CHARACTERS).is_none()
}

#[cfg(test)]
mod tests {
    use super::{is_name, is_printable, joined, quoted};

    #[test]
    fn a_name_has_at_most_255_characters_however_many_bytes() {
        assert!(is_name(&"é".repeat(255)));
        assert!(!is_name(&"é".repeat(256)));
        assert!(!is_name(""));
    }

    #[test]
    fn control_characters_are_refused() {
        for text in ["a\0", "a\n", "\u{7f}", "\u{85}"] {
            assert!(!is_name(text) && !is_printable(text), "{text:?}");
        }
        assert!(is_name("a\u{2028}b") && !is_printable("a\u{2028}b"));
        assert!(is_printable("a b"));
    }

    #[test]
    fn a_path_is_joined_by_a_dot_or_a_bracket() {
        assert_eq!(joined("input_json", "a.b[3]"), "input_json.a.b[3]");
        assert_eq!(joined("input_json", "[3]"), "input_json[3]");
        assert_eq!(joined("input_json", ""), "input_json");
    }

    #[test]
    fn a_quote_is_short_and_escaped() {
        assert_eq!(quoted("a\nb"), "`a\\nb`");
        assert_eq!(quoted(&"x".repeat(100)), format!("`{}…`", "x".repeat(64)));
    }
}
