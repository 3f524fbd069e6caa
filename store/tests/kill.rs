//! `kill -9` at any moment: what a store has acknowledged is there afterwards, whole, and no revision goes back.

#![allow(clippy::unwrap_used, reason = "a test panics when something is wrong, also in the functions it calls")]

#[allow(dead_code, unreachable_pub, reason = "shared with other tests, each of which uses a part")]
#[path = "etcd/process.rs"]
mod process;

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::Write;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use store::{Backend, CommitError, Etcd, Revision, Store, Txn};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::task::JoinSet;
use tokio::time::timeout;

use self::process::EtcdProcess;

/// Tells the child process which store to write to: a file or an endpoint of etcd.
const STORE: &str = "REGISTRY_KILL_STORE";
const ROUNDS: usize = 60;
/// Each takes a start of etcd, or of a process that reads everything from it.
const ETCD_ROUNDS: usize = 15;
const WRITERS: u64 = 4;

/// What one writer was told to be on disk.
#[derive(Clone, Copy, Default)]
struct Acknowledged {
    count: u64,
    revision: u64,
}

#[tokio::test]
async fn a_killed_store_has_lost_nothing_it_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    kill_writers(&Backend::File(folder.path().join("registry.redb")), ROUNDS).await;
}

#[tokio::test]
async fn a_killed_writer_to_etcd_has_lost_nothing_it_acknowledged() {
    let etcd = EtcdProcess::start();
    kill_writers(&Backend::Etcd(etcd.options()), ETCD_ROUNDS).await;
}

#[tokio::test]
async fn a_killed_etcd_has_lost_nothing_that_was_acknowledged() {
    let etcd = EtcdProcess::start();
    let backend = Backend::Etcd(etcd.options());
    let mut acknowledged = HashMap::<u64, Acknowledged>::new();
    let (mut child, mut lines) = start(&backend);
    for _ in 0..ETCD_ROUNDS {
        for _ in 0..rand::random_range(1..60) {
            note(&next_line(&mut lines).await.expect("the child ended by itself"), &mut acknowledged);
        }
        etcd.kill();
        etcd.restart();
    }
    note(&next_line(&mut lines).await.expect("the child ended by itself"), &mut acknowledged);
    child.kill().await.unwrap();
    while let Some(line) = next_line(&mut lines).await {
        note(&line, &mut acknowledged);
    }
    check(&open(&backend), true, &acknowledged).await;
    assert_eq!(acknowledged.len(), WRITERS as usize);
}

/// Kills a process that writes, again and again, and looks at what it leaves.
async fn kill_writers(backend: &Backend, rounds: usize) {
    let mut acknowledged = HashMap::<u64, Acknowledged>::new();
    let mut revision = Revision::ZERO;
    for round in 0..rounds {
        let (mut child, mut lines) = start(backend);
        if round % 5 == 4 {
            // While it opens (or, the first time, makes) the store.
            tokio::time::sleep(Duration::from_micros(rand::random_range(0..30_000))).await;
        } else {
            for _ in 0..rand::random_range(1..60) {
                note(&next_line(&mut lines).await.expect("the child ended by itself"), &mut acknowledged);
            }
        }
        child.kill().await.unwrap();
        while let Some(line) = next_line(&mut lines).await {
            note(&line, &mut acknowledged);
        }

        let store = open(backend);
        check(&store, matches!(backend, Backend::Etcd(_)), &acknowledged).await;
        assert!(store.revision() >= revision, "the revision went back from {revision} to {}", store.revision());
        revision = store.revision();
    }
    assert_eq!(acknowledged.len(), WRITERS as usize);
}

/// The child process: commits in a loop and prints each acknowledgement, until it is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the other test runs it as a child process"]
#[expect(clippy::disallowed_methods, reason = "a test's own environment")]
async fn writer() {
    let place = std::env::var_os(STORE).expect("only the other tests run this one");
    let backend = match place.to_str() {
        Some(endpoint) if endpoint.starts_with("http") => Backend::Etcd(etcd_at(endpoint)),
        _ => Backend::File(place.into()),
    };
    let store = Arc::new(open(&backend));
    let mut tasks = JoinSet::new();
    for writer in 0..WRITERS {
        let store = Arc::clone(&store);
        tasks.spawn(async move { write_for_ever(&store, writer).await });
    }
    tasks.join_next().await.unwrap().unwrap();
}

async fn write_for_ever(store: &Store, writer: u64) {
    loop {
        let [first, second] = keys(writer);
        let txn = match store.get(&first) {
            Some(found) => Txn::new().expect(&first, found.modified),
            None => Txn::new().expect_absent(&first),
        };
        let count = count(store, &first) + 1;
        let value = value(count);
        let revision = match store.commit(txn.put(first, value.clone()).put(second, value)).await {
            // Not applied: what is read next is what was there.
            Err(CommitError::Etcd { .. }) => continue,
            outcome => outcome.unwrap(),
        };
        // One line is one write to the pipe, so lines of several writers do not mix.
        std::io::stdout().write_all(format!("ack {writer} {count} {revision}\n").as_bytes()).unwrap();
        if count.is_multiple_of(50) {
            store.compact(Revision(revision.0.saturating_sub(20))).await.unwrap();
        }
    }
}

fn open(backend: &Backend) -> Store {
    match backend {
        Backend::File(path) => Store::open(path).unwrap(),
        Backend::Etcd(etcd) => Store::connect(etcd).unwrap(),
    }
}

fn etcd_at(endpoint: &str) -> Etcd {
    Etcd { endpoints: vec![endpoint.to_owned()], ca: None, identity: None, prefix: Etcd::PREFIX.to_owned() }
}

fn start(backend: &Backend) -> (Child, Lines<BufReader<ChildStdout>>) {
    let place: OsString = match backend {
        Backend::File(path) => path.into(),
        Backend::Etcd(etcd) => etcd.endpoints[0].clone().into(),
    };
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "writer", "--ignored", "--nocapture"])
        .env(STORE, place)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    (child, lines)
}

async fn next_line(lines: &mut Lines<BufReader<ChildStdout>>) -> Option<String> {
    timeout(Duration::from_secs(30), lines.next_line()).await.expect("the child hangs").unwrap()
}

/// Takes note of an acknowledgement; the test runner's own lines, and one cut by the kill, are none.
fn note(line: &str, acknowledged: &mut HashMap<u64, Acknowledged>) {
    let Some((_, numbers)) = line.split_once("ack ") else { return };
    let numbers: Vec<u64> = numbers.split(' ').filter_map(|number| number.parse().ok()).collect();
    if let [writer, count, revision] = numbers[..] {
        let before = acknowledged.insert(writer, Acknowledged { count, revision }).unwrap_or_default();
        assert!(before.count < count && before.revision < revision, "writer {writer} went back to {count}");
    }
}

async fn check(store: &Store, in_etcd: bool, acknowledged: &HashMap<u64, Acknowledged>) {
    for (&writer, acknowledged) in acknowledged {
        let [first, second] = keys(writer);
        let (first, second) = (count(store, &first), count(store, &second));
        assert_eq!(first, second, "half of a transaction is there");
        assert!(
            first >= acknowledged.count,
            "writer {writer}: {} was acknowledged, {first} is there",
            acknowledged.count
        );
        assert!(store.revision() >= Revision(acknowledged.revision));
    }
    // The log leads without a gap to the newest revision. (In etcd it begins with the process.)
    let newest = store.revision();
    if in_etcd {
        return;
    }
    let Some(mut seen) = newest.0.checked_sub(10).map(Revision) else { return };
    let mut watch = store.watch(seen);
    while seen < newest {
        let next = timeout(Duration::from_secs(30), watch.next()).await.expect("the watch hangs").unwrap();
        assert_eq!(next.revision, Revision(seen.0 + 1));
        seen = next.revision;
    }
}

fn keys(writer: u64) -> [String; 2] {
    [format!("/a/{writer}"), format!("/b/{writer}")]
}

/// The count, in as many bytes as make it cross pages now and then.
fn value(count: u64) -> Vec<u8> {
    format!("{count:>width$}", width = (count as usize * 37) % 3000).into_bytes()
}

fn count(store: &Store, key: &str) -> u64 {
    store.get(key).map_or(0, |found| str::from_utf8(&found.value).unwrap().trim().parse().unwrap())
}
