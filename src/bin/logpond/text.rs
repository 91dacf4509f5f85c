//! Text that may come from anyone, made harmless for a terminal: names, keys, values, paths.
//!
//! A record is whatever a program has sent. Its bytes could clear the screen, or make it show what
//! is not there. So nothing is printed as it is that a terminal may act upon; on a pipe neither,
//! where the next program may be a terminal after all.

use std::fmt::Write;
use std::path::Path;

use serde::Serialize;

/// How many bytes a line of a hexadecimal dump shows.
const HEX_COLUMNS: usize = 16;

/// Whether a terminal may act upon a character: control characters, and those that change the
/// direction of the text around them or have no width.
fn is_active(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{2069}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
}

/// Text without active characters: they become escapes as in Rust, and so does the backslash, so
/// that the result stands for one text only.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if character == '\\' || is_active(character) {
            escaped.extend(character.escape_default());
        } else {
            escaped.push(character);
        }
    }
    escaped
}

/// The same of bytes; those that are no UTF-8 become `\xff`.
pub(crate) fn escape_bytes(bytes: &[u8]) -> String {
    let mut escaped = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        escaped.push_str(&escape(chunk.valid()));
        for byte in chunk.invalid() {
            let _ = write!(escaped, "\\x{byte:02x}");
        }
    }
    escaped
}

pub(crate) fn escape_path(path: &Path) -> String {
    escape_bytes(path.as_os_str().as_encoded_bytes())
}

/// JSON without active characters. They occur only inside its strings, where an escape is the same
/// text.
pub(crate) fn escape_json(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for character in json.chars() {
        if is_active(character) && character != '\n' {
            let mut units = [0; 2];
            for unit in character.encode_utf16(&mut units) {
                let _ = write!(escaped, "\\u{unit:04x}");
            }
        } else {
            escaped.push(character);
        }
    }
    escaped
}

/// The bytes of a key, a value or a header, in JSON: a string if they are UTF-8, else an object
/// with their hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(crate) enum Payload {
    Text(String),
    Bytes { hex: String },
}

impl Payload {
    pub(crate) fn new(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Bytes { hex: hex(bytes, "") },
        }
    }
}

fn hex(bytes: &[u8], between: &str) -> String {
    let digits: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    digits.join(between)
}

/// The lines of a hexadecimal dump: position, bytes, and the printable characters of ASCII.
pub(crate) fn hex_lines(bytes: &[u8]) -> impl Iterator<Item = String> {
    (0..).step_by(HEX_COLUMNS).zip(bytes.chunks(HEX_COLUMNS)).map(|(position, line): (usize, _)| {
        let shown = line.iter().map(|byte| match byte {
            b' '..=b'~' => char::from(*byte),
            _ => '.',
        });
        let (digits, shown) = (hex(line, " "), shown.collect::<String>());
        format!("{position:08x}  {digits:<width$}  {shown}", width = HEX_COLUMNS * 3 - 1)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_acts_upon_is_escaped() {
        for (text, escaped) in [
            ("plain, äöü, 日本", "plain, äöü, 日本"),
            ("a\tb\nc\r", r"a\tb\nc\r"),
            ("\u{1b}[2J", r"\u{1b}[2J"),
            ("\u{9b}2J", r"\u{9b}2J"),
            ("a\u{202e}b", r"a\u{202e}b"),
            ("a\u{ad}b", r"a\u{ad}b"),
            (r"C:\x", r"C:\\x"),
        ] {
            assert_eq!(escape(text), escaped);
        }
        assert_eq!(escape_bytes(b"a\xff\x00b"), r"a\xff\u{0}b");
    }

    #[test]
    fn json_keeps_its_meaning() {
        let text = "a\u{9b}\u{202e}\u{7f}\n\u{feff}é😀";
        let json = serde_json::to_string(text).unwrap();
        let escaped = escape_json(&json);
        assert!(!escaped.chars().any(is_active), "{escaped}");
        assert_eq!(serde_json::from_str::<String>(&escaped).unwrap(), text);
    }

    #[test]
    fn bytes_that_are_no_text_are_digits() {
        let json = |bytes| serde_json::to_string(&Payload::new(bytes)).unwrap();
        assert_eq!(json(b"welcome!"), r#""welcome!""#);
        assert_eq!(json(b"\xff\x00"), r#"{"hex":"ff00"}"#);
    }

    #[test]
    fn a_dump_has_lines_of_sixteen_bytes() {
        let lines: Vec<String> = hex_lines(b"welcome home, all\n").collect();
        assert_eq!(
            lines,
            [
                "00000000  77 65 6c 63 6f 6d 65 20 68 6f 6d 65 2c 20 61 6c  welcome home, al",
                "00000010  6c 0a                                            l.",
            ]
        );
    }
}
