//! Reads JSON into a tree that keeps the order of fields and their duplicates.
//!
//! Why not serde_json: strict decoding must report duplicates with their paths in document order,
//! numbers keep their text until a type asks for them, the texts of errors are Go's, and nesting
//! must not cost stack.

use std::borrow::Cow;

use crate::stdx::limits::BODY_DEPTH_MAX;

/// A JSON value as it was written.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node<'a> {
    Null,
    Bool(bool),
    /// The text of a number.
    Number(Cow<'a, str>),
    String(Cow<'a, str>),
    /// A scalar of YAML that YAML 1.2 calls a text: YAML 1.1 may see a number or a boolean.
    Plain(Cow<'a, str>),
    Array(Vec<Node<'a>>),
    Object(Vec<(Cow<'a, str>, Node<'a>)>),
}

enum Frame<'a> {
    Array(Vec<Node<'a>>),
    Object(Vec<(Cow<'a, str>, Node<'a>)>, Cow<'a, str>),
}

/// Reads one JSON value and nothing after it.
pub(super) fn json(text: &[u8]) -> Result<Node<'_>, String> {
    let mut scan = Scan { text, at: 0 };
    let node = scan.value()?;
    match scan.peek() {
        None => Ok(node),
        Some(byte) => Err(invalid(byte, "after top-level value")),
    }
}

const END: &str = "unexpected end of JSON input";

fn invalid(byte: u8, context: &str) -> String {
    let shown = match byte {
        b'\'' => "\\'".to_owned(),
        b'"' => "\"".to_owned(),
        b'\n' => "\\n".to_owned(),
        b'\r' => "\\r".to_owned(),
        b'\t' => "\\t".to_owned(),
        b'\\' => "\\\\".to_owned(),
        0..0x20 | 0x7f..0xa0 => format!("\\x{byte:02x}"),
        byte => char::from(byte).to_string(),
    };
    format!("invalid character '{shown}' {context}")
}

struct Scan<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Scan<'a> {
    /// The next byte that is not white space.
    fn peek(&mut self) -> Option<u8> {
        while matches!(self.text.get(self.at), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
        self.text.get(self.at).copied()
    }

    fn value(&mut self) -> Result<Node<'a>, String> {
        let mut stack: Vec<Frame<'a>> = Vec::new();
        'value: loop {
            let mut done = match self.peek().ok_or(END)? {
                open @ (b'{' | b'[') => {
                    self.at += 1;
                    if stack.len() >= BODY_DEPTH_MAX {
                        return Err(invalid(open, "exceeded max depth"));
                    }
                    match self.opened(open)? {
                        Ok(empty) => empty,
                        Err(frame) => {
                            stack.push(frame);
                            continue 'value;
                        }
                    }
                }
                byte => self.scalar(byte)?,
            };
            loop {
                match stack.pop() {
                    None => return Ok(done),
                    Some(Frame::Array(mut items)) => {
                        items.push(done);
                        match self.peek().ok_or(END)? {
                            b',' => {
                                self.at += 1;
                                stack.push(Frame::Array(items));
                                continue 'value;
                            }
                            b']' => done = Node::Array(items),
                            byte => return Err(invalid(byte, "after array element")),
                        }
                    }
                    Some(Frame::Object(mut fields, key)) => {
                        fields.push((key, done));
                        match self.peek().ok_or(END)? {
                            b',' => {
                                self.at += 1;
                                let key = self.key()?;
                                stack.push(Frame::Object(fields, key));
                                continue 'value;
                            }
                            b'}' => done = Node::Object(fields),
                            byte => return Err(invalid(byte, "after object key:value pair")),
                        }
                    }
                }
                self.at += 1;
            }
        }
    }

    /// After an opening bracket: the empty value, or a frame that waits for its first item.
    fn opened(&mut self, open: u8) -> Result<Result<Node<'a>, Frame<'a>>, String> {
        match (open, self.peek().ok_or(END)?) {
            (b'{', b'}') => {
                self.at += 1;
                Ok(Ok(Node::Object(Vec::new())))
            }
            (b'{', _) => Ok(Err(Frame::Object(Vec::new(), self.key()?))),
            (_, b']') => {
                self.at += 1;
                Ok(Ok(Node::Array(Vec::new())))
            }
            _ => Ok(Err(Frame::Array(Vec::new()))),
        }
    }

    fn key(&mut self) -> Result<Cow<'a, str>, String> {
        match self.peek().ok_or(END)? {
            b'"' => {}
            byte => return Err(invalid(byte, "looking for beginning of object key string")),
        }
        let key = self.string()?;
        match self.peek().ok_or(END)? {
            b':' => self.at += 1,
            byte => return Err(invalid(byte, "after object key")),
        }
        Ok(key)
    }

    fn scalar(&mut self, first: u8) -> Result<Node<'a>, String> {
        match first {
            b'"' => self.string().map(Node::String),
            b't' => self.word("true", Node::Bool(true)),
            b'f' => self.word("false", Node::Bool(false)),
            b'n' => self.word("null", Node::Null),
            b'-' | b'0'..=b'9' => self.number(),
            byte => Err(invalid(byte, "looking for beginning of value")),
        }
    }

    fn word(&mut self, word: &str, node: Node<'a>) -> Result<Node<'a>, String> {
        for expected in word.bytes() {
            let byte = *self.text.get(self.at).ok_or(END)?;
            if byte != expected {
                let expected = char::from(expected);
                return Err(invalid(byte, &format!("in literal {word} (expecting '{expected}')")));
            }
            self.at += 1;
        }
        Ok(node)
    }

    fn digits(&mut self, context: &str) -> Result<(), String> {
        let start = self.at;
        while self.text.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        match self.text.get(self.at) {
            _ if self.at > start => Ok(()),
            None => Err(END.to_owned()),
            Some(byte) => Err(invalid(*byte, context)),
        }
    }

    fn number(&mut self) -> Result<Node<'a>, String> {
        let start = self.at;
        if self.text[self.at] == b'-' {
            self.at += 1;
        }
        if self.text.get(self.at) == Some(&b'0') {
            self.at += 1;
        } else {
            self.digits("in numeric literal")?;
        }
        if self.text.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.digits("after decimal point in numeric literal")?;
        }
        if matches!(self.text.get(self.at), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.text.get(self.at), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits("in exponent of numeric literal")?;
        }
        Ok(Node::Number(String::from_utf8_lossy(&self.text[start..self.at])))
    }

    /// The string whose opening quote is at hand. Broken UTF-8 becomes U+FFFD, as in Go.
    fn string(&mut self) -> Result<Cow<'a, str>, String> {
        self.at += 1;
        let mut start = self.at;
        let mut out: Option<String> = None;
        loop {
            match *self.text.get(self.at).ok_or(END)? {
                b'"' => break,
                b'\\' => {
                    let text = out.get_or_insert_default();
                    text.push_str(&String::from_utf8_lossy(&self.text[start..self.at]));
                    self.at += 1;
                    let letter = self.escape()?;
                    text.push(letter);
                    start = self.at;
                }
                byte @ 0..0x20 => return Err(invalid(byte, "in string literal")),
                _ => self.at += 1,
            }
        }
        let tail = String::from_utf8_lossy(&self.text[start..self.at]);
        self.at += 1;
        Ok(match out {
            None => tail,
            Some(text) => Cow::Owned(text + &tail),
        })
    }

    fn escape(&mut self) -> Result<char, String> {
        let byte = *self.text.get(self.at).ok_or(END)?;
        self.at += 1;
        Ok(match byte {
            b'"' | b'\\' | b'/' => char::from(byte),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let high = self.hex()?;
                let pair = (0xd800..0xdc00).contains(&high)
                    && self.text.get(self.at..self.at + 2) == Some(b"\\u");
                if pair {
                    let back = self.at;
                    self.at += 2;
                    let low = self.hex()?;
                    if (0xdc00..0xe000).contains(&low) {
                        let code = 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
                        return Ok(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
                    }
                    self.at = back;
                }
                char::from_u32(high).unwrap_or(char::REPLACEMENT_CHARACTER)
            }
            byte => return Err(invalid(byte, "in string escape code")),
        })
    }

    fn hex(&mut self) -> Result<u32, String> {
        let mut code = 0;
        for _ in 0..4 {
            let byte = *self.text.get(self.at).ok_or(END)?;
            let digit = char::from(byte)
                .to_digit(16)
                .ok_or_else(|| invalid(byte, "in \\u hexadecimal character escape"))?;
            code = code * 16 + digit;
            self.at += 1;
        }
        Ok(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_duplicates_and_number_texts_are_kept() {
        let node = json(br#" {"b": [1.50, -0, true], "a": "\u00e9\ud83d\ude00\n", "b": null} "#);
        let Ok(Node::Object(fields)) = node else { panic!("{node:?}") };
        let names: Vec<_> = fields.iter().map(|(name, _)| name.as_ref()).collect();
        assert_eq!(names, ["b", "a", "b"]);
        let numbers = [Node::Number("1.50".into()), Node::Number("-0".into()), Node::Bool(true)];
        assert_eq!(fields[0].1, Node::Array(numbers.to_vec()));
        assert_eq!(fields[1].1, Node::String("é😀\n".into()));
        assert_eq!(
            json(b"[[], {}]"),
            Ok(Node::Array(vec![Node::Array(vec![]), Node::Object(vec![])]))
        );
    }

    #[test]
    fn errors_are_in_gos_words() {
        for (text, error) in [
            ("", "unexpected end of JSON input"),
            ("{", "unexpected end of JSON input"),
            ("{a", "invalid character 'a' looking for beginning of object key string"),
            ("{\"a\" 1", "invalid character '1' after object key"),
            ("{\"a\":1 2", "invalid character '2' after object key:value pair"),
            ("[1 2", "invalid character '2' after array element"),
            ("[1,]", "invalid character ']' looking for beginning of value"),
            ("tru\"", "invalid character '\"' in literal true (expecting 'e')"),
            ("-x", "invalid character 'x' in numeric literal"),
            ("1.x", "invalid character 'x' after decimal point in numeric literal"),
            ("01", "invalid character '1' after top-level value"),
            ("\"\n\"", "invalid character '\\n' in string literal"),
            ("\"\\x\"", "invalid character 'x' in string escape code"),
        ] {
            assert_eq!(json(text.as_bytes()), Err(error.to_owned()), "{text}");
        }
        let deep = "[".repeat(100_000);
        assert_eq!(json(deep.as_bytes()), Err("invalid character '[' exceeded max depth".into()));
    }
}
