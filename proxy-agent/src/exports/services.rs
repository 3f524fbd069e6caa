//! The Kubernetes services that say by the usual annotations that they are to be scraped, asked for from time to time.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use process::chain;
use serde::Deserialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tunnel::{Export, within_limits};

use super::METRICS_PATH;
use crate::gateway::Gateway;

/// Services in one answer, and answers in a row.
const PAGE: usize = 250;
const PAGES: usize = 40;

/// The annotations that Prometheus' own examples use.
const ANNOTATIONS: &str = "prometheus.io/";

/// What looks for services.
#[derive(Debug)]
pub(crate) struct Services {
    pub(crate) selector: String,
    pub(crate) interval: Duration,
    pub(crate) gateway: Arc<Gateway>,
    /// The exports of the configuration, which come first.
    pub(crate) fixed: Vec<Export>,
    pub(crate) exports: watch::Sender<Arc<[Export]>>,
}

/// A page of the list (ServiceList of Kubernetes' v1).
#[derive(Debug, Deserialize)]
struct List {
    #[serde(default)]
    metadata: ListMeta,
    #[serde(default)]
    items: Vec<Service>,
}

#[derive(Debug, Default, Deserialize)]
struct ListMeta {
    #[serde(default, rename = "continue")]
    next: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Service {
    metadata: Meta,
    #[serde(default)]
    spec: Spec,
}

#[derive(Debug, Deserialize)]
struct Meta {
    name: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Default, Deserialize)]
struct Spec {
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    ports: Option<Vec<Port>>,
}

#[derive(Debug, Deserialize)]
struct Port {
    #[serde(default)]
    name: String,
    port: u32,
    #[serde(default)]
    protocol: String,
}

/// Why the services cannot be told.
#[derive(Debug, thiserror::Error)]
enum ListError {
    #[error(
        "the services cannot be listed; the agent's service account needs the verb list on services in all namespaces"
    )]
    Get(#[source] crate::gateway::GetError),
    #[error("the kube-apiserver's list of services cannot be understood")]
    Malformed(#[source] serde_json::Error),
}

impl Services {
    /// Looks until `end`.
    pub(crate) async fn follow(self, end: CancellationToken) {
        let mut told = String::new();
        loop {
            match end.run_until_cancelled(self.list()).await {
                None => return,
                Some(Ok(found)) => {
                    told.clear();
                    self.found(found);
                }
                // What was found before stays.
                Some(Err(error)) => {
                    let why = chain(&error);
                    if why != told {
                        tracing::warn!(reason = why, "cannot look for services to export; trying again");
                        told = why;
                    }
                }
            }
            // Not all agents of a fleet in the same second.
            let pause = self.interval.mul_f64(rand::random_range(0.9..1.1));
            if end.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
        }
    }

    async fn list(&self) -> Result<Vec<Service>, ListError> {
        let selector = utf8_percent_encode(&self.selector, NON_ALPHANUMERIC);
        let first = format!("/api/v1/services?limit={PAGE}&labelSelector={selector}");
        let (mut services, mut path) = (Vec::new(), first.clone());
        for _ in 0..PAGES {
            let page = self.gateway.get(&path).await.map_err(ListError::Get)?;
            let List { metadata, items } = serde_json::from_slice(&page).map_err(ListError::Malformed)?;
            services.extend(items.into_iter().filter(Service::is_scraped));
            match metadata.next.filter(|next| !next.is_empty()) {
                Some(next) => path = format!("{first}&continue={}", utf8_percent_encode(&next, NON_ALPHANUMERIC)),
                None => break,
            }
        }
        Ok(services)
    }

    fn found(&self, services: Vec<Service>) {
        let exports = together(&self.fixed, services);
        self.exports.send_if_modified(|known| {
            let changed = **known != *exports;
            if changed {
                tracing::info!(exports = exports.len(), "the services to export have changed");
                *known = exports.into();
            }
            changed
        });
    }
}

/// The exports of the configuration, and those that services ask for beside them, as far as there is room.
fn together(fixed: &[Export], services: Vec<Service>) -> Vec<Export> {
    let mut found = BTreeMap::new();
    for service in services {
        let named = format!("{}/{}", service.metadata.namespace, service.metadata.name);
        let export = service.export().and_then(|export| match export.check() {
            Ok(()) => Ok(export),
            Err(error) => Err(error.to_string()),
        });
        match export {
            Ok(export) => drop(found.insert(export.name.clone(), export)),
            Err(error) => tracing::debug!(service = named, error, "a service cannot be exported"),
        }
    }
    let mut exports = fixed.to_vec();
    exports.extend(found.into_values().filter(|export| fixed.iter().all(|own| own.name != export.name)));
    let fit = within_limits(&exports);
    if fit < exports.len() {
        tracing::warn!(
            dropped = exports.len() - fit,
            "more services than an agent may export; narrow --export-services"
        );
        exports.truncate(fit);
    }
    exports
}

impl Service {
    fn annotation(&self, name: &str) -> Option<&str> {
        let annotations = self.metadata.annotations.as_ref()?;
        annotations.get(&format!("{ANNOTATIONS}{name}")).map(|value| value.trim())
    }

    fn is_scraped(&self) -> bool {
        self.annotation("scrape") == Some("true") && self.spec.kind != "ExternalName"
    }

    fn export(&self) -> Result<Export, String> {
        let Meta { name, namespace, .. } = &self.metadata;
        let labels = [("namespace", namespace), ("service", name)];
        Ok(Export {
            name: format!("{name}.{namespace}"),
            host: format!("{name}.{namespace}.svc"),
            port: self.port()?,
            scheme: self.annotation("scheme").unwrap_or("http").to_owned(),
            metrics_path: self.annotation("path").unwrap_or(METRICS_PATH).to_owned(),
            job: name.clone(),
            labels: labels.map(|(label, value)| (label.to_owned(), value.clone())).into(),
        })
    }

    /// The annotated port, by number or name; without one the port that is called metrics, or the only one.
    fn port(&self) -> Result<u32, String> {
        let ports = self.spec.ports.as_deref().unwrap_or_default();
        let tcp: Vec<&Port> = ports.iter().filter(|port| matches!(&*port.protocol, "" | "TCP")).collect();
        let called = |name: &str| tcp.iter().find(|port| port.name == name).map(|port| port.port);
        if let Some(port) = self.annotation("port") {
            let found = port.parse().ok().or_else(|| called(port));
            return found.ok_or_else(|| format!("{ANNOTATIONS}port is neither a number nor a port of the service"));
        }
        let only = || tcp.first().filter(|_| tcp.len() == 1).map(|port| port.port);
        let found = called("metrics").or_else(|| called("http-metrics")).or_else(only);
        found.ok_or_else(|| format!("it has several ports and none called metrics; annotate it with {ANNOTATIONS}port"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn service(name: &str, annotations: Value, ports: Value) -> Service {
        let metadata = json!({ "name": name, "namespace": "ns", "annotations": annotations });
        serde_json::from_value(json!({ "metadata": metadata, "spec": { "ports": ports } })).unwrap()
    }

    #[test]
    fn the_annotations_say_where_the_metrics_are() {
        let annotations = json!({
            "prometheus.io/scrape": "true", "prometheus.io/port": "9100", "prometheus.io/path": "/m",
            "prometheus.io/scheme": "https",
        });
        let service = service("web", annotations, json!([{ "port": 80 }, { "port": 443 }]));
        assert!(service.is_scraped());
        let expected = Export {
            name: "web.ns".into(),
            host: "web.ns.svc".into(),
            port: 9100,
            scheme: "https".into(),
            metrics_path: "/m".into(),
            job: "web".into(),
            labels: [("namespace".into(), "ns".into()), ("service".into(), "web".into())].into(),
        };
        assert_eq!(service.export(), Ok(expected));
    }

    #[test]
    fn only_services_that_ask_for_it_are_scraped() {
        for (annotations, scraped) in [
            (json!({ "prometheus.io/scrape": "true" }), true),
            (json!({ "prometheus.io/scrape": "false" }), false),
            (json!({}), false),
            (Value::Null, false),
        ] {
            assert_eq!(service("web", annotations, json!([])).is_scraped(), scraped);
        }
        let mut external = service("web", json!({ "prometheus.io/scrape": "true" }), json!([]));
        external.spec.kind = "ExternalName".into();
        assert!(!external.is_scraped());
    }

    #[test]
    fn without_an_annotation_the_port_is_the_one_for_metrics_or_the_only_one() {
        let port = |annotation: Value, ports: Value| service("web", annotation, ports).port();
        let named = json!([{ "name": "http", "port": 80 }, { "name": "metrics", "port": 81 }]);
        assert_eq!(port(json!({}), named.clone()), Ok(81));
        assert_eq!(port(json!({ "prometheus.io/port": "http" }), named.clone()), Ok(80));
        assert!(port(json!({ "prometheus.io/port": "none" }), named).is_err());
        let dns = json!([{ "port": 53, "protocol": "UDP" }, { "port": 9153, "protocol": "TCP" }]);
        assert_eq!(port(json!({}), dns), Ok(9153));
        assert!(port(json!({}), json!([{ "port": 1 }, { "port": 2 }])).is_err());
        assert!(port(json!({}), Value::Null).is_err());
    }

    #[test]
    fn the_configuration_comes_first_and_what_is_no_export_is_left_out() {
        let scrape = json!({ "prometheus.io/scrape": "true" });
        let ports = json!([{ "port": 80 }]);
        let fixed = Export { job: "mine".into(), ..service("b", scrape.clone(), ports.clone()).export().unwrap() };
        let bad = json!({ "prometheus.io/scrape": "true", "prometheus.io/path": "no slash" });
        let services = ["c", "b", "a"].map(|name| service(name, scrape.clone(), ports.clone()));
        let services = services.into_iter().chain([service("d", bad, ports.clone())]).collect();
        let exports = together(&[fixed], services);
        let jobs: Vec<&str> = exports.iter().map(|export| export.job.as_str()).collect();
        assert_eq!(jobs, ["mine", "a", "c"]);
    }
}
