//! The built-in kinds that clients send as protobuf, and their fields: numbers as in Kubernetes' `generated.proto`.

use super::message::Kind::{Bool, Bytes, Integer, Json, Message, MicroTime, String, Strings, Time};
use super::message::{Field, Kind, Shape};

/// The fields of a kind, if it is one we know. `DeleteOptions` belongs to every group.
pub(super) fn fields(api_version: &str, kind: &str) -> Option<&'static [Field]> {
    KINDS.iter().find(|(of, name, _)| *name == kind && (*of == api_version || *of == ANY)).map(|(_, _, fields)| *fields)
}

const ANY: &str = "*";
const RBAC: &str = "rbac.authorization.k8s.io/v1";
const AUTHORIZATION: &str = "authorization.k8s.io/v1";
const AUTHENTICATION: &str = "authentication.k8s.io/v1";

/// API version, kind, fields.
pub(super) static KINDS: &[(&str, &str, &[Field])] = &[
    (ANY, "DeleteOptions", DELETE_OPTIONS),
    ("v1", "Namespace", NAMESPACE),
    ("v1", "Secret", SECRET),
    ("v1", "Event", CORE_EVENT),
    ("events.k8s.io/v1", "Event", EVENT),
    ("coordination.k8s.io/v1", "Lease", LEASE),
    ("certificates.k8s.io/v1", "CertificateSigningRequest", CERTIFICATE_SIGNING_REQUEST),
    (RBAC, "Role", ROLE),
    (RBAC, "ClusterRole", ROLE),
    (RBAC, "RoleBinding", ROLE_BINDING),
    (RBAC, "ClusterRoleBinding", ROLE_BINDING),
    (AUTHORIZATION, "SelfSubjectAccessReview", ACCESS_REVIEW),
    (AUTHORIZATION, "SubjectAccessReview", ACCESS_REVIEW),
    (AUTHORIZATION, "LocalSubjectAccessReview", ACCESS_REVIEW),
    (AUTHORIZATION, "SelfSubjectRulesReview", RULES_REVIEW),
    (AUTHENTICATION, "SelfSubjectReview", SELF_SUBJECT_REVIEW),
    (AUTHENTICATION, "TokenReview", TOKEN_REVIEW),
];

const fn plain(number: u32, name: &'static str, kind: Kind) -> Field {
    Field { number, name, shape: Shape::Plain, kind }
}

const fn pointer(number: u32, name: &'static str, kind: Kind) -> Field {
    Field { number, name, shape: Shape::Pointer, kind }
}

const fn list(number: u32, name: &'static str, kind: Kind) -> Field {
    Field { number, name, shape: Shape::List, kind }
}

const fn map(number: u32, name: &'static str, kind: Kind) -> Field {
    Field { number, name, shape: Shape::Map, kind }
}

const METADATA: Field = plain(
    1,
    "metadata",
    Message(&[
        plain(1, "name", String),
        plain(2, "generateName", String),
        plain(3, "namespace", String),
        plain(4, "selfLink", String),
        plain(5, "uid", String),
        plain(6, "resourceVersion", String),
        plain(7, "generation", Integer),
        plain(8, "creationTimestamp", Time),
        pointer(9, "deletionTimestamp", Time),
        pointer(10, "deletionGracePeriodSeconds", Integer),
        map(11, "labels", String),
        map(12, "annotations", String),
        list(13, "ownerReferences", Message(OWNER_REFERENCE)),
        list(14, "finalizers", String),
        list(17, "managedFields", Message(MANAGED_FIELDS)),
    ]),
);

const OWNER_REFERENCE: &[Field] = &[
    plain(1, "kind", String),
    plain(3, "name", String),
    plain(4, "uid", String),
    plain(5, "apiVersion", String),
    pointer(6, "controller", Bool),
    pointer(7, "blockOwnerDeletion", Bool),
];

const MANAGED_FIELDS: &[Field] = &[
    plain(1, "manager", String),
    plain(2, "operation", String),
    plain(3, "apiVersion", String),
    pointer(4, "time", Time),
    plain(6, "fieldsType", String),
    pointer(7, "fieldsV1", Json),
    plain(8, "subresource", String),
];

const DELETE_OPTIONS: &[Field] = &[
    pointer(1, "gracePeriodSeconds", Integer),
    pointer(2, "preconditions", Message(&[pointer(1, "uid", String), pointer(2, "resourceVersion", String)])),
    pointer(3, "orphanDependents", Bool),
    pointer(4, "propagationPolicy", String),
    list(5, "dryRun", String),
    pointer(6, "ignoreStoreReadErrorWithClusterBreakingPotential", Bool),
];

const LABEL_SELECTOR: &[Field] =
    &[map(1, "matchLabels", String), list(2, "matchExpressions", Message(SELECTOR_REQUIREMENT))];

const SELECTOR_REQUIREMENT: &[Field] =
    &[plain(1, "key", String), plain(2, "operator", String), list(3, "values", String)];

const NAMESPACE: &[Field] = &[
    METADATA,
    plain(2, "spec", Message(&[list(1, "finalizers", String)])),
    plain(3, "status", Message(&[plain(1, "phase", String), list(2, "conditions", Message(NAMESPACE_CONDITION))])),
];

const NAMESPACE_CONDITION: &[Field] = &[
    plain(1, "type", String),
    plain(2, "status", String),
    plain(4, "lastTransitionTime", Time),
    plain(5, "reason", String),
    plain(6, "message", String),
];

const SECRET: &[Field] = &[
    METADATA,
    map(2, "data", Bytes),
    plain(3, "type", String),
    map(4, "stringData", String),
    pointer(5, "immutable", Bool),
];

const OBJECT_REFERENCE: &[Field] = &[
    plain(1, "kind", String),
    plain(2, "namespace", String),
    plain(3, "name", String),
    plain(4, "uid", String),
    plain(5, "apiVersion", String),
    plain(6, "resourceVersion", String),
    plain(7, "fieldPath", String),
];

const EVENT_SOURCE: &[Field] = &[plain(1, "component", String), plain(2, "host", String)];

const EVENT_SERIES: &[Field] = &[plain(1, "count", Integer), plain(2, "lastObservedTime", MicroTime)];

const CORE_EVENT: &[Field] = &[
    METADATA,
    plain(2, "involvedObject", Message(OBJECT_REFERENCE)),
    plain(3, "reason", String),
    plain(4, "message", String),
    plain(5, "source", Message(EVENT_SOURCE)),
    plain(6, "firstTimestamp", Time),
    plain(7, "lastTimestamp", Time),
    plain(8, "count", Integer),
    plain(9, "type", String),
    plain(10, "eventTime", MicroTime),
    pointer(11, "series", Message(EVENT_SERIES)),
    plain(12, "action", String),
    pointer(13, "related", Message(OBJECT_REFERENCE)),
    plain(14, "reportingComponent", String),
    plain(15, "reportingInstance", String),
];

const EVENT: &[Field] = &[
    METADATA,
    plain(2, "eventTime", MicroTime),
    pointer(3, "series", Message(EVENT_SERIES)),
    plain(4, "reportingController", String),
    plain(5, "reportingInstance", String),
    plain(6, "action", String),
    plain(7, "reason", String),
    plain(8, "regarding", Message(OBJECT_REFERENCE)),
    pointer(9, "related", Message(OBJECT_REFERENCE)),
    plain(10, "note", String),
    plain(11, "type", String),
    plain(12, "deprecatedSource", Message(EVENT_SOURCE)),
    plain(13, "deprecatedFirstTimestamp", Time),
    plain(14, "deprecatedLastTimestamp", Time),
    plain(15, "deprecatedCount", Integer),
];

const LEASE: &[Field] = &[
    METADATA,
    plain(
        2,
        "spec",
        Message(&[
            pointer(1, "holderIdentity", String),
            pointer(2, "leaseDurationSeconds", Integer),
            pointer(3, "acquireTime", MicroTime),
            pointer(4, "renewTime", MicroTime),
            pointer(5, "leaseTransitions", Integer),
            pointer(6, "strategy", String),
            pointer(7, "preferredHolder", String),
        ]),
    ),
];

const CERTIFICATE_SIGNING_REQUEST: &[Field] = &[
    METADATA,
    plain(
        2,
        "spec",
        Message(&[
            plain(1, "request", Bytes),
            plain(2, "username", String),
            plain(3, "uid", String),
            list(4, "groups", String),
            list(5, "usages", String),
            map(6, "extra", Strings),
            plain(7, "signerName", String),
            pointer(8, "expirationSeconds", Integer),
        ]),
    ),
    plain(3, "status", Message(&[list(1, "conditions", Message(REQUEST_CONDITION)), plain(2, "certificate", Bytes)])),
];

const REQUEST_CONDITION: &[Field] = &[
    plain(1, "type", String),
    plain(2, "reason", String),
    plain(3, "message", String),
    plain(4, "lastUpdateTime", Time),
    plain(5, "lastTransitionTime", Time),
    plain(6, "status", String),
];

/// A Role is a ClusterRole without field 3.
const ROLE: &[Field] = &[
    METADATA,
    list(
        2,
        "rules",
        Message(&[
            list(1, "verbs", String),
            list(2, "apiGroups", String),
            list(3, "resources", String),
            list(4, "resourceNames", String),
            list(5, "nonResourceURLs", String),
        ]),
    ),
    pointer(3, "aggregationRule", Message(&[list(1, "clusterRoleSelectors", Message(LABEL_SELECTOR))])),
];

const ROLE_BINDING: &[Field] = &[
    METADATA,
    list(
        2,
        "subjects",
        Message(&[
            plain(1, "kind", String),
            plain(2, "apiGroup", String),
            plain(3, "name", String),
            plain(4, "namespace", String),
        ]),
    ),
    plain(3, "roleRef", Message(&[plain(1, "apiGroup", String), plain(2, "kind", String), plain(3, "name", String)])),
];

const SELECTOR_ATTRIBUTES: &[Field] =
    &[plain(1, "rawSelector", String), list(2, "requirements", Message(SELECTOR_REQUIREMENT))];

/// The review of oneself has only the first two fields of the spec.
const ACCESS_REVIEW: &[Field] = &[
    METADATA,
    plain(
        2,
        "spec",
        Message(&[
            pointer(
                1,
                "resourceAttributes",
                Message(&[
                    plain(1, "namespace", String),
                    plain(2, "verb", String),
                    plain(3, "group", String),
                    plain(4, "version", String),
                    plain(5, "resource", String),
                    plain(6, "subresource", String),
                    plain(7, "name", String),
                    pointer(8, "fieldSelector", Message(SELECTOR_ATTRIBUTES)),
                    pointer(9, "labelSelector", Message(SELECTOR_ATTRIBUTES)),
                ]),
            ),
            pointer(2, "nonResourceAttributes", Message(&[plain(1, "path", String), plain(2, "verb", String)])),
            plain(3, "user", String),
            list(4, "groups", String),
            map(5, "extra", Strings),
            plain(6, "uid", String),
        ]),
    ),
    plain(
        3,
        "status",
        Message(&[
            plain(1, "allowed", Bool),
            plain(2, "reason", String),
            plain(3, "evaluationError", String),
            plain(4, "denied", Bool),
        ]),
    ),
];

const RULES_REVIEW: &[Field] = &[
    METADATA,
    plain(2, "spec", Message(&[plain(1, "namespace", String)])),
    plain(
        3,
        "status",
        Message(&[
            list(
                1,
                "resourceRules",
                Message(&[
                    list(1, "verbs", String),
                    list(2, "apiGroups", String),
                    list(3, "resources", String),
                    list(4, "resourceNames", String),
                ]),
            ),
            list(2, "nonResourceRules", Message(&[list(1, "verbs", String), list(2, "nonResourceURLs", String)])),
            plain(3, "incomplete", Bool),
            plain(4, "evaluationError", String),
        ]),
    ),
];

const USER_INFO: &[Field] =
    &[plain(1, "username", String), plain(2, "uid", String), list(3, "groups", String), map(4, "extra", Strings)];

const SELF_SUBJECT_REVIEW: &[Field] =
    &[METADATA, plain(2, "status", Message(&[plain(1, "userInfo", Message(USER_INFO))]))];

const TOKEN_REVIEW: &[Field] = &[
    METADATA,
    plain(2, "spec", Message(&[plain(1, "token", String), list(2, "audiences", String)])),
    plain(
        3,
        "status",
        Message(&[
            plain(1, "authenticated", Bool),
            plain(2, "user", Message(USER_INFO)),
            plain(3, "error", String),
            list(4, "audiences", String),
        ]),
    ),
];
