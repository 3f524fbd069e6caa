//! What every hub has from its beginning: the two permanent sets, the namespace `default`, the roles of Kubernetes and ours.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Registry, random_uuid};
use crate::cluster::whole_second;
use crate::kube::{
    object,
    rbac::builtin,
    resource,
    sets::{self, DEFAULT_SET, GLOBAL_SET},
};
use store::{CommitError, Txn};

impl Registry {
    /// Makes what is missing. What an admin has changed of it is kept; the permanent sets cannot be changed.
    pub async fn bootstrap(&self, now: Timestamp) -> Result<(), CommitError> {
        for object in objects() {
            self.make_if_missing(object, now).await?;
        }
        Ok(())
    }

    /// Makes an object of the registry's own, of the cluster scope, unless there is one of its name.
    pub(crate) async fn make_if_missing(&self, mut object: Value, now: Timestamp) -> Result<(), CommitError> {
        let (version, kind) = (object["apiVersion"].as_str(), object["kind"].as_str());
        let Some(resource) = resource::find_kind(version.unwrap_or_default(), kind.unwrap_or_default()) else {
            return Ok(());
        };
        let key = object::key(resource, None, object::name(&object));
        if self.store.get(&key).is_some() {
            return Ok(());
        }
        object["metadata"]["uid"] = random_uuid().into();
        object["metadata"]["creationTimestamp"] = whole_second(now).to_string().into();
        if resource.has_generation() {
            object["metadata"]["generation"] = 1.into();
        }
        match self.store.commit(Txn::new().expect_absent(&key).put(&key, object::write(&object))).await {
            // Another hub on the same store was faster.
            Ok(_) | Err(CommitError::Conflict { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn objects() -> impl Iterator<Item = Value> {
    let set = |name: &str| {
        json!({
            "apiVersion": format!("{}/v1beta2", sets::GROUP), "kind": "ManagedClusterSet", "metadata": {"name": name},
            "spec": sets::permanent_spec(name),
        })
    };
    let namespace = namespace("default");
    [namespace, set(DEFAULT_SET), set(GLOBAL_SET)]
        .into_iter()
        .chain(builtin::cluster_roles())
        .chain(builtin::cluster_role_bindings())
}

/// A namespace that is open.
pub(crate) fn namespace(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}},
        "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"},
    })
}
