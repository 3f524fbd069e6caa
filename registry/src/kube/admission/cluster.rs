//! Clusters: what follows from what is written of them, and OCM's rules for who accepts them and who moves them from set to set.

use std::collections::BTreeSet;

use http::uri::Scheme;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{Admission, labels_mut, set_condition};
use crate::condition::{AVAILABLE, Fact, OF_CLUSTERS};
use crate::kube::{
    object,
    rbac::{Gain, REGISTER_GROUP},
    resource::Resource,
    sets::{self, CLUSTER_SET_LABEL, DEFAULT_SET, GLOBAL_SET},
    status::Status,
    strategy,
};

/// OCM's taint of clusters that are not known to be available.
const UNREACHABLE: &str = "cluster.open-cluster-management.io/unreachable";

/// What clients may write of a cluster, in bytes: two thirds of a transaction.
const MAX_CLUSTER: usize = 1 << 20;

impl Admission<'_> {
    pub(super) fn admit_cluster(&self, before: Option<&Value>, after: &mut Value) -> Result<(), Status> {
        let name = object::name(after).to_owned();
        check_urls(after)?;
        stamp_taints(before, after, self.now)?;
        derive(before, after, self.now);
        self.check_sets(&name, before, after)?;
        if accepts(after) && !before.is_some_and(accepts) {
            self.check_accept(&name)?;
        }
        Ok(())
    }

    fn check_accept(&self, name: &str) -> Result<(), Status> {
        if !self.may_accept(name) {
            let why = format!("user {:?} cannot update the HubAcceptsClient field", self.info.user());
            return Err(self.forbidden(name, &why));
        }
        let namespace = self.info.registry.store().get(&format!("/namespaces/{name}"));
        if namespace.and_then(|stored| object::read(&stored)).is_some_and(|namespace| strategy::is_deleted(&namespace))
        {
            return Err(self.forbidden(name, &format!("cluster namespace {name:?} is terminating")));
        }
        Ok(())
    }

    pub(super) fn may_accept(&self, name: &str) -> bool {
        self.info.may("update", REGISTER_GROUP, "managedclusters/accept", name)
    }

    /// Who moves a cluster from set to set needs the right on both, whichever label does it.
    fn check_sets(&self, name: &str, before: Option<&Value>, after: &Value) -> Result<(), Status> {
        let holding = |cluster: &Value| self.info.registry.sets_of(object::labels(cluster));
        let (was, is) = (before.map(holding).unwrap_or_default(), holding(after));
        let mut touched: BTreeSet<&str> = was.symmetric_difference(&is).map(|set| &**set).collect();
        let labels = [before, Some(after)].map(|cluster| sets::set_label(cluster.and_then(object::labels)));
        // Also sets that do not exist yet; and who makes a cluster without a word about sets has chosen none.
        if labels[0] != labels[1] {
            touched.extend(labels.into_iter().filter(|set| !set.is_empty()));
        }
        touched.retain(|set| *set != GLOBAL_SET && !(before.is_none() && *set == DEFAULT_SET));
        for set in &touched {
            if !self.info.may("create", sets::GROUP, "managedclustersets/join", set) {
                let user = self.info.user();
                let why = format!("user {user:?} cannot add/remove a ManagedCluster to/from ManagedClusterSet {set:?}");
                return Err(self.forbidden(name, &why));
            }
        }
        let enters = |set: &&str| is.contains(*set) || labels[1] == *set;
        let left = |set: &&str| was.contains(*set) || labels[0] == *set;
        if touched.iter().any(|set| enters(set) && !left(set)) {
            self.hand_out(name, &[Gain::Cluster(name)])
        } else {
            Ok(())
        }
    }
}

/// Leaves the hub room: what it must write of a cluster (who is denied, that it is away, that it is being deleted) fits into a
/// transaction beside what clients have written of it.
pub(crate) fn check_size(resource: &Resource, before: Option<&Value>, after: &Value) -> Result<(), Status> {
    let is_decision = before.is_some_and(|before| accepts(before) != accepts(after));
    if resource.plural != "managedclusters" || is_decision {
        return Ok(());
    }
    let of_clients = |cluster: &Value| {
        let mut cluster = cluster.clone();
        for field in ["agents", "conditions"] {
            object::map_mut(&mut cluster["status"]).remove(field);
        }
        let conditions = after["status"]["conditions"].as_array().into_iter().flatten();
        let theirs = conditions.filter(|condition| !OF_CLUSTERS.iter().any(|kind| condition["type"] == *kind));
        object::write(&cluster).len() + theirs.map(|condition| condition.to_string().len()).sum::<usize>()
    };
    let size = of_clients(after);
    if size <= MAX_CLUSTER || before.is_some_and(|before| of_clients(before) >= size) {
        return Ok(());
    }
    let message = format!("a cluster has {MAX_CLUSTER} bytes at most, and would have {size}; leave something out");
    Err(Status::too_large(message))
}

/// What follows from a cluster's own fields, whoever writes them: its set, the condition of its acceptance, and OCM's taint.
pub(crate) fn derive(before: Option<&Value>, after: &mut Value, now: Timestamp) {
    if sets::set_label(object::labels(after)).is_empty() {
        labels_mut(after).insert(CLUSTER_SET_LABEL.to_owned(), DEFAULT_SET.into());
    }
    let (was, is) = (before.is_some_and(accepts), accepts(after));
    if is != was {
        set_condition(after, if is { Fact::Accepted } else { Fact::Denied }, now);
    }
    let is_available = is_available(after);
    if before.is_none_or(|before| self::is_available(before) != is_available) {
        taint(object::map_mut(&mut after["spec"]), is_available, now);
    }
}

/// Keeps OCM's taint of clusters that are not known to be available: its placements look for it.
fn taint(spec: &mut Map<String, Value>, available: bool, now: Timestamp) {
    let taints = spec.entry("taints").or_insert_with(|| json!([]));
    let Some(taints) = taints.as_array_mut() else { return };
    let ours = |taint: &Value| taint["key"] == UNREACHABLE;
    if available {
        taints.retain(|taint| !ours(taint));
    } else if !taints.iter().any(ours) {
        taints.push(json!({"key": UNREACHABLE, "effect": "NoSelect", "timeAdded": strategy::seconds(now)}));
    }
    if taints.is_empty() {
        spec.remove("taints");
    }
}

fn is_available(cluster: &Value) -> bool {
    let conditions = cluster["status"]["conditions"].as_array().into_iter().flatten();
    conditions.filter(|condition| condition["type"] == AVAILABLE).any(|condition| condition["status"] == "True")
}

pub(super) fn accepts(cluster: &Value) -> bool {
    cluster["spec"]["hubAcceptsClient"].as_bool().unwrap_or_default()
}

fn check_urls(cluster: &Value) -> Result<(), Status> {
    let configs = cluster["spec"]["managedClusterClientConfigs"].as_array();
    let urls = configs.into_iter().flatten().filter_map(|config| config["url"].as_str());
    for url in urls {
        if url.parse::<http::Uri>().ok().as_ref().and_then(http::Uri::scheme) != Some(&Scheme::HTTPS) {
            let message = format!("url {url:?} is invalid in client configs: it must be an https URL");
            return Err(Status::bad_request(message));
        }
    }
    Ok(())
}

/// The server alone says since when a taint stands.
fn stamp_taints(before: Option<&Value>, after: &mut Value, now: Timestamp) -> Result<(), Status> {
    let identity = |taint: &Value| (taint["key"].clone(), taint["value"].clone(), taint["effect"].clone());
    let old: Vec<&Value> =
        before.and_then(|before| before["spec"]["taints"].as_array()).into_iter().flatten().collect();
    for taint in after.pointer_mut("/spec/taints").and_then(Value::as_array_mut).into_iter().flatten() {
        let same = old.iter().find(|old| identity(old) == identity(taint));
        let added = same.map_or(&Value::Null, |same| &same["timeAdded"]);
        if !taint["timeAdded"].is_null() && taint["timeAdded"] != *added {
            let key = taint["key"].as_str().unwrap_or_default();
            return Err(Status::bad_request(format!("It is not allowed to set TimeAdded of Taint {key:?}.")));
        }
        taint["timeAdded"] = if added.is_null() { strategy::seconds(now).into() } else { added.clone() };
    }
    Ok(())
}
