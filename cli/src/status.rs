//! `status`: the hub at a glance.

use jiff::Timestamp;
use registry::api::HubStatus;

use crate::{api::Api, failure::Failure, output::print, quantity};

pub(crate) async fn run(api: &Api) -> Result<(), Failure> {
    let status: HubStatus = api.get("/v1/status").await?;
    print(describe(&status, Timestamp::now()))
}

/// As `kubectl describe` would: a heading, a value.
fn describe(status: &HubStatus, now: Timestamp) -> String {
    let counts = status.clusters;
    let clusters = format!(
        "{} ({} accepted, {} available, {} waiting, {} denied)",
        counts.total, counts.accepted, counts.available, counts.pending, counts.denied
    );
    let mut lines = vec![
        ("Version", status.version.clone()),
        ("Server ID", status.server_id.clone()),
        ("Running for", quantity::age(status.started_at, now)),
        ("Agents dial", status.agent_addresses.join(", ")),
        ("Proxy", status.proxy_address.clone()),
        ("API", format!("https://{}", status.api_address)),
        ("Pin", status.pin.clone()),
        ("Clusters", clusters),
        ("Tunnels", status.tunnels.to_string()),
        ("Connections", status.connections.to_string()),
    ];
    if counts.pending + counts.waiting_agents > 0 {
        lines.push(("Agents", format!("{} waiting", counts.waiting_agents)));
        lines.push(("Next", "'cluster-proxy clusters' shows who waits; 'cluster-proxy accept NAME' lets in".into()));
    }
    let lines = lines.iter().map(|(heading, value)| format!("{:<13}{value}", format!("{heading}:")));
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use registry::api::ClusterCounts;

    use super::*;

    #[test]
    fn waiting_clusters_are_pointed_out() {
        let second = |second| Timestamp::from_second(second).unwrap();
        let mut status = HubStatus {
            version: "1.0".into(),
            server_id: "s".into(),
            started_at: second(0),
            pin: "sha256:0".into(),
            agent_addresses: vec!["hub:8091".into()],
            proxy_address: "hub:8090".into(),
            api_address: "hub:8443".into(),
            clusters: ClusterCounts { total: 2, accepted: 2, ..ClusterCounts::default() },
            connections: 0,
            tunnels: 1,
        };
        let text = describe(&status, second(60));
        assert!(text.contains("Agents dial: hub:8091\n") && text.contains("Running for: 60s\n"), "{text}");
        assert!(!text.contains("Next:"));
        status.clusters.pending = 1;
        assert!(describe(&status, second(60)).contains("cluster-proxy accept"));
    }
}
