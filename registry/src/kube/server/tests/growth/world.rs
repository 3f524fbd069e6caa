//! The small world of the sequences: who there is, what they may be asked for, and how a step is taken.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::super::*;
use super::Dice;
use super::steps::{Step, made};
use crate::kube::controller::Controller;
use crate::kube::rbac::{Attributes, Policy};
use crate::kube::sets::CLUSTER_SET_LABEL;

pub(super) const AUTHORS: [&str; 2] = ["w0", "w1"];
pub(super) const CLUSTER_NAMES: [&str; 3] = ["c0", "c1", "c2"];
/// Users that the registry makes: they can do nothing while they are not there.
pub(super) const ACCOUNTS: [&str; 2] = ["a0", "a1"];

const GROUP: &str = "cluster.open-cluster-management.io";
const REGISTER: &str = "register.open-cluster-management.io";
const RBAC_GROUP: &str = "rbac.authorization.k8s.io";

/// Verb, group, resource and name of what is looked at after each write.
pub(super) const PROBES: [[&str; 4]; 38] = [
    ["get", GROUP, "managedclusters", "c0"],
    ["get", GROUP, "managedclusters", "c1"],
    ["get", GROUP, "managedclusters", "c2"],
    ["watch", GROUP, "managedclusters", "c0"],
    ["watch", GROUP, "managedclusters", "c1"],
    ["watch", GROUP, "managedclusters", "c2"],
    ["proxy", GROUP, "managedclusters", "c0"],
    ["proxy", GROUP, "managedclusters", "c1"],
    ["proxy", GROUP, "managedclusters", "c2"],
    ["proxy", GROUP, "managedclusters", "later"],
    ["update", GROUP, "managedclusters", "c0"],
    ["update", GROUP, "managedclusters", "c1"],
    ["delete", GROUP, "managedclusters", "c0"],
    ["create", GROUP, "managedclusters", ""],
    ["update", GROUP, "managedclusters/status", "c0"],
    ["update", REGISTER, "managedclusters/accept", "c0"],
    ["update", REGISTER, "managedclusters/accept", "c1"],
    ["update", REGISTER, "managedclusters/accept", ""],
    ["get", GROUP, "managedclustersets", "s0"],
    ["get", GROUP, "managedclustersets", "s1"],
    ["proxy", GROUP, "managedclustersets", "s0"],
    ["proxy", GROUP, "managedclustersets", "s1"],
    ["update", GROUP, "managedclustersets", "s0"],
    ["update", GROUP, "managedclustersets", "s1"],
    ["delete", GROUP, "managedclustersets", "s1"],
    ["create", GROUP, "managedclustersets/join", "s0"],
    ["create", GROUP, "managedclustersets/join", "s1"],
    ["create", GROUP, "managedclustersets/join", ""],
    ["create", GROUP, "managedclustersets/bind", "s0"],
    ["create", GROUP, "managedclustersets/bind", "s1"],
    ["create", REGISTER, "users", ""],
    ["create", REGISTER, "jointokens", ""],
    ["update", "certificates.k8s.io", "certificatesigningrequests/approval", ""],
    ["get", "", "secrets", ""],
    ["get", "", "pods", ""],
    ["create", RBAC_GROUP, "clusterrolebindings", ""],
    ["escalate", RBAC_GROUP, "clusterroles", "r0"],
    ["impersonate", "", "users", "x"],
];

/// Of what is given through sets: all of it is held by who says which clusters are in which sets.
const THROUGH_SETS: usize = 10;

/// Somebody whose rights are looked at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Account {
    pub(super) user: String,
    pub(super) groups: Vec<String>,
}

pub(super) struct World {
    pub(super) hub: Hub,
    controller: Controller,
}

impl World {
    pub(super) async fn new() -> Self {
        // Each write is one of the disk's: memory has them sooner.
        let memory = Path::new("/dev/shm");
        let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
        let registry = Arc::new(Registry::open(folder.path().join("registry.redb")).unwrap());
        registry.bootstrap(now()).await.unwrap();
        let server = Server::new(Arc::clone(&registry), "1.2.3");
        let controller = Controller::new(Arc::clone(&registry));
        let hub = Hub { _folder: folder, registry, server };
        // A ClusterRole that is put together from others, and is bound.
        let (role, binding) = gathering();
        hub.admin().post(&format!("{RBAC}/clusterroles"), role).await.ok();
        hub.admin().post(&format!("{RBAC}/clusterrolebindings"), binding).await.ok();
        Self { hub, controller }
    }

    /// What everybody may do, as places in [`PROBES`]; with the clusters that are not there as if they joined now.
    pub(super) fn rights(&self, joined: bool) -> BTreeMap<Account, BTreeSet<usize>> {
        let policy = if joined { self.policy() } else { self.hub.registry.with_policy(Policy::clone) };
        self.accounts().into_iter().map(|account| (account.clone(), allowed(&policy, &account))).collect()
    }

    /// What the author may do.
    pub(super) fn held(&self, author: &Caller) -> BTreeSet<usize> {
        let account = Account { user: author.user.clone(), groups: author.groups.clone() };
        let mut held = allowed(&self.policy(), &account);
        let every_join = PROBES.iter().position(|probe| probe[2] == "managedclustersets/join" && probe[3].is_empty());
        if held.contains(&every_join.unwrap()) {
            held.extend(0..THROUGH_SETS);
        }
        held
    }

    /// Takes a step; what was answered, if it was let through.
    pub(super) async fn take(&mut self, author: &Caller, step: &Step, dice: &mut Dice) -> Option<String> {
        let done = made(&self.hub, author, step, dice).await;
        if done.is_some() && step.concerns_sets() {
            self.settle().await;
        }
        done
    }

    /// Lets what follows from the changes follow.
    pub(super) async fn settle(&mut self) {
        self.controller.look_at_everything().await;
    }

    fn policy(&self) -> Policy {
        let mut policy = self.hub.registry.with_policy(Policy::clone);
        let labels = Map::from_iter([(CLUSTER_SET_LABEL.to_owned(), "default".into())]);
        for name in CLUSTER_NAMES {
            if self.hub.registry.cluster(&name.parse().unwrap()).is_none() {
                policy.place_cluster(name, self.hub.registry.sets_of(Some(&labels)));
            }
        }
        policy
    }

    fn accounts(&self) -> Vec<Account> {
        let account = |user: &str, groups: &[&str]| Account {
            user: user.to_owned(),
            groups: groups.iter().map(|&group| group.to_owned()).collect(),
        };
        let mut all: Vec<_> = AUTHORS.iter().map(|user| account(user, &[])).collect();
        all.extend([account("v0", &[]), account("", &["g0"]), account("system:serviceaccount:n0:robot", &[])]);
        let users = ACCOUNTS.iter().filter_map(|name| self.hub.registry.user(&name.parse().unwrap()));
        all.extend(users.map(|user| Account { user: user.name.to_string(), groups: user.groups.clone() }));
        all
    }
}

fn gathering() -> (Value, Value) {
    let version = format!("{RBAC_GROUP}/v1");
    let selector = json!({"matchLabels": {"part-of": "r1"}});
    let role = json!({
        "apiVersion": version, "kind": "ClusterRole", "metadata": {"name": "gathers"},
        "aggregationRule": {"clusterRoleSelectors": [selector]},
    });
    let subject = json!({"apiGroup": RBAC_GROUP, "kind": "User", "name": "v0"});
    let binding = json!({
        "apiVersion": version, "kind": "ClusterRoleBinding", "metadata": {"name": "gathers"},
        "roleRef": {"apiGroup": RBAC_GROUP, "kind": "ClusterRole", "name": "gathers"}, "subjects": [subject],
    });
    (role, binding)
}

fn allowed(policy: &Policy, account: &Account) -> BTreeSet<usize> {
    let caller = Caller { user: account.user.clone(), groups: account.groups.clone(), ..Caller::default() };
    let may = |[verb, group, resource, name]: &[&str; 4]| {
        policy.decide(&Attributes::of(&caller, verb, group, resource, name)).is_allowed()
    };
    PROBES.iter().enumerate().filter(|(_, probe)| may(probe)).map(|(at, _)| at).collect()
}
