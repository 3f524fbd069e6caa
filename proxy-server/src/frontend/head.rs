//! The head of the first HTTP request on a connection: enough of it to serve CONNECT to the byte.

use crate::{frontend::client::Client, outcome::Outcome};

/// Longest request head, in bytes; more is answered with 431.
pub(crate) const HEAD_LIMIT: usize = 32 * 1024;

/// Most header fields; more is answered with 431.
const FIELDS_LIMIT: usize = 100;

/// How HTTP/2 begins (RFC 9113 section 3.4). A client of TLS that has agreed on `h2` says it, too.
pub(crate) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What the first request is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Head {
    /// A CONNECT; its head is taken off the connection, what follows is payload.
    Connect {
        /// The request-target as sent, which should be `host:port` (RFC 9110 section 9.3.6).
        authority: String,
        /// The value of `Proxy-Authorization`, if any; the first one.
        authorization: Option<Vec<u8>>,
    },
    /// HTTP/2, left on the connection with all of its preface.
    Http2,
    /// Any other request, left on the connection.
    Other,
}

/// Why there is no head.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeadError {
    #[error("the request is no HTTP/1.1; speak HTTP, SOCKS5 or TLS to this port")]
    Malformed,
    #[error("the request's head is longer than {HEAD_LIMIT} bytes or has more than {FIELDS_LIMIT} fields; send fewer")]
    TooLarge,
    /// The client is gone; nobody is there to be answered.
    #[error("the connection ended within the request's head")]
    Ended,
}

impl HeadError {
    /// What metrics and audit events call it.
    pub(crate) fn outcome(&self) -> Outcome {
        match self {
            Self::Malformed => Outcome::Malformed,
            Self::TooLarge => Outcome::TooLarge,
            Self::Ended => Outcome::ClientLeft,
        }
    }
}

/// Reads the first head; bound the wait.
pub(crate) async fn read(client: &mut Client) -> Result<Head, HeadError> {
    let mut parsed = 0;
    loop {
        if is_worth_parsing(client.ahead(), parsed) {
            parsed = client.ahead().len();
            if let Some((length, head)) = parse(client.ahead())? {
                if matches!(head, Head::Connect { .. }) {
                    bytes::Buf::advance(client.ahead(), length);
                }
                return Ok(head);
            }
        }
        if client.ahead().len() >= HEAD_LIMIT {
            return Err(HeadError::TooLarge);
        }
        match client.read_ahead().await {
            Ok(0) | Err(_) => return Err(HeadError::Ended),
            Ok(_) => {}
        }
    }
}

/// Whether what came after the first `parsed` bytes can say more: the end of a line, or as much again. A head that comes
/// byte by byte must not be parsed for each.
fn is_worth_parsing(bytes: &[u8], parsed: usize) -> bool {
    bytes[parsed..].contains(&b'\n') || bytes.len() >= parsed * 2
}

pub(crate) fn parse(bytes: &[u8]) -> Result<Option<(usize, Head)>, HeadError> {
    let known = bytes.len().min(PREFACE.len());
    if bytes[..known] == PREFACE[..known] {
        return Ok((known == PREFACE.len()).then_some((0, Head::Http2)));
    }
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_LIMIT];
    let mut request = httparse::Request::new(&mut fields);
    let length = match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(HeadError::TooLarge),
        Err(_) => return Err(HeadError::Malformed),
    };
    if request.method != Some("CONNECT") {
        return Ok(Some((length, Head::Other)));
    }
    let authorization = request.headers.iter().find(|field| field.name.eq_ignore_ascii_case("proxy-authorization"));
    let authorization = authorization.map(|field| field.value.to_vec());
    let authority = request.path.unwrap_or_default().to_owned();
    Ok(Some((length, Head::Connect { authority, authorization })))
}

/// `host:port` of a request-target; the port must be there.
pub(crate) fn host_and_port(authority: &str) -> Option<(&str, u16)> {
    let (host, port) = authority.rsplit_once(':')?;
    // An IPv6 address without brackets has no port that could be told apart.
    if host.contains(':') && !(host.starts_with('[') && host.ends_with(']')) {
        return None;
    }
    let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    if digits { Some((host, port.parse().ok()?)) } else { None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_connect_is_taken_to_its_last_byte() {
        let bytes = b"CONNECT h:1 HTTP/1.1\r\nHost: 127.0.0.1\r\nproxy-AUTHORIZATION: Basic x\r\n\r\npayload";
        let (length, head) = parse(bytes).unwrap().unwrap();
        assert_eq!(&bytes[length..], b"payload");
        assert_eq!(head, Head::Connect { authority: "h:1".into(), authorization: Some(b"Basic x".to_vec()) });
    }

    #[test]
    fn http2_is_known_by_all_of_its_preface() {
        let bytes = [PREFACE, &b"frames"[..]].concat();
        for length in 0..PREFACE.len() {
            assert_eq!(parse(&bytes[..length]).unwrap(), None);
        }
        assert_eq!(parse(&bytes).unwrap(), Some((0, Head::Http2)));
        assert_eq!(parse(b"PRI * HTTP/1.1\r\n\r\n").unwrap().unwrap().1, Head::Other);
    }

    #[test]
    fn half_a_head_is_waited_for_and_garbage_is_not() {
        assert_eq!(parse(b"CONNECT h:1 HTTP/1.1\r\nHo").unwrap(), None);
        assert_eq!(parse(b"\x00\x01garbage\r\n\r\n").unwrap_err(), HeadError::Malformed);
        assert_eq!(parse(b"SSH-2.0-OpenSSH\r\n\r\n").unwrap_err(), HeadError::Malformed);
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(FIELDS_LIMIT + 1));
        assert_eq!(parse(many.as_bytes()).unwrap_err(), HeadError::TooLarge);
    }

    #[test]
    fn a_head_that_comes_byte_by_byte_is_parsed_once_a_line() {
        let head = format!("GET / HTTP/1.1\r\n{}\r\n", format!("a: {}\r\n", "b".repeat(300)).repeat(99));
        let bytes = head.as_bytes();
        let (mut parsed, mut times) = (0, 0);
        for length in 1..=bytes.len() {
            if is_worth_parsing(&bytes[..length], parsed) {
                (parsed, times) = (length, times + 1);
                assert_eq!(parse(&bytes[..length]).unwrap().is_some(), length == bytes.len());
            }
        }
        assert_eq!(parsed, bytes.len());
        assert!(times < 130, "parsed {times} times");
    }

    #[test]
    fn a_target_has_a_host_and_a_port() {
        assert_eq!(host_and_port("h:80"), Some(("h", 80)));
        assert_eq!(host_and_port("[::1]:80"), Some(("[::1]", 80)));
        assert_eq!(host_and_port(":80"), Some(("", 80)));
        for bad in ["", "h", "h:", "h:65536", "h:-1", "h:+1", "::1:80", "h:80x", "h: 80"] {
            assert_eq!(host_and_port(bad), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), authority in ".{0,40}") {
            let _ = parse(&bytes);
            let _ = host_and_port(&authority);
        }
    }
}
