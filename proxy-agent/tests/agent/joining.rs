//! Joining: what is asked, what is kept, and every way it ends.

use std::{path::Path, time::Duration};

use certs::{KeyFingerprint, PrivateKey};
use proxy_agent::{JoinConfig, JoinError, JoinProgress, join, state::Membership};
use secrecy::SecretString;
use tunnel::{JoinReply, Pending, Reason, Refusal};

use crate::hub::{Hub, SOON, files};

const KEPT: [&str; 4] = ["agent.crt", "agent.key", "agent.toml", "ca.crt"];

fn config(hub: &Hub, state: &Path) -> JoinConfig {
    JoinConfig {
        state: state.to_owned(),
        hubs: vec![hub.address.to_string().parse().unwrap()],
        token: SecretString::from("cpj-id.secret"),
        pin: hub.pin(),
        cluster: Some("c1".parse().unwrap()),
        agent: "a1".parse().unwrap(),
        timeout: SOON,
    }
}

async fn run(config: &JoinConfig) -> (Result<Membership, JoinError>, Vec<JoinProgress>) {
    let mut seen = Vec::new();
    let joined = join(config, |progress| seen.push(progress)).await;
    (joined, seen)
}

fn pending() -> JoinReply {
    JoinReply::Pending(Pending { cluster: "c1".into() })
}

#[tokio::test]
async fn a_granted_join_keeps_the_identity() {
    let (hub, state) = (Hub::start(), tempfile::tempdir().unwrap());
    let config = config(&hub, state.path());
    let ((joined, _), request) = tokio::join!(run(&config), hub.grant());
    let membership = joined.unwrap();
    assert_eq!((&*membership.cluster, &*membership.agent), ("c1", "a1"));
    assert_eq!(membership.hubs, config.hubs);
    assert_eq!(files(state.path()), KEPT);
    assert_eq!((request.token.as_str(), request.cluster.as_str()), ("cpj-id.secret", "c1"));
    let key = PrivateKey::load_or_create(&state.path().join("agent.key")).unwrap();
    assert_eq!(KeyFingerprint::of_csr(&request.csr).unwrap(), key.fingerprint());
}

#[tokio::test]
async fn the_cluster_may_be_named_by_the_hub() {
    let (hub, state) = (Hub::start(), tempfile::tempdir().unwrap());
    let config = JoinConfig { cluster: None, ..config(&hub, state.path()) };
    let ((joined, _), request) = tokio::join!(run(&config), hub.grant());
    assert_eq!(request.cluster, "");
    assert_eq!(&*joined.unwrap().cluster, "bound");
}

#[tokio::test]
async fn a_join_waits_and_survives_a_restart_of_the_hub() {
    let (mut hub, state) = (Hub::start(), tempfile::tempdir().unwrap());
    let config = config(&hub, state.path());
    let deciding = async {
        let (mut session, first) = hub.join().await;
        session.answer(pending()).await.unwrap();
        hub.stop().await;
        drop(session);
        hub.start_again().await;
        let (mut session, second) = hub.join().await;
        session.answer(pending()).await.unwrap();
        session.conclude(hub.issue(&second, SOON), SOON).await.unwrap();
        (first, second)
    };
    let ((joined, seen), (first, second)) = tokio::join!(run(&config), deciding);
    joined.unwrap();
    let key = |csr: &[u8]| KeyFingerprint::of_csr(csr).unwrap();
    assert_eq!(key(&first.csr), key(&second.csr));
    let waiting = JoinProgress::Waiting { cluster: "c1".into(), agent: config.agent.clone(), key: key(&first.csr) };
    assert!(seen.contains(&waiting), "{seen:?}");
    assert!(seen.iter().any(|progress| matches!(progress, JoinProgress::Retrying { .. })), "{seen:?}");
}

#[tokio::test]
async fn an_interrupted_join_goes_on_with_the_same_key() {
    let (hub, state) = (Hub::start(), tempfile::tempdir().unwrap());
    let config = config(&hub, state.path());
    let first = tokio::select! {
        (joined, _) = run(&config) => panic!("{joined:?}"),
        (_, request) = hub.join() => request,
    };
    assert_eq!(files(state.path()), ["agent.key"]);
    let ((joined, _), second) = tokio::join!(run(&config), hub.grant());
    joined.unwrap();
    assert_eq!(KeyFingerprint::of_csr(&first.csr).unwrap(), KeyFingerprint::of_csr(&second.csr).unwrap());
}

#[tokio::test]
async fn a_refusal_is_passed_on_and_keeps_nothing_but_the_key() {
    let (hub, state) = (Hub::start(), tempfile::tempdir().unwrap());
    let config = config(&hub, state.path());
    let refusing = async {
        let (session, _) = hub.join().await;
        let refusal = Refusal::new(Reason::ExpiredToken, "the token expired yesterday");
        session.conclude(JoinReply::Refused(refusal), SOON).await.unwrap();
    };
    let ((joined, _), ()) = tokio::join!(run(&config), refusing);
    let error = joined.unwrap_err();
    assert!(matches!(&error, JoinError::Refused(refusal) if refusal.reason() == Reason::ExpiredToken));
    assert!(error.to_string().contains("expired yesterday"), "{error}");
    assert_eq!(files(state.path()), ["agent.key"]);
}

#[tokio::test]
async fn another_hub_than_the_pinned_is_told_nothing() {
    let (hub, other, state) = (Hub::start(), Hub::start(), tempfile::tempdir().unwrap());
    let config = JoinConfig { pin: other.pin(), ..config(&hub, state.path()) };
    let ((joined, _), shaken) = tokio::join!(run(&config), hub.shake_hands());
    shaken.expect_err("the joiner went on");
    let error = joined.unwrap_err();
    assert!(matches!(error, JoinError::PinMismatch { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains(&hub.pin().to_string()) && text.contains(&other.pin().to_string()), "{text}");
    assert!(text.contains("in between"), "{text}");
}

#[tokio::test]
async fn a_hub_that_is_away_is_tried_until_the_time_is_up() {
    let (mut hub, state) = (Hub::start(), tempfile::tempdir().unwrap());
    hub.stop().await;
    let config = JoinConfig { timeout: Duration::from_millis(300), ..config(&hub, state.path()) };
    let (joined, _) = run(&config).await;
    assert!(matches!(joined, Err(JoinError::Unreachable { .. })), "{joined:?}");
}

#[tokio::test]
async fn a_join_that_nobody_decides_names_the_command() {
    let (hub, state) = (Hub::start(), tempfile::tempdir().unwrap());
    let config = JoinConfig { timeout: Duration::from_secs(2), ..config(&hub, state.path()) };
    let waiting = async {
        let (mut session, _) = hub.join().await;
        session.answer(pending()).await.unwrap();
        session.gone().await;
    };
    let ((joined, _), ()) = tokio::join!(run(&config), waiting);
    let error = joined.unwrap_err();
    assert!(matches!(error, JoinError::NotDecided { .. }), "{error}");
    assert!(error.to_string().contains("cluster-proxy accept c1"), "{error}");
}

#[tokio::test]
async fn the_second_address_is_tried_when_the_first_is_silent() {
    let (hub, mut away, state) = (Hub::start(), Hub::start(), tempfile::tempdir().unwrap());
    away.stop().await;
    let mut config = config(&hub, state.path());
    config.hubs.insert(0, away.address.to_string().parse().unwrap());
    let ((joined, _), _) = tokio::join!(run(&config), hub.grant());
    assert_eq!(joined.unwrap().hubs.len(), 2);
}

#[tokio::test]
async fn a_certificate_for_somebody_else_is_not_kept() {
    let (hub, state) = (Hub::start(), tempfile::tempdir().unwrap());
    let config = config(&hub, state.path());
    let mixing_up = async {
        let (session, mut request) = hub.join().await;
        request.agent = "other".into();
        session.conclude(hub.issue(&request, SOON), SOON).await.unwrap();
    };
    let ((joined, _), ()) = tokio::join!(run(&config), mixing_up);
    assert!(matches!(joined, Err(JoinError::Identity(_))), "{joined:?}");
    assert_eq!(files(state.path()), ["agent.key"]);
}
