//! `ca`: where the hub's CA stands, and its rotation step by step.

use clap::{Args, Subcommand};
use jiff::Timestamp;
use registry::api::{CaAgent, CaPhase, CaStatus, StepTaken, TakeStep};

use crate::{
    api::{Api, CallError},
    failure::Failure,
    output::{BAD, GOOD, WAITING, note, print, print_json},
    quantity,
    table::{Cell, Table},
};

#[derive(Debug, Subcommand)]
pub(crate) enum CaCommand {
    /// Show the hub's CAs, and who does not follow a rotation yet
    Status(Status),
    /// Replace the hub's CA: trust goes first, signing after, and the old one last
    #[command(subcommand)]
    Rotate(RotateCommand),
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  cluster-proxy ca status\n  cluster-proxy ca status --all")]
pub(crate) struct Status {
    /// Also list agents and users that have already switched
    #[arg(long)]
    all: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RotateCommand {
    /// Make a new CA beside the old one, and have everybody trust it
    #[command(after_help = "Example:\n  cluster-proxy ca rotate begin\n\n\
        Agents learn it over their tunnels, and folders of credentials at their next command. Nothing is signed by it yet. \
        Where several hubs share an etcd: copy ca.retired.crt (if there is one), ca.key and then ca.crt from this hub's state folder \
        to the others' now, and after each further step.")]
    Begin,
    /// Have the new CA sign: agents and folders of credentials get new certificates
    #[command(after_help = "Example:\n  cluster-proxy ca rotate sign")]
    Sign,
    /// Drop the old CA, once nobody depends on it
    #[command(after_help = "Examples:\n  cluster-proxy ca rotate finish\n  cluster-proxy ca rotate finish --force\n\n\
        What is open stays open. Lines of 'join-command' and folders of credentials from before the rotation are of no use \
        afterwards.")]
    Finish(Force),
    /// Go one step back: the old CA signs again; where it does, the new one is dropped
    #[command(after_help = "Example:\n  cluster-proxy ca rotate abort")]
    Abort(Force),
    /// Revoke the old CA at once, after its key has leaked: its certificates become invalid, their connections are closed
    #[command(after_help = "Example:\n  cluster-proxy ca rotate begin && cluster-proxy ca rotate sign\n  \
        cluster-proxy ca rotate revoke-now\n\n\
        Connected agents follow 'begin' and 'sign' within seconds; who has not followed is named and has to join again.")]
    RevokeNow(Force),
}

#[derive(Debug, Args)]
pub(crate) struct Force {
    /// Proceed even if agents have to join again or users need new credentials
    #[arg(long)]
    force: bool,
}

impl CaCommand {
    pub(crate) async fn run(&self, api: &Api) -> Result<(), Failure> {
        match self {
            Self::Status(status) => status.run(api).await,
            Self::Rotate(rotate) => rotate.run(api).await,
        }
    }
}

impl Status {
    async fn run(&self, api: &Api) -> Result<(), Failure> {
        let status: CaStatus = api.get("/v1/ca/status").await?;
        if self.json {
            return print_json(&status);
        }
        print(describe(&status, self.all, Timestamp::now()))
    }
}

impl RotateCommand {
    async fn run(&self, api: &Api) -> Result<(), Failure> {
        let (step, force) = match self {
            Self::Begin => ("begin", false),
            Self::Sign => ("sign", false),
            Self::Finish(Force { force }) => ("finish", *force),
            Self::Abort(Force { force }) => ("abort", *force),
            Self::RevokeNow(Force { force }) => ("revoke-now", *force),
        };
        let taken: Result<StepTaken, CallError> = api.post(&format!("/v1/ca/{step}"), &TakeStep { force }).await;
        let StepTaken { changed, cut, lost, status } = taken?;
        // The folder that was used is the first to follow, and what comes next needs it.
        api.follow().await;
        if !changed {
            note("nothing to do: that was done before");
        }
        if cut > 0 {
            note(format!("cut {cut} tunnels and connections that the old CA's certificates had opened"));
        }
        for name in &lost {
            note(format!("left behind: {name}"));
        }
        if !lost.is_empty() {
            note(
                "agents come back with 'cluster-proxy join-command CLUSTER', users with 'cluster-proxy user renew NAME'",
            );
        }
        print(describe(&status, false, Timestamp::now()))
    }
}

/// The CAs, who does not follow (or `all`), and what to do next.
fn describe(status: &CaStatus, all: bool, now: Timestamp) -> String {
    let mut parts = vec![roots(status).render()];
    let lags = status.agents.iter().filter(|agent| agent.lags()).count();
    // Before 'sign' those with a certificate of the new CA depend on it: a step back would cut them off.
    let stands_out = |lags: bool, certified: bool| all || lags || status.phase == CaPhase::Begun && certified;
    let agents: Vec<_> =
        status.agents.iter().filter(|agent| stands_out(agent.lags(), agent.certified == Some(true))).collect();
    if !agents.is_empty() {
        parts.push(agents_table(&agents, now).render());
    }
    let old_users = status.users.iter().filter(|user| user.lags()).count();
    let users: Vec<_> =
        status.users.iter().filter(|user| stands_out(user.lags(), user.certified == Some(true))).collect();
    if !users.is_empty() {
        let mut table = Table::new(&["USER", "CERTIFICATE", "SEEN"]);
        for user in users {
            table.row([user.user.as_ref().into(), state(user.certified, "new", "old"), ago(user.seen, now)]);
        }
        parts.push(table.render());
    }
    let total = status.agents.len();
    parts.extend(match status.phase {
        CaPhase::Settled => None,
        CaPhase::Begun => {
            let trusting = status.agents.iter().filter(|agent| agent.trusts == Some(true)).count();
            Some(format!(
                "{trusting} of {total} agents trust the new CA. Next: 'cluster-proxy ca rotate sign' (back: 'ca rotate abort')"
            ))
        }
        CaPhase::Signing if lags + old_users > 0 => Some(format!(
            "{} of {total} agents have changed over, {old_users} of {} users have not or are unknown. A user's folder follows at the next \
             cluster-proxy command; a user of tokens alone gets the new ca.crt by hand. Next, once nobody listed here needs the old CA: \
             'cluster-proxy ca rotate finish' (with --force while the list is not empty)",
            total - lags,
            status.users.len()
        )),
        CaPhase::Signing => Some(format!(
            "All {total} agents and {} users have changed over. Next: 'cluster-proxy ca rotate finish'",
            status.users.len()
        )),
    });
    parts.join("\n\n")
}

fn roots(status: &CaStatus) -> Table {
    let mut table = Table::new(&["CA", "STATE", "SIGNS", "ENDS"]);
    let last = status.roots.len() - 1;
    for (at, root) in status.roots.iter().enumerate() {
        let state = match (at == last, last) {
            (_, 0) => "",
            (true, _) => "new",
            (false, _) => "old",
        };
        let ends = root.not_after.strftime("%Y-%m-%d").to_string();
        let signs = if root.signs { "yes" } else { "no" };
        table.row([root.pin.to_string().into(), state.into(), signs.into(), ends.into()]);
    }
    for over in &status.retired {
        table.row([over.to_string().into(), Cell::styled("retired", BAD), "no".into(), "".into()]);
    }
    table
}

fn agents_table(agents: &[&CaAgent], now: Timestamp) -> Table {
    let mut table = Table::new(&["AGENT", "CONNECTED", "TRUSTS NEW", "CERTIFICATE", "VERSION", "LAST SEEN"]);
    for agent in agents {
        table.row([
            format!("{}/{}", agent.cluster, agent.agent).into(),
            state(Some(agent.connected), "yes", "no"),
            state(agent.trusts, "yes", "no"),
            state(agent.certified, "new", "old"),
            agent.version.clone().into(),
            if agent.connected { "now".into() } else { ago(agent.last_seen, now) },
        ]);
    }
    table
}

fn state(is: Option<bool>, good: &str, bad: &str) -> Cell {
    match is {
        Some(true) => Cell::styled(good, GOOD),
        Some(false) => Cell::styled(bad, WAITING),
        None => "unknown".into(),
    }
}

fn ago(then: Option<Timestamp>, now: Timestamp) -> Cell {
    then.map_or_else(|| "".into(), |then| quantity::age(then, now).into())
}

#[cfg(test)]
mod tests {
    use registry::api::{CaRoot, CaUser};

    use super::*;

    fn status(phase: CaPhase) -> CaStatus {
        let pin = |n: u8| format!("sha256:{n:064x}").parse().unwrap();
        let second = |second| Timestamp::from_second(second).unwrap();
        let root = |n, signs| CaRoot { pin: pin(n), not_after: second(1_000_000_000), signs };
        let agent = |cluster: &str, trusts, certified| CaAgent {
            cluster: cluster.parse().unwrap(),
            agent: "a".parse().unwrap(),
            connected: false,
            trusts,
            certified,
            version: "0.1.0".into(),
            last_seen: Some(second(0)),
        };
        CaStatus {
            phase,
            roots: vec![root(1, phase == CaPhase::Begun), root(2, phase == CaPhase::Signing)],
            retired: Vec::new(),
            agents: vec![agent("done", Some(true), Some(true)), agent("away", None, None)],
            users: vec![CaUser { user: "alice".parse().unwrap(), certified: Some(false), seen: Some(second(60)) }],
        }
    }

    #[test]
    fn who_is_missing_is_named_and_the_next_command_with_it() {
        let now = Timestamp::from_second(120).unwrap();
        let plain = |status: &CaStatus, all| anstream::adapter::strip_str(&describe(status, all, now)).to_string();
        let begun = plain(&status(CaPhase::Begun), false);
        assert!(begun.contains("away/a") && begun.contains("done/a"), "a step back would cut off both: {begun}");
        let signing = plain(&status(CaPhase::Signing), false);
        assert!(signing.contains("away/a") && !signing.contains("done/a"), "{signing}");
        assert!(begun.contains("1 of 2 agents trust") && begun.contains("ca rotate sign"), "{begun}");
        let signing = plain(&status(CaPhase::Signing), true);
        assert!(signing.contains("done/a") && signing.contains("alice   old"), "{signing}");
        assert!(
            signing.contains("1 of 2 agents have changed over, 1 of 1 users") && signing.contains("finish"),
            "{signing}"
        );
        let mut done = status(CaPhase::Signing);
        done.agents.pop();
        done.users.clear();
        assert!(plain(&done, false).contains("All 1 agents"), "{}", plain(&done, false));
    }
}
