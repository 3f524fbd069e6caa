//! Tests of the store on a healthy disk. (`faults`: on a failing one; `damage`: on a damaged file; `tests/kill.rs`: with
//! `kill -9`.)

mod damage;
mod faults;

use std::collections::BTreeMap;
use std::future::Future;

use proptest::prelude::*;
use tempfile::TempDir;
use tokio::task::JoinSet;

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
        let store = Store::open(folder.path().join("registry.redb")).unwrap();
        Self { folder, store }
    }

    async fn put(&self, key: &str, value: &str) -> Revision {
        self.store.commit(put(key, value)).await.unwrap()
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

#[tokio::test]
async fn a_committed_value_is_read_back_and_survives_reopening() {
    let fixture = Fixture::new();
    assert_eq!(fixture.put("/a", "1").await, Revision(1));
    assert_eq!(fixture.put("/b", "2").await, Revision(2));
    assert_eq!(fixture.put("/a", "3").await, Revision(3));
    let before = (fixture.store.list(""), fixture.store.get("/a").unwrap());
    assert_eq!((before.1.created, before.1.modified), (Revision(1), Revision(3)));

    let fixture = fixture.reopened();
    assert_eq!((fixture.store.list(""), fixture.store.get("/a").unwrap()), before);
    assert_eq!(fixture.put("/c", "4").await, Revision(4));
}

#[tokio::test]
async fn revisions_grow_by_one_with_each_transaction_that_changes_something() {
    let fixture = Fixture::new();
    let two = Txn::new().put("/a", b"1".to_vec()).put("/b", b"1".to_vec());
    assert_eq!(fixture.store.commit(two).await.unwrap(), Revision(1));
    assert_eq!(fixture.store.commit(Txn::new()).await.unwrap(), Revision(1));
    assert_eq!(fixture.store.commit(Txn::new().delete("/nothing")).await.unwrap(), Revision(1));
    assert_eq!(fixture.store.commit(Txn::new().delete("/a")).await.unwrap(), Revision(2));
    assert_eq!(fixture.put("/a", "2").await, Revision(3));
    assert_eq!(fixture.store.get("/a").unwrap().created, Revision(3));
}

#[tokio::test]
async fn a_transaction_whose_precondition_fails_changes_nothing() {
    let fixture = Fixture::new();
    fixture.put("/a", "1").await;
    let refused = [
        put("/a", "2").expect_absent("/a"),
        put("/a", "2").expect("/a", Revision(7)),
        put("/a", "2").expect("/a", Revision(1)).expect("/b", Revision(1)),
    ];
    for txn in refused {
        let refusal = fixture.store.commit(txn).await.unwrap_err();
        assert!(matches!(refusal, CommitError::Conflict { .. }), "{refusal}");
    }
    assert_eq!(content(&fixture.store), [("/a".to_owned(), "1".to_owned())]);
    let told = fixture.store.commit(put("/a", "2").expect_absent("/a")).await.unwrap_err().to_string();
    assert_eq!(told, "/a was changed by someone else (expected none, found revision 1); read it again and retry");

    let allowed = put("/b", "2").expect("/a", Revision(1)).expect_absent("/b");
    assert_eq!(fixture.store.commit(allowed).await.unwrap(), Revision(2));
}

#[tokio::test]
async fn of_many_that_want_to_create_a_key_one_succeeds() {
    let fixture = Fixture::new();
    let store = Arc::new(fixture.store);
    let mut tasks = JoinSet::new();
    for i in 0..50 {
        let store = Arc::clone(&store);
        tasks.spawn(async move { store.commit(put("/a", &i.to_string()).expect_absent("/a")).await });
    }
    let outcomes = soon(tasks.join_all()).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    assert_eq!(store.revision(), Revision(1));
}

#[tokio::test]
async fn concurrent_increments_all_count() {
    let fixture = Fixture::new();
    fixture.put("/n", "0").await;
    let store = Arc::new(fixture.store);
    let mut tasks = JoinSet::new();
    for _ in 0..20 {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            loop {
                let found = store.get("/n").unwrap();
                let n: u32 = str::from_utf8(&found.value).unwrap().parse().unwrap();
                let txn = put("/n", &(n + 1).to_string()).expect("/n", found.modified);
                if store.commit(txn).await.is_ok() {
                    return;
                }
            }
        });
    }
    soon(tasks.join_all()).await;
    assert_eq!(text(&store, "/n").unwrap(), "20");
    assert_eq!(store.revision(), Revision(21));
}

#[tokio::test]
async fn a_list_holds_the_keys_of_its_prefix_in_order() {
    let fixture = Fixture::new();
    for key in ["/b/2", "/a/1", "/b/1", "/b", "/c/1", "/b/1/x", "/b0"] {
        fixture.put(key, "").await;
    }
    let (entries, revision) = fixture.store.list("/b/");
    let keys: Vec<&str> = entries.iter().map(|(key, _)| &**key).collect();
    assert_eq!(keys, ["/b/1", "/b/1/x", "/b/2"]);
    assert_eq!(revision, Revision(7));
    assert!(fixture.store.list("/d").0.is_empty());
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
async fn a_watch_tells_every_commit_after_its_revision() {
    let fixture = Fixture::new();
    fixture.put("/a", "1").await;
    fixture.put("/a", "2").await;
    let mut watch = fixture.store.watch(Revision(1));
    fixture.store.commit(Txn::new().delete("/a").put("/b", b"3".to_vec())).await.unwrap();

    let commit = soon(watch.next()).await.unwrap();
    assert_eq!(commit.revision, Revision(2));
    assert_eq!(&*commit.events[0].before.as_ref().unwrap().value, b"1");
    assert_eq!(&*commit.events[0].after.as_ref().unwrap().value, b"2");
    let commit = soon(watch.next()).await.unwrap();
    let told: Vec<_> = commit.events.iter().map(|event| (&*event.key, event.after.is_some())).collect();
    assert_eq!(told, [("/a", false), ("/b", true)]);

    let (next, _) = tokio::join!(soon(watch.next()), fixture.put("/c", "4"));
    assert_eq!(next.unwrap().revision, Revision(4));
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
async fn a_watch_that_fell_out_of_the_log_must_list_again() {
    let fixture = Fixture::new();
    for value in ["1", "2", "3"] {
        fixture.put("/a", value).await;
    }
    let mut slow = fixture.store.watch(Revision(1));
    fixture.store.compact(Revision(2)).await.unwrap();
    let compacted = WatchEnd::Compacted { compacted: Revision(2) };
    assert_eq!(soon(slow.next()).await.unwrap_err(), compacted);
    assert_eq!(soon(fixture.store.watch(Revision(2)).next()).await.unwrap().revision, Revision(3));

    let fixture = fixture.reopened();
    assert_eq!(soon(fixture.store.watch(Revision(1)).next()).await.unwrap_err(), compacted);
    assert_eq!(text(&fixture.store, "/a").unwrap(), "3");
    assert_eq!(fixture.put("/a", "4").await, Revision(4));
}

#[tokio::test]
async fn compacting_everything_keeps_the_revision() {
    let fixture = Fixture::new();
    fixture.put("/a", "1").await;
    fixture.put("/a", "2").await;
    fixture.store.compact(Revision(99)).await.unwrap();
    fixture.store.compact(Revision(1)).await.unwrap();
    let fixture = fixture.reopened();
    assert_eq!(fixture.store.revision(), Revision(2));
    assert_eq!(fixture.put("/a", "3").await, Revision(3));
}

#[tokio::test]
async fn a_revision_is_published_before_its_commit_is_answered() {
    let folder = tempfile::tempdir().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let observer = {
        let seen = Arc::clone(&seen);
        Box::new(move |commit: &Commit| seen.lock().push(commit.revision))
    };
    let store = Store::open_observed(&folder.path().join("registry.redb"), observer).unwrap();
    for n in 1..=20 {
        let revision = store.commit(put("/a", "1")).await.unwrap();
        assert_eq!(store.get("/a").unwrap().modified, revision);
        assert_eq!(seen.lock().len(), n);
    }
}

#[tokio::test]
async fn closing_finishes_what_is_queued_and_refuses_the_rest() {
    let fixture = Fixture::new();
    let store = Arc::new(fixture.store);
    let mut tasks = JoinSet::new();
    for i in 0..100 {
        let store = Arc::clone(&store);
        tasks.spawn(async move { (i, store.commit(put(&format!("/{i}"), "1")).await) });
    }
    tokio::task::yield_now().await;
    soon(store.close()).await;
    soon(store.close()).await;
    assert!(matches!(store.commit(put("/a", "1")).await, Err(CommitError::Closed)));
    assert!(matches!(store.compact(Revision(1)).await, Err(CommitError::Closed)));
    let outcomes = soon(tasks.join_all()).await;
    let mut watch = store.watch(store.revision());
    assert_eq!(soon(watch.next()).await.unwrap_err(), WatchEnd::Closed);

    let reopened = Store::open(fixture.folder.path().join("registry.redb")).unwrap();
    assert_eq!(content(&reopened), content(&store));
    for (i, outcome) in outcomes {
        assert_eq!(reopened.get(&format!("/{i}")).is_some(), outcome.is_ok());
    }
}

#[tokio::test]
async fn an_open_store_is_in_use() {
    let fixture = Fixture::new();
    let path = fixture.folder.path().join("registry.redb");
    let error = Store::open(&path).unwrap_err();
    assert!(matches!(error, OpenError::InUse { .. }), "{error}");
    drop(fixture.store);
    Store::open(&path).unwrap();
}

#[tokio::test]
async fn what_is_too_large_is_refused() {
    let fixture = Fixture::new();
    let refusal = fixture.store.commit(Txn::new().put("/a", vec![0; 2 << 20])).await.unwrap_err();
    assert!(matches!(refusal, CommitError::TooLarge { .. }), "{refusal}");
    assert_eq!(fixture.store.revision(), Revision::ZERO);
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// The store does what a map with revisions does, also across reopening; and its log replays to its content.
    #[test]
    fn the_store_is_a_map_with_revisions(
        steps in proptest::collection::vec((0..4_usize, 0..4_usize, proptest::option::of(0..3_u64), any::<bool>()), 1..25)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let mut fixture = Fixture::new();
        let mut model: BTreeMap<String, (String, Revision)> = BTreeMap::new();
        let mut revision = Revision::ZERO;
        for (step, (key, other, expected, delete)) in steps.into_iter().enumerate() {
            let (key, other) = (format!("/{key}"), format!("/{other}"));
            let mut txn = if delete { Txn::new().delete(&key) } else { put(&key, &step.to_string()) };
            // 0: absent; else the revision that is so many steps old.
            let precondition = expected.map(|age| (age > 0).then(|| Revision((revision.0 + 1).saturating_sub(age))));
            txn = match precondition {
                None => txn,
                Some(None) => txn.expect_absent(&other),
                Some(Some(expected)) => txn.expect(&other, expected),
            };
            let holds = precondition.is_none_or(|wanted| model.get(&other).map(|found| found.1) == wanted);
            let changes = !delete || model.contains_key(&key);
            let outcome = runtime.block_on(fixture.store.commit(txn));
            prop_assert_eq!(outcome.is_ok(), holds);
            if holds && changes {
                revision = revision.next();
                match delete {
                    true => drop(model.remove(&key)),
                    false => drop(model.insert(key, (step.to_string(), revision))),
                }
            }
            prop_assert_eq!(fixture.store.revision(), revision);
            if step % 10 == 9 {
                fixture = fixture.reopened();
            }
        }
        let expected: Vec<_> = model.into_iter().map(|(key, (value, _))| (key, value)).collect();
        prop_assert_eq!(content(&fixture.store), expected.clone());
        let mut replayed = BTreeMap::new();
        let mut watch = fixture.store.watch(Revision::ZERO);
        for _ in 0..revision.0 {
            for event in &runtime.block_on(soon(watch.next())).unwrap().events {
                match &event.after {
                    Some(after) => drop(replayed.insert(event.key.to_string(), after.value.clone())),
                    None => drop(replayed.remove(&*event.key)),
                }
            }
        }
        let replayed: Vec<_> =
            replayed.into_iter().map(|(key, value)| (key, String::from_utf8(value.to_vec()).unwrap())).collect();
        prop_assert_eq!(replayed, expected);
    }
}
