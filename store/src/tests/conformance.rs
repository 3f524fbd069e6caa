//! What every store promises: each test runs on a file and on etcd.

use std::any::Any;
use std::collections::BTreeMap;

use proptest::prelude::*;
use tokio::task::JoinSet;

use super::*;

/// A new store of one of the kinds.
struct Fresh {
    backend: Backend,
    store: Store,
    /// The folder or the process that must live as long as the store.
    _home: Box<dyn Any>,
}

impl Fresh {
    fn in_a_file() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let backend = Backend::File(folder.path().join("registry.redb"));
        Self::new(backend, Box::new(folder), Box::new(|_| ()))
    }

    fn in_etcd() -> Self {
        let etcd = EtcdProcess::shared();
        Self::new(Backend::Etcd(etcd.own_options()), Box::new(etcd), Box::new(|_| ()))
    }

    fn new(backend: Backend, home: Box<dyn Any>, observer: Observer) -> Self {
        let store = Store::on(&backend, observer).unwrap();
        Self { backend, store, _home: home }
    }

    fn reopened(self) -> Self {
        let Self { backend, store, _home: home } = self;
        drop(store);
        Self::new(backend, home, Box::new(|_| ()))
    }

    fn observed(self, observer: Observer) -> Self {
        let Self { backend, store, _home: home } = self;
        drop(store);
        Self::new(backend, home, observer)
    }

    async fn put(&self, key: &str, value: &str) -> Revision {
        self.store.commit(put(key, value)).await.unwrap()
    }

    /// Revisions are the store's own, which begin at zero and grow by one.
    fn counts(&self) -> bool {
        matches!(self.backend, Backend::File(_))
    }
}

macro_rules! on_both {
    ($($name:ident)*) => {
        mod in_a_file {
            $(#[tokio::test]
            async fn $name() {
                super::$name(super::Fresh::in_a_file()).await;
            })*
        }

        mod in_etcd {
            $(#[tokio::test]
            async fn $name() {
                super::$name(super::Fresh::in_etcd()).await;
            })*
        }
    };
}

on_both! {
    a_committed_value_is_read_back_and_survives_reopening
    revisions_grow_with_each_transaction_that_changes_something
    a_transaction_whose_precondition_fails_changes_nothing
    of_many_that_want_to_create_a_key_one_succeeds
    concurrent_increments_all_count
    what_was_queued_first_is_done_first
    a_list_holds_the_keys_of_its_prefix_in_order
    a_watch_tells_every_commit_after_its_revision
    a_watch_that_fell_out_of_the_log_must_list_again
    compacting_everything_keeps_the_revision
    a_revision_is_published_before_its_commit_is_answered
    closing_finishes_what_is_queued_and_refuses_the_rest
    what_is_too_large_is_refused
    the_largest_transactions_fit_in
}

async fn a_committed_value_is_read_back_and_survives_reopening(fresh: Fresh) {
    let first = fresh.put("/a", "1").await;
    let second = fresh.put("/b", "2").await;
    let third = fresh.put("/a", "3").await;
    assert!(first < second && second < third);
    let (before, revision) = fresh.store.list("");
    assert_eq!(revision, third);
    let a = fresh.store.get("/a").unwrap();
    assert_eq!((a.created, a.modified), (first, third));

    let fresh = fresh.reopened();
    assert_eq!(fresh.store.list("").0, before);
    assert!(fresh.store.revision() >= third);
    assert!(fresh.put("/c", "4").await > third);
}

async fn revisions_grow_with_each_transaction_that_changes_something(fresh: Fresh) {
    let two = Txn::new().put("/a", b"1".to_vec()).put("/b", b"1".to_vec());
    let first = fresh.store.commit(two).await.unwrap();
    assert_eq!(fresh.store.commit(Txn::new()).await.unwrap(), first);
    assert_eq!(fresh.store.commit(Txn::new().delete("/nothing")).await.unwrap(), first);
    assert_eq!(fresh.store.commit(Txn::new().expect("/a", first).expect_absent("/c")).await.unwrap(), first);
    let second = fresh.store.commit(Txn::new().delete("/a")).await.unwrap();
    assert!(second > first);
    let third = fresh.put("/a", "2").await;
    assert!(third > second);
    assert_eq!(fresh.store.get("/a").unwrap().created, third);
    if fresh.counts() {
        assert_eq!([first, second, third], [Revision(1), Revision(2), Revision(3)]);
    }
}

async fn a_transaction_whose_precondition_fails_changes_nothing(fresh: Fresh) {
    let first = fresh.put("/a", "1").await;
    let refused = [
        put("/a", "2").expect_absent("/a"),
        put("/a", "2").expect("/a", Revision(7_000_000)),
        put("/a", "2").expect("/a", first).expect("/b", first),
    ];
    for txn in refused {
        let refusal = fresh.store.commit(txn).await.unwrap_err();
        assert!(matches!(refusal, CommitError::Conflict { .. }), "{refusal}");
        assert_eq!(fresh.store.revision(), first);
    }
    assert_eq!(content(&fresh.store), [("/a".to_owned(), "1".to_owned())]);
    let told = fresh.store.commit(put("/a", "2").expect_absent("/a")).await.unwrap_err().to_string();
    let found = format!("(expected none, found revision {first})");
    assert_eq!(told, format!("/a was changed by someone else {found}; read it again and retry"));

    let allowed = put("/b", "2").expect("/a", first).expect_absent("/b");
    assert!(fresh.store.commit(allowed).await.unwrap() > first);
}

async fn of_many_that_want_to_create_a_key_one_succeeds(fresh: Fresh) {
    let store = Arc::new(fresh.store);
    let mut tasks = JoinSet::new();
    for i in 0..50 {
        let store = Arc::clone(&store);
        tasks.spawn(async move { store.commit(put("/a", &i.to_string()).expect_absent("/a")).await });
    }
    let outcomes = soon(tasks.join_all()).await;
    let winners: Vec<Revision> = outcomes.into_iter().flatten().collect();
    assert_eq!(winners, [store.revision()]);
}

async fn concurrent_increments_all_count(fresh: Fresh) {
    fresh.put("/n", "0").await;
    let store = Arc::new(fresh.store);
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
}

async fn what_was_queued_first_is_done_first(fresh: Fresh) {
    let commits: Vec<_> =
        (0..100).map(|i| fresh.store.commit(put("/a", &i.to_string()).delete(format!("/{i}")))).collect();
    let revisions = soon(futures_util::future::join_all(commits)).await;
    let revisions: Vec<Revision> = revisions.into_iter().map(Result::unwrap).collect();
    assert!(revisions.is_sorted());
    assert_eq!(text(&fresh.store, "/a").unwrap(), "99");
}

async fn a_list_holds_the_keys_of_its_prefix_in_order(fresh: Fresh) {
    let mut newest = Revision::ZERO;
    for key in ["/b/2", "/a/1", "/b/1", "/b", "/c/1", "/b/1/x", "/b0"] {
        newest = fresh.put(key, "").await;
    }
    let (entries, revision) = fresh.store.list("/b/");
    let keys: Vec<&str> = entries.iter().map(|(key, _)| &**key).collect();
    assert_eq!(keys, ["/b/1", "/b/1/x", "/b/2"]);
    assert_eq!(revision, newest);
    assert!(fresh.store.list("/d").0.is_empty());
}

async fn a_watch_tells_every_commit_after_its_revision(fresh: Fresh) {
    let first = fresh.put("/a", "1").await;
    let second = fresh.put("/a", "2").await;
    let mut watch = fresh.store.watch(first);
    let third = fresh.store.commit(Txn::new().delete("/a").put("/b", b"3".to_vec())).await.unwrap();

    let commit = soon(watch.next()).await.unwrap();
    assert_eq!(commit.revision, second);
    assert_eq!(&*commit.events[0].before.as_ref().unwrap().value, b"1");
    assert_eq!(&*commit.events[0].after.as_ref().unwrap().value, b"2");
    let commit = soon(watch.next()).await.unwrap();
    assert_eq!(commit.revision, third);
    let told: Vec<_> = commit.events.iter().map(|event| (&*event.key, event.after.is_some())).collect();
    assert_eq!(told, [("/a", false), ("/b", true)]);

    let (next, fourth) = tokio::join!(soon(watch.next()), fresh.put("/c", "4"));
    assert_eq!(next.unwrap().revision, fourth);
}

async fn a_watch_that_fell_out_of_the_log_must_list_again(fresh: Fresh) {
    let first = fresh.put("/a", "1").await;
    let second = fresh.put("/a", "2").await;
    let third = fresh.put("/a", "3").await;
    let mut slow = fresh.store.watch(first);
    fresh.store.compact(second).await.unwrap();
    assert_eq!(soon(slow.next()).await.unwrap_err(), WatchEnd::Compacted { compacted: second });
    assert_eq!(soon(fresh.store.watch(second).next()).await.unwrap().revision, third);

    let fresh = fresh.reopened();
    let end = soon(fresh.store.watch(first).next()).await.unwrap_err();
    assert!(matches!(end, WatchEnd::Compacted { compacted } if compacted >= second), "{end}");
    assert_eq!(text(&fresh.store, "/a").unwrap(), "3");
    assert!(fresh.put("/a", "4").await > third);
}

async fn compacting_everything_keeps_the_revision(fresh: Fresh) {
    fresh.put("/a", "1").await;
    let second = fresh.put("/a", "2").await;
    fresh.store.compact(Revision(9_000_000)).await.unwrap();
    fresh.store.compact(Revision(1)).await.unwrap();
    assert_eq!(fresh.store.revision(), second);
    let fresh = fresh.reopened();
    assert!(fresh.store.revision() >= second);
    assert!(fresh.put("/a", "3").await > second);
}

async fn a_revision_is_published_before_its_commit_is_answered(fresh: Fresh) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let fresh = fresh.observed({
        let seen = Arc::clone(&seen);
        Box::new(move |commit: &Commit| seen.lock().push(commit.revision))
    });
    let mut watch = fresh.store.watch(fresh.store.revision());
    for n in 1..=20 {
        let revision = fresh.store.commit(put("/a", "1")).await.unwrap();
        assert_eq!(fresh.store.get("/a").unwrap().modified, revision);
        assert_eq!(fresh.store.revision(), revision);
        let seen = seen.lock().clone();
        assert_eq!((seen.len(), seen.last()), (n, Some(&revision)));
        assert_eq!(soon(watch.next()).await.unwrap().revision, revision);
    }
}

async fn closing_finishes_what_is_queued_and_refuses_the_rest(fresh: Fresh) {
    let Fresh { backend, store, _home } = fresh;
    let store = Arc::new(store);
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

    let reopened = Store::on(&backend, Box::new(|_| ())).unwrap();
    assert_eq!(content(&reopened), content(&store));
    for (i, outcome) in outcomes {
        assert_eq!(reopened.get(&format!("/{i}")).is_some(), outcome.is_ok());
    }
}

async fn what_is_too_large_is_refused(fresh: Fresh) {
    let before = fresh.store.revision();
    let refusal = fresh.store.commit(Txn::new().put("/a", vec![0; 2 << 20])).await.unwrap_err();
    assert!(matches!(refusal, CommitError::TooLarge { .. }), "{refusal}");
    let many = (0..128).fold(Txn::new(), |txn, i| txn.put(i.to_string(), Vec::new()));
    let refusal = fresh.store.commit(many).await.unwrap_err().to_string();
    assert_eq!(refusal, "the list of changes is too large (128, at most 127)");
    assert_eq!(fresh.store.revision(), before);
}

async fn the_largest_transactions_fit_in(fresh: Fresh) {
    fresh.store.commit(Txn::new().put("/a", vec![0; (1536 - 1) << 10])).await.unwrap();
    let many = (0..127).fold(Txn::new(), |txn, i| {
        let key = format!("/{i}/{}", "k".repeat(1000));
        txn.expect_absent(&key).put(key, vec![1; 8000])
    });
    fresh.store.commit(many.clone()).await.unwrap();
    assert!(matches!(fresh.store.commit(many).await, Err(CommitError::Conflict { .. })));
    assert_eq!(fresh.store.list("").0.len(), 128);
    let fresh = fresh.reopened();
    assert_eq!(fresh.store.list("").0.len(), 128);
}

type Step = (usize, usize, Option<u64>, bool);

fn steps(most: usize) -> impl Strategy<Value = Vec<Step>> {
    proptest::collection::vec((0..4_usize, 0..4_usize, proptest::option::of(0..3_u64), any::<bool>()), 1..most)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_file_is_a_map_with_revisions(steps in steps(25)) {
        is_a_map_with_revisions(Fresh::in_a_file(), steps)?;
    }

    #[test]
    fn an_etcd_is_a_map_with_revisions(steps in steps(25)) {
        is_a_map_with_revisions(Fresh::in_etcd(), steps)?;
    }
}

/// The store does what a map with revisions does, also across reopening; and its log replays to its content.
fn is_a_map_with_revisions(mut fresh: Fresh, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let mut model: BTreeMap<String, (String, Revision)> = BTreeMap::new();
    let mut revisions = vec![fresh.store.revision()];
    // Where the log begins, and what was there then.
    let mut start = (fresh.store.revision(), BTreeMap::new(), 0);
    for (step, (key, other, expected, delete)) in steps.into_iter().enumerate() {
        let (key, other) = (format!("/{key}"), format!("/{other}"));
        let mut txn = if delete { Txn::new().delete(&key) } else { put(&key, &step.to_string()) };
        // 0: absent; else the revision that is so many changes old.
        let aged = |age: u64| revisions.iter().rev().nth(age as usize - 1).copied().unwrap_or(Revision(9_000_000));
        let precondition = expected.map(|age| (age > 0).then(|| aged(age)));
        txn = match precondition {
            None => txn,
            Some(None) => txn.expect_absent(&other),
            Some(Some(expected)) => txn.expect(&other, expected),
        };
        let holds = precondition.is_none_or(|wanted| model.get(&other).map(|found| found.1) == wanted);
        let changes = !delete || model.contains_key(&key);
        let before = fresh.store.revision();
        let outcome = runtime.block_on(fresh.store.commit(txn));
        prop_assert_eq!(outcome.is_ok(), holds);
        if holds && changes {
            let revision = outcome.unwrap();
            let grown = revision.0 - before.0;
            prop_assert!(grown == 1 || grown > 1 && !fresh.counts());
            revisions.push(revision);
            match delete {
                true => drop(model.remove(&key)),
                false => drop(model.insert(key, (step.to_string(), revision))),
            }
            prop_assert_eq!(fresh.store.revision(), revision);
        } else {
            prop_assert_eq!(fresh.store.revision(), before);
        }
        if step % 10 == 9 {
            fresh = fresh.reopened();
            if !fresh.counts() {
                start = (fresh.store.revision(), model.clone(), revisions.len() - 1);
            }
        }
    }
    let expected: Vec<_> = model.into_iter().map(|(key, (value, _))| (key, value)).collect();
    prop_assert_eq!(content(&fresh.store), expected.clone());
    let (start, replayed, before) = start;
    let mut replayed: BTreeMap<_, _> = replayed.into_iter().map(|(key, (value, _))| (key, value)).collect();
    let mut watch = fresh.store.watch(start);
    for _ in before + 1..revisions.len() {
        for event in &runtime.block_on(soon(watch.next())).unwrap().events {
            match &event.after {
                Some(after) => {
                    drop(replayed.insert(event.key.to_string(), String::from_utf8(after.value.to_vec()).unwrap()));
                }
                None => drop(replayed.remove(&*event.key)),
            }
        }
    }
    prop_assert_eq!(replayed.into_iter().collect::<Vec<_>>(), expected);
    Ok(())
}
