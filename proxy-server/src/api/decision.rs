//! What an administrator decides about a cluster and its agents: who is let in, sent away, and forgotten.

use certs::AgentName;
use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use jiff::Timestamp;
use registry::{AgentPhase, ClusterError, api::ShownAgents, kube::rbac};

use super::{
    Answered, Api, cluster_name,
    failure::{bad_request, failure},
    nothing,
};
use crate::api::http_port::Origin;

impl Api {
    /// Decides; the asker's right has been checked. `decision` is the path behind the cluster's name.
    pub(super) async fn decide(
        &self,
        asker: &rbac::Caller,
        origin: &Origin,
        name: &str,
        decision: &[&str],
        request: Request<Incoming>,
        now: Timestamp,
    ) -> Answered {
        let (cluster, administrator) = (cluster_name(name)?, asker.user.as_str());
        let accepting = ("update", "managedclusters/accept", name);
        match (request.method(), decision) {
            (&Method::POST, ["accept"]) => {
                let ShownAgents { agents } = self.permitted_body(asker, origin, request, accepting).await?;
                self.registry.accept(&cluster, &agents, now).await?;
                tracing::info!(administrator, %cluster, ?agents, "cluster accepted");
            }
            (&Method::POST, ["deny"]) => {
                self.registry.deny(&cluster, now).await?;
                tracing::info!(administrator, %cluster, "cluster denied");
            }
            (&Method::POST, ["revoke"]) => {
                let ShownAgents { agents } = self.permitted_body(asker, origin, request, accepting).await?;
                self.registry.decide_agents(&cluster, &agents, AgentPhase::Denied).await?;
                tracing::info!(administrator, %cluster, ?agents, "agents revoked");
            }
            (&Method::DELETE, ["agents", agent]) => {
                let agent: AgentName = agent.parse().map_err(|error| bad_request(&error))?;
                let known =
                    self.registry.cluster(&cluster).ok_or(ClusterError::Unknown { cluster: cluster.clone() })?;
                let shown = known.agent(&agent).map(registry::ClusterAgent::shown);
                let unknown = ClusterError::UnknownAgent { cluster: cluster.clone(), agent: agent.clone() };
                self.registry.remove_agent(&cluster, &shown.ok_or(unknown)?).await?;
                tracing::info!(administrator, %cluster, %agent, "agent deleted");
                return Ok(nothing());
            }
            (method, _) => {
                let message = format!("{method} is not served at {}", request.uri().path());
                return Err(failure(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message));
            }
        }
        self.cluster(name)
    }
}
