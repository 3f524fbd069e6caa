//! Joins: each refusal with its own reason and nothing left behind, and no way in but the hub's yes.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use certs::{HUB_SERVER_NAME, Identity, Pin, PrivateKey, pinned_tls};
use futures_util::FutureExt as _;
use nix::sys::signal::Signal;
use rcgen::string::Ia5String;
use rcgen::{CertificateParams, CustomExtension, DnType, KeyPair, PKCS_ECDSA_P521_SHA512, SanType};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tempfile::TempDir;
use tests::hub::JoinTerms;
use tests::raw_agent::{AgentCredentials, RawAgent, RawJoin, join_request};
use tests::{Fetch, Hub, Program, Spoke, wait_for};
use tokio::time::timeout;
use tunnel::{ALPN_JOIN, CloseReason, ConnectError, ConnectionLost, JoinReply, JoinRequest, Reason};

/// How long anything may take on a loaded machine.
const BOUND: Duration = Duration::from_secs(30);
/// The agent's exit code for a refusal that trying again does not change (sysexits.h: EX_NOPERM).
const REFUSED: i32 = 77;

#[tokio::test]
async fn a_wrong_pin_is_refused_by_the_agent_before_it_says_anything() -> Result<()> {
    let hub = Hub::start().await?;
    let pin: Pin = PrivateKey::generate().fingerprint().to_string().parse()?;
    let tls = pinned_tls(&pin, &[ALPN_JOIN]).config();
    match tunnel::connect(hub.addresses().tunnel, tls, HUB_SERVER_NAME, tunnel::Settings::default(), BOUND).await {
        Err(ConnectError::Handshake { source: ConnectionLost::Transport(text), .. }) => {
            assert!(text.contains(&hub.addresses().pin) && text.contains(&pin.to_string()), "{text}");
        }
        other => bail!("{other:?}"),
    }
    let token = hub.create_token(&JoinTerms::auto_accepted("a")).await?;
    let state = TempDir::new()?;
    let join = Program::of_workspace("proxy-agent")?.args(["join", "--hub", &hub.addresses().tunnel.to_string()]);
    let join = join.args(["--token", &token, "--pin", &pin.to_string(), "--cluster", "a", "--state"]).arg(state.path());
    let refused = join.run(BOUND).await?;
    assert!(refused.stderr.contains("pin"), "{}", refused.stderr);
    refused.exited_with(REFUSED)?;
    no_cluster_is_left(&hub).await?;
    // The token was not spent on whoever answered.
    Spoke::of(&hub, "a").token(&token).join(state.path()).await?.run(BOUND).await?.success()?;
    Ok(())
}

#[tokio::test]
async fn a_bad_token_is_refused_with_its_reason_and_leaves_nothing_behind() -> Result<()> {
    let hub = Hub::start().await?;
    let key = PrivateKey::generate();
    let bound = hub.create_token(&JoinTerms::auto_accepted("a")).await?;
    let other_secret = format!("{}.{}", bound.split_once('.').context("no secret")?.0, "A".repeat(43));
    for unknown in ["", "cpj-", "cpj-0123456789.x", "nonsense", "\0", &bound[1..], &other_secret, &"x".repeat(60_000)] {
        let (reason, message) = RawJoin::refused(&hub, &join_request(unknown, "a", "agent", &key)?).await?;
        assert_eq!(reason, Reason::UnknownToken, "{message}");
        assert!(message.contains("token create"), "{message}");
    }
    let (reason, message) = RawJoin::refused(&hub, &join_request(&bound, "b", "agent", &key)?).await?;
    assert_eq!(reason, Reason::WrongName);
    assert!(message.contains("--cluster a"), "{message}");

    let unbound = hub.create_token(&JoinTerms { cluster: None, ..JoinTerms::auto_accepted("") }).await?;
    let (reason, message) = RawJoin::refused(&hub, &join_request(&unbound, "", "agent", &key)?).await?;
    assert_eq!(reason, Reason::NoName);
    assert!(message.contains("--cluster"), "{message}");

    let brief = hub.create_token(&JoinTerms { ttl_seconds: 1, ..JoinTerms::auto_accepted("a") }).await?;
    wait_for(BOUND, "the token to expire", async || {
        // While it is good it is refused for its name, and not spent.
        let (reason, _) = RawJoin::refused(&hub, &join_request(&brief, "b", "agent", &key)?).await?;
        ensure!(reason == Reason::ExpiredToken, "{reason:?}");
        Ok(())
    })
    .await?;
    let (reason, _) = RawJoin::refused(&hub, &join_request(&brief, "a", "agent", &key)?).await?;
    assert_eq!(reason, Reason::ExpiredToken);
    no_cluster_is_left(&hub).await?;

    // None of this spent the good one; the first use does.
    RawJoin::ask(&hub, &join_request(&bound, "a", "agent", &key)?).await?.issued().await?;
    for (agent, key) in [("agent", &PrivateKey::generate()), ("other", &key), ("other", &PrivateKey::generate())] {
        let (reason, _) = RawJoin::refused(&hub, &join_request(&bound, "a", agent, key)?).await?;
        assert_eq!(reason, Reason::UsedToken, "{agent}");
    }
    let agents = hub.cluster("a").await?["status"]["agents"].as_array().map(Vec::len);
    assert_eq!(agents, Some(1));
    Ok(())
}

#[tokio::test]
async fn a_denied_cluster_and_a_taken_name_are_refused_and_change_nothing() -> Result<()> {
    let hub = Hub::start().await?;
    let first = AgentCredentials::joined(&hub, "a", "agent").await?;
    let again = hub.create_token(&JoinTerms { reusable: true, cluster: None, ..JoinTerms::auto_accepted("") }).await?;
    let before = hub.cluster("a").await?["status"]["agents"].clone();
    let (reason, message) =
        RawJoin::refused(&hub, &join_request(&again, "a", "agent", &PrivateKey::generate())?).await?;
    assert_eq!(reason, Reason::AgentNameTaken);
    assert!(message.contains("--agent"), "{message}");
    hub.deny("a").await?;
    let (reason, message) =
        RawJoin::refused(&hub, &join_request(&again, "a", "second", &PrivateKey::generate())?).await?;
    assert_eq!(reason, Reason::Denied);
    assert!(message.contains("accept a"), "{message}");
    assert_eq!(hub.cluster("a").await?["status"]["agents"], before);
    hub.accept("a").await?;
    RawAgent::open(&hub, &first).await?;
    Ok(())
}

#[tokio::test]
async fn a_join_waits_for_the_administrator_and_is_issued_when_accepted() -> Result<()> {
    let hub = Hub::start().await?;
    let (token, key) = (waiting_token(&hub).await?, PrivateKey::generate());
    let mut join = RawJoin::ask(&hub, &join_request(&token, "a", "agent", &key)?).await?;
    assert_eq!(join.pending().await?, "a");
    assert_ne!(hub.cluster("a").await?["spec"]["hubAcceptsClient"], true);
    hub.accept("a").await?;
    let issued = join.issued().await?;
    join.close().await;
    assert_eq!(issued.cluster, "a");
    RawAgent::open(&hub, &AgentCredentials::new(&issued.chain_pem, key)?).await?;
    Ok(())
}

#[tokio::test]
async fn a_join_that_waits_is_refused_when_its_cluster_is_denied_or_deleted() -> Result<()> {
    let hub = Hub::start().await?;
    let mut joins = Vec::new();
    for cluster in ["denied", "deleted"] {
        let token = waiting_token(&hub).await?;
        let mut join = RawJoin::ask(&hub, &join_request(&token, cluster, "agent", &PrivateKey::generate())?).await?;
        assert_eq!(join.pending().await?, cluster);
        joins.push(join);
    }
    hub.deny("denied").await?;
    hub.delete_cluster("deleted").await?;
    for (join, word) in joins.iter_mut().zip(["denied", "withdrawn"]) {
        let (reason, message) = join.refusal().await?;
        assert_eq!(reason, Reason::Denied);
        assert!(message.contains(word), "{message}");
    }
    assert_eq!(hub.cluster_names().await?, ["denied"]);
    Ok(())
}

#[tokio::test]
async fn an_interrupted_join_goes_on_with_its_key_and_its_used_token() -> Result<()> {
    let hub = Hub::start().await?;
    let (token, key) = (waiting_token(&hub).await?, PrivateKey::generate());
    let request = join_request(&token, "a", "agent", &key)?;
    for _ in 0..3 {
        // Dropped: as if the agent was killed.
        assert_eq!(RawJoin::ask(&hub, &request).await?.pending().await?, "a");
    }
    let (reason, _) = RawJoin::refused(&hub, &join_request(&token, "a", "agent", &PrivateKey::generate())?).await?;
    assert_eq!(reason, Reason::UsedToken);
    let (reason, _) = RawJoin::refused(&hub, &join_request(&token, "b", "agent", &key)?).await?;
    assert_eq!(reason, Reason::UsedToken);
    hub.accept("a").await?;
    let issued = RawJoin::ask(&hub, &request).await?.issued().await?;
    RawAgent::open(&hub, &AgentCredentials::new(&issued.chain_pem, key)?).await?;
    assert_eq!(hub.cluster_names().await?, ["a"]);
    Ok(())
}

#[tokio::test]
async fn an_unbound_token_puts_no_agent_into_a_cluster_that_exists() -> Result<()> {
    let hub = Hub::start().await?;
    let terms = JoinTerms { cluster: None, reusable: true, ..JoinTerms::auto_accepted("") };
    let token = hub.create_token(&terms).await?;
    let [one, two] = [PrivateKey::generate(), PrivateKey::generate()];
    let mut joins = [
        RawJoin::ask(&hub, &join_request(&token, "new", "one", &one)?).await?,
        RawJoin::ask(&hub, &join_request(&token, "new", "two", &two)?).await?,
    ];
    let [first, second] = &mut joins;
    let replies = [first.next().await?, second.next().await?];
    let issued = replies.iter().filter(|reply| matches!(reply, JoinReply::Issued(_))).count();
    let pending = replies.iter().filter(|reply| matches!(reply, JoinReply::Pending(_))).count();
    assert_eq!((issued, pending), (1, 1), "{replies:?}");

    AgentCredentials::joined(&hub, "old", "agent").await?;
    let intruder = PrivateKey::generate();
    let request = join_request(&token, "old", "intruder", &intruder)?;
    let mut join = RawJoin::ask(&hub, &request).await?;
    assert_eq!(join.pending().await?, "old");
    // Even a certificate that was issued by mistake would not let it in.
    let authority = certs::Authority::load_or_create(hub.state())?;
    let day = Duration::from_secs(86_400);
    let early = authority.issue_agent(&intruder.csr_der()?, &"old".parse()?, &"intruder".parse()?, day)?;
    let early = AgentCredentials::new(&early.chain_pem, PrivateKey::from_pem(&intruder.to_pem())?)?;
    let loss = RawAgent::refused(&hub, Some(&early)).await?;
    let not_accepted =
        matches!(&loss, ConnectionLost::Closed { reason: CloseReason::NotAccepted, text } if text.contains("intruder"));
    assert!(not_accepted, "{loss:?}");
    hub.accept("old").await?;
    join.issued().await?;
    RawAgent::open(&hub, &early).await?;
    Ok(())
}

#[tokio::test]
async fn a_request_for_other_names_gets_none_of_them() -> Result<()> {
    let hub = Hub::start().await?;
    let (token, key) = (hub.create_token(&JoinTerms::auto_accepted("a")).await?, PrivateKey::generate());
    let mut names = CertificateParams::new(vec!["hub.cluster-proxy.internal".to_owned()])?;
    names.distinguished_name.push(DnType::CommonName, "system:open-cluster-management:b:agent");
    names.distinguished_name.push(DnType::OrganizationName, "system:masters");
    let uri = Ia5String::try_from("spiffe://cluster-proxy.internal/cluster/b/agent/agent")?;
    names.subject_alt_names.push(SanType::URI(uri));
    // CA:TRUE, which rcgen itself would not ask for.
    names.custom_extensions.push(CustomExtension::from_oid_content(&[2, 5, 29, 19], vec![0x30, 3, 1, 1, 0xff]));
    let csr = names.serialize_request(&KeyPair::from_pem(&key.to_pem())?)?.der().to_vec();
    let request = JoinRequest { csr, ..join_request(&token, "a", "agent", &key)? };
    let issued = RawJoin::ask(&hub, &request).await?.issued().await?;
    let leaf = CertificateDer::from_pem_slice(issued.chain_pem.as_bytes())?;
    let agent = Identity::Agent { cluster: "a".parse()?, agent: "agent".parse()? };
    assert_eq!(Identity::from_certificate(&leaf)?, agent);
    for name in ["hub.cluster-proxy.internal", "system:masters", "management:b"] {
        assert!(!leaf.windows(name.len()).any(|bytes| bytes == name.as_bytes()), "{name} is in the certificate");
    }
    Ok(())
}

#[tokio::test]
async fn a_malformed_request_is_refused_and_leaves_nothing_behind() -> Result<()> {
    let hub = Hub::start().await?;
    let (token, key) =
        (hub.create_token(&JoinTerms { cluster: None, ..JoinTerms::auto_accepted("") }).await?, PrivateKey::generate());
    let good = join_request(&token, "a", "agent", &key)?;
    let long = "a".repeat(64);
    for name in ["A", "a.b", "-a", "a-", "a_b", "ä", "a\0", "a b", "../a", " ", &long, &"a".repeat(30_000)] {
        let renamed = [
            JoinRequest { cluster: name.to_owned(), ..good.clone() },
            JoinRequest { agent: name.to_owned(), ..good.clone() },
        ];
        for request in renamed {
            let (reason, message) = RawJoin::refused(&hub, &request).await?;
            assert_eq!(reason, Reason::BadRequest, "{name:?}: {message}");
            assert!(message.contains("name") && message.len() < 1024, "{message}");
        }
    }
    let (reason, _) = RawJoin::refused(&hub, &JoinRequest { agent: String::new(), ..good.clone() }).await?;
    assert_eq!(reason, Reason::BadRequest);
    let mut forged = good.csr.clone();
    *forged.last_mut().context("an empty CSR")? ^= 1;
    let of_another_kind = KeyPair::generate_for(&PKCS_ECDSA_P521_SHA512)?;
    let of_another_kind = CertificateParams::default().serialize_request(&of_another_kind)?.der().to_vec();
    let trailing = [good.csr.clone(), vec![0]].concat();
    let cut = good.csr[..good.csr.len() / 2].to_vec();
    for (what, csr) in [
        ("none", Vec::new()),
        ("garbage", b"garbage".to_vec()),
        ("much garbage", vec![0x30; 50_000]),
        ("cut", cut),
        ("trailing", trailing),
        ("not signed by its key", forged),
        ("of a key that is not taken", of_another_kind),
    ] {
        let (reason, message) = RawJoin::refused(&hub, &JoinRequest { csr, ..good.clone() }).await?;
        assert_eq!(reason, Reason::BadRequest, "{what}: {message}");
        no_cluster_is_left(&hub).await.context(what)?;
    }
    let huge = JoinRequest { version: "v".repeat(100_000), ..good.clone() };
    let answer = async { RawJoin::ask(&hub, &huge).await?.next().await };
    assert!(answer.await.is_err(), "a message beyond the limit was answered");
    no_cluster_is_left(&hub).await?;
    RawJoin::ask(&hub, &good).await?.issued().await?;
    Ok(())
}

#[tokio::test]
async fn a_waiting_join_outlives_a_restart_of_the_hub() -> Result<()> {
    for kill in [false, true] {
        let mut hub = Hub::start().await?;
        let (token, key) = (waiting_token(&hub).await?, PrivateKey::generate());
        let request = join_request(&token, "a", "agent", &key)?;
        let mut join = RawJoin::ask(&hub, &request).await?;
        join.pending().await?;
        if kill {
            hub.kill().await?;
        } else {
            hub.stop().await?;
        }
        hub.start_again().await?;
        let lost = join.next().await;
        assert!(lost.is_err(), "{lost:?}");
        let mut join = RawJoin::ask(&hub, &request).await?;
        assert_eq!(join.pending().await?, "a");
        hub.accept("a").await?;
        let issued = join.issued().await?;
        RawAgent::open(&hub, &AgentCredentials::new(&issued.chain_pem, key)?).await?;
    }
    Ok(())
}

#[tokio::test]
async fn an_agent_that_waits_is_accepted_and_one_that_is_denied_ends_with_its_reason() -> Result<()> {
    let hub = Hub::start().await?;
    for (cluster, accepted) in [("yes", true), ("no", false)] {
        let (token, state) = (waiting_token(&hub).await?, TempDir::new()?);
        let mut join = Spoke::of(&hub, cluster).token(&token).join(state.path()).await?.spawn()?;
        wait_for(BOUND, "the join to wait", async || hub.cluster(cluster).await).await?;
        if accepted {
            hub.accept(cluster).await?;
            join.exits_with(0, BOUND).await?;
        } else {
            hub.deny(cluster).await?;
            join.exits_with(REFUSED, BOUND).await?;
            join.stderr_line(BOUND, "the reason", |line| line.contains("denied").then_some(())).await?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn an_agent_that_is_killed_while_it_waits_joins_with_the_key_it_made() -> Result<()> {
    let hub = Hub::start().await?;
    let (token, state) = (waiting_token(&hub).await?, TempDir::new()?);
    let spoke = Spoke::of(&hub, "a").token(&token);
    let mut join = spoke.join(state.path()).await?.spawn()?;
    wait_for(BOUND, "the join to wait", async || hub.cluster("a").await).await?;
    join.signal(Signal::SIGKILL)?;
    join.exit(BOUND).await?;
    let before = hub.cluster("a").await?["status"]["agents"].clone();
    let mut join = spoke.join(state.path()).await?.spawn()?;
    hub.accept("a").await?;
    join.exits_with(0, BOUND).await?;
    assert_eq!(hub.cluster("a").await?["status"]["agents"][0]["key"], before[0]["key"]);
    assert_eq!(hub.cluster("a").await?["status"]["agents"].as_array().map(Vec::len), Some(1));
    Ok(())
}

/// A single-use token for any name that accepts nothing by itself.
async fn waiting_token(hub: &Hub) -> Result<String> {
    hub.create_token(&JoinTerms { cluster: None, auto_accept: false, reusable: false, ttl_seconds: 3600 }).await
}

async fn no_cluster_is_left(hub: &Hub) -> Result<()> {
    let names = hub.cluster_names().await?;
    ensure!(names.is_empty(), "a refused join left {names:?}");
    let status = hub.ask(Fetch::get("/v1/status")).await?.success()?.json()?;
    ensure!(status["clusters"]["total"] == 0, "{status}");
    Ok(())
}

#[tokio::test]
async fn joins_that_say_nothing_keep_no_other_of_their_address_out() -> Result<()> {
    let hub = Hub::start().await?;
    let token = hub.create_token(&JoinTerms::auto_accepted("a")).await?;
    let mut silent = Vec::new();
    // As many as one address may have.
    for _ in 0..128 {
        silent.push(RawJoin::silent(&hub).await?);
    }
    let request = join_request(&token, "a", "agent", &PrivateKey::generate())?;
    RawJoin::ask(&hub, &request).await?.issued().await?;
    let (oldest, newest) = (&silent[0], &silent[127]);
    let Ok(_) = timeout(BOUND, oldest.closed()).await else { bail!("the oldest made no room") };
    ensure!(newest.closed().now_or_never().is_none(), "the newest made room");
    Ok(())
}
