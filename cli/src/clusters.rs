//! `clusters`: who is there, and whether they can be reached.

use std::{collections::BTreeMap, time::Duration};

use certs::ClusterName;
use clap::{Args, ValueEnum};
use jiff::Timestamp;
use registry::{AcceptanceStatus, AgentPhase, ClusterAgent, condition};

use crate::{
    api::Api,
    cluster_view::{ClusterList, ClusterView, list},
    failure::{Failure, complain},
    output::{self, note, print, print_json},
    quantity,
    table::{Cell, Table},
};

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    cluster-proxy clusters\n  \
    cluster-proxy clusters -o wide --watch\n  \
    cluster-proxy clusters -o agents")]
pub(crate) struct Clusters {
    /// How to print them [default: a table]
    #[arg(long, short, value_enum, value_name = "FORMAT")]
    output: Option<Format>,
    /// Print again whenever something changes, until Ctrl-C
    #[arg(long, short)]
    watch: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// The table with the agents and the reason
    Wide,
    /// A line for each agent, with its key
    Agents,
    /// What the hub's API says
    Json,
    /// The names alone
    Name,
}

const HEADINGS: [&str; 9] =
    ["NAME", "ACCEPTED", "AVAILABLE", "AGENTS", "RTT", "STREAMS", "SENT", "RECEIVED", "LAST SEEN"];

const WIDE_HEADINGS: [&str; 11] = [
    "NAME",
    "ACCEPTED",
    "AVAILABLE",
    "AGENTS",
    "RTT",
    "STREAMS",
    "SENT",
    "RECEIVED",
    "LAST SEEN",
    "AGENT VERSIONS",
    "REASON",
];

/// Between two looks of `--watch`.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

impl Clusters {
    pub(crate) async fn run(&self, api: &Api) -> Result<(), Failure> {
        if self.watch {
            return self.watch(api).await;
        }
        let clusters = list(api).await?;
        if clusters.items.is_empty() && self.output != Some(Format::Json) {
            note("There are no clusters yet; 'cluster-proxy join-command NAME' prints how one joins.");
            return Ok(());
        }
        self.print(&clusters)
    }

    fn print(&self, clusters: &ClusterList) -> Result<(), Failure> {
        let now = Timestamp::now();
        match self.output {
            None => {
                print(table(&clusters.items, now).render())?;
                note_waiting(&clusters.items, now);
                Ok(())
            }
            Some(Format::Agents) => print(agents_table(&clusters.items, now).render()),
            Some(Format::Wide) => print(wide_table(&clusters.items, now).render()),
            Some(Format::Json) => print_json(clusters),
            Some(Format::Name) => clusters.items.iter().try_for_each(|view| print(view.cluster.name())),
        }
    }

    /// Never returns without a failure that waiting cannot mend: a hub that restarts is waited for.
    async fn watch(&self, api: &Api) -> Result<(), Failure> {
        let mut shown: Option<BTreeMap<String, Facts>> = None;
        let mut away = false;
        loop {
            match list(api).await.map_err(Failure::from) {
                Ok(clusters) => {
                    away = false;
                    let facts = clusters.items.iter().map(Facts::of).collect();
                    if shown.as_ref() != Some(&facts) {
                        self.print(&clusters)?;
                        shown = Some(facts);
                    }
                }
                Err(failure) if failure.is_passing() => {
                    if !away {
                        complain(&failure.line());
                    }
                    away = true;
                    // Back again is news, whatever it looks like.
                    shown = None;
                }
                Err(failure) => return Err(failure),
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
}

/// What `--watch` waits for a change of: not the numbers that always move.
#[derive(Debug, PartialEq, Eq)]
struct Facts {
    accepted: &'static str,
    available: bool,
    agents: String,
}

impl Facts {
    fn of(view: &ClusterView) -> (String, Self) {
        let facts = Self { accepted: accepted(view).0, available: view.tunnel.available, agents: agent_versions(view) };
        (view.cluster.name().to_string(), facts)
    }
}

/// The usual table.
pub(crate) fn table(clusters: &[ClusterView], now: Timestamp) -> Table {
    let mut table = Table::new(&HEADINGS);
    for view in clusters {
        table.row(cells(view, now));
    }
    table
}

fn wide_table(clusters: &[ClusterView], now: Timestamp) -> Table {
    let mut table = Table::new(&WIDE_HEADINGS);
    for view in clusters {
        let mut row = cells(view, now);
        row.extend([agent_versions(view).into(), reason(view).into()]);
        table.row(row);
    }
    table
}

/// Who is to be decided about, so that nobody has to ask for them.
fn note_waiting(clusters: &[ClusterView], now: Timestamp) {
    /// Of the agents that wait, which may be many.
    const SHOWN: usize = 8;
    let undenied = clusters.iter().filter(|view| view.cluster.acceptance() != AcceptanceStatus::Denied);
    let waiting: Vec<_> =
        undenied.flat_map(|view| view.cluster.waiting().map(|agent| (view.cluster.name(), agent))).collect();
    if waiting.is_empty() {
        return;
    }
    note("\nThese agents wait to be let in by 'cluster-proxy accept':");
    for (cluster, agent) in waiting.iter().take(SHOWN) {
        note(describe(cluster, agent, now));
    }
    if waiting.len() > SHOWN {
        note(format!("  and {} more: cluster-proxy clusters -o agents", waiting.len() - SHOWN));
    }
}

/// An agent as it is to be compared with what its own machine says of it: two lines that fit 80 columns.
pub(crate) fn describe(cluster: &ClusterName, agent: &ClusterAgent, now: Timestamp) -> String {
    let from = agent.address.map(|address| format!(" from {address}")).unwrap_or_default();
    let age = quantity::age(agent.requested_at, now);
    format!("  {cluster}/{} asked {age} ago{from}\n    {}", agent.name, agent.key)
}

fn agents_table(clusters: &[ClusterView], now: Timestamp) -> Table {
    let mut table = Table::new(&["AGENT", "STATE", "FROM", "ASKED", "LAST SEEN", "KEY"]);
    for view in clusters {
        for agent in &view.cluster.status.agents {
            let (state, style) = match agent.phase {
                AgentPhase::Pending => ("waiting", output::WAITING),
                AgentPhase::Accepted => ("in", output::GOOD),
                AgentPhase::Denied => ("denied", output::BAD),
            };
            table.row([
                format!("{}/{}", view.cluster.name(), agent.name).into(),
                Cell::styled(state, style),
                agent.address.map(|address| address.to_string()).unwrap_or_default().into(),
                format!("{} ago", quantity::age(agent.requested_at, now)).into(),
                agent
                    .last_seen
                    .map_or_else(|| "never".to_owned(), |seen| format!("{} ago", quantity::age(seen, now)))
                    .into(),
                agent.key.to_string().into(),
            ]);
        }
    }
    table
}

fn cells(view: &ClusterView, now: Timestamp) -> Vec<Cell> {
    let tunnel = &view.tunnel;
    let (accepted, style) = accepted(view);
    let available = if tunnel.available { output::GOOD } else { output::BAD };
    let last_seen = match tunnel.last_seen {
        _ if tunnel.available => "now".to_owned(),
        Some(seen) => format!("{} ago", quantity::age(seen, now)),
        None => "never".to_owned(),
    };
    vec![
        view.cluster.name().as_ref().into(),
        Cell::styled(accepted, style),
        Cell::styled(tunnel.available.to_string(), available),
        format!("{}/{}", tunnel.agents, view.cluster.members().count()).into(),
        tunnel.rtt_milliseconds.map(quantity::round_trip).unwrap_or_default().into(),
        tunnel.streams.to_string().into(),
        quantity::bytes(tunnel.bytes_to_cluster).into(),
        quantity::bytes(tunnel.bytes_from_cluster).into(),
        last_seen.into(),
    ]
}

fn accepted(view: &ClusterView) -> (&'static str, anstyle::Style) {
    match view.cluster.acceptance() {
        AcceptanceStatus::Accepted => ("true", output::GOOD),
        AcceptanceStatus::Pending => ("waiting", output::WAITING),
        AcceptanceStatus::Denied => ("denied", output::BAD),
    }
}

/// `edge-a:0.1.0,edge-b:0.1.0(waiting)`
fn agent_versions(view: &ClusterView) -> String {
    let agents = view.cluster.status.agents.iter().map(|agent| {
        let phase = match agent.phase {
            AgentPhase::Pending => "(waiting)",
            AgentPhase::Accepted => "",
            AgentPhase::Denied => "(denied)",
        };
        let version = if agent.version.is_empty() { String::new() } else { format!(":{}", agent.version) };
        format!("{}{version}{phase}", agent.name)
    });
    agents.collect::<Vec<_>>().join(",")
}

/// Why the cluster is available or not, in OCM's word; without one, why it is accepted or not.
fn reason(view: &ClusterView) -> String {
    let conditions = &view.cluster.status.conditions;
    let known = [condition::AVAILABLE, condition::HUB_ACCEPTED];
    let found = known.iter().find_map(|type_| condition::find(conditions, type_));
    found.map(|condition| condition.reason.clone()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use registry::{ManagedCluster, api::TunnelView};

    use super::*;

    fn second(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn cluster(name: &str, tunnel: TunnelView) -> ClusterView {
        let mut cluster = ManagedCluster::new(name.parse().unwrap(), "u".into(), second(0));
        cluster.status.agents.push(ClusterAgent {
            name: "a1".parse().unwrap(),
            key: format!("sha256:{:064x}", 1).parse().unwrap(),
            phase: AgentPhase::Pending,
            requested_at: second(0),
            address: Some([192, 0, 2, 1].into()),
            token: String::new(),
            request: String::new(),
            last_seen: None,
            version: "0.1.0".into(),
            ca: None,
        });
        ClusterView::new(cluster, tunnel, serde_json::Value::Null)
    }

    fn plain(table: &Table) -> Vec<String> {
        anstream::adapter::strip_str(&table.render()).to_string().lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_row_shows_a_cluster_that_is_up_and_one_that_is_not() {
        let up = TunnelView {
            agents: 1,
            rtt_milliseconds: Some(1.5),
            streams: 3,
            bytes_to_cluster: 2048,
            bytes_from_cluster: 5,
            last_seen: Some(second(100)),
            agents_last_seen: BTreeMap::new(),
            available: true,
        };
        let down = TunnelView { last_seen: Some(second(40)), ..TunnelView::default() };
        let mut accepted = cluster("edge-1", up);
        accepted.cluster.spec.hub_accepts_client = true;
        let lines = plain(&table(&[accepted, cluster("edge-2", down)], second(100)));
        assert_eq!(lines[0].split_whitespace().count(), 10, "LAST SEEN is two words: {}", lines[0]);
        let fields = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(fields(&lines[1]), ["edge-1", "true", "true", "1/1", "1.5ms", "3", "2.0KiB", "5B", "now"]);
        assert_eq!(fields(&lines[2]), ["edge-2", "waiting", "false", "0/1", "-", "0", "0B", "0B", "60s", "ago"]);
    }

    #[test]
    fn an_agent_that_waits_is_told_by_its_key_and_where_it_asks_from_in_80_columns() {
        let view = cluster("edge-1", TunnelView::default());
        let told = describe(view.cluster.name(), &view.cluster.status.agents[0], second(3));
        assert!(told.starts_with("  edge-1/a1 asked 3s ago from 192.0.2.1\n    sha256:0000"), "{told}");
        assert!(told.lines().all(|line| line.len() <= 80));
        let lines = plain(&agents_table(&[view], second(3)));
        assert!(lines[1].starts_with("edge-1/a1   waiting   192.0.2.1   3s ago   never       sha256:"), "{}", lines[1]);
    }

    #[test]
    fn the_wide_table_names_agents_and_reason() {
        let lines = plain(&wide_table(&[cluster("edge-1", TunnelView::default())], second(0)));
        assert!(lines[1].ends_with("never       a1:0.1.0(waiting)   -"), "{}", lines[1]);
    }
}
