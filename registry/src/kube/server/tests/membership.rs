//! Which clusters are in which sets, against a model: after every step of a random history.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::kube::rbac::{ReadVerb, Scope, VisibilityQuery};

const LABEL: &str = "cluster.open-cluster-management.io/clusterset";
const CLUSTER_NAMES: [&str; 4] = ["c0", "c1", "c2", "c3"];
const SET_NAMES: [&str; 3] = ["s0", "s1", "s2"];
const KEYS: [&str; 3] = [LABEL, "env", "tier"];
const VALUES: [&str; 4] = ["s0", "s1", "prod", ""];

type Labels = BTreeMap<&'static str, &'static str>;

/// What a set selects: written out for the model, not read from the object.
#[derive(Clone, Debug)]
enum Selects {
    Exclusive,
    /// No label selector at all.
    Nothing,
    /// Key, operator and value, all of which must hold.
    All(Vec<(&'static str, &'static str, &'static str)>),
}

#[derive(Clone, Debug)]
enum Step {
    Make(&'static str, Labels),
    /// Without a value the label goes.
    Label(&'static str, &'static str, Option<&'static str>),
    Delete(&'static str),
    MakeSet(&'static str, Selects),
    Select(&'static str, Selects),
    DeleteSet(&'static str),
}

#[derive(Debug, Default)]
struct Model {
    clusters: BTreeMap<&'static str, Labels>,
    sets: BTreeMap<&'static str, Selects>,
}

impl Selects {
    fn holds(&self, set: &str, labels: &Labels) -> bool {
        match self {
            Self::Exclusive => labels[LABEL] == set,
            Self::Nothing => false,
            Self::All(wanted) => wanted.iter().all(|(key, operator, value)| {
                let found = labels.get(key);
                match *operator {
                    "In" => found == Some(value),
                    "NotIn" => found != Some(value),
                    "Exists" => found.is_some(),
                    _ => found.is_none(),
                }
            }),
        }
    }

    fn selector(&self) -> Value {
        match self {
            Self::Exclusive => json!({"selectorType": "ExclusiveClusterSetLabel"}),
            Self::Nothing => json!({"selectorType": "LabelSelector"}),
            Self::All(wanted) => {
                let expression = |(key, operator, value): &(&str, &str, &str)| match *operator {
                    "In" | "NotIn" => json!({"key": key, "operator": operator, "values": [value]}),
                    _ => json!({"key": key, "operator": operator}),
                };
                let all: Vec<Value> = wanted.iter().map(expression).collect();
                json!({"selectorType": "LabelSelector", "labelSelector": {"matchExpressions": all}})
            }
        }
    }
}

impl Model {
    /// What the server must answer, and what becomes of the sets.
    fn take(&mut self, step: &Step) -> bool {
        match step {
            Step::Make(name, labels) => {
                let new = !self.clusters.contains_key(name);
                if new {
                    self.clusters.insert(name, stamped(labels.clone()));
                }
                new
            }
            Step::Label(name, key, value) => {
                let Some(labels) = self.clusters.get_mut(name) else { return false };
                match value {
                    Some(value) => drop(labels.insert(key, value)),
                    None => drop(labels.remove(key)),
                }
                *labels = stamped(std::mem::take(labels));
                true
            }
            Step::Delete(name) => self.clusters.remove(name).is_some(),
            Step::MakeSet(name, selects) => {
                let new = !self.sets.contains_key(name);
                if new {
                    self.sets.insert(name, selects.clone());
                }
                new
            }
            Step::Select(name, selects) => {
                let known = self.sets.contains_key(name);
                if known {
                    self.sets.insert(name, selects.clone());
                }
                known
            }
            Step::DeleteSet(name) => self.sets.remove(name).is_some(),
        }
    }

    fn members(&self, set: &str) -> BTreeSet<&'static str> {
        let holds = |labels: &Labels| match set {
            "global" => true,
            "default" => labels[LABEL] == "default",
            set => self.sets.get(set).is_some_and(|selects| selects.holds(set, labels)),
        };
        self.clusters.iter().filter(|(_, labels)| holds(labels)).map(|(name, _)| *name).collect()
    }
}

/// Who names no set is in the default one.
fn stamped(mut labels: Labels) -> Labels {
    if labels.get(LABEL).is_none_or(|set| set.is_empty()) {
        labels.insert(LABEL, "default");
    }
    labels
}

async fn send(hub: &Hub, step: &Step) -> Reply {
    let admin = hub.admin();
    match step {
        Step::Make(name, labels) => admin.post(CLUSTERS, cluster(name, json!(labels))).await,
        Step::Label(name, key, value) => {
            admin.patch(&format!("{CLUSTERS}/{name}"), json!({"metadata": {"labels": {*key: value}}})).await
        }
        Step::Delete(name) => admin.delete(&format!("{CLUSTERS}/{name}")).await,
        Step::MakeSet(name, selects) => {
            let mut made = set(name, json!({}));
            made["spec"]["clusterSelector"] = selects.selector();
            admin.post(SETS, made).await
        }
        Step::Select(name, selects) => {
            let uri = format!("{SETS}/{name}");
            let patch = json!([{"op": "replace", "path": "/spec/clusterSelector", "value": selects.selector()}]);
            admin.send("PATCH", &uri, &[("content-type", "application/json-patch+json")], patch.to_string()).await
        }
        Step::DeleteSet(name) => admin.delete(&format!("{SETS}/{name}")).await,
    }
}

/// The clusters that the rights on a set show.
fn shown(hub: &Hub, set: &str) -> BTreeSet<&'static str> {
    let asked = VisibilityQuery {
        verb: ReadVerb::List,
        api_group: "cluster.open-cluster-management.io",
        resource: "managedclusters",
        scope: Scope::Cluster,
    };
    let visible = hub.registry.with_policy(|policy| policy.visible(&format!("of-{set}"), &[], &asked));
    CLUSTER_NAMES.into_iter().filter(|name| visible.contains("", name)).collect()
}

fn selects() -> impl Strategy<Value = Selects> {
    let wanted = (select(&KEYS), select(&["In", "NotIn", "Exists", "DoesNotExist"]), select(&VALUES));
    prop_oneof![
        2 => Just(Selects::Exclusive),
        1 => Just(Selects::Nothing),
        4 => prop::collection::vec(wanted, 0..3).prop_map(Selects::All),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let labels = prop::collection::btree_map(select(&KEYS), select(&VALUES), 0..3);
    let value = prop_oneof![1 => Just(None), 3 => select(&VALUES).prop_map(Some)];
    prop_oneof![
        3 => (select(&CLUSTER_NAMES), labels).prop_map(|(name, labels)| Step::Make(name, labels)),
        4 => (select(&CLUSTER_NAMES), select(&KEYS), value).prop_map(|(name, key, value)| Step::Label(name, key, value)),
        1 => select(&CLUSTER_NAMES).prop_map(Step::Delete),
        3 => (select(&SET_NAMES), selects()).prop_map(|(name, selects)| Step::MakeSet(name, selects)),
        3 => (select(&SET_NAMES), selects()).prop_map(|(name, selects)| Step::Select(name, selects)),
        1 => select(&SET_NAMES).prop_map(Step::DeleteSet),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(24) })]

    #[test]
    fn sets_hold_what_the_model_says(history in prop::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let hub = Hub::new().await;
            for set in SET_NAMES.into_iter().chain(["default", "global"]) {
                let read = rule("cluster.open-cluster-management.io", &["managedclustersets"], &["list"], &[set]);
                hub.grant(&format!("of-{set}"), "", json!([read])).await;
            }
            let mut model = Model::default();
            for step in &history {
                let done = model.take(step);
                let reply = send(&hub, step).await;
                prop_assert_eq!(reply.code < 300, done, "{:?} {:?}", step, reply);
                for set in SET_NAMES.into_iter().chain(["default", "global"]) {
                    prop_assert_eq!(shown(&hub, set), model.members(set), "{} after {:?}", set, step);
                }
            }
            Ok(())
        })?;
    }
}
