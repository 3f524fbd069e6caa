//! The policy rule: what it allows, which other rules it covers, and how it reads in a message.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

use super::attributes::Attributes;
use super::quote::QuotedList;

/// `PolicyRule` of rbac.authorization.k8s.io/v1: resources with verbs, or URLs with verbs. An empty `verbs` or an empty
/// `resources` allows nothing; an empty `resourceNames` allows every name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PolicyRule {
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub api_groups: Vec<String>,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<String>,
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub resource_names: Vec<String>,
    #[serde(rename = "nonResourceURLs", deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub non_resource_urls: Vec<String>,
    #[serde(deserialize_with = "null_as_default")]
    pub verbs: Vec<String>,
}

/// Stands for everything in verbs, groups, resources and URLs.
const ALL: &str = "*";

/// How many single rights the rules of one role are taken apart into. A hostile role multiplies its lists; what is
/// beyond this is compared rule by rule, which can only refuse more.
const MAX_RIGHTS: usize = 100_000;

impl PolicyRule {
    /// Whether this rule alone allows the request.
    pub fn allows(&self, request: &Attributes) -> bool {
        match &request.non_resource_url {
            Some(url) => {
                lists(&self.verbs, &request.verb) && self.non_resource_urls.iter().any(|own| reaches(own, url))
            }
            None => {
                self.grants(&request.verb, &request.api_group, &request.resource, &request.subresource)
                    && self.names(&request.name)
            }
        }
    }

    /// Whether this rule allows the verb on objects of the resource, of whichever names.
    pub(super) fn grants(&self, verb: &str, api_group: &str, resource: &str, subresource: &str) -> bool {
        lists(&self.verbs, verb)
            && lists(&self.api_groups, api_group)
            && self.resources.iter().any(|own| matches_resource(own, resource, subresource))
    }

    /// Whether this rule is about the object of that name. A rule with names is never about the empty name, so it
    /// allows no plain list or create.
    pub(super) fn names(&self, name: &str) -> bool {
        self.resource_names.is_empty() || self.resource_names.iter().any(|own| own == name)
    }

    /// Whether this rule is about objects of certain names only.
    pub(super) fn is_named(&self) -> bool {
        !self.resource_names.is_empty()
    }

    /// Whether everything `other` allows is allowed by this rule alone.
    fn covers(&self, other: &Self) -> bool {
        contains(&self.verbs, &other.verbs)
            && contains(&self.api_groups, &other.api_groups)
            && other.resources.iter().all(|resource| covers_resource(&self.resources, resource))
            && other.non_resource_urls.iter().all(|url| self.non_resource_urls.iter().any(|own| reaches(own, url)))
            && (self.resource_names.is_empty()
                || !other.resource_names.is_empty()
                    && other.resource_names.iter().all(|name| self.resource_names.contains(name)))
    }

    /// How many single rights [`Self::rights`] makes.
    fn count(&self) -> usize {
        let named = self.resource_names.len().max(1);
        let resources = [self.api_groups.len(), self.resources.len(), named]
            .into_iter()
            .fold(self.verbs.len(), usize::saturating_mul);
        resources.saturating_add(self.non_resource_urls.len().saturating_mul(self.verbs.len()))
    }

    /// This rule as rules with one verb on one resource of one name, or on one URL.
    fn rights(&self) -> Vec<Self> {
        let one = |text: &String| vec![text.clone()];
        let mut rights = Vec::new();
        for group in &self.api_groups {
            for resource in &self.resources {
                for verb in &self.verbs {
                    let right =
                        Self { api_groups: one(group), resources: one(resource), verbs: one(verb), ..Self::default() };
                    if self.resource_names.is_empty() {
                        rights.push(right);
                        continue;
                    }
                    rights.extend(
                        self.resource_names.iter().map(|name| Self { resource_names: one(name), ..right.clone() }),
                    );
                }
            }
        }
        for url in &self.non_resource_urls {
            let url = |verb| Self { non_resource_urls: one(url), verbs: one(verb), ..Self::default() };
            rights.extend(self.verbs.iter().map(url));
        }
        rights
    }
}

/// What of `rules` the owner of `owned` does not hold: nothing when it is covered. Verbs on the same resource and
/// name are put together, and the rules sorted by how they read, as kube-apiserver lists them.
pub(super) fn missing(owned: &[&PolicyRule], rules: &[PolicyRule]) -> Vec<PolicyRule> {
    let mut left = MAX_RIGHTS;
    let mut missing = Vec::new();
    for rule in rules {
        let rights = match left.checked_sub(rule.count()) {
            Some(rest) => {
                left = rest;
                rule.rights()
            }
            None => vec![rule.clone()],
        };
        missing.extend(rights.into_iter().filter(|right| !owned.iter().any(|own| own.covers(right))));
    }
    compact(missing)
}

pub(super) fn compact(rules: Vec<PolicyRule>) -> Vec<PolicyRule> {
    let mut by_text = BTreeMap::new();
    let mut by_resource: BTreeMap<_, PolicyRule> = BTreeMap::new();
    for rule in rules {
        match (rule.api_groups.as_slice(), rule.resources.as_slice(), rule.resource_names.as_slice()) {
            ([group], [resource], names @ ([] | [_])) if rule.non_resource_urls.is_empty() => {
                let key = (group.clone(), resource.clone(), names.first().cloned());
                by_resource.entry(key).and_modify(|known| known.verbs.extend_from_slice(&rule.verbs)).or_insert(rule);
            }
            _ => drop(by_text.insert(rule.to_string(), rule)),
        }
    }
    by_text.extend(by_resource.into_values().map(|rule| (rule.to_string(), rule)));
    by_text.into_values().collect()
}

/// Kubernetes' short form: `{APIGroups:["g"], Resources:["r"], Verbs:["get" "list"]}`.
impl fmt::Display for PolicyRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            ("APIGroups", &self.api_groups),
            ("Resources", &self.resources),
            ("NonResourceURLs", &self.non_resource_urls),
            ("ResourceNames", &self.resource_names),
            ("Verbs", &self.verbs),
        ];
        f.write_str("{")?;
        for (at, (name, list)) in parts.into_iter().filter(|(_, list)| !list.is_empty()).enumerate() {
            let comma = if at > 0 { ", " } else { "" };
            write!(f, "{comma}{name}:{}", QuotedList(list))?;
        }
        f.write_str("}")
    }
}

fn lists(list: &[String], wanted: &str) -> bool {
    list.iter().any(|own| own == ALL || own == wanted)
}

fn contains(list: &[String], wanted: &[String]) -> bool {
    list.iter().any(|own| own == ALL) || wanted.iter().all(|one| list.contains(one))
}

/// `own` is `*`, `resource`, `resource/subresource` or `*/subresource`; there is no `resource/*`.
fn matches_resource(own: &str, resource: &str, subresource: &str) -> bool {
    if subresource.is_empty() {
        return own == ALL || own == resource;
    }
    own == ALL
        || own.strip_prefix("*/") == Some(subresource)
        || own.strip_prefix(resource).and_then(|rest| rest.strip_prefix('/')) == Some(subresource)
}

fn covers_resource(owned: &[String], wanted: &str) -> bool {
    owned.iter().any(|own| {
        own == ALL
            || own == wanted
            || wanted.split_once('/').is_some_and(|(_, sub)| own.strip_prefix("*/") == Some(sub))
    })
}

/// Whether the URL pattern `own`, which may end in `*`, matches `url`, or everything that the pattern `url` matches.
fn reaches(own: &str, url: &str) -> bool {
    own == url || own.ends_with('*') && url.starts_with(own.trim_end_matches('*'))
}

/// Go writes an empty list or map as null.
pub(super) fn null_as_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
