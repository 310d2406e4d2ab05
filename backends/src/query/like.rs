//! Patterns: `%` is any text, `_` any one character, `\` makes the next character plain.

#[derive(Clone, Copy)]
enum Part {
    AnyText,
    AnyCharacter,
    Plain(char),
}

/// Whether a pattern does not end within an escape.
pub(super) fn is_whole(pattern: &str) -> bool {
    let backslashes = pattern.chars().rev().take_while(|c| *c == '\\').count();
    backslashes % 2 == 0
}

/// Whether the whole text fits the pattern. `fold` looks past case, one character at a time.
///
/// Takes at most length of text times length of pattern steps.
pub(super) fn matches(text: &str, pattern: &str, fold: bool) -> bool {
    let folded = |c: char| if fold { fold_case(c) } else { c };
    let parts = parts(pattern, folded);
    let text: Vec<char> = text.chars().map(folded).collect();
    let (mut at, mut part) = (0, 0);
    // Where to go on when a guess was wrong: the `%` last met takes one character more.
    let mut guess: Option<(usize, usize)> = None;
    while at < text.len() {
        match parts.get(part) {
            Some(Part::AnyText) => {
                part += 1;
                guess = Some((at, part));
                continue;
            }
            Some(Part::AnyCharacter) => {
                at += 1;
                part += 1;
                continue;
            }
            Some(Part::Plain(c)) if *c == text[at] => {
                at += 1;
                part += 1;
                continue;
            }
            Some(Part::Plain(_)) | None => {}
        }
        let Some((start, after)) = guess else {
            return false;
        };
        guess = Some((start + 1, after));
        at = start + 1;
        part = after;
    }
    parts[part..]
        .iter()
        .all(|part| matches!(part, Part::AnyText))
}

fn parts(pattern: &str, folded: impl Fn(char) -> char) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut characters = pattern.chars();
    while let Some(character) = characters.next() {
        parts.push(match character {
            '%' => Part::AnyText,
            '_' => Part::AnyCharacter,
            '\\' => Part::Plain(folded(characters.next().unwrap_or('\\'))),
            plain => Part::Plain(folded(plain)),
        });
    }
    parts
}

fn fold_case(character: char) -> char {
    let mut lower = character.to_lowercase();
    match (lower.next(), lower.next()) {
        (Some(single), None) => single,
        _ => character,
    }
}
