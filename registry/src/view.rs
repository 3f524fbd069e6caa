//! The registry in memory: every resource parsed, kept up to date by the store's writer.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::error::Error;
use std::fmt;
use std::sync::Arc;

use certs::{ClusterName, UserName};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use thiserror::Error;

use crate::cluster::ManagedCluster;
use crate::join_counts::JoinCounts;
use crate::kube::rbac::{self, Kind, Policy};
use crate::kube::sets::Rule;
use crate::token::JoinToken;
use crate::user::User;
use store::{Event, Versioned};

/// One resource, by kind and name: what changed, and in the store its key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    Cluster(ClusterName),
    User(UserName),
    /// A join token, by its id.
    Token(String),
    /// A set by its name: what it holds.
    Set(String),
    /// A role or a binding: who may do what.
    Rights(RightsKey),
}

/// Where a role or binding is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RightsKey {
    kind: Kind,
    /// Empty at the cluster scope.
    namespace: String,
    name: String,
}

/// All resources, with the revisions they were stored at.
#[derive(Debug, Default)]
pub(crate) struct View {
    pub(crate) clusters: BTreeMap<ClusterName, Versioned<Arc<ManagedCluster>>>,
    pub(crate) tokens: BTreeMap<String, Versioned<Arc<JoinToken>>>,
    pub(crate) users: BTreeMap<UserName, Versioned<Arc<User>>>,
    /// Whose user token it is, by the token's id.
    owners: HashMap<String, UserName>,
    /// Which clusters each set holds.
    sets: BTreeMap<Arc<str>, Rule>,
    /// How many there are of what whoever has a token may make.
    pub(crate) join_counts: JoinCounts,
    /// Who may do what, with the sets' members.
    pub(crate) policy: Policy,
}

/// A stored value is not the resource that its key says.
#[derive(Debug, Error)]
#[error("the value of {key} cannot be read")]
pub(crate) struct Unreadable {
    key: String,
    #[source]
    source: Box<dyn Error + Send + Sync>,
}

const CLUSTERS: &str = "/managedclusters/";
const TOKENS: &str = "/jointokens/";
const USERS: &str = "/users/";
const SETS: &str = "/managedclustersets/";

/// Where roles and bindings are, and whether they are in namespaces.
const RIGHTS: [(Kind, &str, bool); 5] = [
    (Kind::ClusterRole, "/clusterroles/", false),
    (Kind::ClusterRoleBinding, "/clusterrolebindings/", false),
    (Kind::Role, "/roles/", true),
    (Kind::RoleBinding, "/rolebindings/", true),
    (Kind::ManagedClusterSetBinding, "/managedclustersetbindings/", true),
];

/// Whether a key is a set's.
pub(crate) fn is_set(key: &str) -> bool {
    key.starts_with(SETS)
}

impl Change {
    /// The key in the store.
    pub(crate) fn key(&self) -> String {
        match self {
            Self::Cluster(name) => format!("{CLUSTERS}{name}"),
            Self::User(name) => format!("{USERS}{name}"),
            Self::Token(id) => format!("{TOKENS}{id}"),
            Self::Set(name) => format!("{SETS}{name}"),
            Self::Rights(key) => key.to_string(),
        }
    }

    fn from_key(key: &str) -> Option<Self> {
        if let Some(name) = key.strip_prefix(CLUSTERS) {
            return name.parse().ok().map(Self::Cluster);
        }
        if let Some(name) = key.strip_prefix(USERS) {
            return name.parse().ok().map(Self::User);
        }
        if let Some(name) = key.strip_prefix(SETS) {
            return Some(Self::Set(name.to_owned()));
        }
        if let Some(id) = key.strip_prefix(TOKENS) {
            return Some(Self::Token(id.to_owned()));
        }
        RightsKey::parse(key).map(Self::Rights)
    }
}

impl RightsKey {
    fn parse(key: &str) -> Option<Self> {
        let (kind, rest, namespaced) = RIGHTS
            .iter()
            .find_map(|(kind, prefix, namespaced)| Some((*kind, key.strip_prefix(prefix)?, *namespaced)))?;
        let (namespace, name) = if namespaced { rest.split_once('/')? } else { ("", rest) };
        Some(Self { kind, namespace: namespace.to_owned(), name: name.to_owned() })
    }
}

impl fmt::Display for RightsKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = RIGHTS.iter().find(|(kind, ..)| *kind == self.kind);
        let (prefix, namespaced) = known.map_or(("/", false), |(_, prefix, namespaced)| (prefix, *namespaced));
        match namespaced {
            true => write!(f, "{prefix}{}/{}", self.namespace, self.name),
            false => write!(f, "{prefix}{}", self.name),
        }
    }
}

impl View {
    /// Takes over what became of a key, and tells which resource that is; `None` for a key of another kind.
    ///
    /// A value that cannot be read counts as deleted: nobody gets rights from it.
    pub(crate) fn apply(&mut self, event: &Event) -> Result<Option<Change>, Unreadable> {
        let Some(change) = Change::from_key(&event.key) else {
            return Ok(None);
        };
        let key = &*event.key;
        let after = event.after.as_ref();
        match &change {
            Change::Cluster(name) => {
                let before = self.clusters.get(name).map(|cluster| Arc::clone(&cluster.value));
                let replaced = replace(&mut self.clusters, name, key, after);
                let now = self.clusters.get(name).map(|cluster| &*cluster.value);
                self.join_counts.replace(before.as_deref(), now);
                let sets = self.clusters.get(name).map(|cluster| self.sets_of(Some(&labels(&cluster.value))));
                self.policy.place_cluster(name.as_ref(), sets.unwrap_or_default());
                replaced?;
            }
            Change::Set(name) => self.replace_set(name, key, after)?,
            Change::Rights(rights) => self.replace_rights(rights, key, after)?,
            Change::Token(id) => replace(&mut self.tokens, id, key, after)?,
            Change::User(name) => {
                self.owners.retain(|_, owner| owner != name);
                replace(&mut self.users, name, key, after)?;
                for token in self.users.get(name).into_iter().flat_map(|user| &user.value.tokens) {
                    self.owners.insert(token.id.clone(), name.clone());
                }
            }
        }
        Ok(Some(change))
    }

    /// The sets that hold a cluster with these labels.
    pub(crate) fn sets_of(&self, labels: Option<&Map<String, Value>>) -> BTreeSet<Arc<str>> {
        self.sets.iter().filter(|(_, rule)| rule.holds(labels)).map(|(name, _)| Arc::clone(name)).collect()
    }

    /// The clusters that a rule holds, by name.
    pub(crate) fn held_by<'a>(&'a self, rule: &'a Rule) -> impl Iterator<Item = &'a ClusterName> {
        self.clusters.iter().filter(|(_, cluster)| rule.holds(Some(&labels(&cluster.value)))).map(|(name, _)| name)
    }

    pub(crate) fn has_set(&self, name: &str) -> bool {
        self.sets.contains_key(name)
    }

    fn replace_set(&mut self, name: &str, key: &str, after: Option<&Versioned<Arc<[u8]>>>) -> Result<(), Unreadable> {
        self.sets.remove(name);
        let mut members = BTreeSet::new();
        let read = after.map(|after| serde_json::from_slice::<Value>(&after.value)).transpose();
        if let Ok(Some(set)) = &read {
            let rule = Rule::of(set);
            members.extend(self.held_by(&rule).map(|name| Arc::from(name.as_ref())));
            self.sets.insert(Arc::from(name), rule);
        }
        self.policy.fill_set(name, members);
        read.map(drop).map_err(|source| unreadable(key, source))
    }

    fn replace_rights(
        &mut self,
        rights: &RightsKey,
        key: &str,
        after: Option<&Versioned<Arc<[u8]>>>,
    ) -> Result<(), Unreadable> {
        let RightsKey { kind, namespace, name } = rights;
        self.policy.remove(*kind, namespace, name);
        if let Some(after) = after {
            let object: Value = serde_json::from_slice(&after.value).map_err(|source| unreadable(key, source))?;
            self.policy.put(rbac::Object::parse(&object).map_err(|source| unreadable(key, source))?);
        }
        Ok(())
    }

    /// The user that a token of this id belongs to.
    pub(crate) fn owner(&self, token_id: &str) -> Option<&Arc<User>> {
        let owner = self.owners.get(token_id)?;
        self.users.get(owner).map(|user| &user.value)
    }
}

fn replace<K: Ord + Clone, T: DeserializeOwned>(
    resources: &mut BTreeMap<K, Versioned<Arc<T>>>,
    name: &K,
    key: &str,
    after: Option<&Versioned<Arc<[u8]>>>,
) -> Result<(), Unreadable> {
    resources.remove(name);
    if let Some(after) = after {
        let value = serde_json::from_slice(&after.value).map_err(|source| unreadable(key, source))?;
        let resource = Versioned { value: Arc::new(value), created: after.created, modified: after.modified };
        resources.insert(name.clone(), resource);
    }
    Ok(())
}

fn unreadable(key: &str, source: impl Into<Box<dyn Error + Send + Sync>>) -> Unreadable {
    Unreadable { key: key.to_owned(), source: source.into() }
}

/// As selectors read them.
fn labels(cluster: &ManagedCluster) -> Map<String, Value> {
    cluster.metadata.labels.iter().map(|(key, value)| (key.clone(), Value::from(value.as_str()))).collect()
}
