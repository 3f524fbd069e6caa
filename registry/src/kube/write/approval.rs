//! Approval: what an admin says to a joining agent's request, said in the words of Kubernetes' certificate requests.

use certs::ClusterName;
use serde_json::Value;

use super::{Effect, Write, Written};
use crate::cluster::AgentPhase;
use crate::kube::{cause::Cause, object, projection, rbac::REGISTER_GROUP, status::Status};
use crate::registry::ClusterError;

impl Write<'_> {
    /// Lets an agent in, or out: the request is another view of it. That its cluster is accepted is a decision of its own.
    pub(super) async fn approve(&self, name: &str, before: &Value, sent: &Value) -> Result<(Value, Effect), Status> {
        let (was, wanted) = (decision(before), decision(sent));
        let unknown = || Status::not_found(self.resource, name);
        let (cluster, _) = projection::request_names(name).ok_or_else(unknown)?;
        let (Ok(cluster), Some(agent)) = (cluster.parse::<ClusterName>(), projection::shown_agent(before)) else {
            return Err(unknown());
        };
        if conditions(sent, "Approved") && conditions(sent, "Denied") {
            let cause = Cause::invalid(
                "status.conditions",
                &"Denied".into(),
                "Approved and Denied conditions are mutually exclusive",
            );
            return Err(Status::invalid(self.resource, name, vec![cause]));
        }
        if let Some(was) = was.filter(|was| wanted != Some(was)) {
            let why = format!("updates may not remove a condition of type {was:?}");
            let cause = Cause::forbidden("status.conditions", &why);
            return Err(Status::invalid(self.resource, name, vec![cause]));
        }
        if was == wanted {
            return Ok((before.clone(), Effect::Changed));
        }
        if wanted == Some("Approved") {
            self.require_accept(name, &cluster, "let agents into")?;
        }
        if self.options.dry_run {
            return Ok((before.clone(), Effect::Changed));
        }
        let registry = self.info.registry;
        let phase = if wanted == Some("Approved") { AgentPhase::Accepted } else { AgentPhase::Denied };
        let decided = registry.decide_agents(&cluster, &[agent], phase, self.now).await;
        decided.map_err(|error| self.undecided(name, error))?;
        Ok((self.stored(name)?.0, Effect::Changed))
    }

    /// Removes an agent: its request is the only trace of it.
    pub(super) async fn remove_agent(&self, name: &str, before: Value) -> Result<Written, Status> {
        let unknown = || Status::not_found(self.resource, name);
        let (cluster, _) = projection::request_names(name).ok_or_else(unknown)?;
        let (Ok(cluster), Some(agent)) = (cluster.parse::<ClusterName>(), projection::shown_agent(&before)) else {
            return Err(unknown());
        };
        // The key of one that was denied would be free again.
        self.require_accept(name, &cluster, "forget agents of")?;
        if !self.options.dry_run {
            let removed = self.info.registry.remove_agent(&cluster, &agent, self.now).await;
            removed.map_err(|error| self.undecided(name, error))?;
        }
        Ok(Written { object: before, effect: Effect::Gone, warnings: Vec::new() })
    }

    fn require_accept(&self, name: &str, cluster: &ClusterName, what: &str) -> Result<(), Status> {
        let info = self.info;
        if info.may("update", REGISTER_GROUP, "managedclusters/accept", cluster.as_ref()) {
            return Ok(());
        }
        let why = format!("user {:?} cannot {what} cluster {cluster} (update managedclusters/accept)", info.user());
        Err(Status::forbidden(self.resource, name, &why))
    }

    fn undecided(&self, name: &str, error: ClusterError) -> Status {
        match error {
            ClusterError::Unknown { .. } | ClusterError::UnknownAgent { .. } => Status::not_found(self.resource, name),
            // Another agent has taken the name since the request was read.
            ClusterError::OtherAgent { .. } => Status::modified(self.resource, name),
            ClusterError::Store { source, .. } => Status::from(source),
        }
    }
}

fn decision(request: &Value) -> Option<&'static str> {
    ["Denied", "Approved"].into_iter().find(|decision| conditions(request, decision))
}

fn conditions(request: &Value, kind: &str) -> bool {
    let conditions = request["status"]["conditions"].as_array().into_iter().flatten();
    conditions.filter(|condition| condition["status"] == "True").any(|condition| condition["type"] == kind)
        && !object::name(request).is_empty()
}
