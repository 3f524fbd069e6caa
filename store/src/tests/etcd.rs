//! The store in etcd: an etcd that fails, one that others use, and one that forgets.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::Ordering;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use tokio::time::Instant;

use super::forwarder::Forwarder;
use super::*;

/// The connections of this process to that etcd, by the inodes of their sockets.
fn connections(etcd: SocketAddrV4) -> BTreeSet<String> {
    let sockets: BTreeSet<String> = fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|file| {
            let target = fs::read_link(file.ok()?.path()).ok()?;
            Some(target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
        })
        .collect();
    let remote = format!("{:08X}:{:04X}", u32::from_ne_bytes(etcd.ip().octets()), etcd.port());
    let all = fs::read_to_string("/proc/self/net/tcp").unwrap();
    let to_etcd = all.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        (fields[2] == remote).then(|| fields[9].to_owned())
    });
    to_etcd.filter(|inode| sockets.contains(inode)).collect()
}

fn number(store: &Store, key: &str) -> u64 {
    text(store, key).map_or(0, |text| text.parse().unwrap())
}

/// Adds one, as often as it takes; an error other than a conflict must mean that nothing was added.
async fn increment(store: &Store, key: &str) -> bool {
    loop {
        let txn = match store.get(key) {
            Some(found) => Txn::new().expect(key, found.modified),
            None => Txn::new().expect_absent(key),
        };
        match store.commit(txn.put(key, (number(store, key) + 1).to_string().into())).await {
            Ok(_) => return true,
            Err(CommitError::Conflict { .. }) => {}
            Err(CommitError::Etcd { .. }) => return false,
            Err(other) => panic!("{other}"),
        }
    }
}

#[tokio::test]
async fn two_stores_on_one_etcd_see_each_others_writes() {
    let etcd = EtcdProcess::shared();
    let options = etcd.own_options();
    let (a, b) = (Store::connect(&options).unwrap(), Store::connect(&options).unwrap());
    let mut watch = b.watch(b.revision());
    let first = a.commit(put("/a", "1")).await.unwrap();
    let commit = soon(watch.next()).await.unwrap();
    assert_eq!((commit.revision, &*commit.events[0].key), (first, "/a"));
    assert_eq!(text(&b, "/a").unwrap(), "1");
    // What the other has just changed is a conflict, and in memory when that is told.
    let second = a.commit(put("/a", "2")).await.unwrap();
    let refusal = b.commit(put("/a", "3").expect("/a", first)).await.unwrap_err();
    assert!(matches!(refusal, CommitError::Conflict { found, .. } if found == Some(second)), "{refusal}");
    assert_eq!(b.get("/a").unwrap().modified, second);
    let third = b.commit(Txn::new().delete("/a").expect("/a", second)).await.unwrap();
    until("the deletion", || a.get("/a").is_none()).await;
    assert_eq!(a.revision(), third);
    assert_eq!(a.list(""), b.list(""));
}

#[tokio::test]
async fn in_a_race_of_two_stores_every_increment_counts() {
    let etcd = EtcdProcess::shared();
    let options = etcd.own_options();
    let stores = [(); 2].map(|()| Arc::new(Store::connect(&options).unwrap()));
    let mut tasks = JoinSet::new();
    for worker in 0..8 {
        let store = Arc::clone(&stores[worker % 2]);
        tasks.spawn(async move {
            for _ in 0..20 {
                assert!(increment(&store, "/n").await);
            }
        });
    }
    soon(tasks.join_all()).await;
    for store in &stores {
        until("the sum", || number(store, "/n") == 160).await;
    }
    assert_eq!(stores[0].list(""), stores[1].list(""));
}

#[tokio::test]
async fn other_keys_of_the_same_etcd_are_none_of_ours() {
    let etcd = EtcdProcess::shared();
    let options = etcd.own_options();
    let neighbour = Etcd { prefix: format!("{}-neighbour", options.prefix), ..options.clone() };
    let (a, b) = (Store::connect(&options).unwrap(), Store::connect(&neighbour).unwrap());
    let before = a.revision();
    b.commit(put("/a", "1")).await.unwrap();
    let after = a.commit(put("/b", "1")).await.unwrap();
    assert!(after.0 > before.0 + 1);
    assert_eq!(content(&a), [("/b".to_owned(), "1".to_owned())]);
    assert_eq!(soon(a.watch(before).next()).await.unwrap().revision, after);
}

#[tokio::test]
async fn while_etcd_is_away_reads_go_on_and_commits_fail_and_then_work_again() {
    let etcd = EtcdProcess::start();
    let store = Store::connect(&etcd.options()).unwrap();
    let first = store.commit(put("/a", "1")).await.unwrap();
    etcd.kill();
    // A commit sent before the store's connection is seen to end would have an open outcome, and wait for etcd.
    until("the end of the connection", || connections(etcd.address()).is_empty()).await;
    let started = Instant::now();
    let refusal = soon(store.commit(put("/a", "2"))).await.unwrap_err();
    assert!(matches!(refusal, CommitError::Etcd { .. }), "{refusal}");
    assert!(started.elapsed() < Duration::from_secs(15));
    assert_eq!((text(&store, "/a").as_deref(), store.revision()), (Some("1"), first));
    let mut watch = store.watch(first);
    etcd.restart();
    let second = soon(store.commit(put("/a", "3"))).await.unwrap();
    assert!(second > first);
    assert_eq!(soon(watch.next()).await.unwrap().revision, second);
}

#[tokio::test]
async fn a_hanging_etcd_is_noticed_and_waited_for_when_the_outcome_is_open() {
    let etcd = EtcdProcess::start();
    let store = Store::connect(&etcd.options()).unwrap();
    store.commit(put("/a", "1")).await.unwrap();
    let before = connections(etcd.address());
    assert_eq!(before.len(), 1, "watch and transactions share one");
    etcd.freeze(true);
    let commit = store.commit(put("/a", "2").expect("/a", store.revision()));
    let thaw = async {
        until("the end of the silent connection", || connections(etcd.address()).is_disjoint(&before)).await;
        etcd.freeze(false);
    };
    let (outcome, ()) = soon(async { tokio::join!(commit, thaw) }).await;
    assert_eq!(text(&store, "/a").unwrap(), if outcome.is_ok() { "2" } else { "1" });
    assert_eq!(content(&Store::connect(&etcd.options()).unwrap()), content(&store));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_leaves_nothing_open() {
    let etcd = EtcdProcess::shared();
    let options = etcd.own_options();
    let forwarder = Forwarder::to(etcd.address()).await;
    let store = Store::connect(&Etcd { endpoints: vec![forwarder.endpoint()], ..options.clone() }).unwrap();
    let other = Store::connect(&options).unwrap();
    let mut acknowledged = 0;
    for round in 0..12 {
        let faults = &forwarder.faults;
        let fault = [&faults.lost_answers, &faults.late, &faults.reset_answers][round % 3];
        fault.store(1 + round / 3 % 3, Ordering::Relaxed);
        // The other one writes the very same values, so only the marker can tell whose it was.
        let (one, two) = soon(async { tokio::join!(increment(&store, "/n"), increment(&other, "/n")) }).await;
        acknowledged += u64::from(one) + u64::from(two);
    }
    forwarder.late_ones_have_come().await;
    assert!(forwarder.faults.struck.load(Ordering::Relaxed) >= 12, "in each round");
    assert_eq!(acknowledged, 24, "a retry within the deadline hides each fault");
    for store in [&store, &other, &Store::connect(&options).unwrap()] {
        until("the sum", || number(store, "/n") == acknowledged).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_reaches_etcd_late_does_not_undo_a_later_one() {
    let etcd = EtcdProcess::shared();
    let options = etcd.own_options();
    let forwarder = Forwarder::to(etcd.address()).await;
    let store = Store::connect(&Etcd { endpoints: vec![forwarder.endpoint()], ..options.clone() }).unwrap();
    // Without preconditions of its own only the fence holds it back.
    forwarder.faults.late.store(1, Ordering::Relaxed);
    soon(store.commit(put("/a", "1"))).await.unwrap();
    let second = soon(store.commit(put("/a", "2"))).await.unwrap();
    assert_eq!(forwarder.faults.struck.load(Ordering::Relaxed), 1);
    forwarder.late_ones_have_come().await;
    for store in [&store, &Store::connect(&options).unwrap()] {
        assert_eq!((text(store, "/a").as_deref(), store.get("/a").unwrap().modified), (Some("2"), second));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_is_gone_is_replaced_by_another() {
    let etcd = EtcdProcess::shared();
    let options = etcd.own_options();
    let forwarders = [Forwarder::to(etcd.address()).await, Forwarder::to(etcd.address()).await];
    let endpoints = forwarders.iter().map(Forwarder::endpoint).collect();
    let store = Store::connect(&Etcd { endpoints, ..options.clone() }).unwrap();
    let other = Store::connect(&options).unwrap();
    for n in 0..6 {
        *forwarders[n % 2].faults.away.lock() = true;
        *forwarders[(n + 1) % 2].faults.away.lock() = false;
        soon(store.commit(put("/a", &n.to_string()))).await.unwrap();
        soon(other.commit(put("/b", &n.to_string()))).await.unwrap();
        until("the other's write", || text(&store, "/b") == Some(n.to_string())).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_etcd_compacts_while_the_watch_is_lost_is_read_again() {
    let etcd = EtcdProcess::start();
    let options = etcd.own_options();
    let forwarder = Forwarder::to(etcd.address()).await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let observer = {
        let seen = Arc::clone(&seen);
        Box::new(move |commit: &Commit| seen.lock().extend(commit.events.iter().cloned()))
    };
    let through = Etcd { endpoints: vec![forwarder.endpoint()], ..options.clone() };
    let store = Store::connect_observed(&through, observer).unwrap();
    let other = Store::connect(&options).unwrap();
    store.commit(put("/kept", "1").put("/gone", b"1".to_vec()).put("/changed", b"1".to_vec())).await.unwrap();
    let mut watch = store.watch(store.revision());
    let before = store.revision();
    seen.lock().clear();
    forwarder.cut().await;
    other.commit(put("/changed", "2")).await.unwrap();
    other.commit(Txn::new().delete("/gone")).await.unwrap();
    let last = other.commit(put("/new", "2")).await.unwrap();
    options.forget().await;
    *forwarder.faults.away.lock() = false;

    let end = soon(watch.next()).await.unwrap_err();
    assert!(matches!(end, WatchEnd::Compacted { compacted } if compacted > before), "{end}");
    assert_eq!(store.list("").0, other.list("").0);
    assert!(store.revision() >= last);
    let told: Vec<(String, bool, bool)> = seen
        .lock()
        .iter()
        .map(|event| (event.key.to_string(), event.before.is_some(), event.after.is_some()))
        .collect();
    let expected = [("/changed", true, true), ("/gone", true, false), ("/new", false, true)];
    assert_eq!(told, expected.map(|(key, before, after)| (key.to_owned(), before, after)));
    let mut watch = store.watch(store.revision());
    let next = store.commit(put("/kept", "3")).await.unwrap();
    assert_eq!(soon(watch.next()).await.unwrap().revision, next);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outcome_is_known_also_when_it_was_compacted_before_it_was_seen() {
    let etcd = EtcdProcess::start();
    let options = etcd.own_options();
    let forwarder = Forwarder::to(etcd.address()).await;
    let store = Store::connect(&Etcd { endpoints: vec![forwarder.endpoint()], ..options.clone() }).unwrap();
    for n in 1..=3 {
        // The transaction gets to etcd, and nothing comes back, also not by the watch.
        forwarder.faults.late.store(1, Ordering::Relaxed);
        let commit = store.commit(put("/n", &n.to_string()));
        let fault = async {
            until("the transaction", || !forwarder.faults.on_their_way.is_empty()).await;
            forwarder.cut().await;
            options.forget().await;
            *forwarder.faults.away.lock() = false;
        };
        let (outcome, ()) = soon(async { tokio::join!(commit, fault) }).await;
        let revision = outcome.unwrap();
        assert!(store.revision() >= revision);
        assert_eq!(number(&store, "/n"), n);
    }
    assert_eq!(content(&Store::connect(&options).unwrap()), content(&store));
}

#[tokio::test]
async fn an_etcd_that_was_made_anew_is_not_followed() {
    let etcd = EtcdProcess::start();
    let store = Store::connect(&etcd.options()).unwrap();
    let first = store.commit(put("/a", "1")).await.unwrap();
    etcd.restart_empty();
    let refusal = soon(store.commit(put("/a", "2"))).await.unwrap_err();
    assert!(matches!(refusal, CommitError::Etcd { .. }), "{refusal}");
    assert_eq!((text(&store, "/a").as_deref(), store.revision()), (Some("1"), first));
}

#[tokio::test]
async fn many_keys_are_read_page_by_page() {
    let etcd = EtcdProcess::shared();
    let options = etcd.own_options();
    let store = Arc::new(Store::connect(&options).unwrap());
    for chunk in 0..5 {
        let txn = (0..101).fold(Txn::new(), |txn, n| txn.put(format!("/{chunk}/{n}"), b"1".to_vec()));
        store.commit(txn).await.unwrap();
    }
    assert_eq!(Store::connect(&options).unwrap().list("").0, store.list("").0);
    assert_eq!(store.list("").0.len(), 505);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_of_many_mebibytes_are_read() {
    let etcd = EtcdProcess::shared();
    let options = etcd.own_options();
    let forwarder = Forwarder::to(etcd.address()).await;
    let watching = Store::connect(&Etcd { endpoints: vec![forwarder.endpoint()], ..options.clone() }).unwrap();
    let store = Store::connect(&options).unwrap();
    forwarder.cut().await;
    let mut last = Revision::ZERO;
    for n in 0..6 {
        last = store.commit(Txn::new().put(format!("/{n}"), vec![n; 1_400_000])).await.unwrap();
    }
    // In one answer of a watch that has missed them, and in one page.
    *forwarder.faults.away.lock() = false;
    until("the watch", || watching.revision() == last).await;
    assert_eq!(watching.list(""), store.list(""));
    assert_eq!(Store::connect(&options).unwrap().list("").0, store.list("").0);
}

#[tokio::test]
async fn an_etcd_without_space_is_told_in_its_own_words_and_with_what_to_do() {
    let host = EtcdProcess::own_host();
    let full = ["--quota-backend-bytes=4000000".into()];
    let etcd = EtcdProcess::start_at(host, tempfile::tempdir().unwrap(), "http", &full);
    let store = Store::connect(&etcd.options()).unwrap();
    let refusal = loop {
        if let Err(refusal) = soon(store.commit(Txn::new().put("/a", vec![0; 1_400_000]))).await {
            break refusal;
        }
    };
    let CommitError::Etcd { source } = &refusal else { panic!("{refusal}") };
    let told = source.to_string();
    for part in [etcd.address().to_string().as_str(), "database space exceeded", "etcdctl alarm"] {
        assert!(told.contains(part), "{told}");
    }
    soon(store.commit(put("/b", "1"))).await.unwrap_err();
}

#[test]
fn an_etcd_that_is_not_there_is_told_with_its_endpoints() {
    let options = |endpoint: &str| Etcd {
        endpoints: vec![endpoint.to_owned()],
        ca: None,
        identity: None,
        prefix: Etcd::PREFIX.to_owned(),
    };
    for endpoint in ["http://127.0.0.1:1", "https://127.0.0.1:1", "nonsense"] {
        let error = Store::connect(&options(endpoint)).unwrap_err();
        assert!(matches!(error, OpenError::Etcd { .. }), "{error}");
        assert!(error.to_string().contains(endpoint), "{error}");
    }
}

/// Writes a CA and a leaf for both ends as PEM files: `NAME-ca.crt`, `NAME.crt`, `NAME.key`.
fn write_certificates(folder: &Path, name: &str, host: Ipv4Addr) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let mut params = CertificateParams::new([host.to_string()]).unwrap();
    // The store and etcd show the same one to each other.
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate().unwrap();
    let leaf = params.signed_by(&key, &ca).unwrap();
    for (file, pem) in [("-ca.crt", ca.pem()), (".crt", leaf.pem()), (".key", key.serialize_pem())] {
        fs::write(folder.join(format!("{name}{file}")), pem).unwrap();
    }
}

#[tokio::test]
async fn over_tls_both_ends_must_show_a_certificate_of_the_ca() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    let host = EtcdProcess::own_host();
    for name in ["good", "other"] {
        write_certificates(&path, name, host);
    }
    let argument = |flag: &str, file: &str| OsString::from(format!("--{flag}={}", path.join(file).display()));
    let arguments = [
        argument("cert-file", "good.crt"),
        argument("key-file", "good.key"),
        argument("trusted-ca-file", "good-ca.crt"),
        "--client-cert-auth".into(),
    ];
    let etcd = EtcdProcess::start_at(host, folder, "https", &arguments);
    let options = |ca: &str, identity: Option<&str>| Etcd {
        endpoints: vec![format!("https://{}", etcd.address())],
        ca: Some(path.join(ca)),
        identity: identity.map(|name| (path.join(format!("{name}.crt")), path.join(format!("{name}.key")))),
        prefix: Etcd::PREFIX.to_owned(),
    };
    let store = Store::connect(&options("good-ca.crt", Some("good"))).unwrap();
    let revision = soon(store.commit(put("/a", "1"))).await.unwrap();
    assert_eq!(soon(store.watch(Revision(revision.0 - 1)).next()).await.unwrap().revision, revision);
    let refused =
        [options("other-ca.crt", Some("good")), options("good-ca.crt", Some("other")), options("good-ca.crt", None)];
    for refused in refused {
        let error = Store::connect(&refused).unwrap_err();
        assert!(matches!(error, OpenError::Etcd { .. }), "{error}");
    }
}
