//! The rules of OCM's resources that no schema holds: what is added to an object, and what its author needs rights for.

use certs::ClusterName;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    access::Access,
    object,
    resource::Resource,
    sets::{self, CLUSTER_SET_LABEL, DEFAULT_SET, GLOBAL_SET},
    status::{Cause, Status},
    strategy,
};
use crate::condition::{self, Condition, Fact};

/// A write that is about to be stored.
pub(crate) struct Admission<'a> {
    pub(crate) resource: &'a Resource,
    pub(crate) access: &'a Access,
    /// Every set, to tell into which a label moves a cluster.
    pub(crate) sets: &'a [Value],
    pub(crate) now: Timestamp,
}

/// The group of OCM's right to accept.
const REGISTER: &str = "register.open-cluster-management.io";

impl Admission<'_> {
    /// Completes and checks what is written to the object itself; `before` is `None` for a new one.
    pub(crate) fn admit(&self, before: Option<&Value>, after: &mut Value) -> Result<(), Status> {
        match (self.resource.group, self.resource.plural) {
            (sets::GROUP, "managedclusters") => self.admit_cluster(before, after),
            (sets::GROUP, "managedclustersets") => self.admit_set(before, after),
            (sets::GROUP, "managedclustersetbindings") => self.admit_binding(before, after),
            _ => Ok(()),
        }
    }

    /// Checks a deletion.
    pub(crate) fn release(&self, before: &Value) -> Result<(), Status> {
        let name = object::name(before);
        if (self.resource.group, self.resource.plural) == (sets::GROUP, "managedclustersets") && sets::is_permanent(name) {
            return Err(self.forbidden(name, &format!("the set {name:?} always exists")));
        }
        Ok(())
    }

    fn admit_cluster(&self, before: Option<&Value>, after: &mut Value) -> Result<(), Status> {
        let name = object::name(after).to_owned();
        if let Err(error) = name.parse::<ClusterName>() {
            let (reason, field) = ("FieldValueInvalid".to_owned(), "metadata.name".to_owned());
            let message = format!("Invalid value: {name:?}: {error}");
            return Err(Status::invalid(self.resource, &name, vec![Cause { reason, message, field }]));
        }
        check_urls(after)?;
        stamp_taints(before, after, self.now)?;
        if sets::set_label(after).is_empty() {
            labels_mut(after).insert(CLUSTER_SET_LABEL.to_owned(), DEFAULT_SET.into());
        }
        self.check_sets(&name, before, after)?;
        let (was, is) = (before.is_some_and(accepts), accepts(after));
        if is && !was && !self.access.may("update", REGISTER, "managedclusters/accept", &name) {
            let why = format!("user {:?} cannot update the HubAcceptsClient field", self.access.user());
            return Err(self.forbidden(&name, &why));
        }
        if is != was {
            note(after, if is { Fact::Accepted } else { Fact::Denied }, self.now);
        }
        Ok(())
    }

    /// Who moves a cluster from set to set needs the right on both.
    fn check_sets(&self, name: &str, before: Option<&Value>, after: &Value) -> Result<(), Status> {
        let moved = |set: &&Value| before.is_some_and(|before| sets::selects(set, before)) != sets::selects(set, after);
        let mut touched: Vec<&str> = self.sets.iter().filter(moved).map(object::name).collect();
        let labels = [before.map(sets::set_label).unwrap_or_default(), sets::set_label(after)];
        // Also sets that do not exist yet; and who makes a cluster without a word about sets has chosen none.
        if labels[0] != labels[1] {
            touched.extend(labels.into_iter().filter(|set| !set.is_empty()));
        }
        touched.retain(|set| *set != GLOBAL_SET && !(before.is_none() && *set == DEFAULT_SET));
        touched.sort_unstable();
        touched.dedup();
        for set in touched {
            if !self.access.may("create", sets::GROUP, "managedclustersets/join", set) {
                let user = self.access.user();
                let why = format!("user {user:?} cannot add/remove a ManagedCluster to/from ManagedClusterSet {set:?}");
                return Err(self.forbidden(name, &why));
            }
        }
        Ok(())
    }

    fn admit_set(&self, before: Option<&Value>, after: &mut Value) -> Result<(), Status> {
        let name = object::name(after).to_owned();
        if after["spec"].is_null() {
            after["spec"] = json!({});
        }
        if after["spec"]["clusterSelector"].is_null() {
            after["spec"]["clusterSelector"] = json!({"selectorType": "ExclusiveClusterSetLabel"});
        }
        let changed = before.is_none_or(|before| before["spec"] != after["spec"]);
        if sets::is_permanent(&name) && changed && after["spec"] != sets::permanent_spec(&name) {
            return Err(self.forbidden(&name, &format!("the set {name:?} cannot be changed")));
        }
        Ok(())
    }

    fn admit_binding(&self, before: Option<&Value>, after: &Value) -> Result<(), Status> {
        let (name, set) = (object::name(after), after["spec"]["clusterSet"].as_str().unwrap_or_default());
        if name != set {
            return Err(Status::bad_request(
                "The ManagedClusterSetBinding must have the same name as the target ManagedClusterSet",
            ));
        }
        if before.is_none() && !self.access.may("create", sets::GROUP, "managedclustersets/bind", set) {
            let why = format!("user {:?} is not allowed to bind cluster set {set:?}", self.access.user());
            return Err(self.forbidden(name, &why));
        }
        Ok(())
    }

    fn forbidden(&self, name: &str, why: &str) -> Status {
        Status::forbidden(self.resource, name, why)
    }
}

fn accepts(cluster: &Value) -> bool {
    cluster["spec"]["hubAcceptsClient"].as_bool().unwrap_or_default()
}

fn check_urls(cluster: &Value) -> Result<(), Status> {
    let configs = cluster["spec"]["managedClusterClientConfigs"].as_array();
    let urls = configs.into_iter().flatten().filter_map(|config| config["url"].as_str());
    for url in urls {
        if url.parse::<http::Uri>().ok().and_then(|url| url.scheme().cloned()) != Some(http::uri::Scheme::HTTPS) {
            let message = format!("url {url:?} is invalid in client configs: it must be an https URL");
            return Err(Status::bad_request(message));
        }
    }
    Ok(())
}

/// The server alone says since when a taint stands.
fn stamp_taints(before: Option<&Value>, after: &mut Value, now: Timestamp) -> Result<(), Status> {
    let identity = |taint: &Value| (taint["key"].clone(), taint["value"].clone(), taint["effect"].clone());
    let old: Vec<&Value> = before.and_then(|before| before["spec"]["taints"].as_array()).into_iter().flatten().collect();
    for taint in after["spec"].get_mut("taints").and_then(Value::as_array_mut).into_iter().flatten() {
        let same = old.iter().find(|old| identity(old) == identity(taint));
        let added = same.map_or(&Value::Null, |same| &same["timeAdded"]);
        if !taint["timeAdded"].is_null() && taint["timeAdded"] != *added {
            let key = taint["key"].as_str().unwrap_or_default();
            return Err(Status::bad_request(format!("It is not allowed to set TimeAdded of Taint {key:?}.")));
        }
        taint["timeAdded"] = match added {
            Value::Null => strategy::seconds(now).into(),
            added => added.clone(),
        };
    }
    Ok(())
}

/// Writes a condition into an object's status.
pub(crate) fn note(object: &mut Value, fact: Fact, now: Timestamp) {
    let conditions = object["status"]["conditions"].take();
    // What is not a condition was not written by us, and nothing can be said about it.
    let mut conditions: Vec<Condition> = serde_json::from_value(conditions).unwrap_or_default();
    condition::set(&mut conditions, fact, crate::cluster::whole_second(now));
    object["status"]["conditions"] = json!(conditions);
}

fn labels_mut(object: &mut Value) -> &mut serde_json::Map<String, Value> {
    let metadata = strategy::metadata_mut(object);
    let labels = metadata.entry("labels").or_insert_with(|| json!({}));
    if !labels.is_object() {
        *labels = json!({});
    }
    match labels {
        Value::Object(labels) => labels,
        _ => unreachable!("made an object just now"),
    }
}
