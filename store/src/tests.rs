//! Tests of the store on a healthy disk. (`conformance`: what holds in a file and in etcd; `faults`: on a failing disk;
//! `damage`: on a damaged file; `etcd`: on an etcd that fails, or that others use, behind `forwarder`; `tests/kill.rs`: with `kill -9`.)

mod conformance;
mod damage;
mod etcd;
mod faults;
mod forwarder;
#[allow(dead_code, unreachable_pub, reason = "shared with other tests, each of which uses a part")]
#[path = "../tests/etcd/process.rs"]
pub(crate) mod process;

use std::future::Future;

use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use self::process::EtcdProcess;
use super::*;

/// A store in a folder of its own.
struct Fixture {
    folder: TempDir,
    store: Store,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().join("registry.redb")).unwrap();
        Self { folder, store }
    }

    fn reopened(self) -> Self {
        let Self { folder, store } = self;
        drop(store);
        let store = open(&folder.path().join("registry.redb")).unwrap();
        Self { folder, store }
    }

    async fn put(&self, key: &str, value: &str) -> Revision {
        self.store.commit(put(key, value)).await.unwrap()
    }
}

/// Opens a store that was closed. The etcd that another test starts holds its lock until the new process runs its own program.
fn open(path: &Path) -> Result<Store, OpenError> {
    let until = std::time::Instant::now() + Duration::from_secs(10);
    loop {
        match Store::open(path) {
            Err(OpenError::InUse { .. }) if std::time::Instant::now() < until => std::thread::yield_now(),
            opened => return opened,
        }
    }
}

fn put(key: &str, value: &str) -> Txn {
    Txn::new().put(key, value.into())
}

fn text(store: &Store, key: &str) -> Option<String> {
    store.get(key).map(|found| String::from_utf8(found.value.to_vec()).unwrap())
}

/// Everything in the store, as text.
fn content(store: &Store) -> Vec<(String, String)> {
    let (entries, _) = store.list("");
    let text = |value: &[u8]| String::from_utf8(value.to_vec()).unwrap();
    entries.into_iter().map(|(key, found)| (key.to_string(), text(&found.value))).collect()
}

/// No step of these tests takes longer, unless it hangs.
async fn soon<T>(step: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(30), step).await.expect("a step of the test hangs")
}

/// Waits until it holds.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "{what} did not come true");
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_list_of_an_earlier_revision_is_what_the_list_was_then() {
    let fixture = Fixture::new();
    let mut lists = vec![fixture.store.list("/a/")];
    for n in 0..40 {
        let key = format!("/{}/{}", ["a", "b"][n % 2], n % 6);
        let txn = if n % 5 == 4 { Txn::new().delete(key) } else { put(&key, &n.to_string()) };
        fixture.store.commit(txn).await.unwrap();
        lists.push(fixture.store.list("/a/"));
    }
    for (list, revision) in &lists {
        assert_eq!(fixture.store.list_at("/a/", *revision).unwrap(), *list, "at {revision}");
    }
    fixture.store.compact(Revision(20)).await.unwrap();
    assert!(fixture.store.list_at("/a/", Revision(20)).is_ok());
    let compacted = Revision(20);
    assert_eq!(fixture.store.list_at("/a/", Revision(19)), Err(WatchEnd::Compacted { compacted }));
}

#[tokio::test]
async fn a_watch_goes_on_after_a_restart_from_where_it_was() {
    let fixture = Fixture::new();
    for value in ["1", "2", "3"] {
        fixture.put("/a", value).await;
    }
    let fixture = fixture.reopened();
    let mut watch = fixture.store.watch(Revision(1));
    assert_eq!(soon(watch.next()).await.unwrap().revision, Revision(2));
    assert_eq!(soon(watch.next()).await.unwrap().revision, Revision(3));
}

#[tokio::test]
async fn an_open_store_is_in_use() {
    let fixture = Fixture::new();
    let path = fixture.folder.path().join("registry.redb");
    let error = Store::open(&path).unwrap_err();
    assert!(matches!(error, OpenError::InUse { .. }), "{error}");
    drop(fixture.store);
    open(&path).unwrap();
}

#[test]
fn only_the_owner_may_read_the_file() {
    use std::os::unix::fs::PermissionsExt;

    let fixture = Fixture::new();
    for file in std::fs::read_dir(fixture.folder.path()).unwrap() {
        assert_eq!(file.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn a_store_without_a_folder_says_what_to_check() {
    let error = Store::open("/nonexistent/registry.redb").unwrap_err();
    assert!(matches!(error, OpenError::Io { .. }), "{error}");
    assert!(error.to_string().contains("/nonexistent/registry.redb"));
}

#[test]
fn a_store_that_was_being_made_when_the_machine_stopped_is_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("registry.redb");
    std::fs::write(folder.path().join("registry.redb.new"), "half a store").unwrap();
    assert_eq!(Store::open(path).unwrap().revision(), Revision::ZERO);
}

#[tokio::test]
async fn what_the_next_process_commits_is_followed_in_memory() {
    let fixture = Fixture::new();
    for (key, value) in [("/kept", "1"), ("/changed", "1"), ("/deleted", "1")] {
        fixture.put(key, value).await;
    }
    let before = fixture.store;
    let mut watch = before.watch(before.revision());
    before.release().await;
    assert!(matches!(before.commit(put("/own", "1")).await, Err(CommitError::Closed)));

    let next = open(&fixture.folder.path().join("registry.redb")).unwrap();
    let mut feed = next.feed(before.revision());
    next.commit(put("/changed", "2").delete("/deleted")).await.unwrap();
    next.commit(put("/new", "1")).await.unwrap();
    for _ in 0..2 {
        let told = serde_json::to_string(&soon(feed.next()).await.unwrap()).unwrap();
        before.follow(serde_json::from_str(&told).unwrap()).await.unwrap();
    }
    assert_eq!(before.list(""), next.list(""));
    let seen = soon(watch.next()).await.unwrap();
    assert_eq!((seen.revision, seen.events.len()), (Revision(4), 2));

    // What it has missed, and how it came about, is told as a whole.
    next.commit(put("/new", "2").delete("/kept")).await.unwrap();
    next.commit(put("/newer", "1")).await.unwrap();
    next.compact(next.revision()).await.unwrap();
    let news = soon(next.feed(before.revision()).next()).await.unwrap();
    before.follow(news.clone()).await.unwrap();
    assert_eq!(before.list(""), next.list(""));
    let followed = before.revision();
    before.follow(news).await.unwrap();
    assert_eq!(before.revision(), followed);
    next.close().await;
    assert!(soon(feed.next()).await.is_some() && soon(feed.next()).await.is_none());
}
