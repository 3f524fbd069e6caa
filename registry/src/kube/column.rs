//! The columns of a Table: what `kubectl get` shows of each kind.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::age;

/// A column and how its cell is made.
#[derive(Debug)]
pub struct Column {
    /// kubectl shows it in capitals.
    pub name: &'static str,
    /// `string`, `boolean`, `integer` or `date`. A date's cell is the humanised age.
    pub kind: &'static str,
    /// `name` for the object's name, else empty.
    pub format: &'static str,
    pub description: &'static str,
    /// 0 is always shown, 1 by `-o wide`.
    pub priority: u8,
    /// The cell from the object and the time. Null shows as nothing.
    pub cell: fn(&Value, Timestamp) -> Value,
}

/// Kinds without columns of their own.
pub(super) const PLAIN: &[Column] = &[NAME, Column { kind: "date", ..AGE }];

/// Open Cluster Management's columns, then ours.
pub(super) const MANAGED_CLUSTER: &[Column] = &[
    NAME,
    column("Hub Accepted", "boolean", "Whether the hub lets the cluster in.", |cluster, _| {
        cluster["spec"]["hubAcceptsClient"].as_bool().map_or(Value::Null, Value::Bool)
    }),
    column("Managed Cluster URLs", "string", "Address of the cluster's Kubernetes API.", |cluster, _| {
        text_or_null(&cluster["spec"]["managedClusterClientConfigs"][0]["url"])
    }),
    column("Joined", "string", "Whether an agent of the cluster has been here.", |cluster, _| {
        condition(cluster, "ManagedClusterJoined", "status")
    }),
    column("Available", "string", "Whether the cluster can be reached now.", |cluster, _| {
        condition(cluster, "ManagedClusterConditionAvailable", "status")
    }),
    Column { kind: "date", ..AGE },
    wide("Set", "The exclusive set the cluster is in.", |cluster, _| {
        text_or_null(&cluster["metadata"]["labels"]["cluster.open-cluster-management.io/clusterset"])
    }),
    wide("Version", "Kubernetes' version in the cluster.", |cluster, _| {
        text_or_null(&cluster["status"]["version"]["kubernetes"])
    }),
    wide("Last Seen", "How long ago an agent last connected or disconnected.", |cluster, now| {
        match cluster["status"]["lastSeen"].as_str() {
            Some(time) => json!(age::since(Some(time), now)),
            None => Value::Null,
        }
    }),
    wide("Tunnel", "Up or Down, once the cluster is accepted.", |cluster, _| {
        match condition(cluster, "ManagedClusterConditionAvailable", "status").as_str() {
            None => Value::Null,
            Some("True") => json!("Up"),
            Some(_) => json!("Down"),
        }
    }),
    wide("Reason", "Why the cluster is in this state.", |cluster, _| {
        let available = condition(cluster, "ManagedClusterConditionAvailable", "reason");
        if available.is_null() { condition(cluster, "HubAcceptedManagedCluster", "reason") } else { available }
    }),
];

pub(super) const MANAGED_CLUSTER_SET: &[Column] = &[
    NAME,
    column("Empty", "string", "Whether the set has no members.", |set, _| condition(set, "ClusterSetEmpty", "status")),
    Column { kind: "date", ..AGE },
];

/// Open Cluster Management shows no age of add-ons.
pub(super) const MANAGED_CLUSTER_ADD_ON: &[Column] = &[
    NAME,
    column("Available", "string", "Whether the add-on works.", |addon, _| condition(addon, "Available", "status")),
    column("Degraded", "string", "Whether the add-on works badly.", |addon, _| condition(addon, "Degraded", "status")),
    column("Progressing", "string", "Whether the add-on is being changed.", |addon, _| {
        condition(addon, "Progressing", "status")
    }),
];

pub(super) const CERTIFICATE_SIGNING_REQUEST: &[Column] = &[
    NAME,
    AGE,
    column("SignerName", "string", "Who shall sign.", |csr, _| {
        json!(Some(text(&csr["spec"]["signerName"])).filter(|name| !name.is_empty()).unwrap_or("<none>"))
    }),
    column("Requestor", "string", "Who asks.", |csr, _| json!(text(&csr["spec"]["username"]))),
    column("RequestedDuration", "string", "Wanted life of the certificate.", |csr, _| {
        match csr["spec"]["expirationSeconds"].as_i64() {
            Some(seconds) => json!(age::human(SignedDuration::from_secs(seconds))),
            None => json!("<none>"),
        }
    }),
    column("Condition", "string", "What was decided, and whether there is a certificate.", |csr, _| {
        json!(decision(csr))
    }),
];

pub(super) const NAMESPACE: &[Column] = &[
    NAME,
    column("Status", "string", "Active or Terminating.", |namespace, _| json!(text(&namespace["status"]["phase"]))),
    AGE,
];

pub(super) const SECRET: &[Column] = &[
    NAME,
    column("Type", "string", "What the data is for.", |secret, _| json!(text(&secret["type"]))),
    column("Data", "string", "How many keys there are.", |secret, _| {
        json!(secret["data"].as_object().map_or(0, serde_json::Map::len))
    }),
    AGE,
];

pub(super) const ROLE: &[Column] = &[
    NAME,
    column("Created At", "date", "When the role was made.", |role, _| {
        json!(text(&role["metadata"]["creationTimestamp"]))
    }),
];

pub(super) const BINDING: &[Column] = &[
    NAME,
    column("Role", "string", "The role that is given.", |binding, _| {
        let role = &binding["roleRef"];
        json!(format!("{}/{}", text(&role["kind"]), text(&role["name"])))
    }),
    AGE,
    wide("Users", "Users who get the role.", |binding, _| json!(subjects(binding, "User"))),
    wide("Groups", "Groups that get the role.", |binding, _| json!(subjects(binding, "Group"))),
    wide("ServiceAccounts", "Service accounts that get the role.", |binding, _| {
        json!(subjects(binding, "ServiceAccount"))
    }),
];

pub(super) const LEASE: &[Column] = &[
    NAME,
    column("Holder", "string", "Who holds the lease.", |lease, _| json!(text(&lease["spec"]["holderIdentity"]))),
    AGE,
];

pub(super) const EVENT: &[Column] = &[
    column("Last Seen", "string", "How long ago it last happened.", |event, now| {
        let series = event["series"].is_object();
        let last = if series { &event["series"]["lastObservedTime"] } else { &event["lastTimestamp"] };
        let last = if last.is_null() && !series { first_seen(event) } else { last.as_str() };
        json!(age::since(last, now))
    }),
    column("Type", "string", "Normal or Warning.", |event, _| json!(text(&event["type"]))),
    column("Reason", "string", "One word for programs.", |event, _| json!(text(&event["reason"]))),
    column("Object", "string", "What it happened to.", |event, _| {
        let object = &event["involvedObject"];
        let kind = text(&object["kind"]).to_lowercase();
        match text(&object["name"]) {
            "" => json!(kind),
            name => json!(format!("{kind}/{name}")),
        }
    }),
    wide("Subobject", "The part of the object that is meant.", |event, _| {
        json!(text(&event["involvedObject"]["fieldPath"]))
    }),
    wide("Source", "Who saw it.", |event, _| json!(source(event))),
    column("Message", "string", "One sentence for people.", |event, _| json!(text(&event["message"]).trim())),
    wide("First Seen", "How long ago it first happened.", |event, now| json!(age::since(first_seen(event), now))),
    wide("Count", "How often it happened.", |event, _| {
        let count = if event["series"].is_object() { &event["series"]["count"] } else { &event["count"] };
        json!(count.as_i64().filter(|count| *count != 0).unwrap_or(1))
    }),
    Column { format: "name", ..wide("Name", "The event's name.", |event, _| json!(text(&event["metadata"]["name"]))) },
];

const NAME: Column = Column {
    format: "name",
    ..column("Name", "string", "The object's name.", |object, _| json!(text(&object["metadata"]["name"])))
};

const AGE: Column = column("Age", "string", "How long ago the object was made.", |object, now| {
    json!(age::since(object["metadata"]["creationTimestamp"].as_str(), now))
});

const fn column(
    name: &'static str,
    kind: &'static str,
    description: &'static str,
    cell: fn(&Value, Timestamp) -> Value,
) -> Column {
    Column { name, kind, format: "", description, priority: 0, cell }
}

const fn wide(name: &'static str, description: &'static str, cell: fn(&Value, Timestamp) -> Value) -> Column {
    Column { name, kind: "string", format: "", description, priority: 1, cell }
}

/// A field of the condition of that type, if there is one.
fn condition(object: &Value, kind: &str, field: &str) -> Value {
    let conditions = object["status"]["conditions"].as_array();
    let found = conditions.into_iter().flatten().find(|condition| condition["type"] == kind);
    found.map_or(Value::Null, |condition| text_or_null(&condition[field]))
}

/// The CONDITION cell of a certificate request.
fn decision(csr: &Value) -> String {
    let conditions = csr["status"]["conditions"].as_array();
    let has = |kind: &str| conditions.into_iter().flatten().any(|condition| condition["type"] == kind);
    let mut words = vec![match (has("Denied"), has("Approved")) {
        (true, _) => "Denied",
        (false, true) => "Approved",
        (false, false) => "Pending",
    }];
    if has("Failed") {
        words.push("Failed");
    }
    if !text(&csr["status"]["certificate"]).is_empty() {
        words.push("Issued");
    }
    words.join(",")
}

fn subjects(binding: &Value, kind: &str) -> String {
    let all = binding["subjects"].as_array().into_iter().flatten();
    let names: Vec<_> = all
        .filter(|subject| subject["kind"] == kind)
        .map(|subject| match (kind, text(&subject["namespace"])) {
            ("ServiceAccount", namespace) if !namespace.is_empty() => format!("{namespace}/{}", text(&subject["name"])),
            (_, _) => text(&subject["name"]).to_owned(),
        })
        .collect();
    names.join(", ")
}

fn first_seen(event: &Value) -> Option<&str> {
    event["firstTimestamp"].as_str().or_else(|| event["eventTime"].as_str())
}

fn source(event: &Value) -> String {
    let or = |first: &Value, second: &Value| match text(first) {
        "" => text(second).to_owned(),
        first => first.to_owned(),
    };
    let component = or(&event["source"]["component"], &event["reportingComponent"]);
    match or(&event["source"]["host"], &event["reportingInstance"]) {
        instance if instance.is_empty() => component,
        instance => format!("{component}, {instance}"),
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn text_or_null(value: &Value) -> Value {
    value.as_str().map_or(Value::Null, |text| json!(text))
}
