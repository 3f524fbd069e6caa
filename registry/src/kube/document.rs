//! A document about the API: a body that changes only with the program, so that clients can keep it by its ETag.

use serde_json::Value;
use sha2::{Digest, Sha256};

/// What `/api`, `/apis`, `/openapi` and `/version` answer with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    pub content_type: &'static str,
    pub body: Vec<u8>,
    /// Hexadecimal SHA-256 of the body, in capitals and without quotes.
    pub hash: String,
}

impl Document {
    pub(super) fn new(content_type: &'static str, body: Vec<u8>) -> Self {
        let hash = Sha256::digest(&body).iter().map(|byte| format!("{byte:02X}")).collect();
        Self { content_type, body, hash }
    }

    pub(super) fn json(content_type: &'static str, value: &Value) -> Self {
        Self::new(content_type, value.to_string().into_bytes())
    }

    /// The ETag header.
    pub fn etag(&self) -> String {
        format!("\"{}\"", self.hash)
    }

    /// Whether a client that sent this If-None-Match header has the document already: answer 304.
    pub fn is_known(&self, if_none_match: &str) -> bool {
        if_none_match
            .split(',')
            .map(|tag| tag.trim().trim_start_matches("W/"))
            .any(|tag| tag == "*" || tag.trim_matches('"') == self.hash)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_client_that_has_it_is_told_so() {
        let document = Document::json("application/json", &json!({"a": 1}));
        assert!(document.is_known(&document.etag()));
        assert!(document.is_known(&format!("\"x\", W/{}", document.etag())));
        assert!(document.is_known("*"));
        assert!(!document.is_known("\"x\""));
        assert!(!document.is_known(""));
    }
}
