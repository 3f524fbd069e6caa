//! A damaged file is told from a good one, and never taken for an empty or an older store.

use super::*;

/// A closed store with some content: its folder, its file and what is in it.
fn closed_store() -> (TempDir, PathBuf, State) {
    let fixture = Fixture::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    for n in 0..60 {
        runtime.block_on(fixture.put(&format!("/{}", n % 40), &n.to_string().repeat(50)));
    }
    let Fixture { folder, store } = fixture;
    let state = store.state.read().clone();
    drop(store);
    let path = folder.path().join("registry.redb");
    (folder, path, state)
}

fn assert_damaged(path: &Path) {
    let before = std::fs::read(path).unwrap();
    let error = open(path).expect_err("the damage went unnoticed");
    assert!(matches!(error, OpenError::Damaged { .. }), "{error:?}");
    assert!(error.to_string().contains("restore a copy"), "{error}");
    assert!(std::fs::read(path).unwrap() == before, "the file was changed");
}

#[test]
fn a_file_cut_short_is_damaged() {
    let (_folder, path, _) = closed_store();
    let whole = std::fs::read(&path).unwrap();
    for length in [0, 1, 100, 4096, 5000, whole.len() / 2, whole.len() - 4096] {
        std::fs::write(&path, &whole[..length]).unwrap();
        assert_damaged(&path);
    }
    std::fs::write(&path, &whole).unwrap();
    open(&path).unwrap();
}

#[test]
fn a_file_of_something_else_is_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("registry.redb");
    for content in [vec![0; 8192], b"SQLite format 3\0".repeat(1000), vec![0xff; 1 << 20]] {
        std::fs::write(&path, content).unwrap();
        assert_damaged(&path);
    }
}

#[test]
fn a_flipped_bit_is_noticed_or_harmless() {
    let (_folder, path, state) = closed_store();
    let whole = std::fs::read(&path).unwrap();
    let mut noticed = 0;
    let header = (0..320).map(|offset| (offset, 1 << (offset % 8)));
    let used: Vec<usize> = (320..whole.len()).filter(|&offset| whole[offset] != 0).collect();
    let pages = (0..400).map(|n| (used[n * 7919 % used.len()], 1 << (n % 8)));
    for (offset, bit) in header.chain(pages) {
        let mut damaged = whole.clone();
        damaged[offset] ^= bit;
        std::fs::write(&path, &damaged).unwrap();
        match open(&path) {
            Ok(store) => assert_eq!(*store.state.read(), state, "byte {offset}"),
            Err(error) => {
                assert!(matches!(error, OpenError::Damaged { .. }), "byte {offset}: {error:?}");
                assert!(std::fs::read(&path).unwrap() == damaged, "byte {offset}: the file was changed");
                noticed += 1;
            }
        }
    }
    assert!(noticed > 50, "only {noticed} were noticed");
}

#[test]
fn a_store_of_a_newer_format_is_left_alone() {
    let (_folder, path, _) = closed_store();
    let meta = redb::TableDefinition::<'_, &str, u64>::new("meta");
    let database = redb::Database::open(&path).unwrap();
    let txn = database.begin_write().unwrap();
    txn.open_table(meta).unwrap().insert("format", 2).unwrap();
    txn.commit().unwrap();
    drop(database);
    let error = open(&path).unwrap_err();
    assert!(matches!(error, OpenError::Newer { found: 2, .. }), "{error}");
}
