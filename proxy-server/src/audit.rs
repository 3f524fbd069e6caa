//! The audit record: what is asked of the hub is queued as events, and a thread of its own writes them, so that no disk
//! holds up a connection.
//!
//! Where events cannot be written they wait, and the newest are lost when the queue is full. That is counted, told by
//! `/readyz` and in the log, and in the record itself once there is room again.

mod event;
mod journal;

use std::{
    collections::VecDeque,
    io,
    path::PathBuf,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use parking_lot::{Condvar, Mutex};
use process::LogFormat;
use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};
use tokio_util::sync::CancellationToken;

use event::Form;
pub(crate) use event::{Connection, Event, Handshake, Request, Text, Who};
use journal::{Journal, Lines};

use crate::config::{AuditFailure, AuditTo};

/// Target of the events in the log, for `RUST_LOG`.
const AUDIT: &str = "audit";

/// Events that wait to be written: some seconds of a busy hub, and 10 MiB at most.
const QUEUE: usize = 8192;

/// Events that are written together.
const BATCH: usize = 128;

/// How long events are gathered before they are written: waking a thread for each costs more than its line.
const GATHER: Duration = Duration::from_millis(5);

/// How soon a write that has failed is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// How long a write may take before it is told as a failure: the reader of standard error sleeps.
const STUCK: Duration = Duration::from_secs(2);

/// Between two words about it in the log.
const TELL: Duration = Duration::from_secs(60);

/// How long what is queued at the hub's end may take.
const END: Duration = Duration::from_secs(2);

/// Takes events. Its clones are one.
#[derive(Clone, Debug)]
pub struct Audit(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    /// There is something for the thread to do.
    stirred: Condvar,
    on_failure: AuditFailure,
    events: IntCounterVec,
    lost: IntCounter,
    failing: IntGauge,
    /// Since when a write is under way.
    writing: Mutex<Option<Instant>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Cancelled when the thread ends.
    ended: CancellationToken,
}

#[derive(Debug, Default)]
struct Queue {
    events: VecDeque<(Timestamp, Event)>,
    /// Events that found no room since the record last told of some.
    lost: u64,
    reopen: bool,
    /// There is a record.
    open: bool,
    /// It is to be closed.
    end: bool,
}

/// Why there is no audit record.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    #[error("cannot append to {path}; check its permissions")]
    Open { path: PathBuf, source: io::Error },
    #[error("the thread that writes audit events cannot be started")]
    Thread(#[source] io::Error),
    #[error("the metrics cannot be registered")]
    Metrics(#[from] prometheus::Error),
}

/// What the thread has.
struct Writer {
    shared: Arc<Shared>,
    journal: Journal,
    form: Form,
    lines: Lines,
    /// Events in `lines`.
    pending: u64,
    /// When the log was last told that writing fails, while it does.
    told: Option<Instant>,
}

/// What the thread is to do next.
struct Order {
    events: Vec<(Timestamp, Event)>,
    reopen: bool,
    end: bool,
}

impl Audit {
    /// Opens the record, and starts what writes it.
    pub(crate) fn start(to: &AuditTo, on_failure: AuditFailure, metrics: &Registry) -> Result<Self, AuditError> {
        let events = Opts::new("proxy_server_audit_events_total", "Audit events, written or lost");
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            stirred: Condvar::new(),
            on_failure,
            events: IntCounterVec::new(events, &["event"])?,
            lost: IntCounter::new("proxy_server_audit_lost_total", "Audit events that could not be written")?,
            failing: IntGauge::new("proxy_server_audit_failing", "Whether audit events cannot be written at present")?,
            writing: Mutex::default(),
            thread: Mutex::default(),
            ended: CancellationToken::new(),
        });
        metrics.register(Box::new(shared.events.clone()))?;
        metrics.register(Box::new(shared.lost.clone()))?;
        metrics.register(Box::new(shared.failing.clone()))?;
        let (journal, form) = match to {
            AuditTo::Nowhere => return Ok(Self(shared)),
            AuditTo::Log(_) if !tracing::enabled!(target: AUDIT, tracing::Level::INFO) => return Ok(Self(shared)),
            AuditTo::Log(format) => (Journal::Stderr, Form::from(*format)),
            AuditTo::File(path) => {
                let opened = Journal::open(path);
                (opened.map_err(|source| AuditError::Open { path: path.clone(), source })?, Form::Json)
            }
        };
        let writer = Writer { shared: shared.clone(), journal, form, lines: Lines::default(), pending: 0, told: None };
        let thread = std::thread::Builder::new().name("audit".into()).spawn({
            let ended = shared.ended.clone().drop_guard();
            move || {
                let _ended = ended;
                writer.run();
            }
        });
        shared.queue.lock().open = true;
        *shared.thread.lock() = Some(thread.map_err(AuditError::Thread)?);
        Ok(Self(shared))
    }

    /// Takes an event. Never waits for a disk.
    pub(crate) fn record(&self, event: Event) {
        let shared = &*self.0;
        shared.events.with_label_values(&[event.kind()]).inc();
        let mut queue = shared.queue.lock();
        if !queue.open {
            return;
        }
        if queue.end || queue.events.len() >= QUEUE {
            queue.lost += 1;
            shared.lost.inc();
            // Also where writing fails by never ending.
            shared.failing.set(1);
            return;
        }
        queue.events.push_back((Timestamp::now(), event));
        // Those between find it awake, or about to be.
        if queue.events.len() == 1 || queue.events.len() == BATCH {
            drop(queue);
            shared.stirred.notify_one();
        }
    }

    /// Waits until what writes the record has ended, which only [`Self::close`] asks for.
    pub(crate) async fn ended(&self) {
        self.0.ended.cancelled().await;
    }

    /// Whether events cannot be written.
    pub(crate) fn is_failing(&self) -> bool {
        // A write that does not end is told by nobody else.
        if self.0.writing.lock().is_some_and(|since| since.elapsed() >= STUCK) {
            self.0.failing.set(1);
        }
        self.0.failing.get() != 0
    }

    /// Whether the hub refuses what it could not record.
    pub(crate) fn refuses(&self) -> bool {
        self.0.on_failure == AuditFailure::Refuse && (self.is_failing() || self.0.queue.lock().events.len() >= QUEUE)
    }

    /// Opens the file at its path again: it was rotated.
    pub fn reopen(&self) {
        self.0.queue.lock().reopen = true;
        self.0.stirred.notify_one();
    }

    /// Has everything written that was recorded. What comes later is lost.
    pub(crate) async fn close(&self) {
        self.0.queue.lock().end = true;
        self.0.stirred.notify_one();
        let thread = self.0.thread.lock().take();
        let Some(thread) = thread else { return };
        let deadline = Instant::now() + END;
        while !thread.is_finished() {
            if Instant::now() >= deadline {
                return tracing::warn!("the audit log takes no events; some are lost");
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

impl Shared {
    /// Waits until there is something to do; no longer than `at_most`, if that is given.
    fn next(&self, at_most: Option<Duration>, room: usize) -> Order {
        let mut queue = self.queue.lock();
        let idle = |queue: &mut Queue| !queue.reopen && !queue.end && (queue.events.is_empty() || room == 0);
        match at_most {
            Some(limit) => drop(self.stirred.wait_while_for(&mut queue, idle, limit)),
            None => {
                self.stirred.wait_while(&mut queue, idle);
                let few = |queue: &mut Queue| !queue.reopen && !queue.end && queue.events.len() < BATCH;
                self.stirred.wait_while_for(&mut queue, few, GATHER);
            }
        }
        let count = queue.events.len().min(room);
        let mut events: Vec<_> = queue.events.drain(..count).collect();
        // Where the newest were lost, the record says so behind those that came before.
        if queue.lost > 0 && room > 0 && queue.events.is_empty() {
            events.push((Timestamp::now(), Event::Lost { count: std::mem::take(&mut queue.lost) }));
        }
        let end = queue.end && queue.events.is_empty();
        Order { events, reopen: std::mem::take(&mut queue.reopen), end }
    }
}

impl Writer {
    fn run(mut self) {
        loop {
            let waiting = !self.lines.is_empty() || self.journal.is_stale();
            let Order { events, reopen, end } =
                self.shared.next(waiting.then_some(RETRY), if waiting { 0 } else { BATCH });
            if reopen {
                tracing::info!("opening the audit log again");
                self.journal.reopen();
            }
            self.pending += events.len() as u64;
            for (time, event) in events {
                event.write(self.form, time, &mut self.lines.text);
            }
            *self.shared.writing.lock() = Some(Instant::now());
            let written = self.journal.write(&mut self.lines);
            *self.shared.writing.lock() = None;
            let failed = written.is_err();
            self.tell(written);
            if end && !failed {
                return;
            }
            if failed && self.shared.queue.lock().end {
                let left = self.pending + self.shared.queue.lock().events.len() as u64;
                self.shared.lost.inc_by(left);
                return tracing::error!(
                    events = left,
                    "audit events are lost: they could not be written before the end"
                );
            }
        }
    }

    fn tell(&mut self, written: io::Result<()>) {
        let Err(error) = written else {
            self.pending = 0;
            let told = self.told.take().is_some();
            if told || self.shared.failing.get() != 0 {
                self.shared.failing.set(0);
                tracing::info!(lost = self.shared.lost.get(), "the audit log takes events again");
            }
            return;
        };
        self.shared.failing.set(1);
        if self.told.is_none_or(|told| told.elapsed() >= TELL) {
            self.told = Some(Instant::now());
            tracing::error!(%error, lost = self.shared.lost.get(), "cannot write audit events; make room for the audit log");
        }
    }
}

impl From<LogFormat> for Form {
    fn from(format: LogFormat) -> Self {
        match format {
            LogFormat::Text => Self::Text,
            LogFormat::Json => Self::Json,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Outcome;

    fn audit(path: &str) -> Audit {
        Audit::start(&AuditTo::File(path.into()), AuditFailure::Refuse, &Registry::new()).unwrap()
    }

    fn event() -> Event {
        let target = "grafana.monitoring.svc.c1.clusters.internal:3000".into();
        Event::Connection(Connection {
            outcome: Outcome::Complete,
            frontend: "connect",
            target,
            ..Connection::default()
        })
    }

    #[tokio::test]
    async fn everything_that_was_recorded_is_written_at_the_close() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit");
        let audit = audit(path.to_str().unwrap());
        let started = Instant::now();
        for _ in 0..QUEUE {
            audit.record(event());
        }
        println!("{:?} for an event", started.elapsed() / u32::try_from(QUEUE).unwrap());
        audit.close().await;
        assert_eq!(std::fs::read_to_string(path).unwrap().lines().count(), QUEUE);
        assert_eq!(audit.0.lost.get(), 0);
        audit.record(event());
        assert_eq!(audit.0.lost.get(), 1, "nobody writes any more");
    }

    #[tokio::test]
    async fn what_finds_no_room_is_counted_and_refused() {
        let audit = audit("/dev/full");
        assert!(!audit.refuses());
        for _ in 0..2 * QUEUE {
            audit.record(event());
        }
        assert!(audit.refuses());
        let lost = usize::try_from(audit.0.lost.get()).unwrap();
        assert!((QUEUE - BATCH - 1..=QUEUE).contains(&lost), "{lost}");
        audit.close().await;
        assert_eq!(usize::try_from(audit.0.lost.get()).unwrap(), 2 * QUEUE);
    }
}
