//! Text of others as it is written into a log or onto a terminal: on one line, and nothing in it moves or hides the rest.

use std::{
    fmt::{self, Write as _},
    io,
};

/// Whether `letter` does something where it is shown, instead of being shown: controls (C0, DEL, C1), ends of lines and
/// paragraphs, what reorders or hides text, and tags.
pub fn is_hidden(letter: char) -> bool {
    letter.is_control()
        || matches!(letter,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Shows a value with every hidden letter as Rust writes it: `\n`, `\u{1b}`.
#[derive(Clone, Copy, Debug)]
pub struct Escaped<T>(pub T);

impl<T: fmt::Display> fmt::Display for Escaped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaping(f), "{}", self.0)
    }
}

/// Writes on what it is given, escaped as by [`Escaped`].
#[derive(Debug)]
pub struct Escaping<W>(pub W);

impl<W: fmt::Write> fmt::Write for Escaping<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some(at) = rest.find(is_hidden) {
            let (plain, hidden) = rest.split_at(at);
            self.0.write_str(plain)?;
            let mut letters = hidden.chars();
            if let Some(letter) = letters.next() {
                write!(self.0, "{}", letter.escape_default())?;
            }
            rest = letters.as_str();
        }
        self.0.write_str(rest)
    }
}

/// Writes `text` as a string of JSON in which nothing is hidden.
pub fn write_json(to: &mut String, text: &str) {
    to.push('"');
    for letter in text.chars() {
        match letter {
            '"' => to.push_str("\\\""),
            '\\' => to.push_str("\\\\"),
            letter if is_hidden(letter) => push_units(to, letter),
            letter => to.push(letter),
        }
    }
    to.push('"');
}

/// Passes whole lines of JSON on, in which a serializer has left hidden letters: they are in strings.
#[derive(Debug)]
pub struct JsonLines<W>(pub W);

impl<W: io::Write> io::Write for JsonLines<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        let (line, end) = text.strip_suffix('\n').map_or((&*text, ""), |line| (line, "\n"));
        if !line.contains(is_hidden) {
            return self.0.write_all(bytes).map(|()| bytes.len());
        }
        let mut escaped = String::with_capacity(text.len() + 64);
        for letter in line.chars() {
            if is_hidden(letter) { push_units(&mut escaped, letter) } else { escaped.push(letter) }
        }
        escaped.push_str(end);
        self.0.write_all(escaped.as_bytes()).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// RFC 8259 section 7.
fn push_units(to: &mut String, letter: char) {
    for unit in letter.encode_utf16(&mut [0; 2]) {
        // Writing to a string does not fail.
        let _ = write!(to, "\\u{unit:04x}");
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    /// One of each kind.
    const HIDDEN: &str = "\0\t\n\r\x1b\x7f\u{85}\u{9b}\u{200b}\u{2028}\u{2029}\u{202e}\u{2066}\u{feff}\u{e0041}";

    #[test]
    fn what_is_hidden_is_shown_and_the_rest_is_left() {
        let text = format!("é {HIDDEN}\"\\界");
        let shown = Escaped(&text).to_string();
        assert!(!shown.contains(is_hidden), "{shown}");
        assert!(shown.starts_with("é \\u{0}\\t\\n\\r\\u{1b}") && shown.ends_with("\\u{e0041}\"\\界"), "{shown}");
        assert_eq!(Escaped("plain").to_string(), "plain");
    }

    #[test]
    fn a_string_of_json_is_read_back_as_it_was() {
        let text = format!("é {HIDDEN}\"\\界");
        let mut json = String::new();
        write_json(&mut json, &text);
        assert!(!json.contains(is_hidden), "{json}");
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
    }

    #[test]
    fn lines_of_json_keep_their_end_and_nothing_else_of_a_line() {
        let mut lines = JsonLines(Vec::new());
        lines.write_all("{\"a\":\"\u{2028}\u{9b}\u{7f}\"}\n".as_bytes()).unwrap();
        lines.write_all(b"{\"b\":1}\n").unwrap();
        assert_eq!(String::from_utf8(lines.0).unwrap(), "{\"a\":\"\\u2028\\u009b\\u007f\"}\n{\"b\":1}\n");
    }
}
