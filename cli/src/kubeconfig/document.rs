//! A kubeconfig (Kubernetes' Config v1) as a document: read, added to, and written with all that is not ours kept.

use registry::kube::body::{BodyError, decode_apply};
use serde_json::{Map, Value, json};

use super::contexts::{Contexts, Named};
use crate::yaml;

/// A kubeconfig.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Document(Map<String, Value>);

/// Why a text is no kubeconfig that can be added to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ParseError {
    #[error(transparent)]
    Yaml(BodyError),
    #[error("it is of kind {0:?} and no Config of version v1")]
    Kind(String),
    #[error("its {0} is no list of entries with names")]
    List(&'static str),
}

/// Why contexts were not added.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is a context {0} already that leads somewhere else")]
pub(crate) struct TakenError(pub(crate) String);

const LISTS: [&str; 3] = ["clusters", "contexts", "users"];

impl Document {
    /// One that says nothing yet.
    pub(crate) fn new() -> Self {
        let fields = json!({"apiVersion": "v1", "kind": "Config", "clusters": [], "contexts": [], "users": []});
        Self(fields.as_object().cloned().unwrap_or_default())
    }

    /// Reads YAML or JSON as kubectl does. Comments are not kept.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, ParseError> {
        let is_empty = |line: &[u8]| line.trim_ascii().is_empty() || line.trim_ascii().starts_with(b"#");
        if text.split(|byte| *byte == b'\n').all(is_empty) {
            return Ok(Self::new());
        }
        let mut fields = decode_apply(text).map_err(ParseError::Yaml)?.object;
        for (field, expected) in [("kind", "Config"), ("apiVersion", "v1")] {
            match fields.get(field).filter(|value| !value.is_null()) {
                Some(value) if value != expected => return Err(ParseError::Kind(value.to_string())),
                Some(_) => {}
                None => drop(fields.insert(field.to_owned(), expected.into())),
            }
        }
        for list in LISTS {
            let named = |items: &Vec<Value>| items.iter().all(|item| item["name"].is_string());
            match fields.get(list) {
                None | Some(Value::Null) => drop(fields.insert(list.to_owned(), json!([]))),
                Some(Value::Array(items)) if named(items) => {}
                Some(_) => return Err(ParseError::List(list)),
            }
        }
        Ok(Self(fields))
    }

    /// Adds the contexts, or brings those up to date that are there. A context keeps what its user set, like a namespace,
    /// and one that leads elsewhere is not touched: whoever types its name means what it was.
    ///
    /// The current context stays. Where there is none, a single new one becomes it; of several, nobody said which.
    pub(crate) fn merge(&mut self, contexts: &Contexts) -> Result<(), TakenError> {
        for (name, cluster) in contexts.names() {
            let context = self.find("contexts", &name);
            if context.is_some_and(|found| found["context"]["cluster"] != cluster.as_str()) {
                return Err(TakenError(name));
            }
        }
        let (user, exec) = contexts.user();
        self.put("users", "user", (user.clone(), exec), &[]);
        for cluster in contexts.clusters() {
            // What would contradict the CA, or be preferred to it.
            self.put("clusters", "cluster", cluster, &["certificate-authority-data", "insecure-skip-tls-verify"]);
        }
        for (name, cluster) in contexts.names() {
            self.put("contexts", "context", (name, json!({"cluster": cluster, "user": user})), &[]);
        }
        let mut names = contexts.names();
        if let (Some((only, _)), None, None) = (names.next(), names.next(), self.current_context()) {
            self.0.insert("current-context".into(), only.into());
        }
        Ok(())
    }

    /// What kubectl uses when nobody says which.
    pub(crate) fn current_context(&self) -> Option<&str> {
        self.0.get("current-context").and_then(Value::as_str).filter(|name| !name.is_empty())
    }

    pub(crate) fn to_yaml(&self) -> String {
        yaml::document(&self.0)
    }

    fn find(&self, list: &str, name: &str) -> Option<&Value> {
        self.0.get(list)?.as_array()?.iter().find(|item| item["name"] == name)
    }

    /// Sets the fields of the entry of that name, which is added if there is none, and removes some.
    fn put(&mut self, list: &str, kind: &str, (name, fields): Named, without: &[&str]) {
        let Some(items) = self.0.get_mut(list).and_then(Value::as_array_mut) else { return };
        let at = items.iter().position(|item| item["name"] == name).unwrap_or_else(|| {
            items.push(json!({"name": name}));
            items.len() - 1
        });
        let inner = &mut items[at][kind];
        match (inner.as_object_mut(), fields) {
            (Some(known), Value::Object(fields)) => {
                known.extend(fields);
                known.retain(|field, _| !without.contains(&field.as_str()));
            }
            (_, fields) => *inner = fields,
        }
    }
}

#[cfg(test)]
mod tests;
