//! Random worlds: the stored objects as JSON and who is in which set, over few enough names that rights often meet.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Value, json};

use super::super::*;

pub(super) const VERBS: [&str; 5] = ["get", "list", "watch", "proxy", "update"];
pub(super) const GROUPS: [&str; 2] = [CLUSTER_GROUP, ""];
pub(super) const RESOURCES: [&str; 4] = [CLUSTERS, SETS, "secrets", "namespaces"];
pub(super) const SUBRESOURCES: [&str; 2] = ["", "status"];
pub(super) const MEMBERS: [&str; 3] = ["c0", "c1", "c2"];
pub(super) const SET_NAMES: [&str; 3] = ["s0", "s1", "s2"];
pub(super) const NAMESPACES: [&str; 2] = ["n0", "n1"];
/// Names of objects; the last is in no rule, and the same name is used for more than one kind.
pub(super) const NAMES: [&str; 9] = ["c0", "c1", "c2", "s0", "s1", "s2", "n0", "n1", "fresh"];
const ROLE_NAMES: [&str; 3] = ["r0", "r1", "r2"];
const LABELS: [&str; 2] = ["a", "b"];

/// One thing that happens to the world.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Put(Value),
    Remove(Kind, &'static str, &'static str),
    Place(&'static str, BTreeSet<&'static str>),
    Fill(&'static str, BTreeSet<&'static str>),
}

/// Everything that rights come from.
#[derive(Clone, Debug, Default)]
pub(super) struct World {
    /// By kind, namespace and name.
    pub(super) objects: BTreeMap<(String, String, String), Value>,
    /// Cluster and set.
    pub(super) members: BTreeSet<(&'static str, &'static str)>,
}

impl World {
    pub(super) fn after(changes: &[Change]) -> Self {
        let mut world = Self::default();
        for change in changes {
            world.change(change.clone());
        }
        world
    }

    fn change(&mut self, change: Change) {
        match change {
            Change::Put(object) => drop(self.objects.insert(key(&object), object)),
            Change::Remove(kind, namespace, name) => {
                self.objects.remove(&(format!("{kind:?}"), namespace.to_owned(), name.to_owned()));
            }
            Change::Place(cluster, sets) => {
                self.members.retain(|member| member.0 != cluster);
                self.members.extend(sets.into_iter().map(|set| (cluster, set)));
            }
            Change::Fill(set, clusters) => {
                self.members.retain(|member| member.1 != set);
                self.members.extend(clusters.into_iter().map(|cluster| (cluster, set)));
            }
        }
    }

    /// A policy that is told only what the world has come to.
    pub(super) fn policy(&self) -> Policy {
        let mut policy = Policy::default();
        for object in self.objects.values() {
            policy.put(Object::parse(object).unwrap());
        }
        for cluster in MEMBERS {
            let sets = self.members.iter().filter(|member| member.0 == cluster).map(|member| member.1);
            policy.place_cluster(cluster, shared(sets));
        }
        policy
    }

    /// The same, with one binding alone.
    pub(super) fn with_only(&self, kind: &str, namespace: &str, name: &str) -> Self {
        let mut world = self.clone();
        let wanted = (kind.to_owned(), namespace.to_owned(), name.to_owned());
        world.objects.retain(|key, _| key == &wanted || key.0 != "RoleBinding" && key.0 != "ClusterRoleBinding");
        world
    }
}

/// Tells a policy of a change.
pub(super) fn tell(policy: &mut Policy, change: &Change) {
    match change {
        Change::Put(object) => policy.put(Object::parse(object).unwrap()),
        Change::Remove(kind, namespace, name) => policy.remove(*kind, namespace, name),
        Change::Place(cluster, sets) => policy.place_cluster(cluster, shared(sets.iter().copied())),
        Change::Fill(set, clusters) => policy.fill_set(set, shared(clusters.iter().copied())),
    }
}

/// A user and their groups.
pub(super) fn somebody() -> impl Strategy<Value = (String, Vec<String>)> {
    let user = select(vec!["u0", "u1", "system:serviceaccount:n0:sa"]);
    let groups = prop_oneof![
        20 => subsequence(vec!["g0", "g1"], 0..=2),
        1 => Just(vec!["g0", MASTERS]),
    ];
    (user, groups).prop_map(|(user, groups)| (user.to_owned(), groups.into_iter().map(str::to_owned).collect()))
}

/// A series of objects made and replaced, and of clusters put into sets.
pub(super) fn world() -> impl Strategy<Value = World> {
    vec(growth(), 12..36).prop_map(|changes| World::after(&changes))
}

/// A history in which things also go.
pub(super) fn history() -> impl Strategy<Value = Vec<Change>> {
    vec(prop_oneof![3 => growth().boxed(), 2 => removal().boxed()], 0..40)
}

pub(super) fn rules() -> impl Strategy<Value = Vec<Value>> {
    vec(rule(), 0..3)
}

fn growth() -> impl Strategy<Value = Change> {
    prop_oneof![
        3 => role().prop_map(Change::Put),
        4 => binding().prop_map(Change::Put),
        3 => set_binding().prop_map(Change::Put),
        3 => (select(&MEMBERS), btree_set(select(&SET_NAMES), 0..3)).prop_map(|(to, sets)| Change::Place(to, sets)),
        2 => (select(&SET_NAMES), btree_set(select(&MEMBERS), 0..3)).prop_map(|(to, all)| Change::Fill(to, all)),
    ]
}

fn removal() -> impl Strategy<Value = Change> {
    prop_oneof![
        select(&ROLE_NAMES).prop_map(|name| Change::Remove(Kind::ClusterRole, "", name)),
        select(&ROLE_NAMES).prop_map(|name| Change::Remove(Kind::ClusterRoleBinding, "", name)),
        (select(&NAMESPACES), select(&ROLE_NAMES)).prop_map(|(own, name)| Change::Remove(Kind::Role, own, name)),
        (select(&NAMESPACES), select(&ROLE_NAMES)).prop_map(|(own, name)| Change::Remove(Kind::RoleBinding, own, name)),
        (select(&NAMESPACES), select(&SET_NAMES)).prop_map(|(own, name)| Change::Remove(
            Kind::ManagedClusterSetBinding,
            own,
            name
        )),
    ]
}

fn rule() -> impl Strategy<Value = Value> {
    let verbs = vec(prop_oneof![3 => select(&VERBS), 2 => Just(PROXY), 1 => Just("*")], 0..4);
    let groups = vec(prop_oneof![4 => Just(CLUSTER_GROUP), 1 => Just(""), 1 => Just("*")], 1..3);
    let other = select(vec!["secrets", "namespaces", "*", "*/status", "managedclusters/status", "managedclusters/*"]);
    let resources = vec(prop_oneof![2 => Just(CLUSTERS), 2 => Just(SETS), 2 => other], 1..3);
    let names = prop_oneof![Just(Vec::new()), vec(select(&NAMES[..8]), 1..3)];
    (verbs, groups, resources, names).prop_map(|(verbs, groups, resources, names)| {
        json!({"apiGroups": groups, "resources": resources, "verbs": verbs, "resourceNames": names})
    })
}

fn role() -> impl Strategy<Value = Value> {
    let place = prop_oneof![2 => Just(""), 1 => select(&NAMESPACES)];
    let labels = subsequence(LABELS.to_vec(), 0..=2);
    let gathers = prop_oneof![3 => Just(None), 1 => select(&LABELS).prop_map(Some)];
    (place, select(&ROLE_NAMES), labels, gathers, rules()).prop_map(|(namespace, name, labels, gathers, rules)| {
        let kind = if namespace.is_empty() { "ClusterRole" } else { "Role" };
        let labels: BTreeMap<_, _> = labels.into_iter().map(|label| (label, "yes")).collect();
        let mut role =
            json!({"kind": kind, "metadata": {"name": name, "namespace": namespace, "labels": labels}, "rules": rules});
        if let Some(label) = gathers {
            role["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {label: "yes"}}]});
        }
        role
    })
}

fn binding() -> impl Strategy<Value = Value> {
    let place = prop_oneof![Just(""), select(&NAMESPACES)];
    let subject = select(vec![
        json!({"kind": "User", "name": "u0"}),
        json!({"kind": "User", "name": "g0"}),
        json!({"kind": "Group", "name": "g0"}),
        json!({"kind": "Group", "name": "g1"}),
        json!({"kind": "ServiceAccount", "name": "sa", "namespace": "n0"}),
        json!({"kind": "ServiceAccount", "name": "sa"}),
        json!({"kind": "User", "name": "system:serviceaccount:n0:sa"}),
    ]);
    let kind = prop_oneof![3 => Just("ClusterRole"), 1 => Just("Role")];
    (place, select(&ROLE_NAMES), kind, select(&ROLE_NAMES), vec(subject, 0..4)).prop_map(
        |(namespace, name, role_kind, role, subjects)| {
            let kind = if namespace.is_empty() { "ClusterRoleBinding" } else { "RoleBinding" };
            json!({
                "kind": kind,
                "metadata": {"name": name, "namespace": namespace},
                "roleRef": {"apiGroup": RBAC_GROUP, "kind": role_kind, "name": role},
                "subjects": subjects,
            })
        },
    )
}

fn set_binding() -> impl Strategy<Value = Value> {
    let status = prop_oneof![4 => Just("True"), 1 => Just("False")];
    (select(&NAMESPACES), select(&SET_NAMES), status)
        .prop_map(|(namespace, set, status)| super::set_binding(namespace, set, status))
}

fn key(object: &Value) -> (String, String, String) {
    let text = |pointer| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    (text("/kind"), text("/metadata/namespace"), text("/metadata/name"))
}

fn shared<'a>(names: impl Iterator<Item = &'a str>) -> BTreeSet<Arc<str>> {
    names.map(Arc::from).collect()
}
