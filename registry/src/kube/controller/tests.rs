//! Tests of the controller: nothing that it has heard is forgotten, whatever the store does meanwhile.

use parking_lot::Mutex;
use proptest::prelude::*;
use serde_json::json;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::advance;

use super::*;
use crate::kube::object::write;
use store::faults::Fault;

/// Longer than the controller ever waits before it tries again.
const PATIENCE: Duration = Duration::from_secs(10);

/// As finely as time passes.
const STEP: Duration = Duration::from_millis(20);

struct Fixture {
    _folder: TempDir,
    registry: Arc<Registry>,
    fault: Arc<Mutex<Fault>>,
}

/// What happens to the registry, or to its disk.
#[derive(Clone, Copy, Debug)]
enum Step {
    Set(u8),
    Binding(u8),
    Cluster(u8),
    Delete(u8),
    Fails(Fault),
    Passes(u16),
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (registry, fault) = Registry::on_failing(&folder.path().join("registry.redb"));
        Self { _folder: folder, registry: Arc::new(registry), fault }
    }

    /// Changes the registry while the clock of the test, which would run on beside a wait, stands still.
    fn commit(&self, txn: Txn) {
        let committing = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(self.registry.store().commit(txn))
        };
        // Refused where the disk fails.
        let _ = std::thread::scope(|scope| scope.spawn(committing).join().unwrap());
    }

    fn step(&self, step: Step) {
        let put = |key: String, object: &Value| Txn::new().put(key, write(object));
        let named = |kind: &str, name: &str| json!({"kind": kind, "metadata": {"name": name}, "spec": {}});
        match step {
            Step::Set(n) => {
                self.commit(put(format!("/managedclustersets/s{n}"), &named("ManagedClusterSet", &format!("s{n}"))));
            }
            Step::Binding(n) => {
                let mut binding = named("ManagedClusterSetBinding", &format!("s{n}"));
                binding["metadata"]["namespace"] = "default".into();
                binding["spec"]["clusterSet"] = format!("s{n}").into();
                self.commit(put(format!("/managedclustersetbindings/default/s{n}"), &binding));
            }
            Step::Cluster(n) => {
                let name: ClusterName = format!("c{n}").parse().unwrap();
                let now = Timestamp::UNIX_EPOCH;
                let mut cluster = crate::cluster::ManagedCluster::new(name.clone(), "u".to_owned(), now);
                cluster.accept();
                cluster.metadata.labels =
                    [("cluster.open-cluster-management.io/clusterset".into(), "default".into())].into();
                self.commit(put(Change::Cluster(name).key(), &serde_json::to_value(cluster).unwrap()));
            }
            Step::Delete(n) => self.commit(Txn::new().delete(format!("/managedclustersets/s{n}"))),
            Step::Fails(fault) => *self.fault.lock() = fault,
            Step::Passes(_) => {}
        }
    }

    fn condition_of(&self, set: &str) -> Option<Value> {
        let stored = self.registry.store().get(&format!("/managedclustersets/{set}"))?;
        let conditions = object::read(&stored)?["status"]["conditions"].take();
        conditions.as_array()?.first().cloned()
    }

    async fn wait_for_condition_of(&self, set: &str) {
        let end = Instant::now() + PATIENCE;
        while self.condition_of(set).is_none() {
            assert!(Instant::now() < end, "the set {set} was forgotten");
            pass(STEP).await;
        }
    }
}

/// Has time pass for timers, and enough of it for the store's thread, whose time is another.
async fn pass(time: Duration) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        tokio::task::yield_now().await;
        advance(STEP.min(end - Instant::now())).await;
        tokio::task::spawn_blocking(|| std::thread::park_timeout(Duration::from_millis(1))).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_heard_before_a_tick_is_seen_to_after_it() {
    let fixture = Fixture::new();
    let begun = Instant::now();
    let mut running = JoinSet::new();
    running.spawn(Controller::new(Arc::clone(&fixture.registry)).run());
    fixture.step(Step::Set(0));
    fixture.wait_for_condition_of("s0").await;
    for n in 1..=3_u8 {
        // Up to just before the next tick.
        let ticks = begun.elapsed().as_secs() / PRUNING.as_secs() + 2;
        let tick = begun + PRUNING * u32::try_from(ticks).unwrap();
        advance(tick - GATHERED / 2 - Instant::now()).await;
        fixture.step(Step::Set(n));
        // It hears of the change, which gathers while the tick comes.
        while Instant::now() <= tick {
            tokio::task::yield_now().await;
            advance(Duration::from_millis(1)).await;
        }
        fixture.wait_for_condition_of(&format!("s{n}")).await;
    }
    running.abort_all();
}

#[tokio::test(start_paused = true)]
async fn what_failed_is_tried_again() {
    let fixture = Fixture::new();
    let mut running = JoinSet::new();
    running.spawn(Controller::new(Arc::clone(&fixture.registry)).run());
    fixture.step(Step::Set(0));
    fixture.wait_for_condition_of("s0").await;
    fixture.step(Step::Set(1));
    fixture.step(Step::Fails(Fault::ReadOnly));
    pass(Duration::from_secs(5)).await;
    assert!(fixture.condition_of("s1").is_none(), "the disk takes nothing");
    fixture.step(Step::Fails(Fault::Healthy));
    fixture.wait_for_condition_of("s1").await;
    running.abort_all();
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (0..4_u8).prop_map(Step::Set),
        (0..4_u8).prop_map(Step::Binding),
        (0..4_u8).prop_map(Step::Cluster),
        (0..4_u8).prop_map(Step::Delete),
        Just(Step::Fails(Fault::Healthy)),
        Just(Step::Fails(Fault::ReadOnly)),
        (0..20_u32).prop_map(|after| Step::Fails(Fault::OneAfter(after))),
        (0..20_u32).prop_map(|after| Step::Fails(Fault::AllAfter(after))),
        (0..120_u16).prop_map(Step::Passes),
    ];
    proptest::collection::vec(step, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// Once the disk works, a controller that begins anew finds nothing to do.
    #[test]
    fn whatever_failed_and_when_nothing_is_left_to_do(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let fixture = Fixture::new();
            let mut running = JoinSet::new();
            running.spawn(Controller::new(Arc::clone(&fixture.registry)).run());
            for step in steps {
                fixture.step(step);
                if let Step::Passes(milliseconds) = step {
                    pass(Duration::from_millis(milliseconds.into())).await;
                }
            }
            fixture.step(Step::Fails(Fault::Healthy));
            pass(PATIENCE).await;
            let settled = fixture.registry.store().revision();
            running.abort_all();
            Controller::new(Arc::clone(&fixture.registry)).look_at_everything().await;
            prop_assert_eq!(fixture.registry.store().revision(), settled, "something was forgotten");
            Ok(())
        })?;
    }
}
