//! Where Kubernetes' names lead: asked of the cluster's API through the hub's kube gateway.

use certs::ClusterName;
use serde::Deserialize;
use serde_json::Value;

use super::{
    pair::RemotePort,
    place::{Kind, Place, Resource, Site},
    target::Target,
};
use crate::{
    api::{Api, CallError},
    failure::{Exit, Failure},
};

/// A cluster whose API can be asked.
#[derive(Debug)]
pub(crate) struct Lookup<'a> {
    pub(crate) api: &'a Api,
    pub(crate) cluster: &'a ClusterName,
}

/// A place that was looked up.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) target: Target,
    ports: Vec<NamedPort>,
}

/// Why a place was not found.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LookupError {
    #[error("cannot look up {kind} {name} in namespace {namespace} of cluster {cluster}")]
    Call { kind: Kind, name: String, namespace: String, cluster: ClusterName, source: Box<CallError> },
    #[error("pod {name} has no address yet; its phase is {phase:?}")]
    NoAddress { name: String, phase: String },
    #[error("no pod of deployment {0} is ready")]
    NoPod(String),
    #[error("{place} has no port {name:?}; its ports are {known}")]
    NoPort { place: String, name: String, known: String },
    #[error("{0} is a host, whose ports have no names; write the port's number")]
    Host(String),
}

#[derive(Clone, Debug)]
struct NamedPort {
    name: String,
    number: u16,
}

/// As much of a Pod as is asked about.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Pod {
    metadata: PodName,
    spec: PodSpec,
    status: PodStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodName {
    name: String,
    deletion_timestamp: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PodSpec {
    containers: Vec<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PodStatus {
    phase: String,
    #[serde(rename = "podIP")]
    pod_ip: String,
    conditions: Vec<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PodList {
    items: Vec<Pod>,
}

impl Lookup<'_> {
    /// Finds the place. Only what the hub or DNS cannot resolve is asked for: pods, and the names of ports.
    pub(crate) async fn find(&self, place: &Place, by_port_name: bool) -> Result<Found, LookupError> {
        let resource = match &place.site {
            Site::Host(target) => return Ok(Found { target: target.clone(), ports: Vec::new() }),
            Site::Resource(resource) => resource,
        };
        match resource.kind {
            Kind::Service => {
                let ports =
                    if by_port_name { service_ports(&self.get(resource, "/api/v1").await?) } else { Vec::new() };
                Ok(Found { target: Target::Name(resource.dns_name()), ports })
            }
            Kind::Pod => pod_found(&self.get(resource, "/api/v1").await?),
            Kind::Deployment => pod_found(&self.ready_pod(resource).await?),
        }
    }

    /// The first ready pod of a deployment, by name.
    async fn ready_pod(&self, deployment: &Resource) -> Result<Pod, LookupError> {
        let object: Value = self.get(deployment, "/apis/apps/v1").await?;
        let selector = selector(&object["spec"]["selector"]);
        // Without a selector every pod of the namespace would be the deployment's.
        let none = || LookupError::NoPod(deployment.name.clone());
        let selector = selector.filter(|selector| !selector.is_empty()).ok_or_else(none)?;
        let query: String = form_urlencoded::byte_serialize(selector.as_bytes()).collect();
        let path = format!("/api/v1/namespaces/{}/pods?labelSelector={query}", deployment.namespace);
        let pods: PodList = self.call(deployment, &path).await?;
        let mut ready: Vec<Pod> = pods.items.into_iter().filter(Pod::is_ready).collect();
        ready.sort_by(|one, other| one.metadata.name.cmp(&other.metadata.name));
        ready.into_iter().next().ok_or_else(none)
    }

    async fn get<T: serde::de::DeserializeOwned>(&self, resource: &Resource, group: &str) -> Result<T, LookupError> {
        let Resource { kind, name, namespace } = resource;
        self.call(resource, &format!("{group}/namespaces/{namespace}/{kind}s/{name}")).await
    }

    async fn call<T: serde::de::DeserializeOwned>(&self, about: &Resource, path: &str) -> Result<T, LookupError> {
        let path = format!("/clusters/{}{path}", self.cluster);
        self.api.get(&path).await.map_err(|source| LookupError::Call {
            kind: about.kind,
            name: about.name.clone(),
            namespace: about.namespace.clone(),
            cluster: self.cluster.clone(),
            source: Box::new(source),
        })
    }
}

impl Found {
    /// The number of a port.
    pub(crate) fn port(&self, place: &Place, port: &RemotePort) -> Result<u16, LookupError> {
        let name = match port {
            RemotePort::Number(number) => return Ok(*number),
            RemotePort::Name(name) => name,
        };
        if matches!(place.site, Site::Host(_)) {
            return Err(LookupError::Host(place.to_string()));
        }
        let found = self.ports.iter().find(|port| port.name == *name).map(|port| port.number);
        found.ok_or_else(|| {
            let known = self.ports.iter().map(|port| format!("{} {}", port.number, port.name).trim_end().to_owned());
            let known = known.collect::<Vec<_>>().join(", ");
            let known = if known.is_empty() { "unknown".into() } else { known };
            LookupError::NoPort { place: place.to_string(), name: name.clone(), known }
        })
    }
}

impl Pod {
    fn is_ready(&self) -> bool {
        let ready = |condition: &Value| condition["type"] == "Ready" && condition["status"] == "True";
        self.metadata.deletion_timestamp.is_none()
            && !self.status.pod_ip.is_empty()
            && self.status.conditions.iter().any(ready)
    }
}

fn pod_found(pod: &Pod) -> Result<Found, LookupError> {
    let none = || LookupError::NoAddress { name: pod.metadata.name.clone(), phase: pod.status.phase.clone() };
    let address = pod.status.pod_ip.parse().map_err(|_| none())?;
    let ports = pod.spec.containers.iter().filter_map(|container| container["ports"].as_array()).flatten();
    Ok(Found { target: Target::Address(address), ports: named_ports(ports, "containerPort") })
}

/// A service without an address of its own is its pods' addresses in DNS, so there it is their port that counts.
fn service_ports(service: &Value) -> Vec<NamedPort> {
    let number = if service["spec"]["clusterIP"] == "None" { "targetPort" } else { "port" };
    named_ports(service["spec"]["ports"].as_array().into_iter().flatten(), number)
}

fn named_ports<'a>(ports: impl Iterator<Item = &'a Value>, number: &str) -> Vec<NamedPort> {
    let named = |port: &Value| {
        let number = port[number].as_u64().or_else(|| port["port"].as_u64())?;
        let name = port["name"].as_str().unwrap_or_default().to_owned();
        Some(NamedPort { name, number: u16::try_from(number).ok()? })
    };
    ports.filter_map(named).collect()
}

/// A LabelSelector as a query has it; `None` for one that cannot be understood.
fn selector(selector: &Value) -> Option<String> {
    let mut terms = Vec::new();
    for (key, value) in selector["matchLabels"].as_object().into_iter().flatten() {
        terms.push(format!("{key}={}", value.as_str()?));
    }
    for expression in selector["matchExpressions"].as_array().into_iter().flatten() {
        let key = expression["key"].as_str()?;
        let values = expression["values"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let values = values.collect::<Vec<_>>().join(",");
        terms.push(match expression["operator"].as_str()? {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.to_owned(),
            "DoesNotExist" => format!("!{key}"),
            _ => return None,
        });
    }
    Some(terms.join(","))
}

impl From<LookupError> for Failure {
    fn from(error: LookupError) -> Self {
        match error {
            LookupError::Call { ref source, .. } => {
                let exit = match source.as_ref() {
                    CallError::Refused { status, .. } if status.as_u16() == 404 => Exit::Other,
                    CallError::Refused { status, .. } if status.as_u16() == 401 || status.as_u16() == 403 => {
                        Exit::NotAllowed
                    }
                    CallError::CertificateRefused { .. } | CallError::WrongClock { .. } => Exit::NotAllowed,
                    CallError::Dial(_) | CallError::Broken { .. } | CallError::TimedOut { .. } => Exit::Unavailable,
                    CallError::Refused { .. } | CallError::Answer { .. } => Exit::Unavailable,
                };
                Self::new(exit, error).next("or name its address in the cluster instead")
            }
            LookupError::NoAddress { .. } | LookupError::NoPod(_) => Self::new(Exit::Unavailable, error),
            LookupError::NoPort { .. } | LookupError::Host(_) => Self::new(Exit::Other, error),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn number(found: &Found, place: &str, port: &str) -> Result<u16, String> {
        found.port(&place.parse().unwrap(), &port.parse().unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_pod_is_its_address_and_its_named_ports() {
        let pod = |address: &str| {
            let containers = json!([{"ports": [{"containerPort": 8080, "name": "http"}, {"containerPort": 9}]}, {}]);
            let status = json!({"phase": "Pending", "podIP": address});
            let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": containers}, "status": status});
            serde_json::from_value::<Pod>(pod).unwrap()
        };
        let found = pod_found(&pod("10.1.2.3")).unwrap();
        assert_eq!(found.target, "10.1.2.3".parse().unwrap());
        assert_eq!(number(&found, "pod/p", "http"), Ok(8080));
        assert_eq!(number(&found, "pod/p", "81"), Ok(81));
        assert_eq!(
            number(&found, "pod/p", "web").unwrap_err(),
            "pod/p has no port \"web\"; its ports are 8080 http, 9"
        );
        let error = pod_found(&pod("")).unwrap_err();
        assert_eq!(error.to_string(), "pod p has no address yet; its phase is \"Pending\"");
    }

    #[test]
    fn a_headless_services_port_is_its_pods() {
        let service = |address: &str| {
            let ports =
                json!([{"name": "http", "port": 80, "targetPort": 8080}, {"name": "x", "port": 81, "targetPort": "x"}]);
            let found = service_ports(&json!({"spec": {"clusterIP": address, "ports": ports}}));
            found.into_iter().map(|port| port.number).collect::<Vec<_>>()
        };
        assert_eq!(service("10.0.0.1"), [80, 81]);
        assert_eq!(service("None"), [8080, 81]);
    }

    #[test]
    fn a_host_has_no_names_of_ports() {
        let found = Found { target: Target::Name("web".into()), ports: Vec::new() };
        assert!(number(&found, "web", "http").unwrap_err().contains("number"));
    }

    #[test]
    fn a_selector_is_written_as_queries_have_it() {
        let all = json!({
            "matchLabels": {"app": "web"},
            "matchExpressions": [
                {"key": "a", "operator": "In", "values": ["x", "y"]}, {"key": "b", "operator": "Exists"},
                {"key": "c", "operator": "NotIn", "values": ["z"]}, {"key": "d", "operator": "DoesNotExist"},
            ],
        });
        assert_eq!(selector(&all).unwrap(), "app=web,a in (x,y),b,c notin (z),!d");
        assert_eq!(selector(&json!({"matchExpressions": [{"key": "a", "operator": "Gt"}]})), None);
        assert_eq!(selector(&Value::Null).unwrap(), "");
    }
}
