//! Text quoted as Go's `%q` does it: Kubernetes' messages are made of it, and clients compare them.

use std::fmt::{self, Write};

/// One string in double quotes.
#[derive(Debug)]
pub(super) struct Quoted<'a>(pub &'a str);

/// A list of strings: `["a" "b"]`.
#[derive(Debug)]
pub(super) struct QuotedList<'a>(pub &'a [String]);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for c in self.0.chars() {
            match c {
                '"' => f.write_str("\\\""),
                '\\' => f.write_str("\\\\"),
                '\x07' => f.write_str("\\a"),
                '\x08' => f.write_str("\\b"),
                '\t' => f.write_str("\\t"),
                '\n' => f.write_str("\\n"),
                '\x0b' => f.write_str("\\v"),
                '\x0c' => f.write_str("\\f"),
                '\r' => f.write_str("\\r"),
                // Longer than itself: Rust, too, would not print it as it is.
                _ if c != '\'' && c.escape_debug().len() > 1 => match u32::from(c) {
                    code @ ..0x80 => write!(f, "\\x{code:02x}"),
                    code @ 0x80..0x1_0000 => write!(f, "\\u{code:04x}"),
                    code => write!(f, "\\U{code:08x}"),
                },
                _ => f.write_char(c),
            }?;
        }
        f.write_char('"')
    }
}

impl fmt::Display for QuotedList<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('[')?;
        for (at, text) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_char(' ')?;
            }
            Quoted(text).fmt(f)?;
        }
        f.write_char(']')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_quoted_as_go_quotes_it() {
        let quoted = |text| Quoted(text).to_string();
        assert_eq!(quoted("alice"), r#""alice""#);
        assert_eq!(quoted("o'neil \"x\" \\"), r#""o'neil \"x\" \\""#);
        assert_eq!(quoted("a\n\t\0\x7f"), r#""a\n\t\x00\x7f""#);
        assert_eq!(quoted("größe\u{200b}\u{e0001}"), r#""größe\u200b\U000e0001""#);
        assert_eq!(QuotedList(&["a".to_owned(), "b c".to_owned()]).to_string(), r#"["a" "b c"]"#);
        assert_eq!(QuotedList(&[]).to_string(), "[]");
    }
}
