//! The target policy: which hosts and ports of the spoke the hub may reach. The hub can never widen it.
//!
//! 1. A `deny` rule that matches refuses, whatever else matches: by any name that the host may have in a cluster, and by each
//!    address to which a denied name resolves.
//! 2. Special addresses (loopback, metadata, …; see [`Special`]) are refused unless an `allow` rule names them: an
//!    address or a CIDR inside the special range, or the name `localhost`. `*` and `0.0.0.0/0` name nothing.
//! 3. Of the rest, what an `allow` rule matches is allowed, and what the agent's own configuration exports. Without any
//!    `allow` rule that is `@cluster` in Kubernetes, and nothing elsewhere.
//!
//! Names are judged before they are resolved, and every address before it is dialled. No clock, socket or task here.

mod cluster;
mod rule;
mod special;

use std::{fmt, net::IpAddr};

pub use cluster::Cluster;
pub use rule::{Rule, RuleError};
pub use special::Special;

use crate::target::{Host, Target};

/// The name that RFC 6761 section 6.3 keeps for loopback.
const LOCALHOST: &str = "localhost";

/// How many rules are told where there are more.
const TOLD: usize = 16;

/// The rules of one agent.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    allow: Vec<Rule>,
    deny: Vec<Rule>,
    /// What the agent's own configuration has Prometheus scrape.
    exported: Vec<Rule>,
    /// The cluster in which the agent runs.
    cluster: Option<Cluster>,
    /// The target comes from the spoke's own configuration: only `deny` counts.
    configured: bool,
}

/// What allowed a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grant<'p> {
    /// There is no `allow` rule, and it is the cluster's own.
    Cluster,
    /// The spoke's configuration names this target.
    Configured,
    /// This `allow` rule.
    Rule(&'p Rule),
}

/// How the host of a target may be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ways {
    /// As the Service of this full name, if there is such a one; that comes first.
    pub service: Option<Service>,
    /// As it was given.
    pub given: bool,
}

/// A target that is a Service of the agent's cluster, by its full name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service(Target);

/// An address that belongs to a name that is denied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeniedAddress {
    pub rule: Rule,
    pub address: IpAddr,
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
    /// What is open without it.
    open: Open,
}

/// What a policy opens in general.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Open {
    /// There are `allow` rules.
    Rules,
    /// There are none, and the agent's own cluster is open.
    Cluster,
    /// There are none.
    Nothing,
}

/// What refused a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DenialCause {
    /// This `deny` rule.
    Rule(Rule),
    /// The address is one of the name in this `deny` rule.
    Named(Rule),
    /// This `deny` rule is about names that cannot be counted, and an address has none.
    Nameless(Rule),
    /// The address is special, and no `allow` rule names it.
    Special(Special),
    /// Nothing allows it.
    NotAllowed,
}

impl Policy {
    /// A policy of these rules, for an agent that is in no cluster.
    pub fn new(allow: Vec<Rule>, deny: Vec<Rule>) -> Self {
        Self { allow, deny, ..Self::default() }
    }

    /// This policy, of an agent that runs in `cluster`.
    #[must_use]
    pub fn within(self, cluster: Option<Cluster>) -> Self {
        Self { cluster, ..self }
    }

    /// This policy, which also allows what the agent itself exports.
    #[must_use]
    pub fn exporting(self, exported: &[Target]) -> Self {
        let exported = exported.iter().map(|target| Rule::naming(&target.host, target.port)).collect();
        Self { exported, ..self }
    }

    /// This policy as it judges a target that the spoke's own operator has configured: named by that, so that only the
    /// `deny` rules count.
    pub fn for_configured(&self) -> Self {
        Self { configured: true, ..self.clone() }
    }

    /// Judges the name of `target` before it is resolved: refuses what no address could make allowed.
    pub fn judge_name(&self, target: &Target) -> Result<Ways, Denial> {
        let Host::Name(name) = &target.host else {
            return Ok(Ways { service: None, given: true });
        };
        if let Some(rule) = self.denial_by_name(name, target.port) {
            return Err(self.denial(target, None, DenialCause::Rule(rule.clone())));
        }
        let port = target.port;
        if self.configured || self.named().any(|rule| self.is_of(rule, name, port)) {
            return Ok(Ways { service: None, given: true });
        }
        let given = self.named().any(|rule| rule.is_about_addresses(port)) || self.opens_api(target);
        let ways = Ways { service: self.service(name, port), given };
        if ways.given || ways.service.is_some() { Ok(ways) } else { Err(self.refuse_name(target)) }
    }

    /// That the name alone of `target` opens nothing.
    pub fn refuse_name(&self, target: &Target) -> Denial {
        self.denial(target, None, DenialCause::NotAllowed)
    }

    /// Judges `address`, to which the host of `target` resolved (or which it is), at the port of `target`. `denied` are the
    /// addresses of [`Self::denied_names`].
    pub fn judge_address(
        &self,
        target: &Target,
        address: IpAddr,
        denied: &[DeniedAddress],
    ) -> Result<Grant<'_>, Denial> {
        let literal = |rule: &Rule| matches!(&target.host, Host::Name(name) if self.is_of(rule, name, target.port));
        self.judge(target, address, denied, literal, |open| open && self.is_api(target))
    }

    /// Judges an address of a Service of the cluster.
    pub fn judge_service(
        &self,
        service: &Service,
        address: IpAddr,
        denied: &[DeniedAddress],
    ) -> Result<Grant<'_>, Denial> {
        let Service(target) = service;
        let forms = self.forms(target);
        let named = |rule: &Rule| forms.iter().any(|form| rule.matches_name(form, target.port));
        self.judge(target, address, denied, named, |open| open)
    }

    /// The names that must be resolved before an address is judged at `port`, each with its rule; also the full name of the
    /// Service that one may mean.
    pub fn denied_names(&self, port: u16) -> impl Iterator<Item = (&Rule, Host)> {
        self.deny.iter().filter_map(move |rule| Some((rule, rule.name(port)?))).flat_map(move |(rule, name)| {
            let full = self.cluster.as_ref().and_then(|cluster| cluster.service(name)).map(Host::Full);
            [Some(Host::Name(name.to_owned())), full].into_iter().flatten().map(move |host| (rule, host))
        })
    }

    /// `is_named`: whether a rule speaks of the target by a name of it. `is_own`: whether it is the cluster's own, where that is
    /// open.
    fn judge(
        &self,
        target: &Target,
        address: IpAddr,
        denied: &[DeniedAddress],
        is_named: impl Fn(&Rule) -> bool,
        is_own: impl Fn(bool) -> bool,
    ) -> Result<Grant<'_>, Denial> {
        let (judged, port) = (special::judged(address), target.port);
        let refuse = |cause| Err(self.denial(target, Some(address), cause));
        // Rules about addresses may speak of the form on the wire or of the IPv4 address in it.
        let has_address = |rule: &Rule| rule.matches_address(judged, port) || rule.matches_address(address, port);
        let by_name = || target.host.name().and_then(|name| self.denial_by_name(name, port));
        if let Some(rule) = self.deny.iter().find(|rule| has_address(rule)).or_else(by_name) {
            return refuse(DenialCause::Rule(rule.clone()));
        }
        if let Some(found) = denied.iter().find(|found| special::judged(found.address) == judged) {
            return refuse(DenialCause::Named(found.rule.clone()));
        }
        if self.configured {
            return Ok(Grant::Configured);
        }
        let says = |rule: &&Rule| is_named(rule) || has_address(rule);
        if let Some((kind, range)) = special::special(judged) {
            let names = |rule: &&Rule| {
                rule.names_within(&range, judged, port) || (kind == Special::Loopback && names_localhost(rule, target))
            };
            return match self.named().find(names) {
                Some(rule) => Ok(Grant::Rule(rule)),
                None => refuse(DenialCause::Special(kind)),
            };
        }
        // Nobody can tell all addresses of a pattern, so that one without a name must be named itself.
        let by_address = |rule: &&Rule| rule.is_about_addresses(port) && has_address(rule);
        if target.host.name().is_none_or(spells_an_address)
            && let Some(rule) = self.deny.iter().find(|rule| rule.is_pattern(port))
            && !self.named().any(|rule| by_address(&rule))
        {
            return refuse(DenialCause::Nameless(rule.clone()));
        }
        let own = |rule: &&Rule| is_own(rule.opens_cluster(port));
        match self.named().find(says).or_else(|| self.allow.iter().find(own)) {
            Some(rule) => Ok(Grant::Rule(rule)),
            None if is_own(self.open() == Open::Cluster) => Ok(Grant::Cluster),
            None => refuse(DenialCause::NotAllowed),
        }
    }

    /// Whether a rule allows `name` as it is given. Outside a pod a Service's `grafana.monitoring` is its `grafana.monitoring.svc`,
    /// too, which its URL and `svc/` ask for; not the other way round, since the short one may be a host of the Internet.
    fn is_of(&self, rule: &Rule, name: &str, port: u16) -> bool {
        let short =
            || name.strip_suffix(".svc").filter(|short| self.cluster.is_none() && short.matches('.').count() == 1);
        rule.matches_name(name, port) || short().is_some_and(|short| rule.matches_name(short, port))
    }

    /// The rule that denies a host of this name by any name that it may have.
    fn denial_by_name(&self, name: &str, port: u16) -> Option<&Rule> {
        if self.deny.is_empty() {
            return None;
        }
        let of = |name: &str| cluster::aliases(name, self.cluster.as_ref());
        let names = of(name);
        self.deny.iter().find(|rule| {
            names.iter().any(|name| rule.matches_name(name, port))
                || rule.name(port).is_some_and(|own| !of(own).is_disjoint(&names))
        })
    }

    /// The Service that `name` may be, where any rule could open it.
    fn service(&self, name: &str, port: u16) -> Option<Service> {
        let full = self.cluster.as_ref()?.service(name)?;
        let service = Service(Target { host: Host::Full(full), port });
        let forms = self.forms(&service.0);
        let opens = |rule: &Rule| rule.opens_cluster(port) || forms.iter().any(|form| rule.matches_name(form, port));
        (self.open() == Open::Cluster || self.named().any(opens)).then_some(service)
    }

    fn is_api(&self, target: &Target) -> bool {
        self.cluster.as_ref().is_some_and(|cluster| cluster.is_api(target))
    }

    fn opens_api(&self, target: &Target) -> bool {
        let open = || self.open() == Open::Cluster || self.allow.iter().any(|rule| rule.opens_cluster(target.port));
        self.is_api(target) && open()
    }

    fn forms(&self, target: &Target) -> Vec<String> {
        match (&self.cluster, target.host.name()) {
            (Some(cluster), Some(full)) => cluster.forms(full),
            (Some(_) | None, _) => Vec::new(),
        }
    }

    fn named(&self) -> impl Iterator<Item = &Rule> {
        self.allow.iter().chain(&self.exported)
    }

    fn open(&self) -> Open {
        match (&self.cluster, self.allow.is_empty()) {
            (_, false) => Open::Rules,
            (Some(_), true) => Open::Cluster,
            (None, true) => Open::Nothing,
        }
    }

    fn denial(&self, target: &Target, address: Option<IpAddr>, cause: DenialCause) -> Denial {
        Denial { target: target.clone(), address, cause, open: self.open() }
    }
}

impl Service {
    /// Its full name and port.
    pub fn target(&self) -> &Target {
        &self.0
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
        match (self.target.host.name(), self.address) {
            (Some(_), Some(address)) => write!(f, "{} ({address})", self.target),
            (Some(_) | None, _) => write!(f, "{}", self.target),
        }
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the agent's policy refuses ")?;
        self.write_target(f)?;
        match (&self.cause, self.open) {
            (DenialCause::Rule(rule), _) => {
                return write!(f, ": it denies {rule}; start the agent without --deny '{rule}'");
            }
            (DenialCause::Named(rule), _) => {
                return write!(f, ": it denies {rule}, whose address this is; start the agent without --deny '{rule}'");
            }
            (DenialCause::Nameless(rule), _) => write!(f, ": it denies names like {rule}, and an address has none")?,
            (DenialCause::Special(kind), _) => write!(f, ": {kind} must be named")?,
            (DenialCause::NotAllowed, Open::Rules) => f.write_str(": no allow rule matches")?,
            (DenialCause::NotAllowed, Open::Cluster) => {
                f.write_str(": without --allow only the cluster's own Kubernetes API and Services are open")?;
            }
            (DenialCause::NotAllowed, Open::Nothing) => f.write_str(": only what --allow names is open")?,
        }
        write!(f, "; start the agent with --allow '{}'", self.remedy())?;
        if self.open == Open::Cluster {
            write!(f, " (and --allow {} to keep those of the cluster open)", rule::CLUSTER)?;
        }
        Ok(())
    }
}

/// What is open, in one line.
impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let listed = |rules: &[Rule]| {
            let told: Vec<_> = rules.iter().take(TOLD).map(Rule::to_string).collect();
            let more = rules.len().checked_sub(TOLD).filter(|more| *more > 0);
            format!("{}{}", told.join(" "), more.map(|more| format!(" and {more} more")).unwrap_or_default())
        };
        match self.open() {
            Open::Rules => f.write_str(&listed(&self.allow))?,
            Open::Cluster => f.write_str("the cluster's Kubernetes API and Services, by their names")?,
            Open::Nothing => f.write_str("nothing but what is configured; add --allow")?,
        }
        if !self.exported.is_empty() {
            write!(f, "; exports: {}", listed(&self.exported))?;
        }
        if !self.deny.is_empty() {
            write!(f, "; never: {}", listed(&self.deny))?;
        }
        Ok(())
    }
}

impl fmt::Display for Grant<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cluster => f.write_str("the cluster's own"),
            Self::Configured => f.write_str("configured"),
            Self::Rule(rule) => write!(f, "allow {rule}"),
        }
    }
}

/// Resolvers take such names for IPv4 addresses without asking anybody: `127.1`, `0x7f000001`, `2130706433` (inet_aton(3)).
fn spells_an_address(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or_default();
    let hex = last.strip_prefix("0x").is_some_and(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()));
    hex || last.bytes().all(|byte| byte.is_ascii_digit())
}

/// Only the name `localhost` itself: any other name for a loopback address is whatever DNS makes it.
fn names_localhost(rule: &Rule, target: &Target) -> bool {
    matches!(&target.host, Host::Name(name) if name == LOCALHOST) && rule.is_name(LOCALHOST, target.port)
}

#[cfg(test)]
mod tests;
