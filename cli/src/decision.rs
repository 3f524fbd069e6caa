//! `accept`, `deny`, `revoke`, `delete`: what an administrator decides about clusters and their agents.

use certs::{AgentName, ClusterName};
use clap::Args;
use http::StatusCode;
use jiff::Timestamp;
use registry::{AcceptanceStatus, AgentPhase, ClusterAgent, ManagedCluster, ShownAgent, condition};
use serde_json::{Value, json};

use crate::{
    api::{Api, CallError, Patch},
    cluster_view::{self, ClusterView},
    clusters,
    failure::{Exit, Failure, complain},
    output::{note, print},
    prompt,
    subject::{OneAgent, Subject, agent, cluster},
};

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    cluster-proxy accept edge-1\n  \
    cluster-proxy accept edge-1/node-a\n  \
    cluster-proxy accept edge-1 --all\n\n\
    Lets in the agents that it shows, and nobody who asks meanwhile. Where several wait, one is to be chosen: two clusters \
    that joined under one name by mistake would be reached at random. Compare the key with what 'proxy-agent join' says.")]
pub(crate) struct Accept {
    #[arg(required = true, value_name = "CLUSTER[/AGENT]")]
    names: Vec<Subject>,
    /// Let in every agent of these clusters that waits
    #[arg(long)]
    all: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  cluster-proxy deny edge-1\n\nTo let it in again: cluster-proxy accept edge-1")]
pub(crate) struct Deny {
    #[arg(required = true, value_name = "NAME")]
    names: Vec<ClusterName>,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  \
    cluster-proxy revoke edge-1/node-a\n\n\
    Its tunnel is cut at once, its key stays out, and its name is free: an agent that is installed anew in its place joins \
    by the line that 'cluster-proxy join-command edge-1' prints. 'cluster-proxy delete edge-1/node-a' forgets it.")]
pub(crate) struct Revoke {
    #[arg(required = true, value_name = "CLUSTER/AGENT")]
    names: Vec<OneAgent>,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    cluster-proxy delete edge-1\n  \
    cluster-proxy delete edge-1/node-a\n\n\
    Agents that are deleted must join again to come back.")]
pub(crate) struct Delete {
    #[arg(required = true, value_name = "CLUSTER[/AGENT]")]
    names: Vec<Subject>,
}

impl Accept {
    pub(crate) async fn run(&self, api: &Api) -> Result<(), Failure> {
        each(&self.names, async |subject| self.accept(api, subject).await).await
    }

    async fn accept(&self, api: &Api, subject: &Subject) -> Result<(), Failure> {
        let clusters = cluster_view::list(api).await?;
        let view = cluster(&clusters, &subject.cluster)?;
        let chosen = self.choose(view, subject)?;
        let now = Timestamp::now();
        for agent in &chosen {
            note(clusters::describe(&subject.cluster, agent, now));
        }
        let agents: Vec<ShownAgent> = chosen.iter().map(|agent| agent.shown()).collect();
        accept(api, &subject.cluster, &agents).await?;
        let chosen: Vec<_> = chosen.iter().map(|agent| agent.name.as_ref()).collect();
        match chosen.as_slice() {
            [] => print(format!("managedcluster/{} accepted", subject.cluster)),
            chosen => print(format!("managedcluster/{} accepted with {}", subject.cluster, chosen.join(", "))),
        }
    }

    /// Who is to be let in: never somebody who was not named or shown.
    fn choose<'v>(&self, view: &'v ClusterView, subject: &Subject) -> Result<Vec<&'v ClusterAgent>, Failure> {
        if let Some(name) = &subject.agent {
            let agent = agent(view, name)?;
            if agent.phase == AgentPhase::Denied {
                let failure = Failure::new(Exit::Other, format!("agent {subject} was denied, and its key stays out"));
                let next = format!("it joins anew by 'cluster-proxy join-command {}'", subject.cluster);
                return Err(failure.next(next));
            }
            return Ok(vec![agent]);
        }
        let waiting: Vec<&ClusterAgent> = view.cluster.waiting().collect();
        if !self.all && !waiting.is_empty() && is_let_in_again(&view.cluster) {
            let names: Vec<&str> = waiting.iter().map(|agent| agent.name.as_ref()).collect();
            let name = names[0];
            note(format!(
                "the agents that it had come back; these still wait: {} (cluster-proxy accept {subject}/{name})",
                names.join(", ")
            ));
            return Ok(Vec::new());
        }
        if self.all || waiting.len() < 2 {
            return Ok(waiting);
        }
        let now = Timestamp::now();
        note(format!("{} agents wait for cluster {subject}; they may be of different clusters:", waiting.len()));
        waiting.iter().for_each(|agent| note(clusters::describe(&subject.cluster, agent, now)));
        let names: Vec<&str> = waiting.iter().map(|agent| agent.name.as_ref()).collect();
        let answer = prompt::ask("Which are to be let in? Type their names, or 'all'; nothing for none.");
        let chosen = answer.map(|answer| chosen(&answer, &waiting)).transpose()?;
        chosen.filter(|chosen| !chosen.is_empty()).ok_or_else(|| {
            let message = format!("{} agents wait for cluster {subject} ({})", waiting.len(), names.join(", "));
            let next = format!(
                "let in those that belong to it: cluster-proxy accept {subject}/{}, or all: cluster-proxy accept {subject} --all",
                names[0]
            );
            Failure::new(Exit::Usage, message).next(next)
        })
    }
}

/// Whether accepting a cluster takes back its denial: that says nothing about agents that nobody has let in before.
fn is_let_in_again(cluster: &ManagedCluster) -> bool {
    let had = cluster.status.agents.iter().any(|agent| agent.phase == AgentPhase::Accepted);
    had && cluster.acceptance() == AcceptanceStatus::Denied
}

/// The agents that an answer names.
fn chosen<'v>(answer: &str, waiting: &[&'v ClusterAgent]) -> Result<Vec<&'v ClusterAgent>, Failure> {
    if answer == "all" {
        return Ok(waiting.to_vec());
    }
    let names = answer.split([' ', ',']).filter(|name| !name.is_empty());
    let found = names.map(|name| {
        let found = waiting.iter().find(|agent| agent.name.as_ref() == name).copied();
        found.ok_or_else(|| Failure::new(Exit::Usage, format!("no agent {name} waits; nobody was let in")))
    });
    found.collect()
}

impl Deny {
    pub(crate) async fn run(&self, api: &Api) -> Result<(), Failure> {
        each(&self.names, async |name| {
            let clusters = cluster_view::list(api).await?;
            deny(api, cluster(&clusters, name)?).await?;
            print(format!("managedcluster/{name} denied"))
        })
        .await
    }
}

impl Revoke {
    pub(crate) async fn run(&self, api: &Api) -> Result<(), Failure> {
        each(&self.names, async |name| self.revoke(api, name).await).await
    }

    async fn revoke(&self, api: &Api, name: &OneAgent) -> Result<(), Failure> {
        let clusters = cluster_view::list(api).await?;
        let agent = agent(cluster(&clusters, &name.cluster)?, &name.agent)?;
        if !self.yes {
            note(clusters::describe(&name.cluster, agent, Timestamp::now()));
            let question = format!("Cut its tunnel and keep its key out of {}? [y/N]", name.cluster);
            match prompt::ask(&question).as_deref() {
                Some("y" | "yes") => {}
                Some(_) => return Err(Failure::new(Exit::Other, "nothing was revoked")),
                None => {
                    let failure = Failure::new(Exit::Usage, format!("revoking {name} is to be confirmed"));
                    return Err(failure.next(format!("cluster-proxy revoke {name} --yes")));
                }
            }
        }
        decide(api, &name.cluster, &[agent.shown()], Decision::Phase(AgentPhase::Denied)).await?;
        note(format!("an agent in its place joins by: cluster-proxy join-command {}", name.cluster));
        print(format!("agent/{name} revoked"))
    }
}

impl Delete {
    pub(crate) async fn run(&self, api: &Api) -> Result<(), Failure> {
        each(&self.names, async |subject| {
            let clusters = cluster_view::list(api).await?;
            let view = cluster(&clusters, &subject.cluster)?;
            match &subject.agent {
                Some(name) => {
                    decide(api, &subject.cluster, &[agent(view, name)?.shown()], Decision::Forget).await?;
                    print(format!("agent/{subject} deleted"))
                }
                None => {
                    api.delete(&cluster_view::path(&subject.cluster)).await?;
                    print(format!("managedcluster/{} deleted", subject.cluster))
                }
            }
        })
        .await
    }
}

/// What becomes of an agent.
#[derive(Clone, Copy, Debug)]
enum Decision {
    Phase(AgentPhase),
    Forget,
}

/// Why nothing was decided.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DecisionError {
    #[error("no cluster {cluster} is registered; list them: cluster-proxy clusters")]
    Unknown { cluster: ClusterName },
    #[error(
        "agent {agent} of cluster {cluster} is not there any more with the key that was shown; look again: \
         cluster-proxy clusters -o agents"
    )]
    OtherAgent { cluster: ClusterName, agent: AgentName },
    #[error(transparent)]
    Call(#[from] CallError),
}

/// How often a decision is made anew because the cluster has changed meanwhile.
const ATTEMPTS: usize = 8;

/// Lets a cluster in, and of its agents these and nobody else.
pub(crate) async fn accept(api: &Api, cluster: &ClusterName, shown: &[ShownAgent]) -> Result<(), DecisionError> {
    decide(api, cluster, shown, Decision::Phase(AgentPhase::Accepted)).await?;
    let accept = Patch::Merge(json!({"spec": {"hubAcceptsClient": true}}));
    Ok(api.patch(&cluster_view::path(cluster), &accept).await?)
}

/// Shuts a cluster out. One that asks to join is not let in anyway: that it was denied is said by a condition.
async fn deny(api: &Api, view: &ClusterView) -> Result<(), CallError> {
    let path = cluster_view::path(view.cluster.name());
    match view.cluster.acceptance() {
        AcceptanceStatus::Accepted => {
            api.patch(&path, &Patch::Merge(json!({"spec": {"hubAcceptsClient": false}}))).await
        }
        AcceptanceStatus::Denied => Ok(()),
        AcceptanceStatus::Pending => {
            let mut conditions = view.object["status"]["conditions"].as_array().cloned().unwrap_or_default();
            conditions.push(json!({
                "type": condition::HUB_ACCEPTED, "status": "False", "reason": "HubClusterAdminDenied", "message": "",
                "lastTransitionTime": Timestamp::now().to_string(),
            }));
            let version = &view.object["metadata"]["resourceVersion"];
            let status = json!({"metadata": {"resourceVersion": version}, "status": {"conditions": conditions}});
            api.patch(&format!("{path}/approval"), &Patch::Merge(status)).await
        }
    }
}

/// Decides about agents as they were shown: one with another key is another agent.
async fn decide(
    api: &Api,
    cluster: &ClusterName,
    shown: &[ShownAgent],
    decision: Decision,
) -> Result<(), DecisionError> {
    if shown.is_empty() {
        return Ok(());
    }
    let path = cluster_view::path(cluster);
    let mut attempts = ATTEMPTS;
    loop {
        let object: ManagedCluster = match api.get(&path).await {
            Err(CallError::Refused { status: StatusCode::NOT_FOUND, .. }) => {
                return Err(DecisionError::Unknown { cluster: cluster.clone() });
            }
            found => found?,
        };
        let mut places = Vec::with_capacity(shown.len());
        for agent in shown {
            let place = object.status.agents.iter().position(|known| known.shown() == *agent);
            let other = || DecisionError::OtherAgent { cluster: cluster.clone(), agent: agent.name.clone() };
            places.push((place.ok_or_else(other)?, agent));
        }
        // The last first: what is forgotten moves those behind it.
        places.sort_by_key(|(place, _)| std::cmp::Reverse(*place));
        let patch = Patch::Json(places.iter().flat_map(|(place, agent)| operations(*place, agent, decision)).collect());
        attempts -= 1;
        match api.patch(&format!("{path}/approval"), &patch).await {
            Err(CallError::Refused { status: StatusCode::CONFLICT | StatusCode::UNPROCESSABLE_ENTITY, .. })
                if attempts > 0 => {}
            decided => return Ok(decided?),
        }
    }
}

/// Changes the agent at its place in the status, if it is there.
fn operations(place: usize, agent: &ShownAgent, decision: Decision) -> Vec<Value> {
    let path = format!("/status/agents/{place}");
    let change = match decision {
        Decision::Phase(phase) => json!({"op": "replace", "path": format!("{path}/phase"), "value": phase}),
        Decision::Forget => json!({"op": "remove", "path": path}),
    };
    vec![
        json!({"op": "test", "path": format!("{path}/name"), "value": agent.name}),
        json!({"op": "test", "path": format!("{path}/key"), "value": agent.key}),
        change,
    ]
}

impl From<DecisionError> for Failure {
    fn from(error: DecisionError) -> Self {
        match error {
            DecisionError::Call(error) => error.into(),
            error @ (DecisionError::Unknown { .. } | DecisionError::OtherAgent { .. }) => Self::new(Exit::Other, error),
        }
    }
}

/// One name's failure does not keep the others from being decided; the last failure is the command's.
async fn each<T>(names: &[T], decide: impl AsyncFn(&T) -> Result<(), Failure>) -> Result<(), Failure> {
    let mut failed: Option<Failure> = None;
    for name in names {
        if let Err(failure) = decide(name).await
            && let Some(earlier) = failed.replace(failure)
        {
            complain(&earlier.line());
        }
    }
    failed.map_or(Ok(()), Err)
}
