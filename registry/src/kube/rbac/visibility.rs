//! Visibility: which objects of a kind a user's rights show; the filter of lists and watches.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::attributes::{Attributes, Decision};
use super::grant::{Grant, Path, Source};
use super::object::Binding;
use super::policy::{Held, Policy, is_master};
use super::rule::PolicyRule;
use super::sets::Members;
use super::{CLUSTER_GROUP, CLUSTERS, PROXY, SETS};

/// The kind that is looked at, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VisibilityQuery<'a> {
    pub verb: ReadVerb,
    pub api_group: &'a str,
    /// The plural: `managedclusters`.
    pub resource: &'a str,
    pub scope: Scope<'a>,
}

/// The verbs that only look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadVerb {
    Get,
    List,
    Watch,
}

/// Where the objects are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope<'a> {
    /// The kind has no namespaces.
    Cluster,
    Namespace(&'a str),
    AllNamespaces,
}

/// Which objects may be seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Visibility {
    All,
    Only(VisibleObjects),
}

/// Some objects of a kind; by default none. Members are shared with the policy: a value is cheap however many clusters
/// it shows, and does not change with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VisibleObjects {
    /// In whichever namespace.
    pub names: BTreeSet<Arc<str>>,
    /// Of managedclusters: the clusters of these sets.
    pub members: BTreeMap<Arc<str>, Arc<Members>>,
    /// When asked over all namespaces: what single namespaces add.
    pub namespaces: BTreeMap<Arc<str>, VisibleInNamespace>,
}

/// What may be seen in one namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VisibleInNamespace {
    All,
    Names(BTreeSet<Arc<str>>),
}

/// What a single right is looked for on.
#[derive(Clone, Copy, Debug)]
pub(super) enum Target<'a> {
    Cluster,
    Set,
    Other { namespace: &'a str },
}

impl Policy {
    /// Everything of a kind that the user may see; the rule is in the documentation of this module's parent.
    pub fn visible(&self, user: &str, groups: &[String], asked: &VisibilityQuery<'_>) -> Visibility {
        if is_master(groups) {
            return Visibility::All;
        }
        let mut seen = VisibleObjects::default();
        for held in self.held(user, groups) {
            for rule in held.rules() {
                match self.shown(held.binding, rule, asked, None) {
                    Visibility::All => return Visibility::All,
                    Visibility::Only(visible) => seen.extend(visible),
                }
            }
        }
        Visibility::Only(seen)
    }

    /// Whether the user may see one object, and why. Agrees with [`Self::visible`].
    pub fn may_see(&self, user: &str, groups: &[String], asked: &VisibilityQuery<'_>, name: &str) -> Option<Grant> {
        let namespace = match asked.scope {
            Scope::Namespace(namespace) => namespace,
            Scope::Cluster | Scope::AllNamespaces => "",
        };
        let target = match (asked.api_group, asked.resource) {
            (CLUSTER_GROUP, CLUSTERS) => Target::Cluster,
            (CLUSTER_GROUP, SETS) => Target::Set,
            _ => Target::Other { namespace },
        };
        self.grant(user, groups, target, name, |held, rule| self.shown(held.binding, rule, asked, Some(name)))
    }

    /// Decides as the API server does: as Kubernetes, and where that denies, by what sets and workspaces add for
    /// looking at one cluster or set, or for reaching one cluster.
    pub fn decide(&self, request: &Attributes) -> Decision {
        let decision = self.authorize(request);
        let Attributes { user, groups, verb, api_group, resource, subresource, name, .. } = request;
        let ours = api_group == CLUSTER_GROUP && (resource == CLUSTERS || resource == SETS);
        // These kinds have no namespace, but kubectl's `auth can-i` asks within that of its context.
        let one = !name.is_empty() && subresource.is_empty();
        if decision.is_allowed() || request.non_resource_url.is_some() || !ours || !one {
            return decision;
        }
        let grant = match ReadVerb::parse(verb) {
            Some(verb) => {
                self.may_see(user, groups, &VisibilityQuery { verb, api_group, resource, scope: Scope::Cluster }, name)
            }
            None if verb == PROXY && resource == CLUSTERS => self.may_proxy(user, groups, name).ok(),
            None => None,
        };
        grant.map_or(decision, Decision::Allowed)
    }

    /// The first right of the user that shows the object.
    pub(super) fn grant(
        &self,
        user: &str,
        groups: &[String],
        target: Target<'_>,
        name: &str,
        shown: impl Fn(&Held<'_>, &PolicyRule) -> Visibility,
    ) -> Option<Grant> {
        let found = self.held(user, groups).find_map(|held| {
            held.rules().iter().find_map(|rule| {
                let path = self.path(held.binding, &shown(&held, rule), target, name)?;
                Some(Grant { source: held.source(), path })
            })
        });
        found.or_else(|| is_master(groups).then(|| Grant::direct(Source::Masters)))
    }

    /// How what is shown leads to the object; none when it does not.
    fn path(&self, binding: &Binding, shown: &Visibility, target: Target<'_>, name: &str) -> Option<Path> {
        let Visibility::Only(visible) = shown else { return Some(Path::Direct) };
        let through = |set: &Arc<str>| match binding.namespace() {
            Some(_) => Path::Workspace { namespace: Arc::clone(&binding.metadata.namespace), set: Arc::clone(set) },
            None => Path::Set { set: Arc::clone(set) },
        };
        let namespace = match target {
            Target::Other { namespace } => namespace,
            Target::Cluster | Target::Set => "",
        };
        if !visible.contains(namespace, name) {
            return None;
        }
        let holder = visible.members.iter().find(|(_, members)| members.contains(name)).map(|(set, _)| set);
        let bound = || binding.namespace().into_iter().flat_map(|own| self.sets.bound_in(own));
        let holds = |set: &&Arc<str>| self.sets.members(set).is_some_and(|members| members.contains(name));
        let set = match target {
            Target::Cluster => holder.or_else(|| bound().find(holds)),
            Target::Set => bound().find(|set| &***set == name),
            Target::Other { .. } => None,
        };
        Some(set.map_or(Path::Direct, through))
    }

    /// What one rule shows, held through one binding. With a name, as far as it concerns that object: the rest may be
    /// left out, so that the answer about one cluster does not grow with the number of sets.
    fn shown(
        &self,
        binding: &Binding,
        rule: &PolicyRule,
        asked: &VisibilityQuery<'_>,
        one: Option<&str>,
    ) -> Visibility {
        let verb = asked.verb.as_str();
        match (asked.api_group, asked.resource) {
            (CLUSTER_GROUP, CLUSTERS) => {
                self.clusters(binding, rule, verb, one).and(|| self.clusters(binding, rule, PROXY, one))
            }
            (CLUSTER_GROUP, SETS) => self.shown_sets(binding, rule, verb).and(|| self.shown_sets(binding, rule, PROXY)),
            (group, resource) => objects(binding, rule, verb, group, resource, asked.scope),
        }
    }

    /// The clusters on which a rule gives the verb, by themselves and by their sets; `one` as in [`Self::shown`].
    pub(super) fn clusters(&self, binding: &Binding, rule: &PolicyRule, verb: &str, one: Option<&str>) -> Visibility {
        let mut visible = VisibleObjects::default();
        let named = !rule.resource_names.is_empty();
        let usable = || self.sets.within(binding.namespace(), one);
        if rule.grants(verb, CLUSTER_GROUP, CLUSTERS, "") {
            match (binding.namespace(), named) {
                (None, false) => return Visibility::All,
                (None, true) => visible.names.extend(rule.resource_names.iter().map(|name| Arc::from(name.as_str()))),
                (Some(_), false) => visible.members.extend(usable().map(owned)),
                (Some(_), true) => {
                    let held = |name: &&String| usable().any(|(_, members)| members.contains(name.as_str()));
                    visible.names.extend(rule.resource_names.iter().filter(held).map(|name| Arc::from(name.as_str())));
                }
            }
        }
        // To list every set is not yet to see every cluster; to proxy to every set is.
        if (named || verb == PROXY) && rule.grants(verb, CLUSTER_GROUP, SETS, "") {
            if binding.namespace().is_none() && one.is_none() {
                // A set without clusters shows none, but it is no reason to refuse a list or to end a watch.
                visible.members.extend(rule.resource_names.iter().map(|set| (Arc::from(set.as_str()), Arc::default())));
            }
            visible.members.extend(usable().filter(|(set, _)| rule.names(set)).map(owned));
        }
        Visibility::Only(visible)
    }

    /// The sets on which a rule gives the verb.
    pub(super) fn shown_sets(&self, binding: &Binding, rule: &PolicyRule, verb: &str) -> Visibility {
        let mut visible = VisibleObjects::default();
        if rule.grants(verb, CLUSTER_GROUP, SETS, "") {
            match binding.namespace() {
                None if rule.resource_names.is_empty() => return Visibility::All,
                None => visible.names.extend(rule.resource_names.iter().map(|name| Arc::from(name.as_str()))),
                Some(own) => visible.names.extend(self.sets.bound_in(own).filter(|set| rule.names(set)).cloned()),
            }
        }
        Visibility::Only(visible)
    }
}

/// What a rule shows of any other kind: plain Kubernetes, object by object.
fn objects(
    binding: &Binding,
    rule: &PolicyRule,
    verb: &str,
    group: &str,
    resource: &str,
    scope: Scope<'_>,
) -> Visibility {
    let mut visible = VisibleObjects::default();
    if !rule.grants(verb, group, resource, "") {
        return Visibility::Only(visible);
    }
    let all = rule.resource_names.is_empty();
    let names = || rule.resource_names.iter().map(|name| Arc::from(name.as_str()));
    match (binding.namespace(), scope) {
        (None, _) if all => return Visibility::All,
        (None, _) => visible.names.extend(names()),
        (Some(own), Scope::Namespace(asked)) if own == asked => {
            if all {
                return Visibility::All;
            }
            visible.names.extend(names());
        }
        (Some(_), Scope::Namespace(_)) => {}
        (Some(_), Scope::AllNamespaces) => {
            let within = if all { VisibleInNamespace::All } else { VisibleInNamespace::Names(names().collect()) };
            visible.namespaces.insert(Arc::clone(&binding.metadata.namespace), within);
        }
        // In Kubernetes a namespace is asked for within itself.
        (Some(own), Scope::Cluster) => {
            if group.is_empty() && resource == "namespaces" && rule.names(own) {
                visible.names.insert(Arc::clone(&binding.metadata.namespace));
            }
        }
    }
    Visibility::Only(visible)
}

fn owned((set, members): (&Arc<str>, &Arc<Members>)) -> (Arc<str>, Arc<Members>) {
    (Arc::clone(set), Arc::clone(members))
}

impl Visibility {
    /// Whether the object may be seen. The namespace counts only when it was asked over all namespaces.
    pub fn contains(&self, namespace: &str, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(visible) => visible.contains(namespace, name),
        }
    }

    /// Whether nothing can be seen, whatever there is.
    pub fn is_empty(&self) -> bool {
        *self == Self::Only(VisibleObjects::default())
    }

    /// The names that one of the two shows and the other may not, where they can be told: neither shows everything, nor
    /// looks into single namespaces.
    pub fn difference(&self, other: &Self) -> Option<BTreeSet<Arc<str>>> {
        let (Self::Only(one), Self::Only(two)) = (self, other) else { return None };
        if !one.namespaces.is_empty() || !two.namespaces.is_empty() {
            return None;
        }
        let mut names: BTreeSet<_> = one.names.symmetric_difference(&two.names).cloned().collect();
        let nobody = Arc::default();
        for set in one.members.keys().chain(two.members.keys()) {
            let [one, two] = [one, two].map(|visible| visible.members.get(set).unwrap_or(&nobody));
            if !Arc::ptr_eq(one, two) {
                names.extend(one.symmetric_difference(two).cloned());
            }
        }
        Some(names)
    }

    fn and(self, other: impl FnOnce() -> Self) -> Self {
        let Self::Only(mut visible) = self else { return self };
        match other() {
            Self::All => Self::All,
            Self::Only(more) => {
                visible.extend(more);
                Self::Only(visible)
            }
        }
    }
}

impl VisibleObjects {
    pub fn contains(&self, namespace: &str, name: &str) -> bool {
        self.names.contains(name)
            || self.members.values().any(|members| members.contains(name))
            || match self.namespaces.get(namespace) {
                Some(VisibleInNamespace::All) => true,
                Some(VisibleInNamespace::Names(names)) => names.contains(name),
                None => false,
            }
    }

    fn extend(&mut self, more: Self) {
        self.names.extend(more.names);
        self.members.extend(more.members);
        for (namespace, within) in more.namespaces {
            match (
                self.namespaces.entry(namespace).or_insert_with(|| VisibleInNamespace::Names(BTreeSet::new())),
                within,
            ) {
                (VisibleInNamespace::Names(names), VisibleInNamespace::Names(more)) => names.extend(more),
                (whole, VisibleInNamespace::All) => *whole = VisibleInNamespace::All,
                (VisibleInNamespace::All, VisibleInNamespace::Names(_)) => {}
            }
        }
    }
}

impl ReadVerb {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Get, Self::List, Self::Watch];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
        }
    }

    /// None for every verb that does more than look.
    pub fn parse(verb: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|read| read.as_str() == verb)
    }
}
