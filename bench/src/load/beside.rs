//! A small request at a steady pace, alone or beside bulk downloads.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

use super::{Edge, Load, Spent, bulk};
use crate::route::Connection;
use crate::service::Ask;

/// A request, and an answer.
const MESSAGE: usize = 64;
/// Between two requests. They are sent in time also where earlier ones are not answered.
const PACE: Duration = Duration::from_millis(20);
/// How long answers may take beyond the span. A request without one counts as this late.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// What the requests and the downloads beside them had.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Beside {
    /// What it took.
    pub spent: Spent,
    /// Requests sent within the span.
    pub requests: u64,
    /// Those of them that were never answered.
    pub unanswered: u64,
    /// Half of them took at most this long, in milliseconds.
    pub p50: f64,
    /// 99 of 100 of them took at most this long, in milliseconds.
    pub p99: f64,
    /// Bytes of all downloads together.
    pub bytes: u64,
}

impl Beside {
    /// Of all downloads together.
    pub fn mbit_per_second(&self) -> f64 {
        self.bytes as f64 * 8.0 / self.spent.seconds / 1e6
    }
}

/// When requests were sent that have no answer yet are known from their order: the echo answers in it.
#[derive(Debug, Default)]
struct Notes {
    measuring: Cell<bool>,
    /// Each request's time, and whether it counts.
    sent: RefCell<Vec<(Instant, bool)>>,
    answered: Cell<usize>,
}

/// Opens `downloads` and one connection for requests, and measures the requests' time from when they were due.
pub(super) async fn run(load: &Load, downloads: usize) -> Result<Beside> {
    let (local, mut running) = (LocalSet::new(), JoinSet::new());
    let notes = Rc::new(Notes::default());
    let times = Rc::new(RefCell::new(Histogram::new_with_bounds(1_000, 60_000_000_000, 3)?));
    let mut counts = Vec::new();
    for stream in load.open(downloads, Ask::Source).await? {
        let count = Rc::new(Cell::new(0));
        counts.push(Rc::clone(&count));
        running.spawn_local_on(bulk::pump(stream, bulk::Direction::Download, count), &local);
    }
    let stream = load.open(1, Ask::Echo).await?.pop().context("no connection for the requests")?;
    let (reader, writer) = tokio::io::split(stream);
    running.spawn_local_on(ask(writer, Rc::clone(&notes)), &local);
    running.spawn_local_on(hear(reader, Rc::clone(&notes), Rc::clone(&times)), &local);
    let counted = || counts.iter().map(|count| count.get()).sum::<u64>();
    let (mut begun, mut ended) = (0, 0);
    let measured = async {
        let spent = load.measure(|edge| match edge {
            Edge::Begin => (begun, _) = (counted(), notes.measuring.set(true)),
            Edge::End => (ended, _) = (counted(), notes.measuring.set(false)),
        });
        let spent = spent.await?;
        notes.answers().await;
        Ok(spent)
    };
    let spent: Spent = local
        .run_until(async {
            tokio::select! {
                spent = measured => spent,
                Some(ended) = running.join_next() => match ended? {
                    Ok(()) => bail!("a stream ended before its time"),
                    Err(error) => Err(error.context("a stream broke before its time")),
                },
            }
        })
        .await?;
    let mut times = times.borrow_mut();
    let unanswered = notes.unanswered();
    times.saturating_record_n(u64::try_from(ANSWER_TIMEOUT.as_nanos())?, unanswered);
    let milliseconds = |quantile| times.value_at_quantile(quantile) as f64 / 1e6;
    let (requests, bytes) = (times.len(), ended - begun);
    Ok(Beside { spent, requests, unanswered, p50: milliseconds(0.5), p99: milliseconds(0.99), bytes })
}

/// Sends a request at each tick. Where the connection takes no more, the request's time runs from its tick all the same.
async fn ask(mut writer: WriteHalf<Connection>, notes: Rc<Notes>) -> Result<()> {
    let mut pace = interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
    loop {
        let due = pace.tick().await;
        notes.sent.borrow_mut().push((due, notes.measuring.get()));
        writer.write_all(&[0x5a; MESSAGE]).await?;
    }
}

/// Takes the answers in their order.
async fn hear(mut reader: ReadHalf<Connection>, notes: Rc<Notes>, times: Rc<RefCell<Histogram<u64>>>) -> Result<()> {
    loop {
        reader.read_exact(&mut [0; MESSAGE]).await?;
        let (due, counts) = notes.sent.borrow()[notes.answered.get()];
        notes.answered.set(notes.answered.get() + 1);
        if counts {
            let nanoseconds = u64::try_from(due.elapsed().as_nanos()).unwrap_or(u64::MAX);
            times.borrow_mut().saturating_record(nanoseconds);
        }
    }
}

impl Notes {
    /// Waits until all requests that count are answered, or for as long as anybody would.
    async fn answers(&self) {
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        let mut looks = interval(PACE);
        while self.unanswered() > 0 && timeout_at(deadline, looks.tick()).await.is_ok() {}
    }

    /// The requests that count and have no answer.
    fn unanswered(&self) -> u64 {
        self.sent.borrow()[self.answered.get()..].iter().filter(|(_, counts)| *counts).count() as u64
    }
}

#[cfg(test)]
mod tests {
    use ::tests::Service;

    use super::*;
    use crate::load::{Span, Work};
    use crate::route::Route;
    use crate::service;

    #[tokio::test]
    async fn requests_beside_downloads_are_sent_and_answered_and_both_are_counted() -> Result<()> {
        let service = Service::start(|stream| async { service::serve(stream).await.map_err(std::io::Error::other) });
        let service = service.await?;
        let span = Span { warm_up: Duration::from_millis(50), measured: Duration::from_millis(300) };
        let route = Route::Tcp(service.address().to_string());
        let load = Load { route, work: Work::Beside { downloads: 2 }, span, counted: Vec::new() };
        let beside = run(&load, 2).await?;
        assert!(beside.requests > 0 && beside.unanswered == 0 && beside.bytes > 0, "{beside:?}");
        assert!(0.0 < beside.p50 && beside.p50 <= beside.p99, "{beside:?}");
        Ok(())
    }

    #[tokio::test]
    async fn only_requests_of_the_span_that_have_no_answer_are_missed() {
        let notes = Notes::default();
        for counts in [false, true, true, false, true] {
            notes.sent.borrow_mut().push((Instant::now(), counts));
        }
        notes.answered.set(2);
        assert_eq!(notes.unanswered(), 2);
        notes.answered.set(5);
        notes.answers().await;
        assert_eq!(notes.unanswered(), 0);
    }
}
