//! What clients saw: each dial with its answer, each stream with its end, and which streams live.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// By which way a client comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Way {
    Connect,
    Tls,
    Socks5,
    /// A local port of `cluster-proxy port-forward`.
    Forward,
    /// A service by its URL at the hub.
    Gateway,
}

/// The ways of raw bytes.
pub(crate) const RAW: [Way; 4] = [Way::Connect, Way::Tls, Way::Socks5, Way::Forward];

/// What became of a dial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Served,
    /// An error that says what to do.
    Told(String),
    /// None that does.
    Mute(String),
}

#[derive(Clone, Debug)]
pub(crate) struct Dial {
    pub(crate) way: Way,
    pub(crate) begun: Instant,
    pub(crate) ended: Instant,
    pub(crate) outcome: Outcome,
}

/// How a stream ended that should not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// With an error.
    Broken(String),
    /// As if all had come.
    Whole,
    /// With bytes that were not sent.
    Wrong(String),
}

#[derive(Clone, Debug)]
pub(crate) struct End {
    pub(crate) way: Way,
    /// When its dial began, and when that was answered.
    pub(crate) asked: Instant,
    pub(crate) begun: Instant,
    pub(crate) ended: Instant,
    pub(crate) ending: Ending,
}

/// A stream that lives.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Live {
    pub(crate) way: Way,
    /// When its dial began, and when that was answered.
    pub(crate) asked: Instant,
    pub(crate) begun: Instant,
    /// When bytes came last.
    pub(crate) moved: Instant,
}

/// What the hub said of the cluster.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Said {
    /// When it was asked, and when its answer was there: it was said between.
    pub(crate) at: Instant,
    pub(crate) answered: Instant,
    pub(crate) available: bool,
    pub(crate) condition: bool,
}

/// All of it, written by the clients' tasks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log(Arc<Mutex<Lines>>);

#[derive(Clone, Debug, Default)]
pub(crate) struct Lines {
    pub(crate) dials: Vec<Dial>,
    pub(crate) ends: Vec<End>,
    pub(crate) said: Vec<Said>,
    pub(crate) live: BTreeMap<u64, Live>,
    next: u64,
}

/// A stream's place in the log.
#[derive(Debug)]
pub(crate) struct Entry {
    log: Log,
    id: u64,
}

impl Log {
    pub(crate) fn lines(&self) -> MutexGuard<'_, Lines> {
        self.0.lock().expect("no task panics while it writes a line")
    }

    pub(crate) fn dialled(&self, way: Way, begun: Instant, outcome: Outcome) {
        self.lines().dials.push(Dial { way, begun, ended: Instant::now(), outcome });
    }

    pub(crate) fn ended(&self, way: Way, [asked, begun]: [Instant; 2], ending: Ending) {
        self.lines().ends.push(End { way, asked, begun, ended: Instant::now(), ending });
    }

    /// A stream whose dial began so and was served now: one that a hub has in hand when it stands still is of before.
    /// A stream whose dial began then and has just been answered.
    pub(crate) fn live(&self, way: Way, asked: Instant) -> Entry {
        let mut lines = self.lines();
        lines.next += 1;
        let (id, now) = (lines.next, Instant::now());
        lines.live.insert(id, Live { way, asked, begun: now, moved: now });
        Entry { log: self.clone(), id }
    }

    /// How many streams live.
    pub(crate) fn streams(&self) -> usize {
        self.lines().live.len()
    }

    /// The first success of a dial that began after a moment: when it was there.
    pub(crate) fn success(&self, after: Instant, way: Option<Way>) -> Option<Instant> {
        let lines = self.lines();
        let good = lines.dials.iter().filter(|dial| dial.outcome == Outcome::Served && dial.begun >= after);
        good.filter(|dial| way.is_none_or(|way| way == dial.way)).map(|dial| dial.ended).min()
    }

    /// Streams of before a moment that have neither moved since nor ended.
    pub(crate) fn stuck(&self, since: Instant) -> Vec<Live> {
        self.lines().live.values().filter(|live| live.begun < since && live.moved < since).copied().collect()
    }

    /// Begins anew: what ended before is of no interest.
    pub(crate) fn forget_before(&self, moment: Instant) {
        let mut lines = self.lines();
        lines.dials.retain(|dial| dial.ended >= moment);
        lines.ends.retain(|end| end.ended >= moment);
        lines.said.retain(|said| said.at >= moment);
    }
}

impl Entry {
    /// Bytes have come.
    pub(crate) fn moved(&self) {
        if let Some(live) = self.log.lines().live.get_mut(&self.id) {
            live.moved = Instant::now();
        }
    }

    /// It has ended.
    pub(crate) fn ended(self, ending: Ending) {
        let live = self.log.lines().live.get(&self.id).copied();
        if let Some(Live { way, asked, begun, .. }) = live {
            self.log.ended(way, [asked, begun], ending);
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.log.lines().live.remove(&self.id);
    }
}

impl Dial {
    /// How long it took.
    pub(crate) fn took(&self) -> Duration {
        self.ended - self.begun
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "CONNECT",
            Self::Tls => "CONNECT in TLS",
            Self::Socks5 => "SOCKS5",
            Self::Forward => "port-forward",
            Self::Gateway => "URL",
        })
    }
}
