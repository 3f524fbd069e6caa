//! The store in etcd: an etcd that fails, one that others use, and one that forgets.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep};

use super::*;

/// Forwards to an etcd, and cuts what it is told to. Its tests need a second thread: opening a store blocks.
struct Forwarder {
    port: u16,
    faults: Arc<Faults>,
    _tasks: JoinSet<()>,
}

#[derive(Default)]
struct Faults {
    /// So many transactions reach etcd, but not their answers: the connection is cut instead.
    lost_answers: AtomicUsize,
    /// So many transactions reach etcd only after this time; their connections are cut at once.
    late: AtomicUsize,
    /// Nothing comes through.
    away: Mutex<bool>,
    /// Connections now.
    open: AtomicUsize,
}

/// How late a late transaction is.
const LATE: Duration = Duration::from_millis(800);

impl Forwarder {
    async fn to(etcd: SocketAddrV4) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let faults = Arc::new(Faults::default());
        let mut tasks = JoinSet::new();
        let shared = Arc::clone(&faults);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let shared = Arc::clone(&shared);
                connections.spawn(async move {
                    shared.open.fetch_add(1, Ordering::SeqCst);
                    forward(client, etcd, &shared).await;
                    shared.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { port: own, faults, _tasks: tasks }
    }

    /// Cuts everything off; when this returns, nothing comes through any more.
    async fn cut(&self) {
        *self.faults.away.lock() = true;
        until("the cut", || self.faults.open.load(Ordering::SeqCst) == 0).await;
    }

    fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

impl Faults {
    fn strikes(count: &AtomicUsize) -> bool {
        count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }
}

/// Requests are small enough to come in one or a few reads; etcd waits for the rest of one anyway.
async fn forward(mut client: TcpStream, etcd: SocketAddrV4, faults: &Faults) {
    let Ok(mut server) = TcpStream::connect(etcd).await else { return };
    let (mut from_client, mut from_server) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    let mut cut_answer = false;
    loop {
        let away = async {
            while !*faults.away.lock() {
                sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::select! {
            biased;
            () = away => return,
            read = client.read(&mut from_client) => {
                let Ok(read @ 1..) = read else { return };
                let transaction = from_client.starts_with(b"POST /v3/kv/txn");
                if transaction && Faults::strikes(&faults.late) {
                    drop(client);
                    sleep(LATE).await;
                    let _ = server.write_all(&from_client[..read]).await;
                    let _ = server.read(&mut from_server).await;
                    return;
                }
                cut_answer = cut_answer || transaction && Faults::strikes(&faults.lost_answers);
                if server.write_all(&from_client[..read]).await.is_err() {
                    return;
                }
            }
            read = server.read(&mut from_server) => {
                let Ok(read @ 1..) = read else { return };
                if cut_answer || client.write_all(&from_server[..read]).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Lets etcd forget everything before now.
async fn compact_etcd(options: &Etcd) {
    let host = options.endpoints[0].strip_prefix("http://").unwrap();
    let now = post(host, "kv/range", &json!({ "key": "YQ==" })).await;
    let revision = now["header"]["revision"].clone();
    post(host, "kv/compaction", &json!({ "revision": revision, "physical": true })).await;
}

async fn post(host: &str, path: &str, body: &serde_json::Value) -> serde_json::Value {
    let body = body.to_string();
    let head = format!("POST /v3/{path} HTTP/1.0\r\nHost: {host}\r\nContent-Length: {}\r\n\r\n", body.len());
    let mut stream = TcpStream::connect(host).await.unwrap();
    stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(body).unwrap()
}

/// Waits until it holds.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "{what} did not come true");
        sleep(Duration::from_millis(10)).await;
    }
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
    // A commit sent before the store's connections are seen to end would have an open outcome, and wait for etcd.
    sleep(Duration::from_millis(500)).await;
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
async fn a_hanging_etcd_is_waited_for_when_the_outcome_is_open() {
    let etcd = EtcdProcess::start();
    let store = Store::connect(&etcd.options()).unwrap();
    store.commit(put("/a", "1")).await.unwrap();
    etcd.freeze(true);
    let commit = store.commit(put("/a", "2").expect("/a", store.revision()));
    let thaw = async {
        sleep(Duration::from_secs(9)).await;
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
        let fault = if round % 2 == 0 { &forwarder.faults.lost_answers } else { &forwarder.faults.late };
        fault.store(1 + round % 3, Ordering::Relaxed);
        // The other one writes the very same values, so only the marker can tell whose it was.
        let (one, two) = soon(async { tokio::join!(increment(&store, "/n"), increment(&other, "/n")) }).await;
        acknowledged += u64::from(one) + u64::from(two);
    }
    sleep(LATE * 2).await;
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
    sleep(LATE * 2).await;
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
    compact_etcd(&options).await;
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
            sleep(Duration::from_millis(50)).await;
            *forwarder.faults.away.lock() = true;
            sleep(LATE * 2).await;
            compact_etcd(&options).await;
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
    // etcd's gateway shows its own certificate to itself.
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate().unwrap();
    let leaf = params.signed_by(&key, &ca).unwrap();
    for (file, pem) in [("-ca.crt", ca.pem()), (".crt", leaf.pem()), (".key", key.serialize_pem())] {
        std::fs::write(folder.join(format!("{name}{file}")), pem).unwrap();
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
