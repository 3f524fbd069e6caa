//! Merging contexts into kubeconfigs of all sorts.

use std::path::Path;

use certs::{ClusterName, Credentials, HubEntry};
use proptest::prelude::*;

use super::*;
use crate::{credentials::Located, yaml::tests::any_value};

fn contexts(prefix: &str, clusters: &[&str]) -> Contexts {
    let hub = HubEntry {
        user: "alice".parse().unwrap(),
        api: "https://hub:8443".into(),
        proxy: "hub:8090".into(),
        pin: format!("sha256:{:064x}", 1).parse().unwrap(),
    };
    let (ca_pem, chain_pem, key_pem) = ("CA".into(), String::new(), String::new().into());
    let credentials = Credentials { hub, ca_pem, chain_pem, key_pem, token: None };
    let located = Located { folder: "/home/alice/c".into(), credentials };
    let clusters: Vec<ClusterName> = clusters.iter().map(|name| name.parse().unwrap()).collect();
    Contexts::new(&located, Path::new("/usr/bin/cluster-proxy"), prefix, clusters).unwrap()
}

fn parse(value: &Value) -> Document {
    Document::parse(value.to_string().as_bytes()).unwrap()
}

#[test]
fn a_kubeconfig_is_what_people_are_told_to_expect() {
    let mut document = Document::new();
    document.merge(&contexts("", &["edge-1"])).unwrap();
    let text = document.to_yaml();
    let expected = "apiVersion: v1\n\
        clusters:\n\
        - cluster:\n    certificate-authority: /home/alice/c/ca.crt\n    server: https://hub:8443/clusters/edge-1\n  \
          name: cluster-proxy/hub:8443/edge-1\n\
        contexts:\n\
        - context:\n    cluster: cluster-proxy/hub:8443/edge-1\n    user: cluster-proxy/hub:8443/alice\n  name: edge-1\n\
        current-context: edge-1\n\
        kind: Config\n\
        users:\n\
        - name: cluster-proxy/hub:8443/alice\n  user:\n    exec:\n      \
              apiVersion: client.authentication.k8s.io/v1\n      \
              args:\n      - credential\n      - \"--credentials\"\n      - /home/alice/c\n      \
              command: /usr/bin/cluster-proxy\n      installHint: \"";
    assert!(text.starts_with(expected), "{text}");
}

#[test]
fn the_current_context_is_somebodys_choice() {
    let current = |document: &Document| document.current_context().map(str::to_owned);
    let mut several = Document::new();
    several.merge(&contexts("", &["a", "b"])).unwrap();
    assert_eq!(current(&several), None);
    several.merge(&contexts("", &["b"])).unwrap();
    assert_eq!(current(&several).as_deref(), Some("b"));
    several.merge(&contexts("", &["a"])).unwrap();
    assert_eq!(current(&several).as_deref(), Some("b"));
}

#[test]
fn a_context_that_leads_elsewhere_is_not_taken_over() {
    let theirs = json!({"contexts": [{"name": "a", "context": {"cluster": "kind", "user": "kind"}}]});
    let mut document = parse(&theirs);
    let before = document.clone();
    assert_eq!(document.merge(&contexts("", &["b", "a"])), Err(TakenError("a".into())));
    assert_eq!(document, before);
    document.merge(&contexts("hub-", &["a"])).unwrap();
    assert!(document.find("contexts", "hub-a").is_some());
}

#[test]
fn what_users_set_in_our_entries_stays_unless_it_contradicts_them() {
    let mut document = Document::new();
    document.merge(&contexts("", &["a"])).unwrap();
    document.0["contexts"][0]["context"]["namespace"] = "web".into();
    document.0["contexts"][0]["context"]["user"] = "somebody".into();
    document.0["clusters"][0]["cluster"]["proxy-url"] = "socks5://bastion".into();
    document.0["clusters"][0]["cluster"]["insecure-skip-tls-verify"] = true.into();
    document.merge(&contexts("", &["a"])).unwrap();
    let context = &document.find("contexts", "a").unwrap()["context"];
    assert_eq!((&context["namespace"], &context["user"]), (&json!("web"), &json!("cluster-proxy/hub:8443/alice")));
    let cluster = &document.0["clusters"][0]["cluster"];
    assert_eq!(cluster["proxy-url"], "socks5://bastion");
    assert_eq!(cluster.get("insecure-skip-tls-verify"), None);
}

#[test]
fn an_empty_file_is_a_kubeconfig_that_says_nothing() {
    for text in ["", "\n", "# mine\n\n"] {
        assert_eq!(Document::parse(text.as_bytes()), Ok(Document::new()));
    }
    let nulls = parse(&json!({"clusters": null, "users": null, "contexts": null, "kind": null}));
    assert_eq!(nulls, Document::new());
}

/// Entries with names of their own, and anything else in them.
fn any_entries() -> impl Strategy<Value = Value> {
    prop::collection::btree_map("[a-z@ /:]{1,8}", any_value(), 0..4).prop_map(|entries| {
        let entry = |(name, value)| json!({"name": format!("their-{name}"), "rest": value});
        entries.into_iter().map(entry).collect()
    })
}

proptest! {
    #[test]
    fn what_is_not_ours_survives_and_merging_twice_is_merging_once(
        lists in [any_entries(), any_entries(), any_entries()],
        other in any_value(),
        preferences in any_value(),
        current in prop::option::of("[a-z]{1,8}"),
    ) {
        let [clusters, users, known] = lists;
        let theirs = parse(&json!({
            "clusters": clusters, "users": users, "contexts": known, "other": other, "preferences": preferences,
            "current-context": current,
        }));
        let ours = contexts("", &["a", "b"]);
        let mut once = theirs.clone();
        once.merge(&ours).unwrap();
        let mut twice = once.clone();
        twice.merge(&ours).unwrap();
        prop_assert_eq!(&twice, &once);
        prop_assert_eq!(Document::parse(once.to_yaml().as_bytes()).unwrap(), once.clone());
        for (field, value) in &theirs.0 {
            match value.as_array() {
                Some(items) if LISTS.contains(&field.as_str()) => {
                    let after = once.0[field].as_array().unwrap();
                    prop_assert_eq!(&after[..items.len()], &items[..], "their entries, in their order");
                }
                _ => prop_assert_eq!(&once.0[field], value),
            }
        }
        for name in ["a", "b"] {
            prop_assert!(once.find("contexts", name).is_some());
        }
    }
}
