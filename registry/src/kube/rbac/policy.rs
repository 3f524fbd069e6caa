//! The policy: every role and binding, indexed by whom they concern.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use super::attributes::{Attributes, Decision, Denial};
use super::grant::{Grant, Source};
use super::object::{Binding, Key, Kind, Object, Role, RoleKind, RoleRef, Subject, SubjectKind};
use super::quote::Quoted;
use super::rule::PolicyRule;
use super::sets::{Members, Sets};
use super::{MASTERS, RBAC_GROUP};

/// All rights at one moment. Keep it behind a lock, or clone it for a snapshot: a clone copies the index, not the
/// objects and not the sets' members.
///
/// 1. `subjects` has a binding's key exactly under its subjects, and no empty entry.
/// 2. `aggregated` has an entry exactly for the ClusterRoles with an aggregation rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    roles: BTreeMap<Key, Arc<Role>>,
    /// The rules of the ClusterRoles that are put together from others.
    aggregated: BTreeMap<Key, Arc<[PolicyRule]>>,
    bindings: BTreeMap<Key, Arc<Binding>>,
    subjects: HashMap<String, BTreeSet<Key>>,
    pub(super) sets: Sets,
}

/// A binding that concerns the user, with its role's rules: none when there is no such role.
pub(super) struct Held<'a> {
    pub(super) binding: &'a Arc<Binding>,
    subject: &'a Subject,
    rules: Option<&'a [PolicyRule]>,
}

impl Policy {
    /// Takes in an object that was made or changed.
    pub fn put(&mut self, object: Object) {
        match object {
            Object::Role(role) | Object::ClusterRole(role) => {
                let (key, role) = (role.metadata.key(), Arc::new(role));
                let before = self.roles.insert(key, Arc::clone(&role));
                if self.is_aggregated(&role) || before.is_some_and(|before| self.is_aggregated(&before)) {
                    self.aggregate();
                }
            }
            Object::RoleBinding(binding) | Object::ClusterRoleBinding(binding) => {
                let key = binding.metadata.key();
                self.remove_binding(&key);
                for subject in &binding.subjects {
                    self.subjects.entry(indexed(&binding, subject)).or_default().insert(key.clone());
                }
                self.bindings.insert(key, Arc::new(binding));
            }
            Object::ManagedClusterSetBinding(binding) => {
                let namespace = &binding.metadata.namespace;
                self.sets.unbind(namespace, &binding.metadata.name);
                if binding.is_bound() {
                    self.sets.bind(namespace, binding.set());
                }
            }
        }
    }

    /// Forgets an object that was deleted. The namespace is ignored for the kinds of the cluster scope.
    pub fn remove(&mut self, kind: Kind, namespace: &str, name: &str) {
        let key = |namespace: &str| (Arc::from(namespace), Arc::from(name));
        match kind {
            Kind::Role => drop(self.roles.remove(&key(namespace))),
            Kind::ClusterRole => {
                if self.roles.remove(&key("")).is_some_and(|role| self.is_aggregated(&role)) {
                    self.aggregate();
                }
            }
            Kind::RoleBinding => self.remove_binding(&key(namespace)),
            Kind::ClusterRoleBinding => self.remove_binding(&key("")),
            Kind::ManagedClusterSetBinding => self.sets.unbind(namespace, name),
        }
    }

    /// The cluster is now in exactly these sets; in none when it was deleted.
    pub fn place_cluster(&mut self, cluster: &str, sets: BTreeSet<Arc<str>>) {
        self.sets.place(cluster, sets);
    }

    /// The set now has exactly these clusters; none when it was deleted.
    pub fn fill_set(&mut self, set: &str, clusters: Members) {
        self.sets.fill(set, clusters);
    }

    /// The sets that hold the cluster, in their order.
    pub fn sets_of(&self, cluster: &str) -> impl Iterator<Item = &str> {
        self.sets.of(cluster).map(|set| &**set)
    }

    /// How many clusters the set has.
    pub fn member_count(&self, set: &str) -> usize {
        self.sets.members(set).map_or(0, |members| members.len())
    }

    /// The rules a ClusterRole with an aggregation rule has now, to be shown as its `rules`; none for every other.
    pub fn aggregated_rules(&self, cluster_role: &str) -> Option<&[PolicyRule]> {
        self.aggregated.get(&(Arc::from(""), Arc::from(cluster_role))).map(|rules| &**rules)
    }

    /// Decides as Kubernetes does, by the roles alone.
    pub fn authorize(&self, request: &Attributes) -> Decision {
        let mut missing = BTreeSet::new();
        let namespace = if request.non_resource_url.is_some() { "" } else { &request.namespace };
        for held in self.held_in(&request.user, &request.groups, namespace) {
            if held.rules().iter().any(|rule| rule.allows(request)) {
                return Decision::Allowed(Grant::direct(held.source()));
            }
            missing.extend(held.missing_role());
        }
        if is_master(&request.groups) {
            return Decision::Allowed(Grant::direct(Source::Masters));
        }
        Decision::Denied(Denial::new(request, &Vec::from_iter(missing)))
    }

    /// The rules the user has in the namespace (or, when it is empty, everywhere), and the role references that lead
    /// nowhere, in Kubernetes' words.
    pub fn rules_for(&self, user: &str, groups: &[String], namespace: &str) -> (Vec<&PolicyRule>, Vec<String>) {
        let mut rules = Vec::new();
        let mut missing = BTreeSet::new();
        for held in self.held_in(user, groups, namespace) {
            rules.extend(held.rules());
            missing.extend(held.missing_role());
        }
        (rules, Vec::from_iter(missing))
    }

    /// The bindings that concern the user, those of the cluster scope first, then by namespace and name.
    pub(super) fn held<'a>(&'a self, user: &str, groups: &[String]) -> impl Iterator<Item = Held<'a>> {
        let names = groups.iter().map(|group| indexed_group(group)).chain([indexed_user(user)]);
        let keys: BTreeSet<&Key> = names.filter_map(|name| self.subjects.get(&name)).flatten().collect();
        keys.into_iter().filter_map(|key| {
            let binding = self.bindings.get(key)?;
            let subject = binding.subject_for(user, groups)?;
            Some(Held { binding, subject, rules: self.rules_of(&binding.role_ref, key.0.as_ref()) })
        })
    }

    /// Those that count in the namespace.
    fn held_in<'a>(&'a self, user: &str, groups: &[String], namespace: &str) -> impl Iterator<Item = Held<'a>> {
        self.held(user, groups).filter(move |held| held.binding.namespace().is_none_or(|own| own == namespace))
    }

    /// The rules of the role that a binding of the namespace names; a ClusterRoleBinding, whose is empty, has no Role.
    pub(super) fn rules_of(&self, role: &RoleRef, namespace: &str) -> Option<&[PolicyRule]> {
        let namespace = match role.kind {
            RoleKind::Role if namespace.is_empty() => return None,
            RoleKind::Role => namespace,
            RoleKind::ClusterRole => "",
        };
        let key = (Arc::from(namespace), Arc::clone(&role.name));
        match self.aggregated.get(&key) {
            Some(rules) => Some(rules),
            None => self.roles.get(&key).map(|role| role.rules.as_slice()),
        }
    }

    /// The rules that the bindings of a namespace give.
    pub(super) fn rules_in(&self, namespace: &str) -> impl Iterator<Item = &PolicyRule> {
        let from = (Arc::from(namespace), Arc::from(""));
        let own = self.bindings.range(from..).take_while(move |(key, _)| &*key.0 == namespace);
        own.filter_map(|(key, binding)| self.rules_of(&binding.role_ref, &key.0)).flatten()
    }

    /// Whether a binding of a namespace names a role that does not exist: what it will give, nobody knows.
    pub(super) fn gives_what_is_to_come(&self, namespace: &str) -> bool {
        let from = (Arc::from(namespace), Arc::from(""));
        let mut own = self.bindings.range(from..).take_while(|(key, _)| &*key.0 == namespace);
        own.any(|(key, binding)| self.rules_of(&binding.role_ref, &key.0).is_none())
    }

    /// Where bindings name the ClusterRole, which does not exist yet: their namespaces, the empty one for everywhere.
    pub(super) fn places_of(&self, role: &Role) -> BTreeSet<Arc<str>> {
        let name = &role.metadata.name;
        if self.roles.contains_key(&role.metadata.key()) {
            return BTreeSet::new();
        }
        let naming =
            |binding: &Binding| binding.role_ref.kind == RoleKind::ClusterRole && binding.role_ref.name == *name;
        self.bindings.iter().filter(|(_, binding)| naming(binding)).map(|(key, _)| Arc::clone(&key.0)).collect()
    }

    /// What ClusterRoles with an aggregation rule would gain if this ClusterRole were stored, by their names.
    pub(super) fn gathered_by(&self, role: &Role) -> Vec<(Arc<str>, Vec<PolicyRule>)> {
        if !self.is_aggregated(role) {
            return Vec::new();
        }
        let mut after = Self { roles: self.roles.clone(), aggregated: self.aggregated.clone(), ..Self::default() };
        after.put(Object::ClusterRole(role.clone()));
        let gained = after.aggregated.into_iter().map(|(key, rules)| {
            let known = self.aggregated.get(&key).map_or([].as_slice(), |known| known);
            (key.1, rules.iter().filter(|rule| !known.contains(rule)).cloned().collect::<Vec<_>>())
        });
        gained.filter(|(_, rules)| !rules.is_empty()).collect()
    }

    fn remove_binding(&mut self, key: &Key) {
        let Some(binding) = self.bindings.remove(key) else { return };
        for subject in &binding.subjects {
            if let Entry::Occupied(mut keys) = self.subjects.entry(indexed(&binding, subject)) {
                keys.get_mut().remove(key);
                if keys.get().is_empty() {
                    keys.remove();
                }
            }
        }
    }

    /// Whether the role is, or is part of, one that is put together: the others need no new look at all the rest.
    fn is_aggregated(&self, role: &Role) -> bool {
        let mut others = self.aggregated.keys().filter_map(|key| self.roles.get(key)?.aggregation_rule.as_ref());
        role.metadata.namespace.is_empty()
            && (role.aggregation_rule.is_some() || others.any(|rule| rule.selects(&role.metadata.labels)))
    }

    /// Puts the aggregated ClusterRoles together again.
    fn aggregate(&mut self) {
        let cluster_roles: Vec<&Arc<Role>> =
            self.roles.iter().take_while(|(key, _)| key.0.is_empty()).map(|(_, role)| role).collect();
        let gathered = cluster_roles.iter().filter(|role| role.aggregation_rule.is_some());
        self.aggregated = gathered.map(|role| (role.metadata.key(), gather(role, &cluster_roles))).collect();
    }
}

impl<'a> Held<'a> {
    /// The namespace that it is limited to; empty for everywhere.
    pub(super) fn namespace(&self) -> &'a str {
        &self.binding.metadata.namespace
    }

    pub(super) fn rules(&self) -> &'a [PolicyRule] {
        self.rules.unwrap_or_default()
    }

    pub(super) fn source(&self) -> Source {
        Source::Binding { binding: Arc::clone(self.binding), subject: self.subject.clone() }
    }

    fn missing_role(&self) -> Option<String> {
        let role = &self.binding.role_ref;
        self.rules.is_none().then(|| format!("{}.{RBAC_GROUP} {} not found", role.kind.singular(), Quoted(&role.name)))
    }
}

pub(super) fn is_master(groups: &[String]) -> bool {
    groups.iter().any(|group| group == MASTERS)
}

/// The name a subject is found by. One that nobody can be, as an account of no namespace, has the empty name.
fn indexed(binding: &Binding, subject: &Subject) -> String {
    match subject.kind {
        SubjectKind::User => indexed_user(&subject.name),
        SubjectKind::Group => indexed_group(&subject.name),
        SubjectKind::ServiceAccount => {
            binding.service_account(subject).map(|name| indexed_user(&name)).unwrap_or_default()
        }
    }
}

fn indexed_user(name: &str) -> String {
    format!("user {name}")
}

fn indexed_group(name: &str) -> String {
    format!("group {name}")
}

/// The rules of all ClusterRoles that `root` selects, and of those they select, each rule once.
fn gather(root: &Role, cluster_roles: &[&Arc<Role>]) -> Arc<[PolicyRule]> {
    let mut seen = HashSet::from([&root.metadata.name]);
    let mut queue = VecDeque::from([root]);
    let mut known = HashSet::new();
    let mut rules = Vec::new();
    while let Some(role) = queue.pop_front() {
        let Some(aggregation) = &role.aggregation_rule else {
            rules.extend(role.rules.iter().filter(|&rule| known.insert(rule)).cloned());
            continue;
        };
        let selected = cluster_roles.iter().filter(|role| aggregation.selects(&role.metadata.labels));
        queue.extend(selected.filter(|role| seen.insert(&role.metadata.name)).map(|role| &***role));
    }
    rules.into()
}
