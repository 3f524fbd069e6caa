//! One rule of the target policy: `HOST_OR_CIDR[:PORT[-PORT]]`.

use std::{fmt, net::IpAddr, ops::RangeInclusive, str::FromStr};

use ipnet::{IpNet, Ipv4Net};

use crate::target::Host;

/// What is open of the agent's own cluster where nothing else is said. No host's name has an '@'.
pub(crate) const CLUSTER: &str = "@cluster";

/// Which hosts and ports a rule speaks of.
///
/// - `web.default.svc`: this name, as the hub gives it
/// - `*.svc`: names of which `*` stands for one or more characters, dots included
/// - `10.0.0.7`, `10.96.0.0/12`, `[fd00::7]`, `[fd00::]/8` or `fd00::/8`: addresses, whatever name led to them
/// - `*`: every host
/// - `@cluster`: of the cluster that the agent runs in, the Kubernetes API and the Services, by their names
/// - each of them with `:443` or `:8000-8999`; without, every port
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    hosts: Hosts,
    ports: Option<RangeInclusive<u16>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Hosts {
    Any,
    Cluster,
    Name(String),
    /// A name with at least one `*`.
    Pattern(String),
    /// No bits outside the prefix; never IPv4-mapped.
    Net(IpNet),
}

/// Why a text is no rule.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// No host before the port.
    #[error("a rule needs a host: HOST_OR_CIDR[:PORT[-PORT]]")]
    NoHost,
    /// Not a name, pattern, address or CIDR.
    #[error("{0:?} is no host name, pattern, IP address or CIDR")]
    BadHost(String),
    /// A pattern that looks like an address.
    #[error("{0:?} looks like an address; write ranges of addresses as a CIDR, like 10.0.0.0/8")]
    PatternOfAddress(String),
    /// A CIDR whose address is not the first of its range.
    #[error("{given} has bits outside its prefix; write {range} for the range")]
    HostBits {
        /// As written.
        given: IpNet,
        /// What it would be.
        range: IpNet,
    },
    /// An IPv6 address without brackets, followed by what may be a port.
    #[error("put the IPv6 address of {0:?} into brackets, like [fd00::7]:443")]
    NoBrackets(String),
    /// Not a port or a range of ports.
    #[error("{0:?} is no port or range of ports; write 443 or 8000-8999")]
    BadPorts(String),
}

impl Rule {
    /// The rule that names exactly `host` at `port`.
    pub(crate) fn naming(host: &Host, port: u16) -> Self {
        let hosts = match host {
            Host::Address(address) => Hosts::Net((*address).into()),
            Host::Name(name) | Host::Full(name) => Hosts::Name(name.clone()),
        };
        Self { hosts, ports: Some(port..=port) }
    }

    /// The rule speaks of `name` at `port`. `name` is lower case without a trailing dot.
    pub(crate) fn matches_name(&self, name: &str, port: u16) -> bool {
        self.has_port(port)
            && match &self.hosts {
                Hosts::Any => true,
                Hosts::Name(own) => own == name,
                Hosts::Pattern(pattern) => glob(pattern.as_bytes(), name.as_bytes()),
                Hosts::Net(_) | Hosts::Cluster => false,
            }
    }

    /// The rule speaks of `address` at `port`.
    pub(crate) fn matches_address(&self, address: IpAddr, port: u16) -> bool {
        self.has_port(port)
            && match &self.hosts {
                Hosts::Any => true,
                Hosts::Net(net) => net.contains(&address),
                Hosts::Cluster | Hosts::Name(_) | Hosts::Pattern(_) => false,
            }
    }

    /// The rule is [`CLUSTER`], maybe at some ports.
    pub(crate) fn is_cluster(&self) -> bool {
        self.hosts == Hosts::Cluster
    }

    /// The rule opens the agent's own cluster at `port`.
    pub(crate) fn opens_cluster(&self, port: u16) -> bool {
        self.is_cluster() && self.has_port(port)
    }

    /// The one name of which the rule speaks.
    pub(crate) fn name(&self, port: u16) -> Option<&str> {
        match &self.hosts {
            Hosts::Name(name) if self.has_port(port) => Some(name),
            Hosts::Name(_) | Hosts::Any | Hosts::Cluster | Hosts::Pattern(_) | Hosts::Net(_) => None,
        }
    }

    /// The rule speaks of names of which nobody can tell all addresses.
    pub(crate) fn is_pattern(&self, port: u16) -> bool {
        self.has_port(port) && matches!(self.hosts, Hosts::Pattern(_))
    }

    /// The rule matches `address` and lies inside `range`: whoever wrote it meant this kind of address.
    pub(crate) fn names_within(&self, range: &IpNet, address: IpAddr, port: u16) -> bool {
        match &self.hosts {
            Hosts::Net(net) => range.contains(net) && self.matches_address(address, port),
            Hosts::Any | Hosts::Cluster | Hosts::Name(_) | Hosts::Pattern(_) => false,
        }
    }

    /// The rule is the plain name `name`, without a pattern.
    pub(crate) fn is_name(&self, name: &str, port: u16) -> bool {
        self.has_port(port) && matches!(&self.hosts, Hosts::Name(own) if own == name)
    }

    /// The rule can match an address under a name that it does not match.
    pub(crate) fn is_about_addresses(&self, port: u16) -> bool {
        self.has_port(port) && matches!(self.hosts, Hosts::Net(_))
    }

    fn has_port(&self, port: u16) -> bool {
        self.ports.as_ref().is_none_or(|ports| ports.contains(&port))
    }
}

impl FromStr for Rule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let text = text.trim();
        let (hosts, ports) = match text.strip_prefix('[') {
            Some(rest) => bracketed(text, rest)?,
            None => bare(text)?,
        };
        let ports = ports.map(parse_ports).transpose()?;
        Ok(Self { hosts, ports })
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.hosts {
            Hosts::Any => f.write_str("*")?,
            Hosts::Cluster => f.write_str(CLUSTER)?,
            Hosts::Name(name) | Hosts::Pattern(name) => f.write_str(name)?,
            Hosts::Net(net) => write_net(f, *net)?,
        }
        match &self.ports {
            None => Ok(()),
            Some(ports) if ports.start() == ports.end() => write!(f, ":{}", ports.start()),
            Some(ports) => write!(f, ":{}-{}", ports.start(), ports.end()),
        }
    }
}

fn write_net(f: &mut fmt::Formatter<'_>, net: IpNet) -> fmt::Result {
    match (net, net.prefix_len() == net.max_prefix_len()) {
        (IpNet::V4(net), true) => write!(f, "{}", net.addr()),
        (IpNet::V4(net), false) => write!(f, "{net}"),
        (IpNet::V6(net), true) => write!(f, "[{}]", net.addr()),
        (IpNet::V6(net), false) => write!(f, "[{}]/{}", net.addr(), net.prefix_len()),
    }
}

/// `[ADDRESS]`, `[ADDRESS]/PREFIX` or `[CIDR]`, each with ports. `rest` is what follows the bracket.
fn bracketed<'t>(text: &str, rest: &'t str) -> Result<(Hosts, Option<&'t str>), RuleError> {
    let bad = || RuleError::BadHost(text.to_owned());
    let (inside, after) = rest.split_once(']').ok_or_else(bad)?;
    let (prefix, ports) = match after.split_once(':') {
        Some((prefix, ports)) => (prefix, Some(ports)),
        None => (after, None),
    };
    match parse_net(&format!("{inside}{prefix}"))? {
        Some(net) if inside.contains(':') => Ok((Hosts::Net(net), ports)),
        Some(_) | None => Err(bad()),
    }
}

fn bare(text: &str) -> Result<(Hosts, Option<&str>), RuleError> {
    // An IPv6 address is full of colons: whole first, then without a port.
    if let Some(net) = parse_net(text)? {
        return Ok((Hosts::Net(net), None));
    }
    let (host, ports) = match text.rsplit_once(':') {
        Some((host, ports)) => (host, Some(ports)),
        None => (text, None),
    };
    if let Some(net) = parse_net(host)? {
        // After a prefix length a colon can only begin a port.
        return if host.contains('/') || !host.contains(':') {
            Ok((Hosts::Net(net), ports))
        } else {
            Err(RuleError::NoBrackets(text.to_owned()))
        };
    }
    Ok((parse_name(host)?, ports))
}

/// `None`: not the text of an address or CIDR.
fn parse_net(text: &str) -> Result<Option<IpNet>, RuleError> {
    let net = match text.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address),
        Err(_) => match text.parse::<IpNet>() {
            Ok(net) if net.addr() == net.network() => net,
            Ok(given) => {
                let range = given.trunc();
                return Err(RuleError::HostBits { given, range });
            }
            Err(_) => return Ok(None),
        },
    };
    Ok(Some(unmapped(net)))
}

/// A range of IPv4-mapped addresses is meant as the range of IPv4 addresses in it.
fn unmapped(net: IpNet) -> IpNet {
    let IpNet::V6(v6) = net else { return net };
    match (v6.addr().to_ipv4_mapped(), v6.prefix_len().checked_sub(96)) {
        (Some(v4), Some(prefix)) => Ipv4Net::new(v4, prefix).map_or(net, IpNet::V4),
        _ => net,
    }
}

fn parse_name(text: &str) -> Result<Hosts, RuleError> {
    match text {
        "" => return Err(RuleError::NoHost),
        "*" => return Ok(Hosts::Any),
        CLUSTER => return Ok(Hosts::Cluster),
        _ => {}
    }
    let digits = text.bytes().any(|byte| byte.is_ascii_digit());
    if text.contains('*') && digits && text.bytes().all(|byte| byte.is_ascii_digit() || b".*".contains(&byte)) {
        return Err(RuleError::PatternOfAddress(text.to_owned()));
    }
    // With every `*` read as some letter, a pattern is a name.
    match text.replace('*', "x").parse() {
        Ok(Host::Name(_)) => {}
        Ok(Host::Address(_) | Host::Full(_)) | Err(_) => return Err(RuleError::BadHost(text.to_owned())),
    }
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    // The root's dot is behind names only.
    if name == "*" || name.parse::<IpAddr>().is_ok() {
        return Err(RuleError::BadHost(text.to_owned()));
    }
    Ok(if name.contains('*') { Hosts::Pattern(name) } else { Hosts::Name(name) })
}

fn parse_ports(text: &str) -> Result<RangeInclusive<u16>, RuleError> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (first.parse::<u16>(), last.parse::<u16>()) {
        (Ok(first), Ok(last)) if 0 < first && first <= last => Ok(first..=last),
        _ => Err(RuleError::BadPorts(text.to_owned())),
    }
}

/// `*` stands for one or more bytes. Names and patterns are at most 253 bytes long, so going back is cheap: each `*`
/// is only ever retried at the last one met.
fn glob(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    // Where to go on when the text after the last `*` does not fit: behind that `*`, one byte further in the name.
    let mut retry = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                (p, n) = (p + 1, n + 1);
                retry = Some((p, n));
            }
            Some(byte) if *byte == name[n] => (p, n) = (p + 1, n + 1),
            Some(_) | None => {
                let Some((after, from)) = retry else { return false };
                (p, n) = (after, from + 1);
                retry = Some((p, n));
            }
        }
    }
    p == pattern.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rule(text: &str) -> Rule {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn every_form_is_read_and_shown_in_one_way() {
        for (text, shown) in [
            ("web.default.svc", "web.default.svc"),
            ("Web.Default.SVC.:80", "web.default.svc:80"),
            ("*.svc:8000-8999", "*.svc:8000-8999"),
            ("*", "*"),
            ("@cluster", "@cluster"),
            ("@cluster:80", "@cluster:80"),
            ("*:443", "*:443"),
            ("10.0.0.7", "10.0.0.7"),
            ("10.0.0.7/32:5-5", "10.0.0.7:5"),
            ("10.96.0.0/12:443", "10.96.0.0/12:443"),
            ("::1", "[::1]"),
            ("[::1]:443", "[::1]:443"),
            ("fd00::/8", "[fd00::]/8"),
            ("fd00::/8:443", "[fd00::]/8:443"),
            ("[fd00::]/8:443", "[fd00::]/8:443"),
            ("[fd00::/8]:443", "[fd00::]/8:443"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("_ldap._tcp.corp", "_ldap._tcp.corp"),
            (" web ", "web"),
        ] {
            assert_eq!(rule(text).to_string(), shown);
            assert_eq!(rule(shown), rule(text), "{text}");
        }
    }

    #[test]
    fn what_is_no_rule_is_refused_with_its_reason() {
        use RuleError as E;
        let error = |text: &str| text.parse::<Rule>().unwrap_err();
        assert_eq!(error(""), E::NoHost);
        assert_eq!(error(":80"), E::NoHost);
        assert!(matches!(error("10.0.0.7/8"), E::HostBits { .. }));
        assert_eq!(error("10.0.*"), E::PatternOfAddress("10.0.*".into()));
        for text in ["web:0", "web:", "web:x", "web:9-8", "web:1-70000", "web:1-2-3", "[::1]:"] {
            assert!(matches!(error(text), E::BadPorts(_)), "{text}");
        }
        for text in
            ["we b", "web/24", "a..b", "[::1", "[10.0.0.7]", "[web]", "[::1]x:80", "10.0.0.0/33", "*.", "10.0.0.7."]
        {
            assert!(matches!(error(text), E::BadHost(_)), "{text}: {}", error(text));
        }
    }

    #[test]
    fn a_bare_ipv6_address_has_no_port() {
        assert_eq!(rule("fd00::7:443").to_string(), "[fd00::7:443]");
        assert!(matches!("1:2:3:4:5:6:7:8:443".parse::<Rule>(), Err(RuleError::NoBrackets(_))));
    }

    #[test]
    fn patterns_stand_for_one_character_or_more() {
        for (pattern, yes, no) in [
            ("*.svc", &["web.svc", "web.default.svc"][..], &["svc", ".svc", "web.svc.x", "websvc"][..]),
            ("web-*", &["web-0", "web-0.svc"], &["web-", "xweb-0"]),
            ("a*b*c", &["axbxc", "axbbxc", "axbxcc"], &["abc", "axbc", "axbx"]),
            ("*.*", &["a.b", "a.b.c"], &["ab"]),
        ] {
            for name in yes {
                assert!(rule(pattern).matches_name(name, 1), "{pattern} {name}");
            }
            for name in no {
                assert!(!rule(pattern).matches_name(name, 1), "{pattern} {name}");
            }
        }
    }

    #[test]
    fn ports_bound_a_rule() {
        let rule = rule("*:80-81");
        assert_eq!([79, 80, 81, 82].map(|port| rule.matches_name("x", port)), [false, true, true, false]);
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in "[\\[\\]a-z0-9.:*/%-]{0,24}") {
            if let Ok(rule) = text.parse::<Rule>() {
                prop_assert_eq!(rule.to_string().parse::<Rule>(), Ok(rule));
            }
        }

        #[test]
        fn glob_agrees_with_its_definition(pattern in "[ab*]{1,8}", name in "[ab]{0,10}") {
            fn slow(pattern: &[u8], name: &[u8]) -> bool {
                match pattern.split_first() {
                    None => name.is_empty(),
                    Some((b'*', rest)) => (1..=name.len()).any(|taken| slow(rest, &name[taken..])),
                    Some((byte, rest)) => name.split_first().is_some_and(|(first, more)| first == byte && slow(rest, more)),
                }
            }
            prop_assert_eq!(glob(pattern.as_bytes(), name.as_bytes()), slow(pattern.as_bytes(), name.as_bytes()));
        }
    }
}
