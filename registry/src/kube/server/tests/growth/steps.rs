//! The steps of a sequence: objects of every kind that rights come from, and every way to write them.

use super::super::*;
use super::Dice;
use super::world::{ACCOUNTS, CLUSTER_NAMES};
use crate::kube::sets::CLUSTER_SET_LABEL;
use crate::token;
use crate::user::{ClusterScope, NewUser, Role};

const GROUP: &str = "cluster.open-cluster-management.io";
const REGISTER: &str = "register.open-cluster-management.io";
const RBAC_GROUP: &str = "rbac.authorization.k8s.io";
const SET_NAMES: [&str; 3] = ["s0", "s1", "default"];
const SPACES: [&str; 2] = ["n0", "n1"];
const ROLES: [&str; 3] = ["r0", "r1", "r2"];
const JSON: &str = "application/json";
const JSON_PATCH: &str = "application/json-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";

/// One thing that somebody asks for.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// The collection, the object, and how it is written.
    Write {
        at: String,
        object: Value,
        how: How,
        dry: bool,
    },
    Delete(String),
    MakeUser(NewUser),
    DeleteUser(&'static str),
    MakeToken(token::NewToken),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum How {
    Create,
    Put,
    Merge,
    Strategic,
    Json,
    Apply,
    /// To the subresource, with a status of the author's own.
    Status,
}

impl Step {
    pub(super) fn draw(dice: &mut Dice) -> Self {
        let (at, object) = match dice.roll(17) {
            0..3 => (CLUSTERS.to_owned(), cluster(dice.one(&CLUSTER_NAMES), labels(dice))),
            3..6 => (SETS.to_owned(), a_set(dice)),
            6 => (NAMESPACES.to_owned(), namespace(dice.one(&SPACES))),
            7 => {
                let namespace = dice.one(&SPACES);
                let at = format!("/apis/{GROUP}/v1beta2/namespaces/{namespace}/managedclustersetbindings");
                (at, set_binding(dice.one(&SET_NAMES)))
            }
            8..11 => a_role(dice),
            11..14 => a_binding(dice),
            14 => {
                let clusters = if dice.chance(3) { ClusterScope::All } else { ClusterScope::Named(names(dice)) };
                let role = if dice.chance(4) { Role::Admin } else { Role::User };
                let groups = if dice.chance(4) { vec![dice.one(&["g0", MASTERS]).to_owned()] } else { Vec::new() };
                let (uid, validity) = (crate::new_uid(), Duration::from_secs(60));
                let name = dice.one(&ACCOUNTS).parse().unwrap();
                return Self::MakeUser(NewUser { name, role, groups, clusters, uid, validity });
            }
            15 => return Self::DeleteUser(dice.one(&ACCOUNTS)),
            _ => {
                let cluster = dice.chance(2).then(|| dice.one(&CLUSTER_NAMES).parse().unwrap());
                let time_to_live = Duration::from_secs(60);
                let (auto_accept, created_by) = (dice.chance(2), String::new());
                let new = token::NewToken { cluster, auto_accept, reusable: dice.chance(2), time_to_live, created_by };
                return Self::MakeToken(new);
            }
        };
        if dice.chance(6) {
            let one = format!("{at}/{}", object::name(&object));
            return Self::Delete(if dice.chance(4) { at } else { one });
        }
        let all = [How::Create, How::Create, How::Put, How::Merge, How::Strategic, How::Json, How::Apply, How::Status];
        Self::Write { at, object, how: dice.one(&all), dry: dice.chance(12) }
    }

    /// Whether the controller has something to see to.
    pub(super) fn concerns_sets(&self) -> bool {
        let at = match self {
            Self::Write { at, .. } | Self::Delete(at) => at,
            Self::MakeUser(_) | Self::DeleteUser(_) | Self::MakeToken(_) => return false,
        };
        at.contains("managedclusterset")
    }
}

/// What an author may do: to write, in parts everything, and of the rights themselves a few.
pub(super) fn rights(dice: &mut Dice) -> Value {
    let all = ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"];
    let every = ["managedclusters", "managedclustersets", "managedclustersetbindings", "namespaces"];
    let mut every = dice.most(&every);
    every.extend(["managedclusters/status", "managedclustersets/status", "managedclustersetbindings/status"]);
    let roles = dice.most(&["clusterroles", "clusterrolebindings", "roles", "rolebindings"]);
    let mut rules = vec![
        json!({"apiGroups": [GROUP, ""], "resources": every, "verbs": all}),
        json!({"apiGroups": [RBAC_GROUP], "resources": roles, "verbs": all}),
    ];
    for _ in 0..dice.roll(5) {
        rules.push(a_rule(dice));
    }
    json!(rules)
}

/// Of verbs that give away what is not held (`bind`, `escalate`, `impersonate`) there is none: they are a lord's.
fn a_rule(dice: &mut Dice) -> Value {
    let clusters = dice.some(&CLUSTER_NAMES);
    let sets = dice.some(&["s0", "s1", "default", "global"]);
    let join = if dice.chance(8) { Vec::new() } else { [vec!["s0"], sets.clone()].concat() };
    let reads = ["get", "list", "watch"];
    match dice.roll(13) {
        0 => rule(GROUP, &["managedclusters"], &["get", "list", "watch", "proxy"], &[vec!["c0"], clusters].concat()),
        1 => rule(GROUP, &["managedclusters"], &reads, &[]),
        2 => rule(GROUP, &["managedclusters"], &["proxy"], &[]),
        3 => rule(GROUP, &["managedclustersets"], &reads, &sets),
        4 => rule(GROUP, &["managedclustersets"], &["get", "update", "patch", "proxy"], &[vec!["s1"], sets].concat()),
        5 | 6 => rule(GROUP, &["managedclustersets/join"], &["create"], &join),
        7 => rule(GROUP, &["managedclustersets/bind"], &["create"], &sets),
        8 => rule(REGISTER, &["users"], &["create", "delete"], &[]),
        9 => rule(REGISTER, &["jointokens"], &["create"], &[]),
        10 => rule(REGISTER, &["managedclusters/accept"], &["update"], &clusters),
        11 => rule("", &["secrets"], &["get"], &[]),
        _ => rule("certificates.k8s.io", &["certificatesigningrequests/approval"], &["update", "patch"], &[]),
    }
}

fn labels(dice: &mut Dice) -> Value {
    let mut labels = json!({});
    if dice.chance(2) {
        labels[CLUSTER_SET_LABEL] = dice.one(&SET_NAMES).into();
    }
    if dice.chance(2) {
        labels["env"] = dice.one(&["a", "b"]).into();
    }
    labels
}

fn a_set(dice: &mut Dice) -> Value {
    let mut made = set(dice.one(&["s0", "s1"]), json!({}));
    let expression = json!([{"key": "env", "operator": dice.one(&["Exists", "DoesNotExist"])}]);
    made["spec"]["clusterSelector"] = match dice.roll(8) {
        0..4 => json!({"selectorType": "ExclusiveClusterSetLabel"}),
        4 => json!({"selectorType": "LabelSelector"}),
        5 => json!({"selectorType": "LabelSelector", "labelSelector": {"matchExpressions": expression}}),
        6 => json!({"selectorType": "LabelSelector", "labelSelector": {"matchLabels": {"env": dice.one(&["a", "b"])}}}),
        _ => json!({"selectorType": "LabelSelector", "labelSelector": {}}),
    };
    made
}

fn a_role(dice: &mut Dice) -> (String, Value) {
    let everywhere = !dice.chance(3);
    let rules: Vec<Value> = (0..dice.roll(3)).map(|_| a_rule(dice)).collect();
    let kind = if everywhere { "ClusterRole" } else { "Role" };
    let mut role = json!({
        "apiVersion": format!("{RBAC_GROUP}/v1"), "kind": kind, "metadata": {"name": dice.one(&ROLES)}, "rules": rules,
    });
    if everywhere {
        match dice.roll(8) {
            0 => role["metadata"]["labels"] = json!({"part-of": "r1"}),
            1 => role["metadata"]["labels"] = json!({"rbac.authorization.k8s.io/aggregate-to-view": "true"}),
            2 => role["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {"part-of": "r1"}}]}),
            3 => {
                role["metadata"] = json!({"name": "cluster-admin", "labels": {"part-of": "r1"}});
                drop(role.as_object_mut().unwrap().remove("rules"));
            }
            _ => {}
        }
        // A label alone.
        if role["metadata"]["labels"].is_object() && dice.chance(2) {
            drop(role.as_object_mut().unwrap().remove("rules"));
        }
    }
    let at = if everywhere {
        format!("{RBAC}/clusterroles")
    } else {
        format!("{RBAC}/namespaces/{}/roles", dice.one(&SPACES))
    };
    (at, role)
}

fn a_binding(dice: &mut Dice) -> (String, Value) {
    let everywhere = dice.chance(2);
    let kind = if everywhere { "ClusterRoleBinding" } else { "RoleBinding" };
    let of_set = ["admin", "bind", "view"].map(|kind| format!("open-cluster-management:managedclusterset:{kind}:s0"));
    let of_set = of_set.each_ref().map(String::as_str);
    let ours = ["cluster-proxy:user", "view", "edit", "r0", "r1", "r2", "r0", "r1", "r2"];
    let role = if dice.chance(3) { dice.one(&of_set) } else { dice.one(&ours) };
    let role_kind = if !everywhere && dice.chance(3) { "Role" } else { "ClusterRole" };
    let subject = match dice.roll(6) {
        0 => json!({"kind": "User", "name": dice.one(&super::world::AUTHORS)}),
        1 => json!({"kind": "User", "name": "v0"}),
        2 | 3 => json!({"kind": "User", "name": dice.one(&ACCOUNTS)}),
        4 => json!({"kind": "Group", "name": "g0"}),
        _ => json!({"kind": "ServiceAccount", "name": "robot", "namespace": "n0"}),
    };
    let at = if everywhere {
        format!("{RBAC}/clusterrolebindings")
    } else {
        format!("{RBAC}/namespaces/{}/rolebindings", dice.one(&SPACES))
    };
    let binding = json!({
        "apiVersion": format!("{RBAC_GROUP}/v1"), "kind": kind, "metadata": {"name": dice.one(&["b0", "b1", "b2"])},
        "roleRef": {"apiGroup": RBAC_GROUP, "kind": role_kind, "name": role},
        "subjects": [subject],
    });
    (at, binding)
}

fn names(dice: &mut Dice) -> std::collections::BTreeSet<certs::ClusterName> {
    dice.some(&CLUSTER_NAMES).into_iter().map(|name| name.parse().unwrap()).collect()
}

/// Does what is asked, as the hub does; the answer, if it was let through.
pub(super) async fn made(hub: &Hub, author: &Caller, step: &Step, dice: &mut Dice) -> Option<String> {
    let client = Client { hub, caller: author.clone() };
    let reply = match step {
        Step::Write { at, object, how, dry } => write(&client, at, object, *how, *dry, dice).await,
        Step::Delete(at) => client.delete(at).await,
        Step::MakeUser(new) => {
            if !may(hub, author, "create", "users") || hub.registry.may_create_user(author, new).is_err() {
                return None;
            }
            return hub.registry.create_user(new.clone(), now()).await.ok().map(|_| "made".to_owned());
        }
        Step::DeleteUser(name) => {
            if !may(hub, author, "delete", "users") {
                return None;
            }
            return hub.registry.delete_user(&name.parse().unwrap()).await.ok().map(|()| "gone".to_owned());
        }
        Step::MakeToken(new) => {
            if !may(hub, author, "create", "jointokens") || hub.registry.may_create_token(author, new).is_err() {
                return None;
            }
            // A token is the right to accept what comes by it.
            let name = new.cluster.as_ref().map_or("", |cluster| cluster.as_ref());
            let free = new.cluster.is_none() && !new.auto_accept;
            let accepts = crate::kube::rbac::Attributes::of(author, "update", REGISTER, "managedclusters/accept", name);
            assert!(free || hub.registry.with_policy(|policy| policy.decide(&accepts)).is_allowed(), "{new:?}");
            return hub.registry.create_token(new.clone(), now()).await.ok().map(|_| "made".to_owned());
        }
    };
    (reply.code < 300).then(|| reply.body["metadata"]["resourceVersion"].to_string())
}

fn may(hub: &Hub, author: &Caller, verb: &str, resource: &str) -> bool {
    let asked = crate::kube::rbac::Attributes::of(author, verb, REGISTER, resource, "");
    hub.registry.with_policy(|policy| policy.decide(&asked)).is_allowed()
}

async fn write(client: &Client<'_>, at: &str, object: &Value, how: How, dry: bool, dice: &mut Dice) -> Reply {
    let one = format!("{at}/{}", object::name(object));
    let dry = if dry { "dryRun=All" } else { "" };
    let fields = |object: &Value| -> Vec<(String, Value)> {
        let all =
            object.as_object().unwrap().iter().filter(|(field, _)| !matches!(field.as_str(), "metadata" | "kind"));
        all.filter(|(field, _)| *field != "apiVersion").map(|(field, value)| (field.clone(), value.clone())).collect()
    };
    let labels = object["metadata"]["labels"].clone();
    let (method, uri, kind, body) = match how {
        How::Create => ("POST", format!("{at}?{dry}"), JSON, object.clone()),
        How::Put => {
            let mut live = client.hub.admin().get(&one).await.body;
            if live["metadata"].is_object() {
                live["metadata"]["labels"] = labels;
            }
            for (field, value) in fields(object) {
                live[&field] = value;
            }
            ("PUT", format!("{one}?{dry}"), JSON, live)
        }
        How::Merge => ("PATCH", format!("{one}?{dry}"), MERGE, object.clone()),
        How::Strategic => ("PATCH", format!("{one}?{dry}"), STRATEGIC, object.clone()),
        How::Json => {
            let mut fields = fields(object);
            if labels.is_object() {
                fields.push(("metadata/labels".to_owned(), labels));
            }
            let add = |(field, value)| json!({"op": "add", "path": format!("/{field}"), "value": value});
            ("PATCH", format!("{one}?{dry}"), JSON_PATCH, Value::from_iter(fields.into_iter().map(add)))
        }
        How::Apply => ("PATCH", format!("{one}?fieldManager=m&force=true&{dry}"), APPLY, object.clone()),
        How::Status => {
            let mut own = object.clone();
            let said = |kind: &str| json!({"type": kind, "status": "True", "reason": "R", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"});
            let kind = dice.one(&["Bound", "ManagedClusterConditionAvailable", "HubAcceptedManagedCluster"]);
            own["status"] = json!({"conditions": [said(kind)]});
            ("PATCH", format!("{one}/status?{dry}"), MERGE, own)
        }
    };
    client.send(method, &uri, &[("content-type", kind)], body.to_string()).await
}
