//! Tests of what is recorded of agents that come and go, on stores that fail.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use proptest::prelude::*;
use tokio::time::{advance, sleep};

use super::*;
use crate::cluster::ManagedCluster;
use crate::trust::AgentTrust;
use store::faults::Fault;

/// Longer than the presence ever waits before it tries again.
const PATIENCE: Duration = Duration::from_secs(10);

/// A registry with clusters `c0` to `c<n - 1>`, each with an agent `a`.
async fn filled(registry: &Registry, clusters: usize) {
    for some in (0..clusters).collect::<Vec<_>>().chunks(100) {
        let put = |txn: Txn, n: &usize| {
            let name: ClusterName = name(&format!("c{n}"));
            let mut cluster = ManagedCluster::new(name.clone(), format!("u{n}"), at(0));
            cluster.accept();
            cluster.metadata.labels =
                [("cluster.open-cluster-management.io/clusterset".into(), "default".into())].into();
            cluster.status.agents.push(ClusterAgent {
                name: "a".parse().unwrap(),
                key: key(1),
                phase: AgentPhase::Accepted,
                requested_at: at(0),
                address: None,
                token: String::new(),
                last_seen: None,
                version: String::new(),
                request: String::new(),
                ca: None,
            });
            txn.put(Change::Cluster(name).key(), json(&cluster))
        };
        registry.store().commit(some.iter().fold(Txn::new(), put)).await.unwrap();
    }
}

fn seen(second: i64, version: Option<&str>) -> Sighting {
    Sighting { key: key(1), at: at(second), version: version.map(str::to_owned) }
}

fn recorded(registry: &Registry, cluster: &str) -> (Option<Timestamp>, String, bool) {
    let cluster = registry.cluster(&name(cluster)).unwrap();
    let agent = &cluster.status.agents[0];
    assert_eq!(agent.last_seen, cluster.status.last_seen);
    (cluster.status.last_seen, agent.version.clone(), cluster.is_available())
}

#[tokio::test]
async fn an_agent_that_was_seen_is_recorded() {
    let fixture = Fixture::new();
    filled(&fixture.registry, 1).await;
    let presence = Presence::new(Arc::clone(&fixture.registry), None, |_| true);
    let (cluster, agent) = (name("c0"), name("a"));
    for _ in 0..2 {
        presence.saw(&cluster, &agent, seen(60, Some("1.1")));
        presence.write().await.unwrap();
    }
    assert_eq!(fixture.registry.store().revision(), Revision(2), "nothing new is not written");
    assert_eq!(recorded(&fixture.registry, "c0"), (Some(at(60)), "1.1".to_owned(), true));
    presence.saw(&cluster, &name("other"), seen(90, None));
    presence.saw(&name("nobody"), &agent, seen(90, None));
    presence.saw(&cluster, &agent, Sighting { key: key(2), ..seen(90, Some("2")) });
    assert_eq!(presence.last_seen(&fixture.registry.cluster(&cluster).unwrap()), Some(at(60)));
    presence.write().await.unwrap();
    assert_eq!(recorded(&fixture.registry, "c0"), (Some(at(60)), "1.1".to_owned(), true));
}

#[tokio::test]
async fn what_an_agent_trusts_is_recorded_without_its_having_been_seen() {
    let fixture = Fixture::new();
    filled(&fixture.registry, 1).await;
    let presence = Presence::new(Arc::clone(&fixture.registry), None, |_| false);
    let cluster = || ManagedCluster::clone(&fixture.registry.cluster(&name("c0")).unwrap());
    let (before, trust) = (cluster(), AgentTrust::new(Some(key(9)), vec![key(8), key(9)]));
    presence.trusts(&name("c0"), &name("a"), key(2), trust.clone());
    presence.write().await.unwrap();
    assert_eq!(cluster(), before, "another key's");
    presence.trusts(&name("c0"), &name("a"), key(1), trust.clone());
    presence.write().await.unwrap();
    let mut expected = before;
    expected.status.agents[0].ca = Some(trust);
    assert_eq!(cluster(), expected);
}

#[tokio::test]
async fn a_fleet_that_comes_back_at_once_is_written_in_few_commits() {
    let fixture = Fixture::new();
    filled(&fixture.registry, 1000).await;
    let presence = Presence::new(Arc::clone(&fixture.registry), None, |_| true);
    let before = fixture.registry.store().revision();
    for n in 0..1000 {
        presence.saw(&name(&format!("c{n}")), &name("a"), seen(n, Some("1")));
    }
    presence.write().await.unwrap();
    assert_eq!(fixture.registry.store().revision(), Revision(before.0 + 10));
    assert!((0..1000).all(|n| recorded(&fixture.registry, &format!("c{n}")).0 == Some(at(n))));
}

#[tokio::test]
async fn clusters_that_do_not_fit_into_one_commit_are_written_in_several() {
    let fixture = Fixture::new();
    filled(&fixture.registry, 20).await;
    for n in 0..20 {
        let key = Change::Cluster(name(&format!("c{n}"))).key();
        let mut cluster = ManagedCluster::clone(&fixture.registry.cluster(&name(&format!("c{n}"))).unwrap());
        cluster.metadata.annotations.insert("large".to_owned(), "x".repeat(200 << 10));
        fixture.registry.store().commit(Txn::new().put(key, json(&cluster))).await.unwrap();
    }
    let presence = Presence::new(Arc::clone(&fixture.registry), None, |_| true);
    for n in 0..20 {
        presence.saw(&name(&format!("c{n}")), &name("a"), seen(1, None));
    }
    presence.write().await.unwrap();
    assert!((0..20).all(|n| recorded(&fixture.registry, &format!("c{n}")).2));
}

/// What happens, to one of three clusters where it concerns one.
#[derive(Clone, Copy, Debug)]
enum Step {
    Comes(usize),
    Leaves(usize),
    /// Somebody else writes the cluster.
    Written(usize),
    Fails(Fault),
    Passes(u16),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..3_usize).prop_map(Step::Comes),
        4 => (0..3_usize).prop_map(Step::Leaves),
        1 => (0..3_usize).prop_map(Step::Written),
        1 => Just(Step::Fails(Fault::Healthy)),
        1 => Just(Step::Fails(Fault::ReadOnly)),
        1 => (0..20_u32).prop_map(|after| Step::Fails(Fault::OneAfter(after))),
        1 => (0..20_u32).prop_map(|after| Step::Fails(Fault::AllAfter(after))),
        3 => (0..400_u16).prop_map(Step::Passes),
    ];
    proptest::collection::vec(step, 1..60)
}

async fn history(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let folder = tempfile::tempdir().unwrap();
    let (registry, fault): (_, Arc<Mutex<Fault>>) = Registry::on_failing(&folder.path().join("registry.redb"));
    let registry = Arc::new(registry);
    filled(&registry, 3).await;
    let up: Arc<[AtomicBool; 3]> = Arc::default();
    let asked = Arc::clone(&up);
    let available = move |cluster: &ClusterName| {
        let n: usize = cluster.as_ref()[1..].parse().unwrap();
        asked[n].load(Ordering::Relaxed)
    };
    let presence = Arc::new(Presence::new(Arc::clone(&registry), None, available));
    let writing = Arc::clone(&presence);
    let mut running = JoinSet::new();
    running.spawn(async move { writing.run().await });
    let mut expected: [(Option<Timestamp>, String); 3] = Default::default();
    let mut shown = [None; 3];
    for (second, step) in (1..).zip(steps) {
        match step {
            Step::Comes(n) => {
                up[n].store(true, Ordering::Relaxed);
                let version = second.to_string();
                presence.saw(&name(&format!("c{n}")), &name("a"), seen(second, Some(&version)));
                expected[n] = (Some(at(second)), version);
            }
            Step::Leaves(n) => {
                up[n].store(false, Ordering::Relaxed);
                presence.saw(&name(&format!("c{n}")), &name("a"), seen(second, None));
                expected[n].0 = Some(at(second));
            }
            // Refused where the disk fails.
            Step::Written(n) => drop(registry.accept(&name(&format!("c{n}")), &[], at(second)).await),
            Step::Fails(new) => *fault.lock() = new,
            Step::Passes(milliseconds) => sleep(Duration::from_millis(milliseconds.into())).await,
        }
        for (n, newest) in shown.iter_mut().enumerate() {
            let now = presence.last_seen(&registry.cluster(&name(&format!("c{n}"))).unwrap());
            prop_assert!(now >= *newest, "last seen went back");
            prop_assert_eq!(now, expected[n].0);
            *newest = now;
        }
    }
    *fault.lock() = Fault::Healthy;
    let all_written = || (0..3).all(|n| recorded(&registry, &format!("c{n}")).0 == expected[n].0);
    for _ in 0..1000 {
        if all_written() && presence.notes_left() == 0 {
            break;
        }
        advance(PATIENCE / 1000).await;
        tokio::task::spawn_blocking(|| std::thread::park_timeout(Duration::from_millis(1))).await.unwrap();
    }
    for (n, (last, version)) in expected.into_iter().enumerate() {
        let available = up[n].load(Ordering::Relaxed);
        prop_assert_eq!(recorded(&registry, &format!("c{n}")), (last, version, available));
    }
    running.abort_all();
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn what_is_recorded_is_the_truth_once_the_store_works(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(history(steps))?;
    }
}
