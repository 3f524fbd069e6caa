//! Clients that come all the time, and what became of them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use hyper::header::RETRY_AFTER;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use tests::client::{Connection, Entry};
use tests::{Client, Fetch, HUB_NAME, Hub};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::super::BOUND;

/// 200 dials a second.
const DIALS: Duration = Duration::from_millis(5);
/// 20 questions a second.
const QUESTIONS: Duration = Duration::from_millis(50);
/// How long a client waits before it connects again where nobody listens.
const AGAIN: Duration = Duration::from_millis(20);

/// Clients that come all the time.
pub(super) struct Load {
    stop: CancellationToken,
    seen: Arc<Mutex<Seen>>,
    coming: JoinHandle<()>,
}

/// What became of them.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub failed: Vec<String>,
    /// Connects that were refused, and requests that were to be made again.
    pub retried: usize,
    /// When each that went well began and was answered.
    good: Vec<(Instant, Instant)>,
}

impl Load {
    /// Dials, and has a few bytes echoed.
    pub(super) fn of_dials(client: Client, target: String) -> Self {
        Self::start(DIALS, move || {
            let (client, target) = (client.clone(), target.clone());
            async move {
                let connection = client.enter().await?;
                echoes(&mut client.dial_over(connection, &target).await?).await
            }
        })
    }

    /// The same over the hub's Unix socket.
    pub(super) fn of_dials_by_socket(hub: &Hub, target: String) -> Result<Self> {
        let token = hub.credentials().token()?;
        Ok(Self::of_dials(Client::new(Entry::Unix(hub.socket())).cluster("c1", &token), target))
    }

    /// Reads and writes of the API in turns, as client-go makes them: again after a 503 that says when.
    pub(super) fn of_the_api(hub: &Hub) -> Result<Self> {
        let credentials = hub.credentials();
        let (api, token, tls) = (hub.addresses().api, credentials.token()?, credentials.tls()?);
        let count = AtomicUsize::new(0);
        Ok(Self::start(QUESTIONS, move || {
            let count = count.fetch_add(1, Ordering::Relaxed);
            let request = match count % 2 {
                0 => Fetch::get("/api/v1/namespaces"),
                _ => Fetch::new(Method::POST, "/api/v1/namespaces").json(&namespace(count)),
            };
            let asking = request.bearer(&token).tls(api, HUB_NAME, Arc::clone(&tls));
            async move {
                let answer = asking.await?;
                let away = answer.status == StatusCode::SERVICE_UNAVAILABLE;
                if away && answer.headers.contains_key(RETRY_AFTER) {
                    return Err(io::Error::from(io::ErrorKind::ConnectionRefused).into());
                }
                answer.success().map(drop)
            }
        }))
    }

    /// A client each time, again where nobody serves it yet.
    fn start<F>(every: Duration, client: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let (stop, seen) = (CancellationToken::new(), Arc::new(Mutex::new(Seen::default())));
        let (stopped, noted, client) = (stop.clone(), Arc::clone(&seen), Arc::new(client));
        let coming = TaskTracker::new().spawn(async move {
            let (clients, mut turns) = (TaskTracker::new(), interval(every));
            turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while stopped.run_until_cancelled(turns.tick()).await.is_some() {
                let (client, seen, begun) = (Arc::clone(&client), Arc::clone(&noted), Instant::now());
                clients.spawn(async move {
                    let mut retried = 0;
                    let outcome = loop {
                        match client().await {
                            Err(error) if is_refused(&error) && begun.elapsed() < BOUND => {
                                retried += 1;
                                sleep(AGAIN).await;
                            }
                            outcome => break outcome,
                        }
                    };
                    let mut seen = seen.lock().await;
                    seen.retried += retried;
                    match outcome {
                        Ok(()) => seen.good.push((begun, Instant::now())),
                        Err(error) => seen.failed.push(format!("{error:#}")),
                    }
                });
            }
            clients.close();
            clients.wait().await;
        });
        Self { stop, seen, coming }
    }

    /// Ends it and tells what it has seen.
    pub(super) async fn end(self, what: &str) -> Result<Seen> {
        self.stop.cancel();
        timeout(BOUND, self.coming).await.context("clients do not end")??;
        let mut seen = Arc::into_inner(self.seen).context("clients are left")?.into_inner();
        seen.tell(what);
        Ok(seen)
    }

    /// Ends it and demands that none failed.
    pub(super) async fn fails_none(self, what: &str) -> Result<Seen> {
        let seen = self.end(what).await?;
        ensure!(seen.failed.is_empty(), "{} of {what} failed: {}", seen.failed.len(), seen.failed[0]);
        ensure!(!seen.good.is_empty(), "{what}: nobody came");
        Ok(seen)
    }
}

impl Seen {
    fn tell(&mut self, what: &str) {
        let mut took: Vec<_> = self.good.iter().map(|(begun, answered)| *answered - *begun).collect();
        took.sort_unstable();
        let (of, p99, gap) = (took.len(), took.get(took.len() * 99 / 100), self.longest_gap());
        eprintln!(
            "{what}: {of} went well, {} failed, {} came again; p99 {:?}, slowest {:?}, longest gap {gap:?}",
            self.failed.len(),
            self.retried,
            p99.unwrap_or(&Duration::ZERO),
            took.last().unwrap_or(&Duration::ZERO),
        );
        self.failed.sort_unstable();
        for same in self.failed.chunk_by(|one, other| one == other) {
            eprintln!("  {} × {}", same.len(), same[0]);
        }
    }

    /// The longest time without an answer.
    fn longest_gap(&mut self) -> Duration {
        self.good.sort_unstable_by_key(|(_, answered)| *answered);
        self.good.windows(2).map(|pair| pair[1].1 - pair[0].1).max().unwrap_or_default()
    }
}

fn namespace(number: usize) -> Value {
    json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": format!("load-{number}") } })
}

/// Whether nobody listened. A Unix socket is away for a moment between two hubs.
fn is_refused(error: &anyhow::Error) -> bool {
    let refused =
        |error: &io::Error| matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound);
    error.chain().any(|cause| cause.downcast_ref().is_some_and(refused))
}

/// Demands that a few bytes come back.
pub(super) async fn echoes(connection: &mut Connection) -> Result<()> {
    let echoing = async {
        let mut seen = [0; 4];
        connection.write_all(b"ping").await?;
        connection.flush().await?;
        connection.read_exact(&mut seen).await?;
        ensure!(&seen == b"ping", "another echo");
        Ok(())
    };
    timeout(BOUND, echoing).await.context("no echo")?
}
