//! The selection: which objects of a resource a list or watch is about, and which of them its user may see.

use serde_json::Value;

use super::{
    object,
    options::ReadOptions,
    policy_at,
    rbac::{Policy, ReadVerb, Scope, Visibility, VisibilityQuery, review::Caller},
    resource::Resource,
    selector::{FieldSelector, LabelSelector},
    status::Status,
};
use crate::registry::Registry;
use store::Commit;

#[derive(Clone, Debug)]
pub(crate) struct Selection {
    labels: LabelSelector,
    fields: FieldSelector,
    resource: &'static Resource,
    namespace: Option<String>,
    verb: ReadVerb,
    caller: Caller,
}

impl Selection {
    pub(crate) fn new(
        resource: &'static Resource,
        namespace: Option<&str>,
        options: &ReadOptions,
        caller: &Caller,
    ) -> Result<Self, Status> {
        Ok(Self {
            labels: LabelSelector::parse(&options.label_selector)?,
            fields: FieldSelector::parse(&options.field_selector, resource.selectable_fields)?,
            resource,
            namespace: namespace.map(str::to_owned),
            verb: if options.watch { ReadVerb::Watch } else { ReadVerb::List },
            caller: caller.clone(),
        })
    }

    /// Whether nothing but rights narrows it.
    pub(crate) fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.is_everything()
    }

    /// The name that an object must have, if one is asked for.
    pub(crate) fn name(&self) -> Option<&str> {
        self.fields.required("metadata.name")
    }

    /// What the user may see now.
    pub(crate) fn visible(&self, registry: &Registry) -> Visibility {
        registry.with_policy(|policy| self.sight_by(policy))
    }

    /// What the user may see by a policy.
    pub(crate) fn sight_by(&self, policy: &Policy) -> Visibility {
        policy.visible(&self.caller.user, &self.caller.groups, &self.asked())
    }

    fn asked(&self) -> VisibilityQuery<'_> {
        let scope = match (&self.namespace, self.resource.namespaced) {
            (Some(namespace), _) => Scope::Namespace(namespace),
            (None, true) => Scope::AllNamespaces,
            (None, false) => Scope::Cluster,
        };
        VisibilityQuery { verb: self.verb, api_group: self.resource.group, resource: self.resource.plural, scope }
    }

    /// What the user may see after a commit; `None` if it changed nobody's rights.
    pub(crate) fn sight_after(&self, commit: &Commit, registry: &Registry) -> Option<Visibility> {
        commit.events.iter().any(|event| policy_at::affects_policy(&event.key)).then(|| self.visible(registry))
    }

    /// Whether what is in this place can be wanted, which is cheaper to tell than to read it.
    pub(crate) fn may_want(&self, (namespace, name): (&str, &str), visible: &Visibility) -> bool {
        self.name().is_none_or(|wanted| wanted == name) && visible.contains(namespace, name)
    }

    pub(crate) fn wants(&self, object: &Value, visible: &Visibility) -> bool {
        visible.contains(object::metadata(object, "namespace"), object::name(object))
            && self.labels.matches(object::labels(object))
            && self.fields.matches(object)
    }
}
