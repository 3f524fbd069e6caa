//! What a write hands out: every right that would hold after it, for anybody, and did not before, its author must hold.

use super::attributes::Attributes;
use super::escalation::{Escalation, everything};
use super::object::{Role, RoleKind, RoleRef};
use super::policy::{Policy, is_master};
use super::review::Caller;
use super::rule::{PolicyRule, compact};
use super::visibility::{ReadVerb, Visibility, VisibleObjects};
use super::{CLUSTER_GROUP, CLUSTERS, PROXY, SETS};
use crate::kube::sets::GLOBAL_SET;

/// A right that comes about by a write, for whoever is bound to it now or later.
#[derive(Clone, Copy, Debug)]
pub enum Gain<'a> {
    /// These rules in the namespace; everywhere, when it is empty.
    Rules { namespace: &'a str, rules: &'a [PolicyRule] },
    /// All that is bound to a ClusterRole.
    Bound { role: &'a str },
    /// All that is bound to somebody's name and groups: whoever makes them has their credentials.
    Person { user: &'a str, groups: &'a [String] },
    /// What bindings give that name this ClusterRole, which does not exist yet, and what is put together from it.
    NewRole(&'a Role),
    /// The cluster comes into a set.
    Cluster(&'a str),
    /// Any cluster may come into a set: it is selected by its labels.
    EveryCluster,
    /// The set is bound where roles may reach its clusters.
    Set { namespace: &'a str, set: &'a str },
}

impl Policy {
    /// Whether the asker holds all that a write would bring about; else what they lack.
    pub fn may_hand_out(&self, asker: &Caller, gains: &[Gain<'_>]) -> Result<(), Escalation> {
        let Caller { user, groups, .. } = asker;
        if is_master(groups) {
            return Ok(());
        }
        match compact(gains.iter().flat_map(|gain| self.lacked(asker, gain)).collect()) {
            none if none.is_empty() => Ok(()),
            missing => {
                let unresolved = self.rules_for(user, groups, "").1;
                Err(Escalation { user: user.clone(), groups: groups.clone(), missing, unresolved })
            }
        }
    }

    /// What gathering ClusterRoles would gain by this ClusterRole, the user holds, or has the verb `escalate` on them.
    pub fn may_gather(&self, asker: &Caller, role: &Role) -> Result<(), Escalation> {
        if is_master(&asker.groups) {
            return Ok(());
        }
        let gathered = self.gathered_by(role);
        let free = |name: &str| self.has_verb("escalate", &asker.user, &asker.groups, "", RoleKind::ClusterRole, name);
        let gains = gathered.iter().filter(|(name, _)| *name != role.metadata.name && !free(name));
        let gains: Vec<_> = gains.map(|(_, rules)| Gain::Rules { namespace: "", rules }).collect();
        self.may_hand_out(asker, &gains)
    }

    /// Rules that the user does not hold. One that names sets shows their clusters, and who lists all sets sees none.
    pub(super) fn lacked_rules(
        &self,
        user: &str,
        groups: &[String],
        namespace: &str,
        rules: &[PolicyRule],
    ) -> Vec<PolicyRule> {
        let mut lacked = self.covers(user, groups, namespace, rules).err().unwrap_or_default();
        for verb in ReadVerb::ALL.map(ReadVerb::as_str) {
            let showing = |rule: &&PolicyRule| rule.grants(verb, CLUSTER_GROUP, SETS, "") && rule.is_named();
            if !rules.iter().any(|rule| showing(&rule)) {
                continue;
            }
            let over = self.over(user, groups, verb);
            let named = rules.iter().filter(showing).flat_map(|rule| &rule.resource_names);
            lacked.extend(named.filter(|set| !over.contains("", set)).map(|set| ours(SETS, Some(set), verb)));
        }
        compact(lacked)
    }

    fn lacked(&self, asker: &Caller, gain: &Gain<'_>) -> Vec<PolicyRule> {
        let Caller { user, groups, .. } = asker;
        match *gain {
            Gain::Rules { namespace, rules } => self.lacked_rules(user, groups, namespace, rules),
            Gain::Bound { role } => {
                let role = RoleRef { kind: RoleKind::ClusterRole, name: role.into() };
                // What a role that is missing will give, nobody knows.
                let rules = self.rules_of(&role, "").map_or_else(|| everything().to_vec(), <[_]>::to_vec);
                self.lacked_rules(user, groups, "", &rules)
            }
            Gain::Person { groups: own, .. } if is_master(own) => self.lacked_rules(user, groups, "", &everything()),
            Gain::Person { user: name, groups: own } => {
                let given = self.held(name, own).map(|held| (held.namespace(), held.rules()));
                given.flat_map(|(namespace, rules)| self.lacked_rules(user, groups, namespace, rules)).collect()
            }
            Gain::NewRole(role) => {
                let given = self.places_of(role).into_iter().map(|namespace| (namespace, role.rules.clone()));
                let gathered = self.gathered_by(role).into_iter().map(|(_, rules)| ("".into(), rules));
                given
                    .chain(gathered)
                    .flat_map(|(namespace, rules)| self.lacked_rules(user, groups, &namespace, &rules))
                    .collect()
            }
            Gain::Cluster(name) => {
                let held = self.may_proxy(user, groups, name).is_ok() || self.keeps_sets(asker);
                if held { Vec::new() } else { vec![ours(CLUSTERS, Some(name), PROXY)] }
            }
            Gain::EveryCluster => {
                let held = self.over(user, groups, PROXY).contains("", GLOBAL_SET) || self.keeps_sets(asker);
                if held { Vec::new() } else { vec![ours(CLUSTERS, None, PROXY)] }
            }
            Gain::Set { namespace, set } => self.lacked_by_binding(asker, namespace, set),
        }
    }

    /// What the roles of a namespace would give on a set and its clusters, and the asker lacks.
    fn lacked_by_binding(&self, asker: &Caller, namespace: &str, set: &str) -> Vec<PolicyRule> {
        let Caller { user, groups, .. } = asker;
        let verbs = ReadVerb::ALL.map(ReadVerb::as_str).into_iter().chain([PROXY]);
        let to_come = self.gives_what_is_to_come(namespace);
        let lacked = verbs.filter(|verb| {
            let given = |resource| {
                if to_come {
                    return true;
                }
                let mut rules = self.rules_in(namespace);
                rules.any(|rule| {
                    rule.grants(verb, CLUSTER_GROUP, resource, "") && (resource == CLUSTERS || rule.names(set))
                })
            };
            given(CLUSTERS) && !self.over(user, groups, verb).contains("", set)
                || given(SETS) && !self.shows_set(user, groups, verb, set)
        });
        lacked.map(|verb| ours(SETS, Some(set), verb)).collect()
    }

    /// Whether the user has the verb on the set and, where the verb goes on to them, on its clusters.
    fn shows_set(&self, user: &str, groups: &[String], verb: &str, set: &str) -> bool {
        self.over(user, groups, verb).contains("", set)
            && self.held(user, groups).any(|held| {
                let shown =
                    |rule| [verb, PROXY].iter().any(|verb| self.shown_sets(held.binding, rule, verb).contains("", set));
                held.rules().iter().any(shown)
            })
    }

    /// The sets on all of whose clusters, whichever will come, the user has the verb.
    fn over(&self, user: &str, groups: &[String], verb: &str) -> Visibility {
        if is_master(groups) {
            return Visibility::All;
        }
        let mut sets = VisibleObjects::default();
        for held in self.held(user, groups) {
            for (rule, verb) in held.rules().iter().flat_map(|rule| [(rule, verb), (rule, PROXY)]) {
                match (self.clusters(held.binding, rule, verb, None), self.shown_sets(held.binding, rule, PROXY)) {
                    (Visibility::Only(clusters), Visibility::Only(proxied)) => {
                        sets.names.extend(clusters.members.into_keys());
                        sets.names.extend(proxied.names);
                    }
                    (Visibility::All, _) | (_, Visibility::All) => return Visibility::All,
                }
            }
        }
        Visibility::Only(sets)
    }

    /// Whether which clusters are in which sets is the asker's to say.
    fn keeps_sets(&self, asker: &Caller) -> bool {
        self.authorize(&Attributes::of(asker, "create", CLUSTER_GROUP, "managedclustersets/join", "")).is_allowed()
    }
}

/// A rule of one verb, on an object or on all.
fn ours(resource: &str, name: Option<&str>, verb: &str) -> PolicyRule {
    PolicyRule {
        api_groups: vec![CLUSTER_GROUP.to_owned()],
        resources: vec![resource.to_owned()],
        resource_names: name.map(str::to_owned).into_iter().collect(),
        verbs: vec![verb.to_owned()],
        ..PolicyRule::default()
    }
}
