//! What an operator is shown of an answer.

/// How much of an answer is looked at, in bytes.
pub const EXCERPT_BYTES: usize = 2_048;

/// The first 2 KiB of a body as text: bytes that are not UTF-8 are replaced, control characters
/// (line breaks among them) and what turns the direction of text are escaped.
pub fn excerpt(body: &[u8]) -> String {
    let shown = &body[..body.len().min(EXCERPT_BYTES)];
    escaped(&String::from_utf8_lossy(shown))
}

/// At most `characters` of a text that an endpoint sent, escaped as in [`excerpt`].
pub(super) fn shortened(text: &str, characters: usize) -> String {
    let mut shown: String = text.chars().take(characters).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    escaped(&shown)
}

fn escaped(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() || turns_direction(character) {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

fn turns_direction(character: char) -> bool {
    matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::{EXCERPT_BYTES, excerpt, shortened};

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(
            excerpt(b"a\x1b[31mb\r\n\0\x7f"),
            r"a\u{1b}[31mb\r\n\u{0}\u{7f}"
        );
        assert_eq!(excerpt("a\u{202e}b".as_bytes()), r"a\u{202e}b");
    }

    #[test]
    fn what_is_no_text_is_replaced() {
        assert_eq!(excerpt(b"\xff\xfeok"), "\u{fffd}\u{fffd}ok");
    }

    #[test]
    fn only_the_beginning_is_shown() {
        assert_eq!(excerpt(&vec![b'x'; 1 << 20]).len(), EXCERPT_BYTES);
        assert_eq!(shortened("äöü", 2), "äö…");
        assert_eq!(shortened("äöü", 3), "äöü");
    }
}
