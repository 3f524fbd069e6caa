//! A pair of ports, `LOCAL:REMOTE`: as it is asked for, and as it is forwarded.

use std::{fmt, str::FromStr};

/// Where to listen, and where it leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pair {
    /// 0 for any free one.
    pub(crate) local: u16,
    /// From 1.
    pub(crate) remote: u16,
}

/// A pair as it is written: the remote port may have a name, which the cluster knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AskedPair {
    pub(crate) local: LocalPort,
    pub(crate) remote: RemotePort,
}

/// Where to listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LocalPort {
    /// Any free one.
    Any,
    /// That of the other side.
    Same,
    Number(u16),
}

/// A port in the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RemotePort {
    /// From 1.
    Number(u16),
    /// Of a port of a service or a pod.
    Name(String),
}

/// Why a text is no pair.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PairError {
    #[error("write LOCAL:REMOTE, like 3000:80, or PORT for the same on both sides, or :REMOTE for any free local port")]
    Shape,
    #[error("{0:?} is no port; ports go from 1 to 65535, or are names that a service or pod gives to them")]
    Port(String),
}

impl FromStr for AskedPair {
    type Err = PairError;

    fn from_str(text: &str) -> Result<Self, PairError> {
        let (local, remote) = match text.split_once(':') {
            Some((_, remote)) if remote.is_empty() || remote.contains(':') => return Err(PairError::Shape),
            Some(("" | "0", remote)) => (LocalPort::Any, remote.parse()?),
            Some((local, remote)) => (LocalPort::Number(number(local)?), remote.parse()?),
            None => (LocalPort::Same, text.parse()?),
        };
        Ok(Self { local, remote })
    }
}

impl AskedPair {
    /// Once the remote port's number is known.
    pub(crate) fn with(&self, remote: u16) -> Pair {
        let local = match self.local {
            LocalPort::Any => 0,
            LocalPort::Same => remote,
            LocalPort::Number(local) => local,
        };
        Pair { local, remote }
    }
}

impl FromStr for RemotePort {
    type Err = PairError;

    fn from_str(text: &str) -> Result<Self, PairError> {
        // Kubernetes' names of ports (RFC 6335): one without a letter would be a number.
        let word = text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        let is_name = word && !text.starts_with('-') && text.bytes().any(|byte| byte.is_ascii_lowercase());
        if is_name && text.len() <= 15 { Ok(Self::Name(text.into())) } else { number(text).map(Self::Number) }
    }
}

impl fmt::Display for RemotePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

/// Digits alone: `u16` would also read "+80".
fn number(text: &str) -> Result<u16, PairError> {
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
            let asked: AskedPair = text.parse().unwrap();
            assert_eq!(asked.remote, RemotePort::Number(remote), "{text}");
            assert_eq!(asked.with(remote), Pair { local, remote }, "{text}");
        }
    }

    #[test]
    fn a_remote_port_may_have_a_name() {
        for (text, name, local) in [("3000:http", "http", 3000), ("web-2", "web-2", 80), (":4-you", "4-you", 0)] {
            let asked: AskedPair = text.parse().unwrap();
            assert_eq!(asked.remote, RemotePort::Name(name.into()));
            assert_eq!(asked.with(80), Pair { local, remote: 80 }, "{text}");
        }
    }

    #[test]
    fn what_is_no_pair_is_told_how_to_write_one() {
        for text in ["3000:", ":", "1:2:3", "a:b:c"] {
            assert_eq!(text.parse::<AskedPair>(), Err(PairError::Shape), "{text}");
        }
        for (text, port) in
            [("", ""), ("http:80", "http"), ("0", "0"), ("80:0", "0"), ("65536", "65536"), ("80:HTTP", "HTTP")]
        {
            assert_eq!(text.parse::<AskedPair>(), Err(PairError::Port(port.into())), "{text}");
        }
        for text in ["+80", "-1:80", " 80", "80:-x", "80:a/b", "80:longer-than-fifteen"] {
            assert!(matches!(text.parse::<AskedPair>(), Err(PairError::Port(_))), "{text}");
        }
    }
}
