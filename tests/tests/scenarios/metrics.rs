//! Every metric of hub and agent moves when what it counts happens, and none carries what a client typed.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use futures_util::future;
use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType};
use tests::client::{DialError, Entry};
use tests::metrics::Metrics;
use tests::pattern::Pattern;
use tests::service::{echo, web};
use tests::{Client, Fetch, Hub, Spoke, tool, wait_for};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, split};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

const BOUND: Duration = Duration::from_secs(30);
const DAY: Duration = Duration::from_secs(24 * 3600);
const HUB: &str = "proxy_server_";
const AGENT: &str = "proxy_agent_";

/// Everything that the hub exports. A metric that is added is added here, and made to move.
pub(crate) const HUB_FAMILIES: [&str; 18] = [
    "proxy_server_audit_events_total",
    "proxy_server_bytes_total",
    "proxy_server_connections",
    "proxy_server_connections_closed_total",
    "proxy_server_connections_opened_total",
    "proxy_server_connections_refused_total",
    "proxy_server_dial_duration_seconds",
    "proxy_server_dials_total",
    "proxy_server_guests_left_total",
    "proxy_server_handshakes_failed_total",
    "proxy_server_joins_total",
    "proxy_server_streams",
    "proxy_server_tunnel_path_mtu_bytes",
    "proxy_server_tunnel_rtt_seconds",
    "proxy_server_tunnels",
    "proxy_server_tunnels_closed_total",
    "proxy_server_tunnels_opened_total",
    "proxy_server_udp_offload",
];

/// Everything that an agent exports.
pub(crate) const AGENT_FAMILIES: [&str; 13] = [
    "proxy_agent_bytes_total",
    "proxy_agent_certificate_expiry_timestamp_seconds",
    "proxy_agent_certificate_renewals_total",
    "proxy_agent_connected",
    "proxy_agent_connects_total",
    "proxy_agent_dial_duration_seconds",
    "proxy_agent_dials_total",
    "proxy_agent_streams",
    "proxy_agent_tunnel_packets_lost_total",
    "proxy_agent_tunnel_packets_sent_total",
    "proxy_agent_tunnel_rtt_seconds",
    "proxy_agent_tunnel_window_bytes",
    "proxy_agent_udp_offload",
];

/// A metric with labels and the value it is to have.
type Expected<'a> = (&'a str, &'a [(&'a str, &'a str)], f64);

/// Waits until `/metrics` says exactly these, and gives the whole page.
async fn wait_for_values(from: SocketAddr, expected: &[Expected<'_>]) -> Result<Metrics> {
    wait_for(BOUND, "the metrics", async || {
        let metrics = Metrics::fetch(from).await?;
        for (name, labels, value) in expected {
            let found = metrics.sum(name, labels);
            anyhow::ensure!(found == *value, "{name} {labels:?} is {found}, not {value}");
        }
        Ok(metrics)
    })
    .await
}

/// The families of `prefix` that have a value other than zero on one of these pages.
fn moved(pages: &[Metrics], prefix: &str) -> BTreeSet<String> {
    let families = pages.iter().flat_map(|page| page.families(prefix));
    let nonzero = |family: &String| pages.iter().any(|page| page.of_family(family).any(|sample| sample.value != 0.0));
    families.filter(nonzero).collect()
}

fn named(families: &[&str]) -> BTreeSet<String> {
    families.iter().map(|family| (*family).to_owned()).collect()
}

#[tokio::test]
async fn every_metric_moves() -> Result<()> {
    let hub = Hub::start().await?;
    let at = hub.addresses().metrics;
    let start = Metrics::fetch(at).await?;
    let standing = named(&["proxy_server_udp_offload"]);
    assert_eq!(moved(&[start], HUB), standing, "something moved before anything happened");

    fail_handshake(hub.addresses().proxy).await?;
    let silent = Client::new(Entry::Tls(hub.addresses().api, hub.credentials().tls()?)).enter().await?;
    let mut agent = Spoke::of(&hub, "one").agent("first").start().await?;
    let target = echo::start().await?;
    let held = future::try_join_all(clients(&hub)?.map(|client| hold(client, target.address()))).await?;
    let busy: [Expected<'_>; 8] = [
        ("proxy_server_handshakes_failed_total", &[("listener", "frontend")], 1.0),
        ("proxy_server_joins_total", &[("result", "issued")], 1.0),
        ("proxy_server_tunnels", &[("cluster", "one")], 1.0),
        ("proxy_server_tunnels_opened_total", &[("cluster", "one")], 1.0),
        ("proxy_server_connections", &[], 2.0),
        ("proxy_server_streams", &[("cluster", "one")], 2.0),
        ("proxy_server_connections_opened_total", &[("frontend", "connect")], 1.0),
        ("proxy_server_connections_opened_total", &[("frontend", "socks5")], 1.0),
    ];
    let busy = wait_for_values(at, &busy).await?;
    let agent_busy = wait_for_values(agent.metrics(), &[("proxy_agent_streams", &[], 2.0)]).await?;
    assert!(busy.sum("proxy_server_tunnel_rtt_seconds", &[("cluster", "one")]) > 0.0);
    drop(held);
    in_absolute_form(&hub).await?;
    refused(&hub).await?;

    let done = wait_for_values(
        at,
        &[
            ("proxy_server_connections", &[], 0.0),
            ("proxy_server_streams", &[], 0.0),
            ("proxy_server_connections_opened_total", &[("frontend", "http")], 1.0),
            ("proxy_server_connections_closed_total", &[], 3.0),
            (
                "proxy_server_connections_refused_total",
                &[("frontend", "connect"), ("reason", "connection_refused")],
                1.0,
            ),
            ("proxy_server_connections_refused_total", &[("frontend", "connect"), ("reason", "unknown_cluster")], 1.0),
            (
                "proxy_server_connections_refused_total",
                &[("frontend", "socks5"), ("reason", "unknown_user_token")],
                1.0,
            ),
            ("proxy_server_dials_total", &[("cluster", "one"), ("result", "ok")], 3.0),
            ("proxy_server_dials_total", &[("cluster", "one"), ("result", "connection_refused")], 1.0),
            ("proxy_server_dial_duration_seconds_count", &[], 4.0),
            ("proxy_server_guests_left_total", &[("listener", "api"), ("reason", "late")], 1.0),
        ],
    )
    .await?;
    drop(silent);
    let agent_done = wait_for_values(
        agent.metrics(),
        &[
            ("proxy_agent_connected", &[], 1.0),
            ("proxy_agent_connects_total", &[("result", "connected")], 1.0),
            ("proxy_agent_streams", &[], 0.0),
            ("proxy_agent_dials_total", &[("result", "connected")], 3.0),
            ("proxy_agent_dials_total", &[("result", "connection_refused")], 1.0),
            ("proxy_agent_dial_duration_seconds_count", &[], 4.0),
        ],
    )
    .await?;
    for direction in ["to_cluster", "from_cluster"] {
        assert!(done.sum("proxy_server_bytes_total", &[("cluster", "one"), ("direction", direction)]) > 600_000.0);
    }
    for direction in ["to_target", "from_target"] {
        assert!(agent_done.sum("proxy_agent_bytes_total", &[("direction", direction)]) > 600_000.0);
    }

    agent.stop().await?;
    age_certificate(&hub, "first", agent.state())?;
    agent.start_again().await?;
    let renewed = [("proxy_agent_certificate_renewals_total", &[("result", "used")] as &[_], 1.0)];
    let renewed = wait_for_values(agent.metrics(), &renewed).await?;
    let expiry = |metrics: &Metrics| metrics.sum("proxy_agent_certificate_expiry_timestamp_seconds", &[]);
    assert!(expiry(&renewed) >= expiry(&agent_done), "{} {}", expiry(&renewed), expiry(&agent_done));
    let end = wait_for_values(
        at,
        &[
            ("proxy_server_tunnels", &[("cluster", "one")], 1.0),
            ("proxy_server_tunnels_closed_total", &[("cluster", "one")], 1.0),
        ],
    )
    .await?;

    assert_eq!(moved(&[busy, done, end], HUB), named(&HUB_FAMILIES));
    // Loopback loses nothing.
    assert_eq!(
        moved(&[agent_busy, agent_done, renewed], AGENT),
        &named(&AGENT_FAMILIES) - &named(&["proxy_agent_tunnel_packets_lost_total"])
    );
    Ok(())
}

/// A client by CONNECT and one by SOCKS5.
fn clients(hub: &Hub) -> Result<[Client; 2]> {
    let client = hub.client("one")?;
    Ok([client.clone(), client.socks5()])
}

/// Moves 300 kB each way, and keeps the connection.
async fn hold(client: Client, target: SocketAddr) -> Result<tests::client::Connection> {
    let mut connection = client.dial(&target.to_string()).await?;
    let pattern = Pattern::new(5, 300_000);
    let (mut reader, mut writer) = split(&mut connection);
    let (sent, received) = tokio::join!(pattern.write(&mut writer), pattern.read(&mut reader));
    sent?;
    received?;
    Ok(connection)
}

/// A client whose TLS is none.
async fn fail_handshake(proxy: SocketAddr) -> Result<()> {
    let mut client = TcpStream::connect(proxy).await?;
    client.write_all(b"\x16\x03\x01\x00\x05nonsense").await?;
    // An alert, or the end: what matters is that the hub has given up.
    let mut answer = Vec::new();
    let _: std::io::Result<usize> = client.read_to_end(&mut answer).await;
    Ok(())
}

async fn in_absolute_form(hub: &Hub) -> Result<()> {
    let web = web::plain("web").await?;
    let curl = tool::curl()?.args(["--proxy", &hub.proxy_url("http", "one", &hub.credentials())?]);
    let url = format!("http://{}/", web.service().address());
    assert_eq!(curl.arg(url).run(BOUND).await?.success()?, "web\n");
    Ok(())
}

/// A port that refuses, a cluster that nobody registered, and a token that nobody was given.
async fn refused(hub: &Hub) -> Result<()> {
    let closed = TcpListener::bind("127.0.0.1:0").await?.local_addr()?;
    let refusals = [
        hub.client("one")?.dial(&closed.to_string()).await.err(),
        hub.client("two")?.dial(&closed.to_string()).await.err(),
        hub.client("one")?.cluster("one", "wrong").socks5().dial(&closed.to_string()).await.err(),
    ];
    let [port, cluster, token] = refusals;
    assert!(matches!(port, Some(DialError::Status { status: 502, .. })), "{port:?}");
    assert!(matches!(cluster, Some(DialError::Status { status: 404, .. })), "{cluster:?}");
    assert!(matches!(token, Some(DialError::Reply { .. })), "{token:?}");
    Ok(())
}

/// Puts a certificate for the same agent in the place of its own, of which nine tenths of the life are over.
fn age_certificate(hub: &Hub, name: &str, agent: &Path) -> Result<()> {
    let read = |path: &Path| std::fs::read_to_string(path).with_context(|| path.display().to_string());
    let authority = read(&hub.state().join("ca.crt"))?;
    let issuer = Issuer::from_ca_cert_pem(&authority, KeyPair::from_pem(&read(&hub.state().join("ca.key"))?)?)?;
    let prefix = "system:open-cluster-management:";
    let mut aged = CertificateParams::default();
    aged.distinguished_name = DistinguishedName::new();
    aged.distinguished_name.push(DnType::CommonName, format!("{prefix}one:{name}"));
    aged.distinguished_name.push(DnType::OrganizationName, format!("{prefix}one"));
    // rcgen keeps one value of each type; the second goes in by the type's number.
    aged.distinguished_name.push(DnType::CustomDnType(vec![2, 5, 4, 10]), format!("{prefix}managed-clusters"));
    let uri = format!("spiffe://cluster-proxy.internal/cluster/one/agent/{name}");
    aged.subject_alt_names = vec![SanType::URI(uri.try_into()?)];
    aged.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    aged.not_before = (SystemTime::now() - 90 * DAY).into();
    aged.not_after = (SystemTime::now() + 10 * DAY).into();
    let key = KeyPair::from_pem(&read(&agent.join("agent.key"))?)?;
    let certificate = aged.signed_by(&key, &issuer)?.pem();
    std::fs::write(agent.join("agent.crt"), certificate + &authority)?;
    Ok(())
}

#[tokio::test]
async fn no_label_carries_what_a_client_typed() -> Result<()> {
    const TYPED: &str = "unmistakable";
    let hub = Hub::start().await?;
    let agent = Spoke::of(&hub, "one").start().await?;
    let token = hub.credentials().token()?;
    let unknown = format!("{TYPED}.invalid:80");
    for client in clients(&hub)? {
        for typed in [
            client.dial(&unknown).await,
            client.dial(&format!("{TYPED}.one.clusters.internal:80")).await,
            client.dial(&format!("{TYPED}.{TYPED}.clusters.internal:80")).await,
            client.clone().cluster(TYPED, &token).dial("127.0.0.1:80").await,
            client.clone().cluster("one", TYPED).dial(&unknown).await,
            client.clone().cluster(TYPED, TYPED).dial(&unknown).await,
        ] {
            assert!(typed.is_err());
        }
    }
    let curl = tool::curl()?.args(["--proxy", &hub.proxy_url("http", "one", &hub.credentials())?]);
    let absolute = curl.args(["--request", "UNMISTAKABLE", &format!("http://{unknown}/{TYPED}")]);
    absolute.args(["--user-agent", TYPED]).run(BOUND).await?.success()?;
    let state = tempfile::TempDir::new()?;
    let join = Spoke::of(&hub, TYPED).agent(TYPED).token(&format!("cpj-{TYPED}.{TYPED}")).join(state.path()).await?;
    assert_ne!(join.run(BOUND).await?.status.code(), Some(0));

    for address in [hub.addresses().metrics, agent.metrics()] {
        let page = Fetch::get("/metrics").plain(address).await?.success()?.text();
        assert!(!page.to_lowercase().contains(TYPED), "{page}");
        assert!(page.contains("name_not_found"), "{page}");
    }
    Ok(())
}

#[tokio::test]
async fn a_deleted_cluster_leaves_no_series_in_the_live_metrics() -> Result<()> {
    let hub = Hub::start().await?;
    let _one = Spoke::of(&hub, "one").start().await?;
    let _two = Spoke::of(&hub, "two").start().await?;
    let target = echo::start().await?;
    let held = future::try_join_all(clients(&hub)?.map(|client| hold(client, target.address()))).await?;
    let live =
        ["proxy_server_tunnels", "proxy_server_streams", "proxy_server_tunnel_rtt_seconds", "proxy_server_bytes_total"];
    let of_cluster = |metrics: &Metrics, family: &str, cluster: &str| {
        metrics.of_family(family).filter(|sample| sample.labels.get("cluster").is_some_and(|of| of == cluster)).count()
    };
    let before = Metrics::fetch(hub.addresses().metrics).await?;
    for family in live {
        assert!(of_cluster(&before, family, "one") > 0 && of_cluster(&before, family, "two") > 0, "{family}");
    }
    hub.delete_cluster("one").await?;
    wait_for(BOUND, "the series of the cluster to go", async || {
        let metrics = Metrics::fetch(hub.addresses().metrics).await?;
        for family in live {
            anyhow::ensure!(of_cluster(&metrics, family, "one") == 0, "{family} still tells of the cluster");
            anyhow::ensure!(of_cluster(&metrics, family, "two") > 0, "{family} forgot the other cluster");
        }
        Ok(())
    })
    .await?;
    // Its connections were cut with it.
    for mut connection in held {
        let mut rest = [0; 1];
        assert!(!matches!(timeout(BOUND, connection.read(&mut rest)).await?, Ok(1..)));
    }
    Ok(())
}

#[tokio::test]
async fn scrapes_at_the_same_time_agree() -> Result<()> {
    let hub = Hub::start().await?;
    let agent = Spoke::of(&hub, "one").start().await?;
    let target = echo::start().await?;
    drop(hold(hub.client("one")?, target.address()).await?);
    wait_for_values(hub.addresses().metrics, &[("proxy_server_connections", &[], 0.0)]).await?;
    wait_for_values(agent.metrics(), &[("proxy_agent_streams", &[], 0.0)]).await?;
    for (address, name) in
        [(hub.addresses().metrics, "proxy_server_bytes_total"), (agent.metrics(), "proxy_agent_bytes_total")]
    {
        let alone = Metrics::fetch(address).await?.sum(name, &[]);
        let together = future::try_join_all((0..50).map(|_| Metrics::fetch(address))).await?;
        assert!(together.iter().all(|metrics| metrics.sum(name, &[]) == alone), "{name}: not all are {alone}");
    }
    Ok(())
}
