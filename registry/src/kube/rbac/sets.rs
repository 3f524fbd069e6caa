//! Which clusters are in which sets, and which sets are bound in which workspace.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, LazyLock};

/// The clusters of one set.
pub type Members = BTreeSet<Arc<str>>;

/// Both directions of the membership, and the bindings.
///
/// 1. `members[s]` holds `c` exactly when `sets_of[c]` holds `s`.
/// 2. No entry of the three maps is empty, so that equal content is equal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sets {
    /// Shared with what was handed out as visible.
    members: BTreeMap<Arc<str>, Arc<Members>>,
    sets_of: HashMap<Arc<str>, BTreeSet<Arc<str>>>,
    bound: BTreeMap<Arc<str>, BTreeSet<Arc<str>>>,
}

/// The clusters of a set that has none.
static NOBODY: LazyLock<Arc<Members>> = LazyLock::new(Arc::default);

impl Sets {
    /// The cluster is in these sets and in no others.
    pub(super) fn place(&mut self, cluster: &str, sets: BTreeSet<Arc<str>>) {
        let cluster: Arc<str> = Arc::from(cluster);
        let before = self.sets_of.remove(&cluster).unwrap_or_default();
        for set in before.difference(&sets) {
            self.leave(set, &cluster);
        }
        for set in sets.difference(&before) {
            Arc::make_mut(self.members.entry(Arc::clone(set)).or_default()).insert(Arc::clone(&cluster));
        }
        if !sets.is_empty() {
            self.sets_of.insert(cluster, sets);
        }
    }

    /// The set has these clusters and no others.
    pub(super) fn fill(&mut self, set: &str, clusters: Members) {
        let set: Arc<str> = Arc::from(set);
        let before = self.members.remove(&set).unwrap_or_default();
        for cluster in before.difference(&clusters) {
            if let Some(sets) = self.sets_of.get_mut(cluster) {
                sets.remove(&set);
                if sets.is_empty() {
                    self.sets_of.remove(cluster);
                }
            }
        }
        for cluster in clusters.difference(&before) {
            self.sets_of.entry(Arc::clone(cluster)).or_default().insert(Arc::clone(&set));
        }
        if !clusters.is_empty() {
            self.members.insert(set, Arc::new(clusters));
        }
    }

    pub(super) fn bind(&mut self, namespace: &Arc<str>, set: &Arc<str>) {
        self.bound.entry(Arc::clone(namespace)).or_default().insert(Arc::clone(set));
    }

    pub(super) fn unbind(&mut self, namespace: &str, set: &str) {
        if let Some(sets) = self.bound.get_mut(namespace) {
            sets.remove(set);
            if sets.is_empty() {
                self.bound.remove(namespace);
            }
        }
    }

    /// The sets bound in the namespace, also those without clusters, or every set that has a cluster. With a cluster, only
    /// those that hold it, which are few.
    pub(super) fn within<'a>(
        &'a self,
        namespace: Option<&'a str>,
        cluster: Option<&str>,
    ) -> Box<dyn Iterator<Item = (&'a Arc<str>, &'a Arc<Members>)> + 'a> {
        let with_members = |set: &Arc<str>| self.members.get_key_value(set);
        match (cluster, namespace) {
            (Some(cluster), _) => {
                let usable = move |set: &&Arc<str>| {
                    namespace.is_none_or(|own| self.bound.get(own).is_some_and(|bound| bound.contains(*set)))
                };
                Box::new(self.sets_of.get(cluster).into_iter().flatten().filter(usable).filter_map(with_members))
            }
            (None, Some(namespace)) => {
                Box::new(self.bound_in(namespace).map(move |set| with_members(set).unwrap_or((set, &NOBODY))))
            }
            (None, None) => Box::new(self.members.iter()),
        }
    }

    pub(super) fn of(&self, cluster: &str) -> impl Iterator<Item = &Arc<str>> {
        self.sets_of.get(cluster).into_iter().flatten()
    }

    pub(super) fn members(&self, set: &str) -> Option<&Arc<Members>> {
        self.members.get(set)
    }

    pub(super) fn bound_in(&self, namespace: &str) -> impl Iterator<Item = &Arc<str>> {
        self.bound.get(namespace).into_iter().flatten()
    }

    fn leave(&mut self, set: &Arc<str>, cluster: &Arc<str>) {
        if let Some(members) = self.members.get_mut(set) {
            let left = Arc::make_mut(members);
            left.remove(cluster);
            if left.is_empty() {
                self.members.remove(set);
            }
        }
    }
}
