//! The policy by example; [`properties`] compares it with an oracle on random worlds.

mod oracle;
mod properties;
mod requests;
mod reviews;
mod world;

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};

use super::*;

fn policy(objects: &[Value]) -> Policy {
    let mut policy = Policy::default();
    for object in objects {
        policy.put(Object::parse(object).unwrap());
    }
    policy
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|&text| text.to_owned()).collect()
}

fn names(list: &[&str]) -> BTreeSet<Arc<str>> {
    list.iter().map(|&name| Arc::from(name)).collect()
}

fn rule(group: &str, resources: &[&str], verbs: &[&str], names: &[&str]) -> Value {
    json!({"apiGroups": [group], "resources": resources, "verbs": verbs, "resourceNames": names})
}

fn role(kind: &str, namespace: &str, name: &str, rules: &[Value]) -> Value {
    json!({"kind": kind, "metadata": {"name": name, "namespace": namespace}, "rules": rules})
}

fn binding(namespace: &str, name: &str, role: (&str, &str), subject: (&str, &str)) -> Value {
    let kind = if namespace.is_empty() { "ClusterRoleBinding" } else { "RoleBinding" };
    json!({
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace},
        "roleRef": {"apiGroup": RBAC_GROUP, "kind": role.0, "name": role.1},
        "subjects": [{"kind": subject.0, "name": subject.1}],
    })
}

fn set_binding(namespace: &str, set: &str, bound: &str) -> Value {
    json!({
        "kind": "ManagedClusterSetBinding",
        "metadata": {"name": set, "namespace": namespace},
        "spec": {"clusterSet": set},
        "status": {"conditions": [{"type": "Bound", "status": bound}]},
    })
}

fn request(user: &str, verb: &str, group: &str, resource: &str, namespace: &str, name: &str) -> Attributes {
    Attributes {
        user: user.to_owned(),
        verb: verb.to_owned(),
        api_group: group.to_owned(),
        resource: resource.to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        ..Attributes::default()
    }
}

fn said(decision: Decision) -> String {
    match decision {
        Decision::Allowed(grant) => grant.to_string(),
        Decision::Denied(denial) => denial.to_string(),
    }
}

/// A hub with one set of two clusters, bound in the workspace `team`, and the built-in roles.
fn hub(more: &[Value]) -> Policy {
    let mut policy = policy(&[builtin::cluster_roles(), builtin::cluster_role_bindings(), more.to_vec()].concat());
    policy.fill_set("prod", names(&["c1", "c2"]));
    policy.put(Object::parse(&set_binding("team", "prod", "True")).unwrap());
    policy
}

#[test]
fn a_denial_names_the_missing_right_in_kubernetes_words() {
    let policy = Policy::default();
    let denied = |request: Attributes| said(policy.authorize(&request));
    assert_eq!(
        denied(request("u", "get", CLUSTER_GROUP, "managedclusters", "", "c1")),
        "User \"u\" cannot get resource \"managedclusters\" in API group \"cluster.open-cluster-management.io\" at the \
         cluster scope"
    );
    assert_eq!(
        denied(Attributes { subresource: "status".to_owned(), ..request("u", "patch", "", "namespaces", "n", "n") }),
        "User \"u\" cannot patch resource \"namespaces/status\" in API group \"\" in the namespace \"n\""
    );
    let url = Attributes { non_resource_url: Some("/metrics".to_owned()), ..request("u", "get", "", "", "", "") };
    assert_eq!(denied(url), "User \"u\" cannot get path \"/metrics\"");
}

#[test]
fn a_binding_of_a_role_that_is_not_there_is_told() {
    let policy = policy(&[
        binding("", "b", ("ClusterRole", "gone"), ("User", "u")),
        binding("n", "b", ("Role", "lost"), ("User", "u")),
    ]);
    let right = "User \"u\" cannot get resource \"secrets\" in API group \"\"";
    assert_eq!(
        said(policy.authorize(&request("u", "get", "", "secrets", "", "s"))),
        format!("{right} at the cluster scope: RBAC: clusterrole.rbac.authorization.k8s.io \"gone\" not found")
    );
    assert_eq!(
        said(policy.authorize(&request("u", "get", "", "secrets", "n", "s"))),
        format!(
            "{right} in the namespace \"n\": RBAC: [clusterrole.rbac.authorization.k8s.io \"gone\" not found, \
             role.rbac.authorization.k8s.io \"lost\" not found]"
        )
    );
}

#[test]
fn a_grant_names_the_binding_as_kubernetes_does() {
    let secrets = [rule("", &["secrets"], &["get"], &[])];
    let policy = policy(&[
        role("ClusterRole", "", "reader", &secrets),
        role("Role", "n", "reader", &secrets),
        binding("", "all", ("ClusterRole", "reader"), ("Group", "g")),
        binding("n", "one", ("Role", "reader"), ("ServiceAccount", "sa")),
        binding("n", "two", ("ClusterRole", "reader"), ("User", "u")),
    ]);
    let asked = |user: &str| request(user, "get", "", "secrets", "n", "s");
    let groups = strings(&["g"]);
    assert_eq!(
        said(policy.authorize(&Attributes { groups, ..asked("x") })),
        r#"ClusterRoleBinding "all" of ClusterRole "reader" to Group "g""#
    );
    assert_eq!(
        said(policy.authorize(&asked("system:serviceaccount:n:sa"))),
        r#"RoleBinding "one/n" of Role "reader" to ServiceAccount "sa/n""#
    );
    assert_eq!(said(policy.authorize(&asked("u"))), r#"RoleBinding "two/n" of ClusterRole "reader" to User "u""#);
    assert!(!policy.authorize(&request("u", "get", "", "secrets", "other", "s")).is_allowed());
    assert!(!policy.authorize(&request("u", "get", "", "secrets", "", "s")).is_allowed());
}

#[test]
fn wildcards_names_and_urls_match_as_in_kubernetes() {
    let allows =
        |rule: Value, request: &Attributes| serde_json::from_value::<PolicyRule>(rule).unwrap().allows(request);
    let status = Attributes { subresource: "status".to_owned(), ..request("u", "get", "g", "things", "", "x") };
    for (resource, expected) in
        [("things/status", true), ("*/status", true), ("*", true), ("things/*", false), ("things", false)]
    {
        assert_eq!(allows(rule("g", &[resource], &["get"], &[]), &status), expected, "{resource}");
    }
    let plain = request("u", "get", "g", "things", "", "");
    assert!(!allows(rule("g", &["*/status"], &["get"], &[]), &plain));
    assert!(!allows(rule("g", &["things"], &["get"], &["x"]), &plain), "names never match a request without a name");
    assert!(allows(rule("*", &["things"], &["*"], &[]), &plain));
    let url =
        |path: &str| Attributes { non_resource_url: Some(path.to_owned()), ..request("u", "get", "", "", "", "") };
    let urls = json!({"nonResourceURLs": ["/healthz/*", "/version"], "verbs": ["get"]});
    assert!(allows(urls.clone(), &url("/healthz/x")) && allows(urls.clone(), &url("/version")));
    assert!(!allows(urls.clone(), &url("/healthz")) && !allows(urls, &url("/version/x")));
    assert!(!allows(rule("*", &["*"], &["*"], &[]), &url("/version")));
}

#[test]
fn a_binding_gives_no_role_of_another_kind_and_no_url_in_a_namespace() {
    let policy = policy(&[
        role(
            "ClusterRole",
            "",
            "r",
            &[rule("", &["secrets"], &["get"], &[]), json!({"nonResourceURLs": ["*"], "verbs": ["get"]})],
        ),
        binding("", "b", ("Role", "r"), ("User", "u")),
        binding("n", "b", ("ClusterRole", "r"), ("User", "w")),
    ]);
    assert!(!policy.authorize(&request("u", "get", "", "secrets", "", "s")).is_allowed());
    let reference = RoleRef { kind: RoleKind::Role, name: "r".into() };
    assert!(matches!(policy.may_bind("w", &[], "", &reference), Err(BindError::NoRole(_))));
    let url = Attributes { non_resource_url: Some("/x".to_owned()), ..request("w", "get", "", "", "n", "") };
    assert!(!policy.authorize(&url).is_allowed());
}

#[test]
fn masters_may_do_everything_without_any_role() {
    let groups = strings(&[MASTERS]);
    let policy = Policy::default();
    let all = Attributes { groups: groups.clone(), ..request("u", "escalate", "x", "y", "z", "") };
    assert_eq!(said(policy.authorize(&all)), "Group \"system:masters\"");
    assert_eq!(policy.may_proxy("u", &groups, "c1").unwrap().source, Source::Masters);
    let asked =
        VisibilityQuery { verb: ReadVerb::List, api_group: "", resource: "secrets", scope: Scope::AllNamespaces };
    assert_eq!(policy.visible("u", &groups, &asked), Visibility::All);
    assert_eq!(policy.covers("u", &groups, "", &[PolicyRule::default()]), Ok(()));
}

#[test]
fn a_set_and_a_workspace_lead_to_their_clusters_and_are_named() {
    let proxy = |resource: &str, names: &[&str]| [rule(CLUSTER_GROUP, &[resource], &["proxy"], names)];
    let policy = hub(&[
        role("ClusterRole", "", "of-set", &proxy("managedclustersets", &["prod"])),
        binding("", "set", ("ClusterRole", "of-set"), ("User", "s")),
        binding("team", "work", ("ClusterRole", builtin::USER), ("User", "w")),
        binding("other", "work", ("ClusterRole", builtin::USER), ("User", "o")),
        set_binding("other", "prod", "False"),
        binding("", "all", ("ClusterRole", builtin::USER), ("User", "a")),
    ]);
    let reach = |user: &str, cluster: &str| policy.may_proxy(user, &[], cluster).map(|grant| grant.to_string());
    assert_eq!(
        reach("s", "c1").unwrap(),
        r#"ClusterRoleBinding "set" of ClusterRole "of-set" to User "s" through ManagedClusterSet "prod""#
    );
    assert_eq!(
        reach("w", "c2").unwrap(),
        "RoleBinding \"work/team\" of ClusterRole \"cluster-proxy:user\" to User \"w\" through ManagedClusterSet \
         \"prod\" bound in namespace \"team\""
    );
    assert_eq!(
        reach("a", "c9").unwrap(),
        r#"ClusterRoleBinding "all" of ClusterRole "cluster-proxy:user" to User "a""#
    );
    assert!(reach("o", "c1").is_err(), "the binding is not bound");
    assert!(reach("w", "c3").is_err() && reach("s", "c3").is_err());
    assert_eq!(
        reach("n", "c1").unwrap_err().to_string(),
        "User \"n\" cannot proxy resource \"managedclusters\" in API group \"cluster.open-cluster-management.io\" at \
         the cluster scope; ask an admin of the hub for the right: verb proxy on managedclusters/c1, or on a \
         managedclusterset that holds it"
    );
}

#[test]
fn whoever_may_reach_a_cluster_may_look_at_it_and_not_more() {
    let policy = hub(&[binding("team", "work", ("ClusterRole", builtin::USER), ("User", "w"))]);
    let decide = |verb: &str, resource: &str, name: &str| {
        policy.decide(&request("w", verb, CLUSTER_GROUP, resource, "", name)).is_allowed()
    };
    for verb in ["get", "list", "watch", "proxy"] {
        assert!(decide(verb, "managedclusters", "c1"), "{verb}");
        assert!(!decide(verb, "managedclusters", "c3"), "{verb}");
        assert!(!decide(verb, "managedclusters", ""), "{verb}");
    }
    assert!(decide("get", "managedclustersets", "prod"));
    assert!(!decide("update", "managedclusters", "c1") && !decide("delete", "managedclustersets", "prod"));
}

#[test]
fn a_write_is_never_widened_by_a_set_or_a_workspace() {
    let policy = hub(&[
        binding("team", "work", ("ClusterRole", "cluster-admin"), ("User", "w")),
        role("ClusterRole", "", "set", &[rule(CLUSTER_GROUP, &["managedclustersets"], &["*"], &["prod"])]),
        binding("", "set", ("ClusterRole", "set"), ("User", "w")),
    ]);
    for verb in ["update", "patch", "delete", "create", "escalate"] {
        assert!(!policy.decide(&request("w", verb, CLUSTER_GROUP, "managedclusters", "", "c1")).is_allowed(), "{verb}");
    }
    assert!(policy.decide(&request("w", "proxy", CLUSTER_GROUP, "managedclusters", "", "c1")).is_allowed());
}

#[test]
fn the_roles_of_a_set_do_what_their_names_say() {
    let mut policy = hub(&builtin::set_roles("prod"));
    for kind in ["admin", "bind", "view"] {
        let role = format!("open-cluster-management:managedclusterset:{kind}:prod");
        policy.put(Object::parse(&binding("", kind, ("ClusterRole", &role), ("User", kind))).unwrap());
    }
    let may = |user: &str, verb: &str, resource: &str, subresource: &str, name: &str| {
        let subresource = subresource.to_owned();
        let request = request(user, verb, CLUSTER_GROUP, resource, "", name);
        policy.decide(&Attributes { subresource, ..request }).is_allowed()
    };
    for user in ["admin", "bind", "view"] {
        assert!(may(user, "get", "managedclusters", "", "c1") && may(user, "watch", "managedclustersets", "", "prod"));
        assert!(!may(user, "get", "managedclusters", "", "c3"));
        assert_eq!(may(user, "create", "managedclustersets", "bind", "prod"), user != "view");
        assert_eq!(may(user, "create", "managedclustersets", "join", "prod"), user == "admin");
        assert_eq!(may(user, "proxy", "managedclusters", "", "c1"), user == "admin");
        assert!(!may(user, "create", "managedclustersets", "join", "dev"));
    }
}

#[test]
fn an_aggregated_role_has_the_rules_of_what_it_selects_and_loses_them_again() {
    let mut policy = hub(&[binding("team", "admin", ("ClusterRole", "admin"), ("User", "t"))]);
    let secret = request("t", "delete", "", "secrets", "team", "s");
    let see = request("t", "list", CLUSTER_GROUP, "managedclustersetbindings", "team", "");
    assert!(policy.authorize(&secret).is_allowed() && policy.authorize(&see).is_allowed());
    assert!(policy.may_proxy("t", &[], "c1").is_ok());
    policy.remove(Kind::ClusterRole, "", "system:aggregate-to-edit");
    assert!(!policy.authorize(&secret).is_allowed() && policy.authorize(&see).is_allowed());
    assert_eq!(policy.aggregated_rules("view").unwrap().len(), 2);
    assert_eq!(policy.aggregated_rules("cluster-admin"), None);
}

#[test]
fn roles_that_aggregate_each_other_come_to_an_end() {
    let ring = |name: &str, next: &str| {
        json!({
            "kind": "ClusterRole",
            "metadata": {"name": name, "labels": {"is": name}},
            "aggregationRule": {"clusterRoleSelectors": [{"matchExpressions": [
                {"key": "is", "operator": "In", "values": [next, "leaf"]},
            ]}]},
            "rules": null,
        })
    };
    let leaf = json!({"kind": "ClusterRole", "metadata": {"name": "l", "labels": {"is": "leaf"}},
        "rules": [rule("", &["secrets"], &["get"], &[])]});
    let policy = policy(&[ring("a", "b"), ring("b", "a"), leaf]);
    assert_eq!(policy.aggregated_rules("a").unwrap().len(), 1);
    assert_eq!(policy.aggregated_rules("a"), policy.aggregated_rules("b"));
}

fn parsed(rules: &[Value]) -> Vec<PolicyRule> {
    rules.iter().map(|rule| serde_json::from_value(rule.clone()).unwrap()).collect()
}

#[test]
fn giving_away_what_one_does_not_hold_is_told_in_kubernetes_words() {
    let policy = policy(&[
        role("ClusterRole", "", "r", &[rule("x", &["y"], &["list"], &[]), rule("x", &["*/status"], &["*"], &[])]),
        binding("", "b", ("ClusterRole", "r"), ("Group", "g")),
    ]);
    let groups = strings(&["g"]);
    let rules = parsed(&[
        rule("x", &["y", "z/status"], &["get", "list", "watch"], &[]),
        rule("x", &["y"], &["list"], &["n"]),
        rule("a", &["b"], &["c", "d"], &["n", "m"]),
        json!({"nonResourceURLs": ["/x"], "verbs": ["get"]}),
    ]);
    let write =
        |rules, aggregates| RoleWrite { kind: RoleKind::ClusterRole, namespace: "", name: "", rules, aggregates };
    assert_eq!(
        policy.may_grant("u", &groups, &write(&rules, false)).unwrap_err().to_string(),
        "user \"u\" (groups=[\"g\"]) is attempting to grant RBAC permissions not currently held:\n\
         {APIGroups:[\"a\"], Resources:[\"b\"], ResourceNames:[\"m\"], Verbs:[\"c\" \"d\"]}\n\
         {APIGroups:[\"a\"], Resources:[\"b\"], ResourceNames:[\"n\"], Verbs:[\"c\" \"d\"]}\n\
         {APIGroups:[\"x\"], Resources:[\"y\"], Verbs:[\"get\" \"watch\"]}\n\
         {NonResourceURLs:[\"/x\"], Verbs:[\"get\"]}"
    );
    assert_eq!(policy.may_grant("u", &groups, &write(&rules[1..2], false)), Ok(()));
    assert_eq!(policy.may_grant("u", &groups, &write(&rules[1..2], true)), Err(GrantError::Aggregation));
}

#[test]
fn the_verbs_bind_and_escalate_let_rights_be_given_away() {
    let policy = hub(&[
        role("ClusterRole", "", "b", &[rule(RBAC_GROUP, &["clusterroles"], &["bind"], &["cluster-admin", "none"])]),
        role("Role", "team", "e", &[rule(RBAC_GROUP, &["roles"], &["escalate"], &[])]),
        binding("", "b", ("ClusterRole", "b"), ("User", "u")),
        binding("team", "e", ("Role", "e"), ("User", "u")),
    ]);
    let reference = |name: &str| RoleRef { kind: RoleKind::ClusterRole, name: name.into() };
    assert_eq!(policy.may_bind("u", &[], "", &reference("cluster-admin")), Ok(()));
    assert_eq!(policy.may_bind("u", &[], "team", &reference("none")), Ok(()));
    assert!(matches!(policy.may_bind("u", &[], "", &reference("view")), Err(BindError::Escalation(_))));
    assert_eq!(
        policy.may_bind("u", &[], "", &reference("gone")).unwrap_err().to_string(),
        "clusterrole.rbac.authorization.k8s.io \"gone\" not found"
    );
    let rules = parsed(&[rule("*", &["*"], &["*"], &[])]);
    let write = |namespace| RoleWrite { kind: RoleKind::Role, namespace, name: "", rules: &rules, aggregates: false };
    assert_eq!(policy.may_grant("u", &[], &write("team")), Ok(()));
    assert!(policy.may_grant("u", &[], &write("other")).is_err());
}

#[test]
fn a_role_whose_lists_multiply_is_refused_without_being_taken_apart() {
    let policy = policy(&[
        role("ClusterRole", "", "r", &[rule("a0", &["*"], &["*"], &[])]),
        binding("", "b", ("ClusterRole", "r"), ("User", "u")),
    ]);
    let many = |prefix: &str| (0..1000).map(|at| format!("{prefix}{at}")).collect::<Vec<_>>();
    let huge = PolicyRule { api_groups: many("a"), resources: many("r"), verbs: many("v"), ..PolicyRule::default() };
    let held = PolicyRule { api_groups: strings(&["a0"]), ..huge.clone() };
    assert_eq!(policy.covers("u", &[], "", &[held]), Ok(()));
    assert_eq!(policy.covers("u", &[], "", std::slice::from_ref(&huge)), Err(vec![huge]));
}

#[test]
fn what_cannot_be_read_is_refused() {
    let text = |value: Value| Object::parse(&value).unwrap_err().to_string();
    assert!(text(json!({"kind": "Secret", "metadata": {"name": "x"}})).contains("no role"));
    assert!(text(json!({"kind": "Role", "metadata": {"name": "x"}})).contains("no namespace"));
    assert!(text(json!(null)).contains("no role"));
    assert!(Object::parse(&json!({"kind": "ClusterRole", "metadata": {"name": "x"}, "rules": null})).is_ok());
}
