//! The hub's start: with what it had before, with nobody else's state, and with no configuration that is wrong.

use anyhow::{Result, ensure};
use tempfile::TempDir;
use tests::hub::{ClusterAccess, JoinTerms};
use tests::raw_agent::{AgentCredentials, RawAgent, RawJoin, join_request};
use tests::{Client, Hub, Program, client};

use super::{BOUND, carries};

/// The exit code of a wrong configuration (sysexits.h: EX_USAGE).
const USAGE: i32 = 64;

#[tokio::test]
async fn a_second_start_has_all_that_the_first_had() -> Result<()> {
    let mut hub = Hub::start().await?;
    let credentials = AgentCredentials::joined(&hub, "a", "agent").await?;
    let alice = hub.create_user("alice", &ClusterAccess::Named(vec!["a".to_owned()])).await?;
    let unspent = hub.create_token(&JoinTerms::auto_accepted("b")).await?;
    AgentCredentials::joined(&hub, "denied", "agent").await?;
    hub.deny("denied").await?;
    let before = (hub.addresses().pin.clone(), hub.credentials().token()?);
    for kill in [false, true] {
        if kill {
            hub.kill().await?;
            hub.start_again().await?;
        } else {
            hub.restart().await?;
        }
        ensure!((hub.addresses().pin.clone(), hub.credentials().token()?) == before, "another CA or administrator");
        ensure!(hub.cluster_names().await? == ["a", "denied"]);
        let agent = RawAgent::open(&hub, &credentials).await?;
        let by_token = Client::new(client::Entry::Plain(hub.addresses().proxy)).cluster("a", &alice.token()?);
        let by_certificate = Client::new(client::Entry::Tls(hub.addresses().proxy, alice.mutual_tls()?));
        for (client, target) in [(by_token, "t:80"), (by_certificate, "t.a.clusters.internal:80")] {
            let (mut client, mut target) = agent.connect(&client, target).await?;
            carries(&mut client, &mut target).await?;
        }
        let denied = super::refused(&hub.client("denied")?, 503).await?;
        ensure!(denied.contains("denied"), "{denied}");
    }
    let key = certs::PrivateKey::generate();
    RawJoin::ask(&hub, &join_request(&unspent, "b", "agent", &key)?).await?.issued().await?;
    Ok(())
}

#[tokio::test]
async fn a_state_or_a_port_that_another_hub_uses_is_a_clear_error() -> Result<()> {
    let hub = Hub::start().await?;
    // It waits for one that may be about to drain.
    let patient = server(hub.state().to_str().unwrap_or_default()).args(["--drain-timeout", "1s"]);
    let second = patient.run(BOUND).await?;
    assert!(second.stderr.contains("registry.redb") && second.stderr.contains("use"), "{}", second.stderr);
    second.exited_with(1)?;
    let state = TempDir::new()?;
    let taken = hub.addresses();
    for (flag, address) in [
        ("--proxy-listen", taken.proxy),
        ("--api-listen", taken.api),
        ("--metrics-listen", taken.metrics),
        ("--tunnel-listen", taken.tunnel),
    ] {
        let others = ["--proxy-listen", "--api-listen", "--metrics-listen", "--tunnel-listen"];
        let others = others.into_iter().filter(|other| *other != flag).flat_map(|other| [other, "127.0.0.1:0"]);
        let program = Program::of_workspace("proxy-server")?.arg("--state").arg(state.path());
        let second = program.args(others).args([flag, &address.to_string()]).run(BOUND).await?;
        assert!(second.stderr.contains(&address.to_string()), "{flag}: {}", second.stderr);
        second.exited_with(1)?;
    }
    let socket = hub.socket();
    let program = server(state.path().to_str().unwrap_or_default()).arg("--proxy-socket").arg(&socket);
    let second = program.run(BOUND).await?;
    assert!(second.stderr.contains(socket.to_str().unwrap_or_default()), "{}", second.stderr);
    second.exited_with(1)?;
    ensure!(hub.cluster_names().await?.is_empty() && socket.exists(), "the first hub was harmed");
    Ok(())
}

#[tokio::test]
async fn a_wrong_configuration_is_refused_with_all_that_is_wrong_and_nothing_is_made() -> Result<()> {
    let folder = TempDir::new()?;
    let (state, file) = (folder.path().join("state"), folder.path().join("hub.toml"));
    std::fs::write(&file, "surprise = 1\n")?;
    let wrong = [
        ("--proxy-listen", "nowhere"),
        ("--tunnel-listen", "127.0.0.1:99999"),
        ("--api-listen", ":"),
        ("--dial-timeout", "0s"),
        ("--head-timeout", "-1s"),
        ("--drain-timeout", "soon"),
        ("--plaintext", "sometimes"),
        ("--log-format", "xml"),
        ("--clusters-domain", "a..b"),
        ("--max-connections-per-cluster", "0"),
        ("--max-pending-per-cluster", "many"),
        ("--max-connections-per-user", "0"),
        ("--max-pending-per-user", "99999999999999999999"),
    ];
    let program = Program::of_workspace("proxy-server")?.arg("--state").arg(&state).arg("--config").arg(&file);
    let refused = program.args(wrong.iter().map(|(flag, value)| format!("{flag}={value}"))).run(BOUND).await?;
    for (flag, value) in wrong {
        let name = flag.trim_start_matches('-');
        ensure!(refused.stderr.contains(name) && refused.stderr.contains(value), "no {flag} in {}", refused.stderr);
    }
    ensure!(refused.stderr.contains("surprise"), "{}", refused.stderr);
    refused.exited_with(USAGE)?;
    let missing = folder.path().join("missing.toml");
    for arguments in [
        vec!["--config", missing.to_str().unwrap_or_default()],
        vec!["--surprise"],
        vec!["surprise"],
        vec!["--proxy-listen"],
        vec!["--dial-timeout", "1s", "--dial-timeout", "2s"],
    ] {
        let refused =
            Program::of_workspace("proxy-server")?.arg("--state").arg(&state).args(&arguments).run(BOUND).await?;
        ensure!(!refused.stderr.is_empty(), "{arguments:?} says nothing");
        refused.exited_with(USAGE)?;
    }
    ensure!(!state.exists(), "a hub that was not configured made its state");
    Ok(())
}

/// A server with `state` on any port of loopback.
fn server(state: &str) -> Program {
    let ports = ["--proxy-listen", "--api-listen", "--metrics-listen", "--tunnel-listen"];
    let program = Program::of_workspace("proxy-server").expect("the hub of this test runs from it");
    program.args(["--state", state]).args(ports.into_iter().flat_map(|port| [port, "127.0.0.1:0"]))
}
