//! Who is who: an agent speaks for its own cluster, a user for no agent, and both only as long as the hub says so.

use std::io;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use certs::{Authority, Identity, KeyFingerprint, PrivateKey};
use hyper::Method;
use rcgen::string::Ia5String;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tempfile::TempDir;
use tests::client::{Connection, DialError, Entry};
use tests::hub::ClusterAccess;
use tests::raw_agent::{AgentCredentials, RawAgent, RawJoin, join_request};
use tests::{Client, Fetch, HUB_NAME, Hub, Spoke, wait_for};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, timeout};
use tunnel::{AgentMessage, CloseReason, ConnectionLost, Drain, Hello, HubMessage, JoinRequest, Reason, Renew, Stream};

/// How long anything may take on a loaded machine.
const BOUND: Duration = Duration::from_secs(20);
/// A right that is gone cuts within a second; this leaves room for a machine that is busy.
const CUT: Duration = Duration::from_secs(10);
const DAY: Duration = Duration::from_secs(86_400);

#[tokio::test]
async fn an_agent_of_one_cluster_serves_no_other_whatever_it_says() -> Result<()> {
    let hub = Hub::start().await?;
    let [a, b] =
        [AgentCredentials::joined(&hub, "a", "agent").await?, AgentCredentials::joined(&hub, "b", "agent").await?];
    let mut impostor = RawAgent::open(&hub, &a).await?;
    let honest = RawAgent::open(&hub, &b).await?;
    let claims = ["b", "cluster=b", "system:open-cluster-management:b:agent"].map(str::to_owned);
    for claim in &claims {
        let (version, instance) = (claim.clone(), claim.clone());
        impostor.say(AgentMessage::Hello(Hello {
            version,
            capabilities: claims.to_vec(),
            instance,
            ..Hello::default()
        }))?;
    }
    impostor.say(AgentMessage::Renew(Renew { csr: csr_for("b", "agent", &a.key)? }))?;
    let HubMessage::Renewed(renewed) = impostor.hear().await? else { bail!("no certificate") };
    assert_eq!(identity(&renewed.chain_pem)?, agent_of("a", "agent"));
    let renewed = AgentCredentials::new(&renewed.chain_pem, PrivateKey::from_pem(&a.key.to_pem())?)?;
    let second = RawAgent::open(&hub, &renewed).await?;
    let (reason, _) = RawJoin::refused(&hub, &join_request("", "b", "agent", &a.key)?).await?;
    assert_eq!(reason, Reason::UnknownToken);

    let client = hub.client("b")?;
    for at in 0..20 {
        let target = format!("for-b-{at}:80");
        let (_, dialed) = tokio::join!(client.dial(&target), async {
            let dial = honest.dial().await?;
            assert_eq!(dial.dial.host, format!("for-b-{at}"));
            dial.accept("192.0.2.1:80").await.context("the dial is gone")
        });
        dialed?;
    }
    honest.close().await;
    wait_for(BOUND, "cluster b to be away", async || match client.dial("for-b:80").await {
        Err(DialError::Status { status: 503, .. }) => Ok(()),
        other => bail!("{other:?}"),
    })
    .await?;
    // The first dial that ever reaches the impostor's tunnels is one for its own cluster.
    impostor.say(AgentMessage::Drain(Drain {}))?;
    let client = hub.client("a")?;
    let (_, dial) = tokio::join!(client.dial("for-a:80"), async {
        tokio::select! { dial = impostor.dial() => dial, dial = second.dial() => dial }.map(|dial| {
            let host = dial.dial.host.clone();
            drop(dial);
            host
        })
    });
    assert_eq!(dial?, "for-a");
    Ok(())
}

#[tokio::test]
async fn an_agents_certificate_is_refused_on_every_frontend_and_the_api() -> Result<()> {
    let hub = Hub::start().await?;
    let tls = AgentCredentials::joined(&hub, "a", "agent").await?.tls(&hub, &[b"http/1.1"])?;
    let token = hub.credentials().token()?;
    let agent = Client::new(Entry::Tls(hub.addresses().proxy, tls.clone()));
    for client in [agent.clone(), agent.clone().cluster("a", &token)] {
        match client.dial("target.a.clusters.internal:80").await {
            Err(DialError::Status { status: 403, body, .. }) => assert!(body.contains("agent's certificate"), "{body}"),
            other => bail!("CONNECT: {other:?}"),
        }
        let socks5 = client.socks5().dial("target.a.clusters.internal:80").await;
        assert!(matches!(socks5, Err(DialError::Reply { reply: 2 })), "{socks5:?}");
    }
    let login = format!("Basic {}", STANDARD.encode(format!("a:{token}")));
    let absolute = Fetch::get("http://target.a.clusters.internal/");
    for request in [absolute.clone(), absolute.header("proxy-authorization", login)] {
        let answer = request.tls(hub.addresses().proxy, HUB_NAME, tls.clone()).await?;
        assert_eq!(answer.status, 403, "{}", answer.text());
        assert!(answer.text().contains("agent's certificate"), "{}", answer.text());
    }
    for request in [Fetch::get("/v1/status"), Fetch::get("/v1/status").bearer(&token)] {
        let answer = request.tls(hub.addresses().api, HUB_NAME, tls.clone()).await?;
        assert_eq!(answer.status, 403, "{}", answer.text());
        assert!(answer.text().contains("agent's certificate"), "{}", answer.text());
    }
    Ok(())
}

#[tokio::test]
async fn a_users_certificate_or_none_opens_no_tunnel() -> Result<()> {
    let hub = Hub::start().await?;
    for user in [hub.credentials(), hub.create_user("alice", &ClusterAccess::All).await?] {
        let chain = std::fs::read_to_string(user.certificate_file())?;
        let key = PrivateKey::from_pem(&std::fs::read_to_string(user.key_file())?)?;
        let loss = RawAgent::refused(&hub, Some(&AgentCredentials::new(&chain, key)?)).await?;
        assert_eq!(closed_as(&loss, CloseReason::WrongIdentity)?, "a user's certificate opens no tunnel");
    }
    let loss = RawAgent::refused(&hub, None).await?;
    assert!(closed_as(&loss, CloseReason::WrongIdentity)?.contains("needs an agent's certificate"), "{loss}");
    Ok(())
}

#[tokio::test]
async fn an_expired_a_foreign_a_forged_and_a_self_signed_certificate_are_refused() -> Result<()> {
    let hub = Hub::builder().args(["--ended-agents", "refuse"]).start().await?;
    let known = AgentCredentials::joined(&hub, "a", "agent").await?;
    let expired = AgentCredentials::issued_by(hub.state(), "a", "agent", Duration::ZERO)?;
    // A certificate's end has whole seconds.
    wait_for(BOUND, "the certificate to expire", async || match RawAgent::refused(&hub, Some(&expired)).await {
        Ok(ConnectionLost::CertificateRefused("certificate expired")) => Ok(()),
        other => bail!("{other:?}"),
    })
    .await?;
    let elsewhere = TempDir::new()?;
    let foreign = AgentCredentials::issued_by(elsewhere.path(), "a", "agent", DAY)?;
    let self_signed = self_signed("a", "agent", &known.key)?;
    let forged = forged(&hub, "a", "agent", &known.key)?;
    let alerts = [
        (foreign, "unknown certificate authority"),
        (self_signed, "certificate unknown"),
        (forged, "bad certificate signature"),
    ];
    for (credentials, alert) in alerts {
        let loss = RawAgent::refused(&hub, Some(&credentials)).await?;
        assert_eq!(loss, ConnectionLost::CertificateRefused(alert));
    }
    RawAgent::open(&hub, &known).await?;
    Ok(())
}

#[tokio::test]
async fn an_ended_certificate_of_an_accepted_agent_is_renewed_and_no_other_opens_a_tunnel() -> Result<()> {
    let hub = Hub::start().await?;
    let known = AgentCredentials::joined(&hub, "a", "agent").await?;
    let authority = Authority::load_or_create(hub.state())?;
    let ended = authority.issue_agent(&known.key.csr_der()?, &"a".parse()?, &"agent".parse()?, Duration::ZERO)?;
    let ended = AgentCredentials::new(&ended.chain_pem, PrivateKey::from_pem(&known.key.to_pem())?)?;
    // A certificate's end has whole seconds.
    wait_for(BOUND, "the certificate to end", async || {
        let ended = certs::ends_at(&ended.chain[0]).is_some_and(|end| end + Duration::from_secs(1) < SystemTime::now());
        if ended { Ok(()) } else { Err("it goes on") }
    })
    .await?;
    let mut agent = RawAgent::open(&hub, &ended).await?;
    agent.say(AgentMessage::Renew(Renew { csr: known.key.csr_der()? }))?;
    let HubMessage::Renewed(renewed) = agent.hear().await? else { bail!("no certificate") };
    let renewed = AgentCredentials::new(&renewed.chain_pem, PrivateKey::from_pem(&known.key.to_pem())?)?;
    ensure!(certs::ends_at(&renewed.chain[0]) > Some(SystemTime::now() + 29 * DAY), "it is as short as the one before");
    RawAgent::open(&hub, &renewed).await?;

    // Another key under the same names, and another hub's agent: as if their certificates went on.
    let other = AgentCredentials::issued_by(hub.state(), "a", "agent", Duration::ZERO)?;
    closed_as(&RawAgent::refused(&hub, Some(&other)).await?, CloseReason::UnknownAgent)?;
    let elsewhere = TempDir::new()?;
    let foreign = AgentCredentials::issued_by(elsewhere.path(), "a", "agent", Duration::ZERO)?;
    assert_eq!(
        RawAgent::refused(&hub, Some(&foreign)).await?,
        ConnectionLost::CertificateRefused("unknown certificate authority")
    );
    hub.deny("a").await?;
    closed_as(&RawAgent::refused(&hub, Some(&ended)).await?, CloseReason::Denied)?;
    hub.delete_cluster("a").await?;
    closed_as(&RawAgent::refused(&hub, Some(&ended)).await?, CloseReason::UnknownCluster)?;
    Ok(())
}

#[tokio::test]
async fn an_agent_that_was_off_for_longer_than_its_certificate_lives_comes_back() -> Result<()> {
    let hub = Hub::builder().args(["--agent-certificate-lifetime", "2h"]).start().await?;
    let mut spoke = Spoke::of(&hub, "a").agent("agent").start().await?;
    spoke.stop().await?;
    let (chain, key) = (spoke.state().join("agent.crt"), PrivateKey::load_or_create(&spoke.state().join("agent.key"))?);
    let ends = || {
        let chain = std::fs::read(&chain)?;
        certs::ends_at(&CertificateDer::from_pem_slice(&chain)?).context("no certificate")
    };
    let life = ends()?.duration_since(SystemTime::now())?;
    ensure!(life > DAY / 24 && life < DAY / 8, "it lives for {life:?}");
    let authority = Authority::load_or_create(hub.state())?;
    let ended = authority.issue_agent(&key.csr_der()?, &"a".parse()?, &"agent".parse()?, Duration::ZERO)?;
    std::fs::write(&chain, ended.chain_pem)?;
    wait_for(BOUND, "the certificate to end", async || {
        if ended.not_after + Duration::from_secs(1) < SystemTime::now() { Ok(()) } else { Err("it goes on") }
    })
    .await?;
    spoke.start_again().await?;
    wait_for(BOUND, "a new certificate", async || {
        let left = ends()?.duration_since(SystemTime::now())?;
        ensure!(left > DAY / 24, "{left:?} are left");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_denied_agent_is_back_soon_after_it_is_accepted() -> Result<()> {
    let hub = Hub::start().await?;
    let _spoke = Spoke::of(&hub, "a").start().await?;
    hub.deny("a").await?;
    wait_for(BOUND, "the agent to be away", async || if hub.is_available("a").await { Err("there") } else { Ok(()) })
        .await?;
    // Refused at least once more.
    tokio::time::sleep(Duration::from_secs(5)).await;
    hub.accept("a").await?;
    let accepted = Instant::now();
    wait_for(BOUND, "the agent to be back", async || if hub.is_available("a").await { Ok(()) } else { Err("away") })
        .await?;
    eprintln!("back {:?} after it was accepted", accepted.elapsed());
    ensure!(accepted.elapsed() < Duration::from_secs(6), "back after {:?}", accepted.elapsed());
    Ok(())
}

#[tokio::test]
async fn a_users_certificate_that_is_expired_or_foreign_fails_the_handshake_on_every_tls_port() -> Result<()> {
    let hub = Hub::start().await?;
    let elsewhere = TempDir::new()?;
    let cases = [(hub.state(), Duration::ZERO, "CertificateExpired"), (elsewhere.path(), DAY, "UnknownCA")];
    for (folder, validity, alert) in cases {
        let (authority, key) = (Authority::load_or_create(folder)?, PrivateKey::generate());
        let issued = authority.issue_user(&key.csr_der()?, &"admin".parse()?, None, validity)?;
        let tls = AgentCredentials::new(&issued.chain_pem, key)?.tls(&hub, &[b"http/1.1"])?;
        for (port, path) in [(hub.addresses().proxy, "http://target/"), (hub.addresses().api, "/v1/status")] {
            // A certificate's end has whole seconds; a token beside it changes nothing.
            wait_for(BOUND, alert, async || {
                let request = Fetch::get(path).bearer(&hub.credentials().token()?);
                let refused = request.tls(port, HUB_NAME, tls.clone()).await.err().context("answered")?;
                ensure!(format!("{refused:#}").contains(alert), "{refused:#}");
                Ok(())
            })
            .await?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_certificate_that_the_registry_does_not_know_is_refused_with_its_reason() -> Result<()> {
    let hub = Hub::start().await?;
    let known = AgentCredentials::joined(&hub, "a", "agent").await?;
    let cases = [
        ("a", "agent", CloseReason::UnknownAgent),
        ("a", "other", CloseReason::UnknownAgent),
        ("nobody", "agent", CloseReason::UnknownCluster),
    ];
    for (cluster, agent, reason) in cases {
        let credentials = AgentCredentials::issued_by(hub.state(), cluster, agent, DAY)?;
        let loss = RawAgent::refused(&hub, Some(&credentials)).await?;
        let text = closed_as(&loss, reason).with_context(|| format!("{agent} of {cluster}"))?;
        assert!(text.contains(if reason == CloseReason::UnknownCluster { cluster } else { agent }), "{text}");
    }
    RawAgent::open(&hub, &known).await?;
    Ok(())
}

#[tokio::test]
async fn a_certificate_is_renewed_for_its_own_key_and_for_no_other() -> Result<()> {
    let hub = Hub::start().await?;
    let known = AgentCredentials::joined(&hub, "a", "agent").await?;
    let mut agent = RawAgent::open(&hub, &known).await?;
    let garbage = [Vec::new(), b"garbage".to_vec(), vec![0x30; 20_000]];
    for csr in garbage.into_iter().chain([PrivateKey::generate().csr_der()?]) {
        agent.say(AgentMessage::Renew(Renew { csr }))?;
    }
    // Answers come in order: the first one is for the first request that was granted.
    agent.say(AgentMessage::Renew(Renew { csr: known.key.csr_der()? }))?;
    let HubMessage::Renewed(renewed) = agent.hear().await? else { bail!("no certificate") };
    assert_eq!(identity(&renewed.chain_pem)?, agent_of("a", "agent"));
    let renewed = AgentCredentials::new(&renewed.chain_pem, PrivateKey::from_pem(&known.key.to_pem())?)?;
    assert_eq!(KeyFingerprint::of_certificate(&renewed.chain[0])?, known.key.fingerprint());
    assert_ne!(renewed.chain[0], known.chain[0]);
    RawAgent::open(&hub, &renewed).await?;
    Ok(())
}

#[tokio::test]
async fn a_denied_cluster_is_cut_and_kept_out_until_it_is_accepted() -> Result<()> {
    let hub = Hub::start().await?;
    let [a, b] =
        [AgentCredentials::joined(&hub, "a", "agent").await?, AgentCredentials::joined(&hub, "b", "agent").await?];
    let [agent, other] = [RawAgent::open(&hub, &a).await?, RawAgent::open(&hub, &b).await?];
    let (mut plain, _at_agent) = agent.connect(&hub.client("a")?, "target:80").await?;
    let over_tls = hub.client("a")?.through(Entry::Tls(hub.addresses().proxy, hub.credentials().mutual_tls()?));
    let (mut tls, _at_agent_too) = agent.connect(&over_tls, "target:80").await?;
    let (mut bystander, mut at_other) = other.connect(&hub.client("b")?, "target:80").await?;

    let denied = Instant::now();
    hub.deny("a").await?;
    let loss = agent.lost().await?;
    assert!(closed_as(&loss, CloseReason::Denied)?.contains("denied"), "{loss}");
    assert_eq!(end(&mut plain).await?, io::ErrorKind::ConnectionReset);
    // No close_notify: over TLS a cut must not look like an end.
    assert!([io::ErrorKind::UnexpectedEof, io::ErrorKind::ConnectionReset].contains(&end(&mut tls).await?));
    assert!(denied.elapsed() < CUT, "cut after {:?}", denied.elapsed());
    carries(&mut bystander, &mut at_other).await?;
    closed_as(&RawAgent::refused(&hub, Some(&a)).await?, CloseReason::Denied)?;
    refused_with(&hub.client("a")?, 503, "denied").await?;

    hub.accept("a").await?;
    let agent = RawAgent::open(&hub, &a).await?;
    let (mut client, mut at_agent) = agent.connect(&hub.client("a")?, "target:80").await?;
    carries(&mut client, &mut at_agent).await
}

#[tokio::test]
async fn a_deleted_cluster_is_cut_and_unknown() -> Result<()> {
    let hub = Hub::start().await?;
    let credentials = AgentCredentials::joined(&hub, "a", "agent").await?;
    let agent = RawAgent::open(&hub, &credentials).await?;
    let (mut client, _at_agent) = agent.connect(&hub.client("a")?, "target:80").await?;
    let deleted = Instant::now();
    hub.delete_cluster("a").await?;
    closed_as(&agent.lost().await?, CloseReason::UnknownCluster)?;
    assert_eq!(end(&mut client).await?, io::ErrorKind::ConnectionReset);
    assert!(deleted.elapsed() < CUT, "cut after {:?}", deleted.elapsed());
    closed_as(&RawAgent::refused(&hub, Some(&credentials)).await?, CloseReason::UnknownCluster)?;
    refused_with(&hub.client("a")?, 404, "no cluster named a").await?;
    // A new cluster of that name owes nothing to the old one's agent.
    let renamed = AgentCredentials::joined(&hub, "a", "other").await?;
    closed_as(&RawAgent::refused(&hub, Some(&credentials)).await?, CloseReason::UnknownAgent)?;
    RawAgent::open(&hub, &renamed).await?;
    Ok(())
}

#[tokio::test]
async fn a_denial_ends_a_dial_that_waits() -> Result<()> {
    let hub = Hub::start().await?;
    let credentials = AgentCredentials::joined(&hub, "a", "agent").await?;
    let agent = RawAgent::open(&hub, &credentials).await?;
    let client = hub.client("a")?;
    let (refused, denied) = tokio::join!(client.dial("target:80"), async {
        let _unanswered = agent.dial().await?;
        hub.deny("a").await
    });
    denied?;
    match refused {
        Err(DialError::Status { status: 403 | 502, body, .. }) => assert!(!body.is_empty()),
        other => bail!("{other:?}"),
    }
    Ok(())
}

#[tokio::test]
async fn a_deleted_user_is_cut_and_known_no_more() -> Result<()> {
    let hub = Hub::start().await?;
    let credentials = AgentCredentials::joined(&hub, "a", "agent").await?;
    let agent = RawAgent::open(&hub, &credentials).await?;
    let alice = hub.create_user("alice", &ClusterAccess::Named(vec!["a".to_owned()])).await?;
    let proxy = hub.addresses().proxy;
    let by_token = Client::new(Entry::Plain(proxy)).cluster("a", &alice.token()?);
    let by_certificate = Client::new(Entry::Tls(proxy, alice.mutual_tls()?));
    let (mut first, _at_agent) = agent.connect(&by_token, "target:80").await?;
    let (mut second, _at_agent_too) = agent.connect(&by_certificate, "target.a.clusters.internal:80").await?;
    let (mut bystander, mut at_agent) = agent.connect(&hub.client("a")?, "target:80").await?;

    let deleted = Instant::now();
    hub.ask(Fetch::new(Method::DELETE, "/v1/users/alice")).await?.success()?;
    assert_eq!(end(&mut first).await?, io::ErrorKind::ConnectionReset);
    assert!([io::ErrorKind::UnexpectedEof, io::ErrorKind::ConnectionReset].contains(&end(&mut second).await?));
    assert!(deleted.elapsed() < CUT, "cut after {:?}", deleted.elapsed());
    carries(&mut bystander, &mut at_agent).await?;
    refused_with(&by_token, 407, "token is not known").await?;
    refused_with(&by_certificate, 403, "alice is not registered here any more").await
}

#[tokio::test]
async fn a_user_made_anew_is_not_the_one_that_was_deleted() -> Result<()> {
    let hub = Hub::start().await?;
    let agent = RawAgent::open(&hub, &AgentCredentials::joined(&hub, "a", "agent").await?).await?;
    let former = hub.create_user("alice", &ClusterAccess::All).await?;
    let (proxy, target) = (hub.addresses().proxy, "target.a.clusters.internal:80");
    let by_certificate = Client::new(Entry::Tls(proxy, former.mutual_tls()?));
    agent.connect(&by_certificate, target).await?;
    // Within the same second: not the time tells one from the other, but the uid.
    hub.ask(Fetch::new(Method::DELETE, "/v1/users/alice")).await?.success()?;
    let latter = hub.create_user("alice", &ClusterAccess::All).await?;
    let answer = Fetch::get("http://a.clusters.internal/nothing").tls(proxy, HUB_NAME, former.mutual_tls()?);
    let held = tokio::select! { answer = answer => answer?, dial = agent.dial() => bail!("let in: {:?}", dial?.dial) };
    ensure!(held.status == 403, "{}", held.text());
    refused_with(&by_certificate, 403, "alice is not registered here any more").await?;
    let former_token = Client::new(Entry::Plain(proxy)).cluster("a", &former.token()?);
    refused_with(&former_token, 407, "token is not known").await?;
    let (mut client, mut at_agent) =
        agent.connect(&Client::new(Entry::Tls(proxy, latter.mutual_tls()?)), target).await?;
    carries(&mut client, &mut at_agent).await
}

#[tokio::test]
async fn what_an_agent_says_of_itself_is_kept_short_and_plain() -> Result<()> {
    let hub = Hub::start().await?;
    let (token, key) = (hub.create_token(&tests::hub::JoinTerms::auto_accepted("a")).await?, PrivateKey::generate());
    let strange = format!("1.0\x1b[2J\r\n\u{202e}{}", "v".repeat(50_000));
    let request = JoinRequest { version: strange, ..join_request(&token, "a", "agent", &key)? };
    let issued = RawJoin::ask(&hub, &request).await?.issued().await?;
    let version = hub.cluster("a").await?["status"]["agents"][0]["version"].as_str().map(str::to_owned);
    let version = version.context("no version")?;
    assert!(version.starts_with("1.0") && version.len() <= 64, "{version:?}");
    assert!(version.chars().all(|c| c.is_ascii_graphic()), "{version:?}");
    RawAgent::open(&hub, &AgentCredentials::new(&issued.chain_pem, key)?).await?;
    Ok(())
}

/// Reads to the end of a connection that is expected to be cut, and gives the error.
async fn end(connection: &mut Connection) -> Result<io::ErrorKind> {
    let read = timeout(BOUND, connection.read(&mut [0])).await.context("the connection is not cut")?;
    match read {
        Ok(0) => bail!("the cut looks like a clean end"),
        Ok(_) => bail!("the connection still carries"),
        Err(error) => Ok(error.kind()),
    }
}

/// Demands that bytes pass both ways.
async fn carries(client: &mut Connection, agent: &mut Stream) -> Result<()> {
    let passing = async {
        let mut seen = [0; 4];
        client.write_all(b"ping").await?;
        client.flush().await?;
        agent.read_exact(&mut seen).await?;
        assert_eq!(&seen, b"ping");
        agent.write_all(b"pong").await?;
        client.read_exact(&mut seen).await?;
        assert_eq!(&seen, b"pong");
        Ok(())
    };
    timeout(BOUND, passing).await.context("nothing passes")?
}

async fn refused_with(client: &Client, expected: u16, sentence: &str) -> Result<()> {
    match client.dial("target.a.clusters.internal:80").await {
        Err(DialError::Status { status, body, .. }) if status == expected => {
            assert!(body.contains(sentence), "{body}");
            Ok(())
        }
        other => bail!("not {expected}: {other:?}"),
    }
}

/// The text of a close for `reason`.
fn closed_as(loss: &ConnectionLost, expected: CloseReason) -> Result<&str> {
    let ConnectionLost::Closed { reason, text } = loss else { bail!("not closed as {expected}: {loss:?}") };
    ensure!(*reason == expected, "not closed as {expected}: {loss:?}");
    Ok(text)
}

fn agent_of(cluster: &str, agent: &str) -> Identity {
    let (cluster, agent) =
        (cluster.parse().expect("the cluster's name is one"), agent.parse().expect("so is the agent's"));
    Identity::Agent { cluster, agent }
}

fn identity(chain_pem: &str) -> Result<Identity> {
    Ok(Identity::from_certificate(&CertificateDer::from_pem_slice(chain_pem.as_bytes())?)?)
}

/// What the certificate of `agent` of `cluster` says, asked for by whoever.
fn names_of(cluster: &str, agent: &str) -> Result<CertificateParams> {
    let mut names = CertificateParams::default();
    let prefix = "system:open-cluster-management";
    names.distinguished_name.push(DnType::CommonName, format!("{prefix}:{cluster}:{agent}"));
    names.distinguished_name.push(DnType::OrganizationName, format!("{prefix}:{cluster}"));
    names.distinguished_name.push(DnType::CustomDnType(vec![2, 5, 4, 10]), format!("{prefix}:managed-clusters"));
    let uri = format!("spiffe://cluster-proxy.internal/cluster/{cluster}/agent/{agent}");
    names.subject_alt_names = vec![SanType::URI(Ia5String::try_from(uri)?)];
    names.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    Ok(names)
}

fn csr_for(cluster: &str, agent: &str, key: &PrivateKey) -> Result<Vec<u8>> {
    let key = KeyPair::from_pem(&key.to_pem())?;
    Ok(names_of(cluster, agent)?.serialize_request(&key)?.der().to_vec())
}

fn self_signed(cluster: &str, agent: &str, key: &PrivateKey) -> Result<AgentCredentials> {
    let signed = names_of(cluster, agent)?.self_signed(&KeyPair::from_pem(&key.to_pem())?)?;
    AgentCredentials::new(&signed.pem(), PrivateKey::from_pem(&key.to_pem())?)
}

/// A certificate of the hub's CA by name, that another key has signed.
fn forged(hub: &Hub, cluster: &str, agent: &str, key: &PrivateKey) -> Result<AgentCredentials> {
    let authority = CertificateDer::from_pem_file(hub.credentials().authority_file())?;
    let issuer = Issuer::from_ca_cert_der(&authority, KeyPair::generate()?)?;
    let signed = names_of(cluster, agent)?.signed_by(&KeyPair::from_pem(&key.to_pem())?, &issuer)?;
    AgentCredentials::new(&signed.pem(), PrivateKey::from_pem(&key.to_pem())?)
}
