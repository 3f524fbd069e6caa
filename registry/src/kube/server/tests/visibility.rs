//! What a watch tells a restricted user, against a fresh list: after every step of a random history of clusters, sets,
//! roles and bindings.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::*;

const GROUP: &str = "cluster.open-cluster-management.io";
const USER: &str = "u";
const NAMED: [&str; 3] = ["c0", "c1", "c2"];
const SET_NAMES: [&str; 2] = ["s0", "s1"];
const WORKSPACES: [&str; 2] = ["n0", "n1"];
/// Who may list may watch, so that both show the same.
const VERBS: [&[&str]; 3] = [&["list", "watch"], &["proxy"], &["get"]];
const WATCHED: [&str; 6] = [
    CLUSTERS,
    "/apis/cluster.open-cluster-management.io/v1/managedclusters?labelSelector=team%3Ds0",
    SETS,
    "/api/v1/secrets",
    "/api/v1/namespaces/n0/secrets",
    "/apis/addon.open-cluster-management.io/v1alpha1/managedclusteraddons",
];

#[derive(Clone, Debug)]
enum Step {
    /// Makes the cluster or changes its team.
    Cluster(&'static str, &'static str),
    /// Makes the set or changes which team it holds.
    Set(&'static str, &'static str),
    Secret(&'static str, &'static str),
    Bind(&'static str, &'static str),
    /// Rights in a workspace, or everywhere.
    Grant(&'static str, Vec<Value>),
    Delete(String),
}

/// One open watch and the cache that it fills.
struct Cache {
    uri: &'static str,
    watch: Option<Watching>,
    objects: BTreeMap<(String, String), Value>,
}

impl Cache {
    /// Takes in what was told; nothing comes twice or goes unknown.
    async fn follow(&mut self, hub: &Hub) -> Result<(), TestCaseError> {
        if self.watch.is_none() {
            self.watch = hub.user(USER).watch(self.uri).await.ok();
        }
        let Some(watch) = &mut self.watch else { return Ok(()) };
        for (kind, object) in watch.told().await {
            let key = (object::metadata(&object, "namespace").to_owned(), object::name(&object).to_owned());
            let known = match kind.as_str() {
                "ADDED" | "MODIFIED" => self.objects.insert(key, object),
                "DELETED" => self.objects.remove(&key),
                _ => return Err(TestCaseError::fail(format!("{kind} {object}"))),
            };
            prop_assert_eq!(known.is_some(), kind != "ADDED", "{} {:?} in {}", kind, known, self.uri);
        }
        Ok(())
    }

    /// What a list shows now; nothing to those who are refused.
    async fn listed(&self, hub: &Hub) -> BTreeMap<(String, String), Value> {
        let reply = hub.user(USER).get(self.uri).await;
        if reply.code == 403 {
            return BTreeMap::new();
        }
        let list = reply.ok();
        let keyed = |item: &Value| {
            let key = (object::metadata(item, "namespace").to_owned(), object::name(item).to_owned());
            (key, item.clone())
        };
        list["items"].as_array().unwrap().iter().map(keyed).collect()
    }
}

async fn send(hub: &Hub, step: &Step) {
    let admin = hub.admin();
    match step {
        Step::Cluster(name, team) => {
            let labels = json!({"metadata": {"labels": {"team": team}}});
            if admin.patch(&format!("{CLUSTERS}/{name}"), labels).await.code == 404 {
                admin.post(CLUSTERS, cluster(name, json!({"team": team}))).await.ok();
            }
        }
        Step::Set(name, team) => {
            let selector = json!({"spec": set(name, json!({"team": team}))["spec"]});
            if admin.patch(&format!("{SETS}/{name}"), selector).await.code == 404 {
                admin.post(SETS, set(name, json!({"team": team}))).await.ok();
            }
        }
        Step::Secret(namespace, name) => {
            let uri = format!("{NAMESPACES}/{namespace}/secrets");
            admin.post(&uri, secret(name)).await;
        }
        Step::Bind(namespace, set) => {
            let uri = format!("/apis/{GROUP}/v1beta2/namespaces/{namespace}/managedclustersetbindings");
            admin.post(&uri, set_binding(set)).await;
        }
        Step::Grant(namespace, rules) => hub.grant(USER, namespace, json!(rules)).await,
        Step::Delete(uri) => drop(admin.delete(uri).await),
    }
}

fn rules() -> impl Strategy<Value = Vec<Value>> {
    let verbs = subsequence(VERBS.to_vec(), 1..=3).prop_map(|verbs| verbs.concat());
    let clusters = (verbs.clone(), subsequence(NAMED.to_vec(), 0..=2))
        .prop_map(|(verbs, names)| rule(GROUP, &["managedclusters"], &verbs, &names));
    let sets = (verbs.clone(), subsequence(SET_NAMES.to_vec(), 0..=2))
        .prop_map(|(verbs, names)| rule(GROUP, &["managedclustersets"], &verbs, &names));
    let others = (verbs, subsequence(NAMED.to_vec(), 0..=1)).prop_map(|(verbs, names)| {
        json!({"apiGroups": ["", "addon.open-cluster-management.io"], "resources": ["secrets", "managedclusteraddons"],
            "verbs": verbs, "resourceNames": names})
    });
    prop::collection::vec(prop_oneof![2 => clusters.boxed(), 2 => sets.boxed(), 1 => others.boxed()], 0..3)
}

fn step() -> impl Strategy<Value = Step> {
    let team = || select(&["s0", "s1", "s2"]);
    let removed = prop_oneof![
        3 => select(&NAMED).prop_map(|name| format!("{CLUSTERS}/{name}")),
        1 => select(&SET_NAMES).prop_map(|name| format!("{SETS}/{name}")),
        1 => (select(&WORKSPACES), select(&SET_NAMES)).prop_map(|(own, set)| {
            format!("/apis/{GROUP}/v1beta2/namespaces/{own}/managedclustersetbindings/{set}")
        }),
        1 => Just(format!("{RBAC}/clusterrolebindings/{USER}")),
        1 => Just(format!("{RBAC}/clusterroles/{USER}")),
        1 => select(&WORKSPACES).prop_map(|own| format!("{RBAC}/namespaces/{own}/rolebindings/{USER}")),
        1 => select(&WORKSPACES).prop_map(|own| format!("{NAMESPACES}/{own}/secrets")),
    ];
    let place = prop_oneof![1 => Just(""), 1 => select(&WORKSPACES)];
    prop_oneof![
        5 => (select(&NAMED), team()).prop_map(|(name, team)| Step::Cluster(name, team)),
        3 => (select(&SET_NAMES), team()).prop_map(|(name, team)| Step::Set(name, team)),
        1 => (select(&WORKSPACES), select(&NAMED)).prop_map(|(own, name)| Step::Secret(own, name)),
        2 => (select(&WORKSPACES), select(&SET_NAMES)).prop_map(|(own, set)| Step::Bind(own, set)),
        4 => (place, rules()).prop_map(|(namespace, rules)| Step::Grant(namespace, rules)),
        3 => removed.prop_map(Step::Delete),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(24) })]

    #[test]
    fn a_cache_filled_by_watching_is_what_a_list_shows(
        history in prop::collection::vec((step(), any::<bool>()), 1..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let hub = Hub::new().await;
            for name in WORKSPACES {
                hub.admin().post(NAMESPACES, namespace(name)).await.ok();
            }
            let mut caches = WATCHED.map(|uri| Cache { uri, watch: None, objects: BTreeMap::new() });
            for (step, looks) in &history {
                send(&hub, step).await;
                // Some read at once, some after several changes.
                if !looks {
                    continue;
                }
                for cache in &mut caches {
                    cache.follow(&hub).await?;
                    // Who can no longer list is also told by the watch, which goes on.
                    prop_assert_eq!(&cache.objects, &cache.listed(&hub).await, "{} after {:?}", cache.uri, step);
                }
            }
            Ok(())
        })?;
    }
}
