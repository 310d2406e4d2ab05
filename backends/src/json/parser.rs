//! The strict reader: recursive descent, at most [`MAX_DEPTH`] calls deep.

use serde_json::{Map, Number, Value};

use super::{JsonError, JsonRule, MAX_BYTES, MAX_DEPTH, MAX_FIELDS, number};

/// Keys that start so are how `serde_json` passes numbers and raw text between its own parts.
const RESERVED: &str = "$serde_json::private::";

/// How much of one key is shown in a path.
const KEY_SHOWN: usize = 64;

/// How much of a path is shown.
const PATH_SHOWN: usize = 200;

pub(super) fn parse(bytes: &[u8]) -> Result<Value, JsonError> {
    let whole = |rule| JsonError {
        path: String::new(),
        rule,
    };
    if bytes.len() > MAX_BYTES {
        return Err(whole(JsonRule::TooLarge));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| whole(JsonRule::Utf8))?;
    read(text, true)
}

pub(super) fn parse_stored(text: &str) -> Result<Value, JsonError> {
    read(text, false)
}

fn read(text: &str, bounded: bool) -> Result<Value, JsonError> {
    let mut parser = Parser {
        text,
        bounded,
        at: 0,
        path: Vec::new(),
    };
    parser.document().map_err(|rule| JsonError {
        path: parser.shown_path(),
        rule,
    })
}

enum Step {
    Key(String),
    Index(usize),
}

/// On an error `path` is left as it was at the fault.
struct Parser<'a> {
    text: &'a str,
    /// Whether objects and numbers have limits.
    bounded: bool,
    at: usize,
    path: Vec<Step>,
}

impl Parser<'_> {
    fn document(&mut self) -> Result<Value, JsonRule> {
        let value = self.value(0)?;
        self.skip_white_space();
        if self.at == self.text.len() {
            Ok(value)
        } else {
            Err(JsonRule::Invalid)
        }
    }

    fn value(&mut self, depth: usize) -> Result<Value, JsonRule> {
        self.skip_white_space();
        match self.peek() {
            Some(b'{' | b'[') if depth == MAX_DEPTH => Err(JsonRule::TooDeep),
            Some(b'{') => self.object(depth + 1).map(Value::Object),
            Some(b'[') => self.array(depth + 1).map(Value::Array),
            Some(b'"') => self.string().map(Value::String),
            Some(b'-' | b'0'..=b'9') => self.number().map(Value::Number),
            Some(b't') => self.word("true", Value::Bool(true)),
            Some(b'f') => self.word("false", Value::Bool(false)),
            Some(b'n') => self.word("null", Value::Null),
            _ => Err(JsonRule::Invalid),
        }
    }

    fn object(&mut self, depth: usize) -> Result<Map<String, Value>, JsonRule> {
        let mut fields = Map::new();
        self.at += 1;
        self.skip_white_space();
        if self.eat(b'}') {
            return Ok(fields);
        }
        loop {
            self.skip_white_space();
            if self.peek() != Some(b'"') {
                return Err(JsonRule::Invalid);
            }
            let key = self.string()?;
            self.path.push(Step::Key(key.clone()));
            if key.starts_with(RESERVED) {
                return Err(JsonRule::ReservedKey);
            }
            if fields.contains_key(&key) {
                return Err(JsonRule::DuplicateKey);
            }
            self.skip_white_space();
            self.expect(b':')?;
            let value = self.value(depth)?;
            self.path.pop();
            if self.bounded && fields.len() == MAX_FIELDS {
                return Err(JsonRule::TooManyFields);
            }
            fields.insert(key, value);
            self.skip_white_space();
            if self.eat(b'}') {
                return Ok(fields);
            }
            self.expect(b',')?;
        }
    }

    fn array(&mut self, depth: usize) -> Result<Vec<Value>, JsonRule> {
        let mut items = Vec::new();
        self.at += 1;
        self.skip_white_space();
        if self.eat(b']') {
            return Ok(items);
        }
        loop {
            self.path.push(Step::Index(items.len()));
            items.push(self.value(depth)?);
            self.path.pop();
            self.skip_white_space();
            if self.eat(b']') {
                return Ok(items);
            }
            self.expect(b',')?;
        }
    }

    fn number(&mut self) -> Result<Number, JsonRule> {
        let start = self.at;
        self.eat(b'-');
        if !self.eat(b'0') {
            self.digits()?;
        }
        if self.eat(b'.') {
            self.digits()?;
        }
        if self.eat(b'e') || self.eat(b'E') {
            let _signed = self.eat(b'+') || self.eat(b'-');
            self.digits()?;
        }
        let text = &self.text[start..self.at];
        if !self.bounded || number::in_range(text) {
            // The only way to a number that keeps its text: the public ones rewrite exponents.
            Ok(Number::from_string_unchecked(text.to_owned()))
        } else {
            Err(JsonRule::NumberOutOfRange)
        }
    }

    fn digits(&mut self) -> Result<(), JsonRule> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at > start {
            Ok(())
        } else {
            Err(JsonRule::Invalid)
        }
    }

    fn string(&mut self) -> Result<String, JsonRule> {
        self.at += 1;
        let mut string = String::new();
        loop {
            let rest = &self.text[self.at..];
            let plain = rest
                .bytes()
                .position(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1f))
                .ok_or(JsonRule::Invalid)?;
            string.push_str(&rest[..plain]);
            self.at += plain + 1;
            match rest.as_bytes()[plain] {
                b'"' => return Ok(string),
                b'\\' => string.push(self.escape()?),
                _ => return Err(JsonRule::Invalid),
            }
        }
    }

    fn escape(&mut self) -> Result<char, JsonRule> {
        let letter = self.peek().ok_or(JsonRule::Invalid)?;
        self.at += 1;
        match letter {
            b'"' | b'\\' | b'/' => Ok(char::from(letter)),
            b'b' => Ok('\u{8}'),
            b'f' => Ok('\u{c}'),
            b'n' => Ok('\n'),
            b'r' => Ok('\r'),
            b't' => Ok('\t'),
            b'u' => self.unicode_escape(),
            _ => Err(JsonRule::Invalid),
        }
    }

    fn unicode_escape(&mut self) -> Result<char, JsonRule> {
        let first = self.four_hex_digits()?;
        let units = if (0xd800..0xdc00).contains(&first) {
            if !self.text[self.at..].starts_with("\\u") {
                return Err(JsonRule::Utf8);
            }
            self.at += 2;
            vec![first, self.four_hex_digits()?]
        } else {
            vec![first]
        };
        match char::decode_utf16(units).next() {
            Some(Ok('\0')) => Err(JsonRule::Nul),
            Some(Ok(character)) => Ok(character),
            Some(Err(_)) | None => Err(JsonRule::Utf8),
        }
    }

    fn four_hex_digits(&mut self) -> Result<u16, JsonRule> {
        let digits = self
            .text
            .get(self.at..self.at + 4)
            .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
            .ok_or(JsonRule::Invalid)?;
        self.at += 4;
        u16::from_str_radix(digits, 16).map_err(|_| JsonRule::Invalid)
    }

    fn word(&mut self, word: &str, value: Value) -> Result<Value, JsonRule> {
        if self.text[self.at..].starts_with(word) {
            self.at += word.len();
            Ok(value)
        } else {
            Err(JsonRule::Invalid)
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, byte: u8) -> Result<(), JsonRule> {
        if self.eat(byte) {
            Ok(())
        } else {
            Err(JsonRule::Invalid)
        }
    }

    fn skip_white_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn shown_path(&self) -> String {
        let mut path = String::new();
        for step in &self.path {
            match step {
                Step::Index(index) => path.extend(["[", &index.to_string(), "]"]),
                Step::Key(key) => {
                    if !path.is_empty() {
                        path.push('.');
                    }
                    path.extend(key.chars().filter(|c| !c.is_control()).take(KEY_SHOWN));
                }
            }
            if path.chars().count() > PATH_SHOWN {
                path.push('…');
                break;
            }
        }
        path
    }
}
