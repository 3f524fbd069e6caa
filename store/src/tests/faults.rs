//! The store on a disk that fails: what is acknowledged stays, what is refused never happened, and it works again after.

use std::fs::File;

use redb::Database;
use redb::backends::FileBackend;

use super::*;
use crate::faults::{Fault, FaultyFile};

/// A store on such a file, and the switch.
struct Faulty {
    folder: TempDir,
    store: Store,
    fault: Arc<Mutex<Fault>>,
}

impl Faulty {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (store, fault) = Store::on_failing(&folder.path().join("registry.redb"), Box::new(|_| ())).unwrap();
        Self { folder, store, fault }
    }

    fn set(&self, fault: Fault) {
        *self.fault.lock() = fault;
    }

    fn file_length(&self) -> u64 {
        std::fs::metadata(self.folder.path().join("registry.redb")).unwrap().len()
    }

    /// What a new process finds on the disk.
    fn reopened(self) -> Fixture {
        let Self { folder, store, .. } = self;
        drop(store);
        let store = open(&folder.path().join("registry.redb")).unwrap();
        Fixture { folder, store }
    }
}

/// redb by itself: after one I/O error everything fails, also reading, until the database is opened anew.
#[test]
fn redb_refuses_everything_after_an_io_error() {
    let folder = tempfile::tempdir().unwrap();
    let file = File::options().read(true).write(true).create_new(true).open(folder.path().join("f")).unwrap();
    let fault = Arc::new(Mutex::new(Fault::Healthy));
    let backend = FaultyFile { file: FileBackend::new(file).unwrap(), fault: Arc::clone(&fault) };
    let database = Database::builder().create_with_backend(backend).unwrap();
    database.begin_write().unwrap().commit().unwrap();
    *fault.lock() = Fault::OneAfter(0);
    assert!(database.begin_write().unwrap().commit().is_err());
    assert_eq!(*fault.lock(), Fault::Healthy);
    let refused = database.begin_write().map(|txn| txn.commit().is_err());
    assert!(refused.unwrap_or(true), "redb recovers by itself now: Disk::recover may go");
}

#[tokio::test]
async fn on_a_full_disk_reads_go_on_and_commits_work_again_when_there_is_space() {
    let faulty = Faulty::new();
    faulty.store.commit(put("/a", "1")).await.unwrap();
    faulty.set(Fault::Full { end: faulty.file_length() });
    // Enough to need more room than the file has.
    let mut acknowledged = 0;
    let refusal = loop {
        let big = Txn::new().put(format!("/big/{acknowledged}"), vec![b'x'; 1 << 20]);
        match soon(faulty.store.commit(big)).await {
            Ok(_) => acknowledged += 1,
            Err(refusal) => break refusal,
        }
    };
    assert!(matches!(refusal, CommitError::Disk { .. }), "{refusal}");
    assert!(refusal.to_string().contains("free space"));
    assert_eq!(text(&faulty.store, "/a").unwrap(), "1");
    assert_eq!(faulty.store.list("/big/").0.len(), acknowledged);

    // A small change still fits in.
    soon(faulty.store.commit(put("/a", "2"))).await.unwrap();
    faulty.set(Fault::Healthy);
    let big = Txn::new().put("/big/again", vec![b'x'; 1 << 20]);
    soon(faulty.store.commit(big)).await.unwrap();

    let fixture = faulty.reopened();
    assert_eq!(text(&fixture.store, "/a").unwrap(), "2");
    assert_eq!(fixture.store.list("/big/").0.len(), acknowledged + 1);
    assert_eq!(fixture.store.revision(), Revision(acknowledged as u64 + 3));
}

#[tokio::test]
async fn while_the_disk_fails_every_commit_is_refused_and_the_first_after_it_works() {
    let faulty = Faulty::new();
    faulty.store.commit(put("/a", "1")).await.unwrap();
    faulty.set(Fault::ReadOnly);
    let mut watch = faulty.store.watch(Revision(1));
    for _ in 0..3 {
        let refusal = soon(faulty.store.commit(put("/a", "2"))).await.unwrap_err();
        assert!(matches!(refusal, CommitError::Disk { .. }), "{refusal}");
        assert_eq!(text(&faulty.store, "/a").unwrap(), "1");
    }
    faulty.set(Fault::Healthy);
    assert_eq!(soon(faulty.store.commit(put("/a", "3"))).await.unwrap(), Revision(2));
    assert_eq!(&*soon(watch.next()).await.unwrap().events[0].after.as_ref().unwrap().value, b"3");
    assert_eq!(text(&faulty.reopened().store, "/a").unwrap(), "3");
}

#[tokio::test]
async fn when_a_group_fails_each_of_its_transactions_is_told() {
    let faulty = Faulty::new();
    faulty.set(Fault::ReadOnly);
    let store = Arc::new(faulty.store);
    let mut tasks = JoinSet::new();
    for i in 0..50 {
        let store = Arc::clone(&store);
        tasks.spawn(async move { store.commit(put(&format!("/{i}"), "1")).await });
    }
    for outcome in soon(tasks.join_all()).await {
        assert!(matches!(outcome, Err(CommitError::Disk { .. })));
    }
    assert_eq!(store.revision(), Revision::ZERO);
    *faulty.fault.lock() = Fault::Healthy;
    soon(store.commit(put("/a", "1"))).await.unwrap();
    soon(store.close()).await;
    let reopened = open(&faulty.folder.path().join("registry.redb")).unwrap();
    assert_eq!(content(&reopened), [("/a".to_owned(), "1".to_owned())]);
}

#[tokio::test]
async fn dropping_a_store_on_a_failing_disk_does_not_hang() {
    let faulty = Faulty::new();
    faulty.set(Fault::AllAfter(0));
    let _ = soon(faulty.store.commit(put("/a", "1"))).await;
    let Faulty { store, .. } = faulty;
    soon(store.close()).await;
    drop(store);
}

/// Fails each single operation of a commit in turn, in each way, which includes those where the commit is on disk already.
#[tokio::test]
async fn whichever_operation_fails_refused_is_not_applied_and_acknowledged_stays() {
    let mut refusals = 0;
    for fault in [Fault::OneAfter, Fault::AllAfter, Fault::TornAfter, Fault::PanicAfter] {
        for operation in 0.. {
            let faulty = Faulty::new();
            faulty.store.commit(put("/a", "1").put("/gone", b"1".to_vec())).await.unwrap();
            faulty.set(fault(operation));
            let outcome = soon(faulty.store.commit(put("/a", "2").delete("/gone").put("/new", b"2".to_vec()))).await;
            let hit = matches!(*faulty.fault.lock(), Fault::Healthy | Fault::AllAfter(0));
            let refused = outcome.is_err();
            let expected = if refused { ("1", 1) } else { ("2", 2) };
            assert_eq!(
                (text(&faulty.store, "/a").as_deref(), faulty.store.revision().0),
                (Some(expected.0), expected.1)
            );

            faulty.set(Fault::Healthy);
            let next = soon(faulty.store.commit(put("/b", "3"))).await.unwrap();
            assert_eq!(next, Revision(expected.1 + 1), "{:?}", fault(operation));
            let memory = (faulty.store.list(""), faulty.store.state.read().clone());
            let fixture = faulty.reopened();
            assert_eq!((fixture.store.list(""), fixture.store.state.read().clone()), memory, "{:?}", fault(operation));
            assert_eq!(fixture.store.get("/gone").is_some(), refused);
            refusals += u32::from(refused);
            if !hit {
                break;
            }
        }
    }
    assert!(refusals > 10, "only {refusals} operations failed: does the commit still go to disk?");
}
