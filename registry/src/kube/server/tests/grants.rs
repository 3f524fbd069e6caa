//! Attacks on rights: every write that would let somebody do what its author may not is refused, whichever way it goes.

use super::*;
use crate::user::{ClusterScope, NewUser, Role};

pub(super) const GROUP: &str = "cluster.open-cluster-management.io";
const REGISTER: &str = "register.open-cluster-management.io";
pub(super) const RBAC_GROUP: &str = "rbac.authorization.k8s.io";
const LABEL: &str = "cluster.open-cluster-management.io/clusterset";
const JSON: &str = "application/json";
const JSON_PATCH: &str = "application/json-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";

/// The sets `dev` and `prod` with a cluster each, and `mallory`, the admin of `dev`, who may also label clusters.
pub(super) async fn two_sets() -> Hub {
    let hub = Hub::new().await;
    let admin = hub.admin();
    for name in ["dev", "prod"] {
        admin.post(SETS, exclusive(name)).await.ok();
        admin.post(CLUSTERS, cluster(&format!("in-{name}"), json!({LABEL: name, "env": name}))).await.ok();
    }
    for role in crate::kube::rbac::builtin::set_roles("dev") {
        admin.post(&format!("{RBAC}/clusterroles"), role).await.ok();
    }
    bind(&hub, "dev", "open-cluster-management:managedclusterset:admin:dev", "mallory").await;
    hub.grant("mallory", "", json!([rule(GROUP, &["managedclusters"], &["create", "update", "patch", "delete"], &[])]))
        .await;
    hub
}

fn exclusive(name: &str) -> Value {
    let mut set = set(name, json!({}));
    set["spec"]["clusterSelector"] = json!({"selectorType": "ExclusiveClusterSetLabel"});
    set
}

fn everything() -> Value {
    json!({"selectorType": "LabelSelector", "labelSelector": {}})
}

pub(super) fn role(name: &str, rules: Value) -> Value {
    json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": name}, "rules": rules})
}

pub(super) fn binding(name: &str, role: &str, user: &str) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": name},
        "roleRef": {"apiGroup": RBAC_GROUP, "kind": "ClusterRole", "name": role},
        "subjects": [{"kind": "User", "name": user}],
    })
}

pub(super) async fn bind(hub: &Hub, name: &str, role: &str, user: &str) {
    hub.admin().post(&format!("{RBAC}/clusterrolebindings"), binding(name, role, user)).await.ok();
}

pub(super) fn reaches(hub: &Hub, user: &str, cluster: &str) -> bool {
    hub.registry.with_policy(|policy| policy.may_proxy(user, &[], cluster).is_ok())
}

fn may(hub: &Hub, user: &str, verb: &str, resource: &str) -> bool {
    let caller = Caller { user: user.to_owned(), ..Caller::default() };
    let asked = crate::kube::rbac::Attributes::of(&caller, verb, "", resource, "");
    hub.registry.with_policy(|policy| policy.authorize(&asked).is_allowed())
}

/// Each way to write the selector of a set that is there, as method, query, content type and body.
async fn ways(hub: &Hub, set: &str, selector: &Value) -> Vec<(&'static str, &'static str, &'static str, Value)> {
    let live = hub.admin().get(&format!("{SETS}/{set}")).await.ok();
    let mut put = live.clone();
    put["spec"]["clusterSelector"] = selector.clone();
    let mut applied = exclusive(set);
    applied["spec"]["clusterSelector"] = selector.clone();
    let patch = json!([{"op": "replace", "path": "/spec/clusterSelector", "value": selector}]);
    vec![
        ("PUT", "", JSON, put.clone()),
        ("PUT", "?dryRun=All", JSON, put),
        ("PATCH", "", MERGE, json!({"spec": {"clusterSelector": selector}})),
        ("PATCH", "?dryRun=All", MERGE, json!({"spec": {"clusterSelector": selector}})),
        ("PATCH", "", JSON_PATCH, patch),
        ("PATCH", "?fieldManager=m&force=true", APPLY, applied.clone()),
        ("PATCH", "?fieldManager=m&force=true&dryRun=All", APPLY, applied),
    ]
}

#[tokio::test]
async fn the_admin_of_a_set_widens_it_by_no_selector() {
    let hub = two_sets().await;
    let mallory = hub.user("mallory");
    assert!(reaches(&hub, "mallory", "in-dev") && !reaches(&hub, "mallory", "in-prod"));
    let exists = json!({"selectorType": "LabelSelector", "labelSelector": {"matchExpressions": [
        {"key": "nobody-has", "operator": "Exists"},
    ]}});
    for selector in [everything(), exists] {
        for (method, query, kind, body) in ways(&hub, "dev", &selector).await {
            let uri = format!("{SETS}/dev{query}");
            let reply = mallory.send(method, &uri, &[("content-type", kind)], body.to_string()).await;
            assert!(!reaches(&hub, "mallory", "in-prod"), "{method} {query} {kind} opens prod");
            reply.refused(403, "Forbidden");
            let message = reply.failed().2;
            assert!(message.contains("managedclusters") && message.contains("proxy"), "{message}");
        }
    }
    // Who may join every set, or reaches every cluster, may.
    for right in [
        rule(GROUP, &["managedclustersets/join"], &["create"], &[]),
        rule(GROUP, &["managedclusters"], &["proxy"], &[]),
    ] {
        hub.grant("mallory", "", json!([right])).await;
        hub.admin().patch(&format!("{SETS}/dev"), json!({"spec": {"clusterSelector": {"selectorType": "ExclusiveClusterSetLabel", "labelSelector": null}}})).await.ok();
        mallory.patch(&format!("{SETS}/dev"), json!({"spec": {"clusterSelector": everything()}})).await.ok();
    }
}

#[tokio::test]
async fn a_selector_is_narrowed_by_who_may_join_its_set() {
    let hub = two_sets().await;
    let (admin, mallory) = (hub.admin(), hub.user("mallory"));
    let selecting = |labels: Value| json!({"spec": {"clusterSelector": {"selectorType": "LabelSelector", "labelSelector": {"matchLabels": labels}}}});
    let uri = format!("{SETS}/dev");
    admin.patch(&uri, selecting(json!({"env": "dev"}))).await.ok();
    mallory.patch(&uri, selecting(json!({"env": "prod"}))).await.refused(403, "Forbidden");
    mallory.patch(&uri, selecting(json!({"env": "dev", "tier": "db"}))).await.ok();
    mallory.patch(&uri, selecting(json!({"env": "dev", "tier": null}))).await.refused(403, "Forbidden");
    let none = json!({"spec": {"clusterSelector": {"labelSelector": null}}});
    mallory.patch(&uri, none).await.ok();
    // Its own label is the other way to have it hold what it held.
    let by_label = json!({"spec": {"clusterSelector": {"selectorType": "ExclusiveClusterSetLabel"}}});
    mallory.patch(&uri, by_label.clone()).await.refused(403, "Forbidden");
    bind(&hub, "in-dev", "cluster-proxy:user", "mallory").await;
    mallory.patch(&uri, by_label).await.ok();
}

#[tokio::test]
async fn a_set_made_anew_gives_its_old_bindings_nothing_that_its_maker_lacks() {
    let hub = two_sets().await;
    let (admin, mallory) = (hub.admin(), hub.user("mallory"));
    bind(&hub, "old", "open-cluster-management:managedclusterset:admin:prod", "eve").await;
    let sets = rule(GROUP, &["managedclustersets"], &["create", "patch", "delete"], &[]);
    let join = rule(GROUP, &["managedclustersets/join"], &["create"], &["prod"]);
    hub.grant("mallory", "", json!([sets, join])).await;
    admin.delete(&format!("{SETS}/prod")).await.ok();
    for made in [exclusive("prod"), set("prod", json!({})), set("prod", json!({"env": "prod"}))] {
        mallory.post(SETS, made.clone()).await.refused(403, "Forbidden");
        mallory.post(&format!("{SETS}?dryRun=All"), made.clone()).await.refused(403, "Forbidden");
        mallory.apply(&format!("{SETS}/prod?fieldManager=m"), made).await.refused(403, "Forbidden");
    }
    // A set of which nothing follows is free to be made.
    mallory.post(SETS, exclusive("new")).await.ok();
    // One to whose roles somebody is bound brings these rights back.
    admin.delete(&format!("{CLUSTERS}/in-prod")).await.ok();
    mallory.post(SETS, exclusive("prod")).await.refused(403, "Forbidden");
    admin.delete(&format!("{RBAC}/clusterrolebindings/old")).await.ok();
    mallory.post(SETS, exclusive("prod")).await.ok();
}

#[tokio::test]
async fn a_cluster_is_brought_into_a_set_only_by_who_may_reach_it() {
    let hub = two_sets().await;
    let (admin, mallory) = (hub.admin(), hub.user("mallory"));
    let join = |sets: &[&str]| rule(GROUP, &["managedclustersets/join"], &["create"], sets);
    let clusters = rule(GROUP, &["managedclusters"], &["create", "update", "patch", "delete"], &[]);
    admin.post(SETS, set("selected", json!({"team": "mallory"}))).await.ok();
    hub.grant("mallory", "", json!([clusters, join(&["prod", "default", "selected"])])).await;
    let labels = |labels: Value| json!({"metadata": {"labels": labels}});
    for wanted in [json!({LABEL: "dev"}), json!({"team": "mallory"})] {
        let uri = format!("{CLUSTERS}/in-prod");
        mallory.patch(&uri, labels(wanted.clone())).await.refused(403, "Forbidden");
        mallory.patch(&format!("{uri}?dryRun=All"), labels(wanted.clone())).await.refused(403, "Forbidden");
        let mut put = admin.get(&uri).await.ok();
        for (key, value) in wanted.as_object().unwrap() {
            put["metadata"]["labels"][key] = value.clone();
        }
        mallory.put(&uri, put).await.refused(403, "Forbidden");
        let mut applied = cluster("in-prod", wanted.clone());
        applied.as_object_mut().unwrap().remove("spec");
        mallory.apply(&format!("{uri}?fieldManager=m&force=true"), applied).await.refused(403, "Forbidden");
        // The labels of a name that is free: whoever joins by it later would be in the set.
        mallory.post(CLUSTERS, cluster("free", wanted.clone())).await.refused(403, "Forbidden");
        mallory
            .apply(&format!("{CLUSTERS}/free?fieldManager=m"), cluster("free", wanted))
            .await
            .refused(403, "Forbidden");
        assert!(!reaches(&hub, "mallory", "in-prod"));
    }
    mallory.post(CLUSTERS, cluster("free", json!({}))).await.ok();
    // What they hold they move as they like, between the sets that they may join.
    mallory.patch(&format!("{CLUSTERS}/in-dev"), labels(json!({LABEL: "prod"}))).await.ok();
}

#[tokio::test]
async fn a_set_is_bound_where_somebody_would_reach_it_only_by_who_reaches_it() {
    let hub = two_sets().await;
    let (admin, mallory) = (hub.admin(), hub.user("mallory"));
    admin.post(NAMESPACES, namespace("team")).await.ok();
    let bindings = format!("/apis/{GROUP}/v1beta2/namespaces/team/managedclustersetbindings");
    hub.grant(
        "mallory",
        "",
        json!([
            rule(GROUP, &["managedclustersets"], &["get", "list", "watch"], &["prod"]),
            rule(GROUP, &["managedclustersets/bind"], &["create"], &["prod", "later"]),
            rule(GROUP, &["managedclustersetbindings"], &["*"], &[]),
        ]),
    )
    .await;
    // Nobody reaches anything there yet.
    mallory.post(&bindings, set_binding("prod")).await.ok();
    mallory.delete(&format!("{bindings}/prod")).await.ok();
    hub.grant("mallory", "team", json!([rule(GROUP, &["managedclusters"], &["proxy"], &[])])).await;
    for set in ["prod", "later"] {
        mallory.post(&bindings, set_binding(set)).await.refused(403, "Forbidden");
        mallory.apply(&format!("{bindings}/{set}?fieldManager=m"), set_binding(set)).await.refused(403, "Forbidden");
    }
    assert!(!reaches(&hub, "mallory", "in-prod"));
    bind(&hub, "dev2", "open-cluster-management:managedclusterset:admin:dev", "mallory").await;
    mallory.post(&bindings, set_binding("dev")).await.ok();
}

#[tokio::test]
async fn a_set_is_bound_beside_a_role_to_come_only_by_who_reaches_it() {
    let hub = two_sets().await;
    let (admin, mallory) = (hub.admin(), hub.user("mallory"));
    admin.post(NAMESPACES, namespace("team")).await.ok();
    let bindings = format!("/apis/{GROUP}/v1beta2/namespaces/team/managedclustersetbindings");
    let rights = json!([
        rule(GROUP, &["managedclustersets/bind"], &["create"], &["later"]),
        rule(GROUP, &["managedclustersetbindings"], &["*"], &[]),
    ]);
    hub.grant("mallory", "", rights).await;
    // What a set that was deleted has left, and its successor's controller will fill.
    let mut left = binding("left", "open-cluster-management:managedclusterset:admin:later", "former");
    left["kind"] = json!("RoleBinding");
    admin.post(&format!("{RBAC}/namespaces/team/rolebindings"), left).await.ok();
    mallory.post(&bindings, set_binding("later")).await.refused(403, "Forbidden");
    admin.delete(&format!("{RBAC}/namespaces/team/rolebindings/left")).await.ok();
    mallory.post(&bindings, set_binding("later")).await.ok();
}

#[tokio::test]
async fn who_only_lists_sets_shows_nobody_the_clusters_in_them() {
    let hub = two_sets().await;
    hub.grant(
        "mallory",
        "",
        json!([
            rule(GROUP, &["managedclustersets"], &["get", "list", "watch"], &[]),
            rule(RBAC_GROUP, &["clusterroles"], &["create"], &[]),
        ]),
    )
    .await;
    let named = json!([rule(GROUP, &["managedclustersets"], &["get", "list", "watch"], &["global"])]);
    hub.user("mallory").post(&format!("{RBAC}/clusterroles"), role("see-all", named)).await.refused(403, "Forbidden");
}

/// An admin of the hub who is in no group.
async fn admin_of_the_hub(hub: &Hub) -> Client<'_> {
    bind(hub, "mallory-admin", "cluster-proxy:admin", "mallory").await;
    hub.user("mallory")
}

#[tokio::test]
async fn the_admin_of_the_hub_makes_nobody_more_by_a_label_of_a_role() {
    let hub = Hub::new().await;
    let mallory = admin_of_the_hub(&hub).await;
    bind(&hub, "as-view", "view", "mallory").await;
    let label = "rbac.authorization.k8s.io/aggregate-to-view";
    let roles = format!("{RBAC}/clusterroles");
    let uri = format!("{roles}/cluster-admin");
    let labelled = json!({"metadata": {"labels": {label: "true"}}});
    let mut put = hub.admin().get(&uri).await.ok();
    put["metadata"]["labels"][label] = "true".into();
    let pointer = label.replace('/', "~1");
    let patch = json!([{"op": "add", "path": format!("/metadata/labels/{pointer}"), "value": "true"}]);
    let mut applied = role("cluster-admin", json!(null));
    applied.as_object_mut().unwrap().remove("rules");
    applied["metadata"]["labels"] = json!({label: "true"});
    for (method, query, kind, body) in [
        ("PATCH", "", MERGE, labelled.clone()),
        ("PATCH", "?dryRun=All", MERGE, labelled.clone()),
        ("PATCH", "", STRATEGIC, labelled.clone()),
        ("PATCH", "", JSON_PATCH, patch),
        ("PATCH", "?fieldManager=m&force=true", APPLY, applied),
        ("PUT", "", JSON, put),
    ] {
        let reply = mallory.send(method, &format!("{uri}{query}"), &[("content-type", kind)], body.to_string()).await;
        assert!(!may(&hub, "mallory", "get", "pods"), "{method} {kind} makes the admin a cluster-admin");
        reply.refused(403, "Forbidden");
    }
    let wider = json!({"aggregationRule": {"clusterRoleSelectors": [{}]}});
    for patch in [wider, json!({"aggregationRule": null}), json!({"metadata": {"annotations": {"a": "b"}}})] {
        mallory.patch(&format!("{roles}/view"), patch).await.refused(403, "Forbidden");
    }
    assert!(!may(&hub, "mallory", "get", "pods"));
    // Of what they hold they give, and for the garbage collector anybody writes.
    let held = json!([rule("", &["secrets"], &["get"], &[])]);
    mallory.post(&roles, role("held", held)).await.ok();
    mallory.patch(&format!("{roles}/held"), labelled).await.ok();
    mallory.patch(&uri, json!({"metadata": {"finalizers": ["x.io/a"]}})).await.ok();
    // Escalating one role is no right over those that it is put into.
    hub.grant(
        "eve",
        "",
        json!([
            rule(RBAC_GROUP, &["clusterroles"], &["create", "update", "patch"], &[]),
            rule(RBAC_GROUP, &["clusterroles"], &["escalate"], &["held"]),
        ]),
    )
    .await;
    let eve = hub.user("eve");
    let more = json!([rule("", &["pods"], &["get"], &[])]);
    eve.patch(&format!("{roles}/held"), json!({"rules": more})).await.refused(403, "Forbidden");
    eve.patch(&format!("{roles}/held"), json!({"metadata": {"labels": {label: null}}, "rules": more})).await.ok();
}

#[tokio::test]
async fn a_user_is_made_only_by_who_holds_all_that_is_bound_to_the_name_and_the_groups() {
    let hub = Hub::new().await;
    let mallory = admin_of_the_hub(&hub).await;
    let new = |name: &str, role: Role, groups: &[&str], clusters: ClusterScope| NewUser {
        name: name.parse().unwrap(),
        role,
        groups: groups.iter().map(|&group| group.to_owned()).collect(),
        clusters,
        uid: crate::new_uid(),
        validity: Duration::from_secs(60),
    };
    let nothing = || ClusterScope::Named([].into());
    let makes =
        |caller: &Caller, new: &NewUser| hub.registry.may_create_user(caller, new).map_err(|error| error.to_string());
    bind(&hub, "old", "cluster-admin", "bob").await;
    let refused = makes(&mallory.caller, &new("bob", Role::User, &[], nothing())).unwrap_err();
    assert!(refused.starts_with("user \"mallory\" (groups=[\"system:authenticated\"]) is attempting to grant RBAC permissions not currently held:\n"), "{refused}");
    let account = "system:serviceaccount:default:robot";
    if account.parse::<certs::UserName>().is_ok() {
        let mut to_account = binding("robot", "cluster-admin", "x");
        to_account["subjects"] = json!([{"kind": "ServiceAccount", "name": "robot", "namespace": "default"}]);
        hub.admin().post(&format!("{RBAC}/clusterrolebindings"), to_account).await.ok();
        makes(&mallory.caller, &new(account, Role::User, &[], nothing())).unwrap_err();
    }
    makes(&mallory.caller, &new("carol", Role::User, &[MASTERS], nothing())).unwrap_err();
    makes(&mallory.caller, &new("carol", Role::User, &["anything"], nothing())).unwrap_err();
    makes(&mallory.caller, &new("carol", Role::User, &[], ClusterScope::All)).unwrap();
    makes(&mallory.caller, &new("carol", Role::Admin, &[], ClusterScope::All)).unwrap();
    makes(&hub.admin().caller, &new("bob", Role::Admin, &[MASTERS], ClusterScope::All)).unwrap();
    // Who makes a token or a certificate of somebody who is there has their rights, too.
    let made = |user: NewUser| async { hub.registry.create_user(user, now()).await.unwrap().0 };
    let (lord, plain) = (
        made(new("bob", Role::User, &[], nothing())).await,
        made(new("carl", Role::User, &[], ClusterScope::All)).await,
    );
    let grouped = made(new("dora", Role::User, &["anything"], nothing())).await;
    for beyond in [&lord, &grouped] {
        hub.registry.may_speak_for(&mallory.caller, beyond).unwrap_err();
        hub.registry.may_speak_for(&hub.admin().caller, beyond).unwrap();
    }
    hub.registry.may_speak_for(&mallory.caller, &plain).unwrap();
    // The right to make users is no right to reach clusters.
    hub.grant("eve", "", json!([rule(REGISTER, &["users"], &["create"], &[])])).await;
    let eve = hub.user("eve").caller;
    makes(&eve, &new("carol", Role::User, &[], ClusterScope::All)).unwrap_err();
    makes(&eve, &new("carol", Role::User, &[], ClusterScope::Named(["c1".parse().unwrap()].into()))).unwrap_err();
    makes(&eve, &new("carol", Role::Admin, &[], nothing())).unwrap_err();
    makes(&eve, &new("carol", Role::User, &[], nothing())).unwrap();
    hub.registry.may_speak_for(&eve, &plain).unwrap_err();
    hub.grant("eve", "", json!([rule(GROUP, &["managedclusters"], &["get", "list", "watch", "proxy"], &["c1"])])).await;
    makes(&eve, &new("carol", Role::User, &[], ClusterScope::Named(["c1".parse().unwrap()].into()))).unwrap();
}

#[tokio::test]
async fn a_role_that_the_hub_fills_is_nobodys_to_empty_and_bind() {
    let hub = two_sets().await;
    let rolly = admin_of_the_hub(&hub).await;
    let roles = format!("{RBAC}/clusterroles");
    let set_role = "open-cluster-management:managedclusterset:admin";
    for name in [&format!("{set_role}:future"), "cluster-proxy:user:newbie"] {
        rolly.post(&roles, role(name, json!([]))).await.refused(403, "Forbidden");
    }
    hub.admin().post(&roles, role(&format!("{set_role}:late"), json!([]))).await.ok();
    for name in [&format!("{set_role}:late"), "cluster-admin", "cluster-proxy:admin"] {
        let at = format!("{roles}/{name}");
        rolly.delete(&at).await.refused(403, "Forbidden");
        rolly.patch(&at, json!({"metadata": {"labels": {"a": "b"}}})).await.refused(403, "Forbidden");
    }
}

#[tokio::test]
async fn a_token_lets_in_only_what_its_maker_may_accept() {
    let hub = Hub::new().await;
    let accept = |names: &[&str]| rule(REGISTER, &["managedclusters/accept"], &["update"], names);
    let made = |cluster: Option<&str>, auto_accept: bool| {
        let new = crate::token::NewToken {
            cluster: cluster.map(|name| name.parse().unwrap()),
            auto_accept,
            reusable: false,
            time_to_live: Duration::from_secs(60),
            created_by: "eve".to_owned(),
        };
        hub.registry.may_create_token(&hub.user("eve").caller, &new).is_ok()
    };
    hub.grant("eve", "", json!([rule(REGISTER, &["jointokens"], &["create"], &[])])).await;
    assert!(made(None, false));
    assert!(!made(None, true) && !made(Some("c1"), true) && !made(Some("c1"), false));
    hub.grant("eve", "", json!([accept(&["c1"])])).await;
    assert!(made(Some("c1"), true) && made(Some("c1"), false));
    assert!(!made(None, true) && !made(Some("c2"), true));
    hub.grant("eve", "", json!([accept(&[])])).await;
    assert!(made(None, true) && made(Some("c2"), true));
}

#[tokio::test]
async fn a_request_is_approved_only_by_who_may_accept_its_cluster() {
    let hub = Hub::new().await;
    hub.join_c1(false).await;
    let requests = "certificates.k8s.io";
    let approves = rule(requests, &["certificatesigningrequests/approval"], &["update"], &[]);
    let reads = rule(requests, &["certificatesigningrequests"], &["get"], &[]);
    hub.grant("eve", "", json!([approves, reads])).await;
    let at = format!("/apis/{requests}/v1/certificatesigningrequests/c1.a1");
    let mut request = hub.user("eve").get(&at).await.ok();
    request["status"]["conditions"] =
        json!([{"type": "Approved", "status": "True", "reason": "Looked", "message": ""}]);
    let approval = format!("{at}/approval");
    hub.user("eve").put(&approval, request.clone()).await.refused(403, "Forbidden");
    hub.grant("vera", "", json!([approves, reads, rule(REGISTER, &["managedclusters/accept"], &["update"], &["c1"])]))
        .await;
    hub.user("vera").put(&approval, request).await.ok();
}
