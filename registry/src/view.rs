//! The registry in memory: every resource parsed, kept up to date by the store's writer.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use certs::{ClusterName, UserName};
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::cluster::ManagedCluster;
use crate::store::{Event, Versioned};
use crate::token::JoinToken;
use crate::user::User;

/// One resource, by kind and name: what changed, and in the store its key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    Cluster(ClusterName),
    User(UserName),
    /// A join token, by its id.
    Token(String),
}

/// All resources, with the revisions they were stored at.
#[derive(Debug, Default)]
pub(crate) struct View {
    pub(crate) clusters: BTreeMap<ClusterName, Versioned<Arc<ManagedCluster>>>,
    pub(crate) tokens: BTreeMap<String, Versioned<Arc<JoinToken>>>,
    pub(crate) users: BTreeMap<UserName, Versioned<Arc<User>>>,
    /// Whose user token it is, by the token's id.
    owners: HashMap<String, UserName>,
}

/// A stored value is not the resource that its key says.
#[derive(Debug, Error)]
#[error("the value of {key} cannot be read")]
pub(crate) struct Unreadable {
    key: String,
    #[source]
    source: serde_json::Error,
}

const CLUSTERS: &str = "/managedclusters/";
const TOKENS: &str = "/jointokens/";
const USERS: &str = "/users/";

impl Change {
    /// The key in the store.
    pub(crate) fn key(&self) -> String {
        match self {
            Self::Cluster(name) => format!("{CLUSTERS}{name}"),
            Self::User(name) => format!("{USERS}{name}"),
            Self::Token(id) => format!("{TOKENS}{id}"),
        }
    }

    fn from_key(key: &str) -> Option<Self> {
        if let Some(name) = key.strip_prefix(CLUSTERS) {
            return name.parse().ok().map(Self::Cluster);
        }
        if let Some(name) = key.strip_prefix(USERS) {
            return name.parse().ok().map(Self::User);
        }
        key.strip_prefix(TOKENS).map(|id| Self::Token(id.to_owned()))
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
            Change::Cluster(name) => replace(&mut self.clusters, name, key, after)?,
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
        let value =
            serde_json::from_slice(&after.value).map_err(|source| Unreadable { key: key.to_owned(), source })?;
        let resource = Versioned { value: Arc::new(value), created: after.created, modified: after.modified };
        resources.insert(name.clone(), resource);
    }
    Ok(())
}
