//! A pair of ports, `LOCAL:REMOTE`.

use std::str::FromStr;

/// Where to listen, and where it leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pair {
    /// 0 for any free one.
    pub(crate) local: u16,
    /// From 1.
    pub(crate) remote: u16,
}

/// Why a text is no pair.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PairError {
    #[error("write LOCAL:REMOTE, like 3000:80, or PORT for the same on both sides, or :REMOTE for any free local port")]
    Shape,
    #[error("{0:?} is no port; ports go from 1 to 65535")]
    Port(String),
}

impl FromStr for Pair {
    type Err = PairError;

    fn from_str(text: &str) -> Result<Self, PairError> {
        let (local, remote) = match text.split_once(':') {
            Some((_, remote)) if remote.is_empty() || remote.contains(':') => return Err(PairError::Shape),
            Some(("" | "0", remote)) => (0, port(remote)?),
            Some((local, remote)) => (port(local)?, port(remote)?),
            None => (port(text)?, port(text)?),
        };
        Ok(Self { local, remote })
    }
}

/// Digits alone: `u16` would also read "+80".
fn port(text: &str) -> Result<u16, PairError> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(port) if digits && port != 0 => Ok(port),
        _ => Err(PairError::Port(text.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_read_like_kubectls() {
        let pairs =
            [("3000:80", 3000, 80), ("8080", 8080, 8080), (":80", 0, 80), ("0:80", 0, 80), ("1:65535", 1, 65535)];
        for (text, local, remote) in pairs {
            assert_eq!(text.parse(), Ok(Pair { local, remote }), "{text}");
        }
    }

    #[test]
    fn what_is_no_pair_is_told_how_to_write_one() {
        for text in ["3000:", ":", "1:2:3", "a:b:c"] {
            assert_eq!(text.parse::<Pair>(), Err(PairError::Shape), "{text}");
        }
        for (text, port) in
            [("", ""), ("http", "http"), ("80:http", "http"), ("0", "0"), ("80:0", "0"), ("65536", "65536")]
        {
            assert_eq!(text.parse::<Pair>(), Err(PairError::Port(port.into())), "{text}");
        }
        for text in ["+80", "-1:80", " 80", "80:0x50"] {
            assert!(matches!(text.parse::<Pair>(), Err(PairError::Port(_))), "{text}");
        }
    }
}
