//! What a dial asks for: a host, by name or by address, and a port.

pub(crate) mod dial;
pub(crate) mod race;
pub(crate) mod resolve;
pub(crate) mod service_tls;
pub(crate) mod streams;

use std::{fmt, net::IpAddr};

/// The longest host name (RFC 1035 section 2.3.4), without the trailing dot.
const NAME_LIMIT: usize = 253;

/// A TCP target, as the hub named it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Where.
    pub host: Host,
    /// TCP port, never 0.
    pub port: u16,
}

/// A host by name or by address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// An address, not to be resolved.
    Address(IpAddr),
    /// A name to be resolved in the spoke: lower case, no trailing dot.
    Name(String),
    /// A name that is resolved as it is, beside the resolver's search list. Only the agent itself makes one.
    Full(String),
}

/// Why a host and a port are no target.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// There is no host.
    #[error("the host is missing; write HOST:PORT")]
    NoHost,
    /// The host is neither a name nor an address.
    #[error("{0:?} is neither a host name nor an IP address")]
    BadHost(String),
    /// The port is 0 or above 65535.
    #[error("{0} is no TCP port; use one of 1 to 65535")]
    BadPort(u32),
    /// A text that should be HOST:PORT has no port.
    #[error("{0:?} has no port; write it as HOST:PORT")]
    NoPort(String),
}

impl Target {
    /// Reads the two fields of a dial. An IPv6 address may be in brackets.
    pub fn new(host: &str, port: u32) -> Result<Self, TargetError> {
        let host = host.parse()?;
        match u16::try_from(port) {
            Ok(port) if port != 0 => Ok(Self { host, port }),
            Ok(_) | Err(_) => Err(TargetError::BadPort(port)),
        }
    }
}

/// Reads `HOST:PORT`; an IPv6 address must be in brackets.
impl std::str::FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let no_port = || TargetError::NoPort(text.to_owned());
        let (host, port) = text.rsplit_once(':').ok_or_else(no_port)?;
        if host.contains(':') && !host.starts_with('[') {
            return Err(no_port());
        }
        Self::new(host, port.parse().map_err(|_| no_port())?)
    }
}

impl std::str::FromStr for Host {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        if text.is_empty() {
            return Err(TargetError::NoHost);
        }
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        if let Some(bare) = bare {
            return bare.parse().map(|address| Self::Address(IpAddr::V6(address))).map_err(|_| bad_host(text));
        }
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        if certs::is_host_name(name) { Ok(Self::Name(name.to_ascii_lowercase())) } else { Err(bad_host(text)) }
    }
}

impl Host {
    /// Its name, where it is no address.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Address(_) => None,
            Self::Name(name) | Self::Full(name) => Some(name),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Address(IpAddr::V6(address)) => write!(f, "[{address}]:{}", self.port),
            Host::Address(_) | Host::Name(_) | Host::Full(_) => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name(name) | Self::Full(name) => f.write_str(name),
        }
    }
}

/// The text goes into an answer and into a log: never more of it than a name may be long.
fn bad_host(text: &str) -> TargetError {
    TargetError::BadHost(text.chars().take(NAME_LIMIT).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_lower_cased_and_lose_the_trailing_dot() {
        let target = Target::new("Web.Default.SVC.", 80).unwrap();
        assert_eq!(target.host, Host::Name("web.default.svc".into()));
        assert_eq!(target.to_string(), "web.default.svc:80");
    }

    #[test]
    fn addresses_are_not_names() {
        for (text, shown) in [("10.0.0.1", "10.0.0.1:1"), ("::1", "[::1]:1"), ("[2001:db8::1]", "[2001:db8::1]:1")] {
            let target = Target::new(text, 1).unwrap();
            assert!(matches!(target.host, Host::Address(_)), "{text}");
            assert_eq!(target.to_string(), shown);
        }
    }

    #[test]
    fn what_is_no_target_is_refused_with_its_reason() {
        assert_eq!(Target::new("", 80), Err(TargetError::NoHost));
        assert_eq!(Target::new("web", 0), Err(TargetError::BadPort(0)));
        assert_eq!(Target::new("web", 65_536), Err(TargetError::BadPort(65_536)));
        let long = "a".repeat(64);
        let longer = "a.".repeat(130);
        for host in
            [".", "a..b", "a b", "a/b", "user@web", "fe80::1%eth0", "[10.0.0.1]", "[::1", "ä", "a\0b", &long, &longer]
        {
            assert!(matches!(Target::new(host, 80), Err(TargetError::BadHost(_))), "{host:?}");
        }
    }

    #[test]
    fn host_and_port_are_read_from_one_text() {
        assert_eq!("[::1]:6443".parse::<Target>().unwrap().to_string(), "[::1]:6443");
        assert_eq!("web:6443".parse::<Target>().unwrap().to_string(), "web:6443");
        for text in ["web", "::1", "web:", "web:x", "2001:db8::1:80"] {
            assert!(matches!(text.parse::<Target>(), Err(TargetError::NoPort(_))), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(host in "\\PC{0,40}", port: u32) {
            if let Ok(target) = Target::new(&host, port) {
                prop_assert_eq!(target.to_string().parse::<Target>(), Ok(target));
            }
        }
    }
}
