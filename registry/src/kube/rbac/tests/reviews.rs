//! The reviews, answered as kube-apiserver answers them, and the built-in roles they show.

use serde_json::{Value, json};

use super::super::review::{Caller, Review, ReviewError, answer};
use super::super::*;
use super::{binding, hub, role, rule, strings};

fn caller(user: &str) -> Caller {
    Caller { user: user.to_owned(), groups: strings(&["system:authenticated"]), ..Caller::default() }
}

fn hub_of_w() -> Policy {
    hub(&[
        binding("team", "work", ("ClusterRole", builtin::USER), ("User", "w")),
        binding("team", "lost", ("Role", "gone"), ("User", "w")),
    ])
}

fn resource(verb: &str, group: &str, resource: &str, namespace: &str, name: &str) -> Value {
    json!({"verb": verb, "group": group, "resource": resource, "namespace": namespace, "name": name})
}

#[test]
fn can_i_tells_what_the_server_would_decide_and_by_which_rule() {
    let policy = hub_of_w();
    let ask = |spec: Value| {
        let body = json!({"metadata": {"creationTimestamp": null}, "spec": spec});
        answer(&policy, &caller("w"), Review::SelfSubjectAccess, "", &body).unwrap()
    };
    let asked = json!({"resourceAttributes": resource("proxy", CLUSTER_GROUP, "managedclusters", "", "c1")});
    assert_eq!(
        ask(asked.clone()),
        json!({
            "kind": "SelfSubjectAccessReview",
            "apiVersion": "authorization.k8s.io/v1",
            "metadata": {},
            "spec": asked,
            "status": {
                "allowed": true,
                "reason": "RBAC: allowed by RoleBinding \"work/team\" of ClusterRole \"cluster-proxy:user\" to User \
                           \"w\" through ManagedClusterSet \"prod\" bound in namespace \"team\"",
            },
        })
    );
    let denied = json!({"resourceAttributes": resource("proxy", CLUSTER_GROUP, "managedclusters", "", "c3")});
    assert_eq!(ask(denied)["status"], json!({"allowed": false}));
    let secret = json!({"resourceAttributes": resource("get", "", "secrets", "team", "")});
    assert_eq!(
        ask(secret)["status"],
        json!({"allowed": false, "reason": "RBAC: role.rbac.authorization.k8s.io \"gone\" not found"})
    );
    assert_eq!(
        ask(json!({"nonResourceAttributes": {"path": "/version", "verb": "get"}}))["status"]["allowed"],
        json!(true)
    );
    assert_eq!(ask(json!({"nonResourceAttributes": {"path": "/metrics"}}))["status"]["allowed"], json!(false));
}

#[test]
fn somebody_else_is_asked_about_by_user_or_group() {
    let policy = hub_of_w();
    let ask = |spec: Value| answer(&policy, &caller("x"), Review::SubjectAccess, "", &json!({"spec": spec})).unwrap();
    let attributes = resource("get", CLUSTER_GROUP, "managedclusters", "", "c1");
    assert_eq!(ask(json!({"user": "w", "resourceAttributes": attributes}))["status"]["allowed"], json!(true));
    assert_eq!(ask(json!({"user": "x", "resourceAttributes": attributes}))["status"], json!({"allowed": false}));
    assert_eq!(
        ask(json!({"groups": ["cluster-proxy:admins"], "resourceAttributes": attributes}))["status"]["allowed"],
        json!(true)
    );
}

#[test]
fn a_review_that_asks_nothing_or_too_much_is_invalid() {
    let policy = Policy::default();
    let fail = |review, namespace, body: Value| answer(&policy, &caller("u"), review, namespace, &body).unwrap_err();
    let get = resource("get", "", "secrets", "", "");
    assert_eq!(
        fail(Review::SelfSubjectAccess, "", json!({"spec": {}})).to_string(),
        "SelfSubjectAccessReview.authorization.k8s.io \"\" is invalid: spec.resourceAttributes: Invalid value: null: \
         exactly one of nonResourceAttributes or resourceAttributes must be specified"
    );
    assert_eq!(
        fail(Review::SubjectAccess, "", json!({"spec": {"resourceAttributes": get}})).to_string(),
        "SubjectAccessReview.authorization.k8s.io \"\" is invalid: spec.user: Invalid value: \"\": at least one of user \
         or group must be specified"
    );
    let both = json!({"spec": {"user": "u", "resourceAttributes": get, "nonResourceAttributes": {"path": "/"}}});
    assert!(matches!(
        fail(Review::SubjectAccess, "", both),
        ReviewError::Invalid { causes, .. } if causes[0].field == "spec.nonResourceAttributes"
    ));
    let named = json!({"metadata": {"name": "x"}, "spec": {"resourceAttributes": get}});
    assert!(matches!(
        fail(Review::SelfSubjectAccess, "", named),
        ReviewError::Invalid { causes, .. } if causes[0].field == "metadata"
    ));
    for spec in [json!(5), json!({"resourceAttributes": "x"}), json!({"groups": {"a": 1}})] {
        assert!(matches!(fail(Review::SubjectAccess, "", json!({"spec": spec})), ReviewError::BadRequest(_)), "{spec}");
    }
}

#[test]
fn a_local_review_is_about_its_own_namespace() {
    let policy = hub(&[binding("team", "edit", ("ClusterRole", "edit"), ("User", "e"))]);
    let ask =
        |namespace: &str, body: Value| answer(&policy, &caller("x"), Review::LocalSubjectAccess, namespace, &body);
    let spec = json!({"user": "e", "resourceAttributes": resource("get", "", "secrets", "team", "s")});
    let answered = ask("team", json!({"metadata": {"namespace": "team"}, "spec": spec})).unwrap();
    assert_eq!((&answered["metadata"], &answered["status"]["allowed"]), (&json!({"namespace": "team"}), &json!(true)));
    assert_eq!(
        ask("other", json!({"spec": spec})).unwrap_err().to_string(),
        "LocalSubjectAccessReview.authorization.k8s.io \"\" is invalid: spec.resourceAttributes.namespace: Invalid \
         value: \"team\": must match metadata.namespace"
    );
    assert_eq!(
        ask("other", json!({"metadata": {"namespace": "team"}, "spec": spec})).unwrap_err().to_string(),
        "the namespace of the provided object does not match the namespace sent on the request"
    );
}

#[test]
fn the_rules_of_the_caller_are_listed_and_what_leads_nowhere_is_told() {
    let policy = hub_of_w();
    let ask = |namespace: &str| {
        answer(&policy, &caller("w"), Review::SelfSubjectRules, "", &json!({"spec": {"namespace": namespace}}))
    };
    assert_eq!(ask("").unwrap_err(), ReviewError::BadRequest("no namespace on request".to_owned()));
    let team = ask("team").unwrap();
    let status = &team["status"];
    assert_eq!(status["evaluationError"], json!("role.rbac.authorization.k8s.io \"gone\" not found"));
    assert_eq!((&status["incomplete"], &team["spec"]), (&json!(false), &json!({})));
    let clusters = json!({
        "apiGroups": [CLUSTER_GROUP], "resources": ["managedclusters"], "verbs": ["get", "list", "watch", "proxy"],
    });
    let rules = |status: &Value| status["resourceRules"].as_array().unwrap().clone();
    assert!(rules(status).contains(&clusters));
    assert!(!rules(&ask("other").unwrap()["status"]).contains(&clusters));
    let urls = status["nonResourceRules"].as_array().unwrap();
    assert!(urls.iter().any(|rule| rule["nonResourceURLs"].as_array().unwrap().contains(&json!("/version"))));
}

#[test]
fn whoami_repeats_the_caller() {
    let caller = Caller { uid: "1".to_owned(), extra: [("scope".to_owned(), strings(&["a"]))].into(), ..caller("u") };
    assert_eq!(
        answer(&Policy::default(), &caller, Review::SelfSubject, "", &json!({})).unwrap(),
        json!({
            "kind": "SelfSubjectReview",
            "apiVersion": "authentication.k8s.io/v1",
            "metadata": {},
            "status": {"userInfo": {
                "username": "u", "uid": "1", "groups": ["system:authenticated"], "extra": {"scope": ["a"]},
            }},
        })
    );
    assert_eq!(Review::parse("SelfSubjectReview"), Some(Review::SelfSubject));
    assert_eq!(Review::parse("TokenReview"), None);
}

#[test]
fn the_built_in_roles_give_what_their_names_say() {
    let policy = hub(&[
        binding("", "v", ("ClusterRole", "view"), ("User", "v")),
        role("ClusterRole", "", "own", &[rule(RBAC_GROUP, &["clusterroles"], &["update"], &[])]),
    ]);
    let may = |groups: &[&str], user: &str, verb: &str, group: &str, resource: &str| {
        let groups = strings(groups);
        let request = super::request(user, verb, group, resource, "", "");
        policy.authorize(&Attributes { groups, ..request }).is_allowed()
    };
    let admins = [builtin::ADMINS];
    assert!(may(&admins, "a", "create", CLUSTER_GROUP, "managedclusters"));
    assert!(may(&admins, "a", "delete", "register.open-cluster-management.io", "managedclusters"));
    assert!(may(&admins, "a", "update", RBAC_GROUP, "clusterroles"));
    assert!(!may(&admins, "a", "escalate", RBAC_GROUP, "clusterroles"));
    assert!(!may(&admins, "a", "create", "apps", "deployments"));
    assert!(may(&[MASTERS], "m", "create", "apps", "deployments"));
    assert!(may(&["system:authenticated"], "u", "create", "authorization.k8s.io", "selfsubjectaccessreviews"));
    assert!(!may(&["system:unauthenticated"], "u", "create", "authorization.k8s.io", "selfsubjectaccessreviews"));
    assert!(may(&[], "v", "list", "", "events") && !may(&[], "v", "list", "", "secrets"));
    for group in ["system:authenticated", "system:unauthenticated"] {
        let url = Some("/version".to_owned());
        let version = Attributes {
            groups: strings(&[group]),
            non_resource_url: url,
            ..super::request("u", "get", "", "", "", "")
        };
        assert!(policy.authorize(&version).is_allowed());
    }
}
