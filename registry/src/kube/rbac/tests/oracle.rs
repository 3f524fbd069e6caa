//! An independent answer: every single right that anybody has, written out one by one from the stored JSON.

use std::collections::{BTreeSet, HashSet};

use serde_json::Value;

use super::super::{CLUSTER_GROUP, CLUSTERS, MASTERS, SETS};
use super::world::{GROUPS, NAMES, NAMESPACES, RESOURCES, SET_NAMES, SUBRESOURCES, VERBS, World};

/// One verb on one object, held by one user (`=u`) or group (`@g`) in one namespace (empty: everywhere).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Right {
    whose: String,
    namespace: String,
    /// Whether the rule says names.
    named: bool,
    what: What,
}

/// Verb, API group, resource with subresource, name (empty: a request without one).
type What = (&'static str, &'static str, String, &'static str);

pub(super) struct Oracle<'a> {
    world: &'a World,
    rights: HashSet<Right>,
    bound: BTreeSet<(&'static str, &'static str)>,
}

/// Who asks.
pub(super) struct Asker<'a> {
    oracle: &'a Oracle<'a>,
    names: Vec<String>,
    master: bool,
}

impl<'a> Oracle<'a> {
    pub(super) fn new(world: &'a World) -> Self {
        let mut rights = HashSet::new();
        for ((kind, namespace, _), binding) in &world.objects {
            if kind != "RoleBinding" && kind != "ClusterRoleBinding" {
                continue;
            }
            let rules = rules_of(world, namespace, &binding["roleRef"]);
            for subject in list(&binding["subjects"]) {
                let Some(whose) = whose(namespace, subject) else { continue };
                for (named, what) in rules.iter().flat_map(spelled) {
                    rights.insert(Right { whose: whose.clone(), namespace: namespace.clone(), named, what });
                }
            }
        }
        let mut bound = BTreeSet::new();
        for (namespace, set) in NAMESPACES.into_iter().flat_map(|own| SET_NAMES.map(|set| (own, set))) {
            let key = ("ManagedClusterSetBinding".to_owned(), namespace.to_owned(), set.to_owned());
            if world.objects.get(&key).is_some_and(|object| object["status"]["conditions"][0]["status"] == "True") {
                bound.insert((namespace, set));
            }
        }
        Self { world, rights, bound }
    }

    pub(super) fn ask(&'a self, user: &str, groups: &[String]) -> Asker<'a> {
        let mut names: Vec<_> = groups.iter().map(|group| format!("@{group}")).collect();
        names.push(format!("={user}"));
        Asker { oracle: self, names, master: groups.iter().any(|group| group == MASTERS) }
    }

    /// The sets in which the cluster is.
    fn sets(&self, cluster: &str) -> Vec<&'static str> {
        self.world.members.iter().filter(|member| member.0 == cluster).map(|member| member.1).collect()
    }
}

impl Asker<'_> {
    /// Kubernetes' answer.
    pub(super) fn may(&self, verb: &str, group: &str, resource: &str, namespace: &str, name: &str) -> bool {
        self.holds("", verb, group, resource, name) || self.holds(namespace, verb, group, resource, name)
    }

    pub(super) fn reaches(&self, cluster: &str) -> bool {
        self.has_cluster("proxy", cluster, false)
    }

    pub(super) fn sees_cluster(&self, verb: &str, cluster: &str) -> bool {
        self.has_cluster(verb, cluster, true) || self.reaches(cluster)
    }

    pub(super) fn sees_set(&self, verb: &str, set: &str) -> bool {
        [verb, "proxy"].into_iter().any(|verb| {
            self.holds("", verb, CLUSTER_GROUP, SETS, set)
                || NAMESPACES
                    .into_iter()
                    .any(|own| self.bound(own, set) && self.holds(own, verb, CLUSTER_GROUP, SETS, set))
        })
    }

    /// A Namespace, which is asked for within itself.
    pub(super) fn sees_namespace(&self, verb: &str, name: &str) -> bool {
        self.may(verb, "", "namespaces", name, name)
    }

    /// Whether there is a set, be it without clusters, whose clusters the user may see.
    pub(super) fn sees_some_set_of_clusters(&self, verb: &str) -> bool {
        NAMES.into_iter().any(|set| {
            let named = |at: &str, verb: &str| self.right(at, true, verb, CLUSTER_GROUP, SETS, set);
            named("", verb)
                || named("", "proxy")
                || NAMESPACES.into_iter().filter(|own| self.bound(own, set)).any(|own| {
                    let clusters = |verb: &str| self.right(own, false, verb, CLUSTER_GROUP, CLUSTERS, "fresh");
                    let sets = self.right(own, false, "proxy", CLUSTER_GROUP, SETS, set);
                    named(own, verb) || named(own, "proxy") || clusters(verb) || clusters("proxy") || sets
                })
        })
    }

    /// `only_named`: through its sets only by rules that say which sets.
    fn has_cluster(&self, verb: &str, cluster: &str, only_named: bool) -> bool {
        let own = |namespace: &str| self.holds(namespace, verb, CLUSTER_GROUP, CLUSTERS, cluster);
        let sets = self.oracle.sets(cluster);
        own("")
            || sets.into_iter().any(|set| {
                let of_set = |namespace: &str| {
                    self.right(namespace, true, verb, CLUSTER_GROUP, SETS, set)
                        || !only_named && self.right(namespace, false, verb, CLUSTER_GROUP, SETS, set)
                };
                of_set("") || NAMESPACES.into_iter().any(|at| self.bound(at, set) && (own(at) || of_set(at)))
            })
    }

    fn bound(&self, namespace: &str, set: &str) -> bool {
        self.oracle.bound.contains(&(namespace, set))
    }

    fn holds(&self, namespace: &str, verb: &str, group: &str, resource: &str, name: &str) -> bool {
        self.master || [true, false].iter().any(|named| self.right(namespace, *named, verb, group, resource, name))
    }

    fn right(&self, namespace: &str, named: bool, verb: &str, group: &str, resource: &str, name: &str) -> bool {
        let (Some(verb), Some(group)) = (one_of(&VERBS, verb), one_of(&GROUPS, group)) else { return self.master };
        let name = if name.is_empty() { "" } else { one_of(&NAMES, name).unwrap() };
        let what = (verb, group, resource.to_owned(), name);
        self.master
            || self.names.iter().any(|whose| {
                let namespace = namespace.to_owned();
                self.oracle.rights.contains(&Right { whose: whose.clone(), namespace, named, what: what.clone() })
            })
    }
}

/// All single rights of a rule, and whether it says names.
pub(super) fn spelled(rule: &Value) -> Vec<(bool, What)> {
    let mut resources = BTreeSet::new();
    let every = RESOURCES.iter().flat_map(|resource| SUBRESOURCES.map(|sub| (*resource, sub)));
    for (resource, sub) in every {
        let full = if sub.is_empty() { resource.to_owned() } else { format!("{resource}/{sub}") };
        let spellings = ["*".to_owned(), full.clone(), format!("*/{sub}")];
        if list(&rule["resources"]).iter().any(|own| spellings.iter().any(|spelling| own == spelling)) {
            resources.insert(full);
        }
    }
    let some = |all: &[&'static str], field: &str| -> Vec<&'static str> {
        let said = list(&rule[field]);
        all.iter().filter(|one| said.iter().any(|own| own == *one || own == "*")).copied().collect()
    };
    let named = !list(&rule["resourceNames"]).is_empty();
    let names = if named { some(&NAMES, "resourceNames") } else { NAMES.into_iter().chain([""]).collect() };
    let mut rights = Vec::new();
    for verb in some(&VERBS, "verbs") {
        for group in some(&GROUPS, "apiGroups") {
            for resource in &resources {
                rights.extend(names.iter().map(|name| (named, (verb, group, resource.clone(), *name))));
            }
        }
    }
    rights
}

fn whose(namespace: &str, subject: &Value) -> Option<String> {
    let name = subject["name"].as_str()?;
    match subject["kind"].as_str()? {
        "User" => Some(format!("={name}")),
        "Group" => Some(format!("@{name}")),
        _ => {
            let own = subject["namespace"].as_str().unwrap_or(namespace);
            (!own.is_empty()).then(|| format!("=system:serviceaccount:{own}:{name}"))
        }
    }
}

fn rules_of(world: &World, namespace: &str, reference: &Value) -> Vec<Value> {
    let (kind, name) = (reference["kind"].as_str().unwrap(), reference["name"].as_str().unwrap());
    let namespace = if kind == "Role" { namespace } else { "" };
    let Some(role) = world.objects.get(&(kind.to_owned(), namespace.to_owned(), name.to_owned())) else {
        return Vec::new();
    };
    if kind == "Role" || role["aggregationRule"].is_null() {
        return list(&role["rules"]).to_vec();
    }
    // Take in what is selected until nothing new comes.
    let mut parts = vec![role];
    loop {
        let wanted = |other: &Value| {
            parts.iter().any(|part| {
                let selector = &part["aggregationRule"]["clusterRoleSelectors"][0]["matchLabels"];
                selector.as_object().is_some_and(|labels| {
                    labels.iter().all(|(key, value)| other["metadata"]["labels"].get(key) == Some(value))
                })
            })
        };
        let cluster_roles = world.objects.values().filter(|object| object["kind"] == "ClusterRole");
        let more: Vec<_> = cluster_roles.filter(|other| wanted(other) && !parts.contains(other)).collect();
        if more.is_empty() {
            let leaves = parts.iter().filter(|part| part["aggregationRule"].is_null());
            return leaves.flat_map(|part| list(&part["rules"])).cloned().collect();
        }
        parts.extend(more);
    }
}

fn one_of(all: &[&'static str], wanted: &str) -> Option<&'static str> {
    all.iter().find(|one| **one == wanted).copied()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}
