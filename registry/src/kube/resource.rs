//! The resource: one entry of the table of everything that is served.

use std::sync::LazyLock;

use super::column::{self, Column};
use super::name::NameRule;
use super::schema::Schema;

/// A kind of object and how it is served.
#[derive(Clone, Copy, Debug)]
pub struct Resource {
    /// Empty for the core group.
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    pub plural: &'static str,
    pub singular: &'static str,
    pub short_names: &'static [&'static str],
    pub categories: &'static [&'static str],
    pub namespaced: bool,
    pub verbs: &'static [&'static str],
    pub subresources: &'static [Subresource],
    /// The columns of a Table.
    pub columns: &'static [Column],
    schema: fn() -> &'static Schema,
    /// Whether kubectl knows the kind by itself: then it sends strategic merge patches.
    pub built_in: bool,
    pub names: NameRule,
    /// Paths that field selectors may name beside `metadata.name` and `metadata.namespace`.
    pub selectable_fields: &'static [&'static str],
}

/// A part of an object with rights of its own, at `<object>/<name>`.
#[derive(Debug)]
pub struct Subresource {
    pub name: &'static str,
    pub verbs: &'static [&'static str],
}

const CLUSTER: &str = "cluster.open-cluster-management.io";
const RBAC: &str = "rbac.authorization.k8s.io";
const AUTHORIZATION: &str = "authorization.k8s.io";
const AUTHENTICATION: &str = "authentication.k8s.io";
const ALL: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
const NO_COLLECTION_DELETE: &[&str] = &["create", "delete", "get", "list", "patch", "update", "watch"];
const READ: &[&str] = &["get", "list", "watch"];
const READ_DELETE: &[&str] = &["get", "list", "watch", "delete"];
const CREATE: &[&str] = &["create"];
const CHANGE: &[&str] = &["get", "patch", "update"];
const STATUS: Subresource = Subresource { name: "status", verbs: CHANGE };
const APPROVAL: Subresource = Subresource { name: "approval", verbs: CHANGE };
const FINALIZE: Subresource = Subresource { name: "finalize", verbs: &["update"] };

/// `kubectl describe` and `kubectl events` look for the events of an object by these.
const EVENT_FIELDS: &[&str] = &[
    "involvedObject.apiVersion",
    "involvedObject.fieldPath",
    "involvedObject.kind",
    "involvedObject.name",
    "involvedObject.namespace",
    "involvedObject.resourceVersion",
    "involvedObject.uid",
    "reason",
    "reportingComponent",
    "type",
];

/// One entry: what every kind needs, then what differs from a cluster-scoped kind with all verbs.
macro_rules! resource {
    ($group:expr, $version:literal, $kind:literal, $plural:literal, $singular:literal $(, $field:ident: $value:expr)* $(,)?) => {
        Resource {
            $($field: $value,)*
            ..resource!(@plain $group, $version, $kind, $plural, $singular)
        }
    };
    (@plain $group:expr, $version:literal, $kind:literal, $plural:literal, $singular:literal) => {
        Resource {
            group: $group,
            version: $version,
            kind: $kind,
            plural: $plural,
            singular: $singular,
            short_names: &[],
            categories: &[],
            namespaced: false,
            verbs: ALL,
            subresources: &[],
            columns: column::PLAIN,
            schema: {
                static SCHEMA: LazyLock<Schema> =
                    LazyLock::new(|| Schema::embedded(include_str!(concat!("schemas/", $singular, ".json"))));
                || &SCHEMA
            },
            built_in: false,
            names: NameRule::Subdomain,
            selectable_fields: &[],
        }
    };
}

static RESOURCES: &[Resource] = &[
    resource!(CLUSTER, "v1", "ManagedCluster", "managedclusters", "managedcluster",
        short_names: &["mcl", "mcls"], subresources: &[APPROVAL, STATUS], columns: column::MANAGED_CLUSTER, names: NameRule::Label),
    resource!(CLUSTER, "v1beta2", "ManagedClusterSet", "managedclustersets", "managedclusterset",
        short_names: &["mclset", "mclsets"], subresources: &[STATUS], columns: column::MANAGED_CLUSTER_SET),
    resource!(CLUSTER, "v1beta2", "ManagedClusterSetBinding", "managedclustersetbindings", "managedclustersetbinding",
        short_names: &["mclsetbinding", "mclsetbindings"], namespaced: true, subresources: &[STATUS]),
    resource!("addon.open-cluster-management.io", "v1alpha1", "ManagedClusterAddOn", "managedclusteraddons",
        "managedclusteraddon", short_names: &["mca", "mcas"], namespaced: true, verbs: READ,
        columns: column::MANAGED_CLUSTER_ADD_ON),
    resource!("", "v1", "Event", "events", "event",
        short_names: &["ev"], namespaced: true, columns: column::EVENT, built_in: true,
        selectable_fields: EVENT_FIELDS),
    resource!("", "v1", "Namespace", "namespaces", "namespace",
        short_names: &["ns"], verbs: NO_COLLECTION_DELETE, subresources: &[FINALIZE, STATUS],
        columns: column::NAMESPACE, built_in: true, names: NameRule::Label, selectable_fields: &["status.phase"]),
    resource!("", "v1", "Secret", "secrets", "secret",
        namespaced: true, columns: column::SECRET, built_in: true, selectable_fields: &["type"]),
    resource!("certificates.k8s.io", "v1", "CertificateSigningRequest", "certificatesigningrequests",
        "certificatesigningrequest", short_names: &["csr"], verbs: READ_DELETE, subresources: &[APPROVAL],
        columns: column::CERTIFICATE_SIGNING_REQUEST, built_in: true, selectable_fields: &["spec.signerName"]),
    resource!(RBAC, "v1", "ClusterRoleBinding", "clusterrolebindings", "clusterrolebinding",
        columns: column::BINDING, built_in: true, names: NameRule::PathSegment),
    resource!(RBAC, "v1", "ClusterRole", "clusterroles", "clusterrole",
        columns: column::ROLE, built_in: true, names: NameRule::PathSegment),
    resource!(RBAC, "v1", "RoleBinding", "rolebindings", "rolebinding",
        namespaced: true, columns: column::BINDING, built_in: true, names: NameRule::PathSegment),
    resource!(RBAC, "v1", "Role", "roles", "role",
        namespaced: true, columns: column::ROLE, built_in: true, names: NameRule::PathSegment),
    resource!("coordination.k8s.io", "v1", "Lease", "leases", "lease",
        namespaced: true, verbs: READ, columns: column::LEASE, built_in: true),
    resource!(AUTHORIZATION, "v1", "LocalSubjectAccessReview", "localsubjectaccessreviews", "localsubjectaccessreview",
        namespaced: true, verbs: CREATE, built_in: true),
    resource!(AUTHORIZATION, "v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews", "selfsubjectaccessreview",
        verbs: CREATE, built_in: true),
    resource!(AUTHORIZATION, "v1", "SelfSubjectRulesReview", "selfsubjectrulesreviews", "selfsubjectrulesreview",
        verbs: CREATE, built_in: true),
    resource!(AUTHORIZATION, "v1", "SubjectAccessReview", "subjectaccessreviews", "subjectaccessreview",
        verbs: CREATE, built_in: true),
    resource!(AUTHENTICATION, "v1", "SelfSubjectReview", "selfsubjectreviews", "selfsubjectreview",
        verbs: CREATE, built_in: true),
    resource!(AUTHENTICATION, "v1", "TokenReview", "tokenreviews", "tokenreview",
        verbs: CREATE, built_in: true),
];

/// Everything that is served, in the order of discovery: our groups first.
pub fn all() -> &'static [Resource] {
    RESOURCES
}

/// The resource that a path names; the core group is empty.
pub fn find(group: &str, version: &str, plural: &str) -> Option<&'static Resource> {
    all().iter().find(|known| known.group == group && known.version == version && known.plural == plural)
}

/// The resource that an object's `apiVersion` and `kind` name.
pub fn find_kind(api_version: &str, kind: &str) -> Option<&'static Resource> {
    all().iter().find(|known| known.kind == kind && known.api_version() == api_version)
}

/// The groups, in order, each with its versions: the preferred one first.
pub fn groups() -> Vec<(&'static str, Vec<&'static str>)> {
    let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
    for resource in all() {
        match groups.iter_mut().find(|(group, _)| *group == resource.group) {
            Some((_, versions)) if versions.contains(&resource.version) => {}
            Some((_, versions)) => versions.push(resource.version),
            None => groups.push((resource.group, vec![resource.version])),
        }
    }
    groups
}

/// The resources of a group's version, in order; empty when it is not served.
pub fn of_version(group: &str, version: &str) -> Vec<&'static Resource> {
    all().iter().filter(|resource| resource.group == group && resource.version == version).collect()
}

/// A group and version as one: `v1` in the core group, else `<group>/<version>`.
pub fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

impl Resource {
    pub fn api_version(&self) -> String {
        api_version(self.group, self.version)
    }

    /// The kind of its lists.
    pub fn list_kind(&self) -> String {
        format!("{}List", self.kind)
    }

    /// Resource and group as errors name them: `managedclusters.cluster.open-cluster-management.io`, `secrets`.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() { self.plural.to_owned() } else { format!("{}.{}", self.plural, self.group) }
    }

    pub fn schema(&self) -> &'static Schema {
        (self.schema)()
    }

    pub fn has_verb(&self, verb: &str) -> bool {
        self.verbs.contains(&verb)
    }

    /// Whether `status` is written by its own subresource only.
    pub fn has_status(&self) -> bool {
        self.subresource("status").is_some()
    }

    /// Whether `metadata.generation` counts the changes of what is wanted; Kubernetes' own kinds that are served have none.
    pub fn has_generation(&self) -> bool {
        !self.built_in
    }

    pub fn subresource(&self, name: &str) -> Option<&'static Subresource> {
        self.subresources.iter().find(|subresource| subresource.name == name)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_short_name_is_there() {
        let names = |plural: &str| all().iter().find(|resource| resource.plural == plural).unwrap().short_names;
        assert_eq!(names("managedclusters"), ["mcl", "mcls"]);
        assert_eq!(names("managedclustersets"), ["mclset", "mclsets"]);
        assert_eq!(names("managedclustersetbindings"), ["mclsetbinding", "mclsetbindings"]);
        assert_eq!(names("managedclusteraddons"), ["mca", "mcas"]);
        assert_eq!(names("certificatesigningrequests"), ["csr"]);
        assert_eq!(names("namespaces"), ["ns"]);
        assert_eq!(names("events"), ["ev"]);
    }

    #[test]
    fn no_name_is_taken_twice() {
        let mut seen = BTreeSet::new();
        for resource in all() {
            for name in [resource.plural, resource.singular].iter().chain(resource.short_names) {
                assert!(seen.insert(*name), "{name}");
            }
        }
    }

    #[test]
    fn a_resource_is_found_by_its_path_and_by_its_kind() {
        let cluster = find("cluster.open-cluster-management.io", "v1", "managedclusters").unwrap();
        assert_eq!(cluster.qualified(), "managedclusters.cluster.open-cluster-management.io");
        assert_eq!(
            find_kind("cluster.open-cluster-management.io/v1", "ManagedCluster").unwrap().plural,
            cluster.plural
        );
        assert_eq!(find_kind("v1", "Secret").unwrap().qualified(), "secrets");
        assert!(find("", "v1", "managedclusters").is_none());
        assert!(find("cluster.open-cluster-management.io", "v1", "managedclustersets").is_none());
    }

    #[test]
    fn leases_are_only_read_and_reviews_only_created() {
        assert_eq!(find("coordination.k8s.io", "v1", "leases").unwrap().verbs, READ);
        for resource in all().iter().filter(|resource| resource.kind.ends_with("Review")) {
            assert_eq!(resource.verbs, CREATE, "{}", resource.kind);
        }
    }
}
