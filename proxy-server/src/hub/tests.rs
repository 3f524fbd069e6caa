//! A hub that loses a part of itself.

use tokio::{task::JoinSet, time::timeout};

use super::*;

/// No end takes longer: nothing is waited for.
const SOON: Duration = Duration::from_secs(20);

async fn hub(folder: &tempfile::TempDir) -> Hub {
    Hub::bind(Config::on_loopback(folder.path().to_owned())).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_ends_with_an_error_when_a_part_of_it_panics() {
    let folder = tempfile::tempdir().unwrap();
    let (stop, abort) = (CancellationToken::new(), CancellationToken::new());
    let hub = hub(&folder).await;
    let (services, end, proxy) = (hub.services.clone(), hub.phases.end.clone(), hub.addresses().proxy);
    let mut running = JoinSet::new();
    running.spawn(hub.run(stop, abort));
    services.spawn("the test", &Handle::current(), &end, async { panic!("as asked") });
    let ended = timeout(SOON, running.join_next()).await.expect("the hub serves on").unwrap().unwrap();
    assert_eq!(ended, Err(RunError::Panicked("the test")));
    assert!(tokio::net::TcpStream::connect(proxy).await.is_err(), "clients are served on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_ends_with_an_error_when_its_registry_cannot_be_written_any_more() {
    let folder = tempfile::tempdir().unwrap();
    let hub = hub(&folder).await;
    let registry = hub.registry.clone();
    let mut running = JoinSet::new();
    running.spawn(hub.run(CancellationToken::new(), CancellationToken::new()));
    registry.close().await;
    let ended = timeout(SOON, running.join_next()).await.expect("the hub serves on").unwrap().unwrap();
    assert_eq!(ended, Err(RunError::Ended("the registry's store")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_that_is_asked_to_stop_ends_well() {
    let folder = tempfile::tempdir().unwrap();
    let (stop, abort) = (CancellationToken::new(), CancellationToken::new());
    let mut running = JoinSet::new();
    running.spawn(hub(&folder).await.run(stop.clone(), abort));
    stop.cancel();
    assert_eq!(timeout(SOON, running.join_next()).await.expect("the hub does not stop").unwrap().unwrap(), Ok(()));
}
