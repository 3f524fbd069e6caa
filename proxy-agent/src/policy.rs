//! The target policy: which hosts and ports of the spoke the hub may reach. The hub can never widen it.
//!
//! 1. A `deny` rule that matches refuses, whatever else matches.
//! 2. Special addresses (loopback, metadata, …; see [`Special`]) are refused unless an `allow` rule names them: an
//!    address or a CIDR inside the special range, or the name `localhost`. `*` and `0.0.0.0/0` name nothing.
//! 3. Without any `allow` rule the rest is allowed; with one, only what an `allow` rule matches.
//!
//! Names are judged before they are resolved, and every address before it is dialled. No clock, socket or task here.

mod rule;
mod special;

use std::{fmt, net::IpAddr};

pub use rule::{Rule, RuleError};
pub use special::Special;

use crate::target::{Host, Target};

/// The name that RFC 6761 section 6.3 keeps for loopback.
const LOCALHOST: &str = "localhost";

/// The rules of one agent.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    allow: Vec<Rule>,
    deny: Vec<Rule>,
    /// The target comes from the spoke's own configuration: only `deny` counts.
    configured: bool,
}

/// What allowed a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grant<'p> {
    /// There is no `allow` rule, so nothing but denials bounds the hub.
    Open,
    /// The spoke's configuration names this target.
    Configured,
    /// This `allow` rule.
    Rule(&'p Rule),
}

/// A target that the policy refuses. Its text says what to add to the policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Denial {
    /// What the hub asked for.
    pub target: Target,
    /// The address that was judged; `None` when the name alone was.
    pub address: Option<IpAddr>,
    /// What refused it.
    pub cause: DenialCause,
    /// The policy has no `allow` rule, so that adding the first one closes everything else.
    open: bool,
}

/// What refused a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DenialCause {
    /// This `deny` rule.
    Rule(Rule),
    /// The address is special, and no `allow` rule names it.
    Special(Special),
    /// There are `allow` rules, and none matches.
    NotAllowed,
}

impl Policy {
    /// A policy of these rules.
    pub fn new(allow: Vec<Rule>, deny: Vec<Rule>) -> Self {
        Self { allow, deny, configured: false }
    }

    /// This policy as it judges a target that the spoke's own operator has configured: named by that, so that only the
    /// `deny` rules count.
    pub fn for_configured(&self) -> Self {
        Self { configured: true, ..self.clone() }
    }

    /// Judges the name of `target` before it is resolved: refuses what no address could make allowed.
    pub fn judge_name(&self, target: &Target) -> Result<(), Denial> {
        let Host::Name(name) = &target.host else {
            return Ok(());
        };
        let port = target.port;
        if let Some(rule) = self.deny.iter().find(|rule| rule.matches_name(name, port)) {
            return Err(self.denial(target, None, DenialCause::Rule(rule.clone())));
        }
        let hopeful = |rule: &Rule| rule.matches_name(name, port) || rule.is_about_addresses(port);
        if self.configured || self.allow.is_empty() || self.allow.iter().any(hopeful) {
            Ok(())
        } else {
            Err(self.denial(target, None, DenialCause::NotAllowed))
        }
    }

    /// Judges `address`, to which the host of `target` resolved (or which it is), at the port of `target`.
    pub fn judge_address(&self, target: &Target, address: IpAddr) -> Result<Grant<'_>, Denial> {
        let judged = special::judged(address);
        let denied = |cause| Err(self.denial(target, Some(address), cause));
        // Rules about addresses may speak of the form on the wire or of the IPv4 address in it.
        let matches = |rule: &&Rule| {
            rule.matches_address(judged, target.port)
                || rule.matches_address(address, target.port)
                || matches!(&target.host, Host::Name(name) if rule.matches_name(name, target.port))
        };
        if let Some(rule) = self.deny.iter().find(matches) {
            return denied(DenialCause::Rule(rule.clone()));
        }
        if self.configured {
            return Ok(Grant::Configured);
        }
        if let Some((kind, range)) = special::special(judged) {
            let names = |rule: &&Rule| {
                rule.names_within(&range, judged, target.port)
                    || (kind == Special::Loopback && names_localhost(rule, target))
            };
            return match self.allow.iter().find(names) {
                Some(rule) => Ok(Grant::Rule(rule)),
                None => denied(DenialCause::Special(kind)),
            };
        }
        if self.allow.is_empty() {
            return Ok(Grant::Open);
        }
        match self.allow.iter().find(matches) {
            Some(rule) => Ok(Grant::Rule(rule)),
            None => denied(DenialCause::NotAllowed),
        }
    }

    fn denial(&self, target: &Target, address: Option<IpAddr>, cause: DenialCause) -> Denial {
        Denial { target: target.clone(), address, cause, open: self.allow.is_empty() }
    }
}

impl Denial {
    /// The rule that would allow it.
    fn remedy(&self) -> Rule {
        let host = match (&self.cause, self.address) {
            (DenialCause::Special(_), Some(address)) => Host::Address(special::judged(address)),
            _ => self.target.host.clone(),
        };
        Rule::naming(&host, self.target.port)
    }

    /// "web:80", or "web:80 (10.0.0.7)" where the address tells more.
    fn write_target(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.target.host, self.address) {
            (Host::Name(_), Some(address)) => write!(f, "{} ({address})", self.target),
            (Host::Name(_) | Host::Address(_), _) => write!(f, "{}", self.target),
        }
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the agent's policy refuses ")?;
        self.write_target(f)?;
        match &self.cause {
            DenialCause::Rule(rule) => return write!(f, ": it denies {rule}; start the agent without --deny '{rule}'"),
            DenialCause::Special(kind) => write!(f, ": {kind} must be named")?,
            DenialCause::NotAllowed => f.write_str(": no allow rule matches")?,
        }
        write!(f, "; start the agent with --allow '{}'", self.remedy())?;
        if self.open {
            f.write_str(" (and --allow '*' to keep the rest open)")?;
        }
        Ok(())
    }
}

impl fmt::Display for Grant<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open => f.write_str("no allow rule"),
            Self::Configured => f.write_str("configured"),
            Self::Rule(rule) => write!(f, "allow {rule}"),
        }
    }
}

/// Only the name `localhost` itself: any other name for a loopback address is whatever DNS makes it.
fn names_localhost(rule: &Rule, target: &Target) -> bool {
    matches!(&target.host, Host::Name(name) if name == LOCALHOST) && rule.is_name(LOCALHOST, target.port)
}

#[cfg(test)]
mod tests;
