//! The approval of a cluster: which of its agents are let in, sent away or forgotten, and that a cluster which asks to join is
//! denied. Its subresource is written like a status, and takes nothing else from what is sent.

use serde_json::Value;

use super::{Admission, cluster::accepts, set_condition};
use crate::condition::{Fact, HUB_ACCEPTED};
use crate::kube::{cause::Cause, object, status::Status};

impl Admission<'_> {
    /// The cluster after what `sent` decides.
    pub(crate) fn decide(&self, before: &Value, sent: &Value) -> Result<Value, Status> {
        let mut after = before.clone();
        let name = object::name(before);
        let known = agents(before);
        let status = &sent["status"];
        let agents = match status.get("agents") {
            // Who says nothing of them has decided nothing.
            None if status.is_object() || status.is_null() => known.to_vec(),
            Some(Value::Array(sent)) => self.decided(name, known, sent)?,
            other => {
                let cause = Cause::invalid("status.agents", other.unwrap_or(status), "the agents are a list");
                return Err(Status::invalid(self.resource, name, vec![cause]));
            }
        };
        let denies = is_denied(sent) && !is_denied(before) && !accepts(before);
        let decides = agents != known;
        if !decides && !denies {
            return Ok(after);
        }
        if !self.may_accept(name) {
            let why = format!(
                "user {:?} cannot decide about this cluster and its agents (update managedclusters/accept)",
                self.info.user()
            );
            return Err(self.forbidden(name, &why));
        }
        if decides {
            after["status"]["agents"] = agents.into();
        }
        if denies {
            set_condition(&mut after, Fact::Denied, self.now);
        }
        Ok(after)
    }

    /// The agents that there were, without those that are forgotten, in their new phases. Nothing else of them changes.
    fn decided(&self, name: &str, before: &[Value], sent: &[Value]) -> Result<Vec<Value>, Status> {
        let is_same = |one: &Value, other: &Value| one["name"] == other["name"] && one["key"] == other["key"];
        let invalid = |agent: &Value, why: &str| {
            let cause = Cause::invalid("status.agents", &agent["name"], why);
            Status::invalid(self.resource, name, vec![cause])
        };
        if let Some(unknown) = sent.iter().find(|agent| !before.iter().any(|known| is_same(known, agent))) {
            return Err(invalid(unknown, "no agent has this name and key; agents are added by joins alone"));
        }
        let mut agents = Vec::with_capacity(before.len());
        for agent in before {
            let Some(wanted) = sent.iter().find(|wanted| is_same(agent, wanted)) else { continue };
            let mut agent = agent.clone();
            match (agent["phase"].as_str(), wanted["phase"].as_str()) {
                (was, is) if was == is => {}
                (Some("Pending"), Some("Accepted" | "Denied")) | (Some("Accepted"), Some("Denied")) => {
                    agent["phase"] = wanted["phase"].clone();
                }
                (Some("Denied"), _) => return Err(invalid(wanted, "it was denied, and its key stays out")),
                _ => return Err(invalid(wanted, "an agent is let in (Accepted) or sent away (Denied)")),
            }
            agents.push(agent);
        }
        Ok(agents)
    }
}

fn agents(cluster: &Value) -> &[Value] {
    cluster["status"]["agents"].as_array().map_or(&[], Vec::as_slice)
}

fn is_denied(cluster: &Value) -> bool {
    let conditions = cluster["status"]["conditions"].as_array().into_iter().flatten();
    conditions.filter(|condition| condition["type"] == HUB_ACCEPTED).any(|condition| condition["status"] == "False")
}
