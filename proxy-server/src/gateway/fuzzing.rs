//! The fuzz targets' door to the gateway's paths.

use super::path::{self, PathTarget};

/// What a path means.
#[derive(Debug, PartialEq, Eq)]
pub struct Way {
    pub cluster: String,
    /// Namespace, name, port, and whether it speaks TLS; none for the Kubernetes API.
    pub service: Option<(String, String, u16, bool)>,
    pub rest: String,
    pub prefix: String,
}

/// What `path` means; `None` for the hub's own.
pub fn gateway_path(path: &str) -> Option<Result<Way, String>> {
    Some(path::parse(path)?.map_err(|error| error.to_string()).map(|way| {
        let service = match way.to {
            PathTarget::KubeApi => None,
            PathTarget::Service(service) => Some((service.namespace, service.name, service.port, service.tls)),
        };
        Way { cluster: way.cluster.to_string(), service, rest: way.rest, prefix: way.prefix }
    }))
}
