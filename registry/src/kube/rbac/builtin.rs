//! The roles and bindings that exist from the start, and those of each cluster set.

use std::{collections::BTreeSet, sync::LazyLock};

use serde_json::{Value, json};

use crate::kube::{object, sets::CLUSTER_SET_LABEL};

use super::{CLUSTER_GROUP, CLUSTERS, MASTERS, PROXY, RBAC_GROUP, SETS};

/// Whoever is in this group administers the hub, by the binding [`ADMIN`].
pub const ADMINS: &str = "cluster-proxy:admins";
/// The ClusterRole that may do everything the hub is for.
pub const ADMIN: &str = "cluster-proxy:admin";
/// The ClusterRole to see and reach clusters: all of them by a ClusterRoleBinding, those of a workspace by a RoleBinding.
pub const USER: &str = "cluster-proxy:user";

/// How the names of the roles of cluster sets begin.
pub(crate) const SET_ROLE: &str = "open-cluster-management:managedclusterset:";

const READ: [&str; 3] = ["get", "list", "watch"];
const WRITE: [&str; 5] = ["create", "update", "patch", "delete", "deletecollection"];
const AUTHENTICATED: &str = "system:authenticated";
const UNAUTHENTICATED: &str = "system:unauthenticated";

/// Whether the hub makes the ClusterRole by itself when it is missing: at its start, for a set, for a user. Whoever could empty
/// such a role, bind it and delete it would be given what it is filled with.
pub(crate) fn is_the_hubs(role: &str) -> bool {
    let of_a_user = || role.strip_prefix(USER).is_some_and(|rest| rest.starts_with(':'));
    role.starts_with(SET_ROLE) || of_a_user() || DEFAULTS.contains(role)
}

/// The names of the default ClusterRoles.
static DEFAULTS: LazyLock<BTreeSet<String>> =
    LazyLock::new(|| cluster_roles().iter().map(|role| object::name(role).to_owned()).collect());

/// The default ClusterRoles, to be made when they are missing.
pub fn cluster_roles() -> Vec<Value> {
    let everything = ["*"];
    let read_write = [READ.as_slice(), &WRITE].concat();
    let mut roles = vec![
        cluster_role("cluster-admin", &[rule(&["*"], &["*"], &everything), urls(&["*"], &everything)]),
        cluster_role("system:discovery", &[urls(&DISCOVERY, &["get"])]),
        cluster_role("system:public-info-viewer", &[urls(&PUBLIC, &["get"])]),
        cluster_role(
            "system:basic-user",
            &[
                rule(&["authorization.k8s.io"], &["selfsubjectaccessreviews", "selfsubjectrulesreviews"], &["create"]),
                rule(&["authentication.k8s.io"], &["selfsubjectreviews"], &["create"]),
            ],
        ),
        cluster_role(
            "system:auth-delegator",
            &[
                rule(&["authentication.k8s.io"], &["tokenreviews"], &["create"]),
                rule(&["authorization.k8s.io"], &["subjectaccessreviews"], &["create"]),
            ],
        ),
        cluster_role(ADMIN, &admin_rules(&read_write)),
        cluster_role(
            USER,
            &[
                rule(&[CLUSTER_GROUP], &[CLUSTERS], &[READ.as_slice(), &[PROXY]].concat()),
                rule(&[CLUSTER_GROUP], &[SETS], &READ),
            ],
        ),
    ];
    roles.extend(workspace_roles(&read_write));
    roles
}

/// The default ClusterRoleBindings, to be made when they are missing.
pub fn cluster_role_bindings() -> Vec<Value> {
    [
        ("cluster-admin", [MASTERS].as_slice()),
        ("system:discovery", &[AUTHENTICATED]),
        ("system:basic-user", &[AUTHENTICATED]),
        ("system:public-info-viewer", &[AUTHENTICATED, UNAUTHENTICATED]),
        (ADMIN, &[ADMINS]),
    ]
    .into_iter()
    .map(|(role, groups)| {
        let subject = |group: &&str| json!({"kind": "Group", "apiGroup": RBAC_GROUP, "name": group});
        object(
            "ClusterRoleBinding",
            role,
            &json!({}),
            json!({
                "roleRef": {"apiGroup": RBAC_GROUP, "kind": "ClusterRole", "name": role},
                "subjects": groups.iter().map(subject).collect::<Vec<_>>(),
            }),
        )
    })
    .collect()
}

/// The ClusterRoles of one cluster set, named as Open Cluster Management's users know them: `admin` changes the set,
/// moves clusters in and out, binds it and reaches its clusters; `bind` binds it to workspaces; `view` sees it and its
/// clusters.
pub fn set_roles(set: &str) -> [Value; 3] {
    let named = |resource: &str, verbs: &[&str]| {
        let mut rule = rule(&[CLUSTER_GROUP], &[resource], verbs);
        rule["resourceNames"] = json!([set]);
        rule
    };
    let view = named(SETS, &READ);
    let bind = named("managedclustersets/bind", &["create"]);
    let admin = [
        named(SETS, &[READ.as_slice(), &["update", "patch", PROXY]].concat()),
        named("managedclustersets/join", &["create"]),
        bind.clone(),
    ];
    let role = |kind: &str, rules: &[Value]| {
        let labels = json!({ CLUSTER_SET_LABEL: set });
        object("ClusterRole", &format!("{SET_ROLE}{kind}:{set}"), &labels, json!({ "rules": rules }))
    };
    [role("admin", &admin), role("bind", &[view.clone(), bind]), role("view", &[view])]
}

const DISCOVERY: [&str; 11] = [
    "/api",
    "/api/*",
    "/apis",
    "/apis/*",
    "/healthz",
    "/livez",
    "/openapi",
    "/openapi/*",
    "/readyz",
    "/version",
    "/version/",
];
const PUBLIC: [&str; 5] = ["/healthz", "/livez", "/readyz", "/version", "/version/"];

/// Everything of our groups. Roles may be written and bound, but without `escalate` and `bind` only as far as the admin
/// holds what they give.
fn admin_rules(read_write: &[&str]) -> Vec<Value> {
    let ours = [CLUSTER_GROUP, "register.open-cluster-management.io", "addon.open-cluster-management.io"];
    let reviews = ["subjectaccessreviews", "localsubjectaccessreviews"];
    vec![
        rule(&ours, &["*"], &["*"]),
        rule(&["certificates.k8s.io"], &["*"], &["*"]),
        rule(
            &["", "events.k8s.io"],
            &["namespaces", "namespaces/status", "namespaces/finalize", "secrets", "events"],
            read_write,
        ),
        rule(&["coordination.k8s.io"], &["leases"], read_write),
        rule(&[RBAC_GROUP], &["roles", "clusterroles", "rolebindings", "clusterrolebindings"], read_write),
        rule(&["authorization.k8s.io"], &reviews, &["create"]),
        rule(&["authentication.k8s.io"], &["tokenreviews"], &["create"]),
        urls(&["*"], &["get"]),
    ]
}

/// Kubernetes' user-facing roles, for what a workspace holds here, put together by their labels as in Kubernetes.
fn workspace_roles(read_write: &[&str]) -> Vec<Value> {
    let bindings = "managedclustersetbindings";
    let view = [rule(&[CLUSTER_GROUP], &[bindings], &READ), rule(&[""], &["namespaces", "events"], &READ)];
    let edit = [
        rule(&[CLUSTER_GROUP], &[bindings], &WRITE),
        rule(&[CLUSTER_GROUP], &[CLUSTERS], &[PROXY]),
        rule(&[""], &["secrets"], read_write),
    ];
    let admin = [
        rule(&[RBAC_GROUP], &["roles", "rolebindings"], read_write),
        rule(&["authorization.k8s.io"], &["localsubjectaccessreviews"], &["create"]),
    ];
    let part = |name: &str, rules: &[Value]| {
        let labels = json!({ aggregate_to(name): "true" });
        object("ClusterRole", &format!("system:aggregate-to-{name}"), &labels, json!({ "rules": rules }))
    };
    let whole = |name: &str, parent: Option<&str>| {
        let labels = parent.map_or_else(|| json!({}), |parent| json!({ aggregate_to(parent): "true" }));
        let selector = json!({"matchLabels": { aggregate_to(name): "true" }});
        let body = json!({"aggregationRule": {"clusterRoleSelectors": [selector]}, "rules": []});
        object("ClusterRole", name, &labels, body)
    };
    vec![
        part("view", &view),
        part("edit", &edit),
        part("admin", &admin),
        whole("view", Some("edit")),
        whole("edit", Some("admin")),
        whole("admin", None),
    ]
}

fn aggregate_to(role: &str) -> String {
    format!("{RBAC_GROUP}/aggregate-to-{role}")
}

fn cluster_role(name: &str, rules: &[Value]) -> Value {
    object("ClusterRole", name, &json!({}), json!({ "rules": rules }))
}

fn object(kind: &str, name: &str, labels: &Value, body: Value) -> Value {
    let mut object = json!({
        "apiVersion": format!("{RBAC_GROUP}/v1"),
        "kind": kind,
        "metadata": {"name": name, "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"}},
    });
    merge(&mut object["metadata"]["labels"], labels.clone());
    merge(&mut object, body);
    object
}

fn merge(object: &mut Value, more: Value) {
    if let (Value::Object(object), Value::Object(more)) = (object, more) {
        object.extend(more);
    }
}

fn rule(groups: &[&str], resources: &[&str], verbs: &[&str]) -> Value {
    json!({"apiGroups": groups, "resources": resources, "verbs": verbs})
}

fn urls(urls: &[&str], verbs: &[&str]) -> Value {
    json!({"nonResourceURLs": urls, "verbs": verbs})
}
