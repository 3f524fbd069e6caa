//! The process' file descriptors: how many there are, how many connections each port may have of them, and some that are kept
//! for telling clients that there are none.

use std::{fs::File, io, sync::Arc, time::Duration};

use nix::errno::Errno;
use parking_lot::Mutex;

use crate::limits::rates::{Lines, Rate};

/// What is no client's connection: the registry, etcd, the log, workers, probes and scrapers (64), and as much again.
const RESERVE: usize = 256;

/// Connections of a port at a time, whatever the limit is: a connection costs some 10 KiB, a TLS client's four times as much.
const MOST: usize = 16 * 1024;

/// Connections at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Descriptors {
    /// Of the clients' port.
    pub(crate) clients: usize,
    /// Of the API.
    pub(crate) api: usize,
    /// Descriptors of all kinds.
    pub(crate) limit: usize,
}

/// Descriptors in reserve: one is given up for each client that is answered when there are none.
#[derive(Debug)]
pub(crate) struct Reserve {
    most: usize,
    spare: Mutex<Vec<File>>,
    /// What the log says of all reserves.
    lines: Arc<Lines<()>>,
}

/// A descriptor that was given up; comes back when dropped, which must be after the client's.
#[derive(Debug)]
pub(crate) struct Spent {
    reserve: Arc<Reserve>,
    /// What the client is told.
    pub(crate) told: &'static str,
}

/// Clients of a port that are told at a time.
const SPARE: usize = 16;

/// Lines of the log about accepting that fails: it is the same for every client, and goes on until somebody acts.
const LINES: Rate = Rate { every: Duration::from_secs(60), burst: 1 };

/// How long one that is told may take: it is in the way of others.
pub(crate) const TELLING: Duration = Duration::from_secs(2);

/// What a client is told.
const NONE_LEFT: &str =
    "the hub has no file descriptor left; try again in a moment, and raise its limit (LimitNOFILE=, ulimit -n)";

/// The same where a port has as many connections as it may.
const FULL: &str = "the hub has as many connections as it may have; try again in a moment, and raise its limit of open files \
(LimitNOFILE=, ulimit -n), of which each port has its share";

/// Whether an error says that there is no descriptor left.
pub(crate) fn are_wanting(error: &io::Error) -> bool {
    [Errno::EMFILE, Errno::ENFILE].iter().any(|errno| error.raw_os_error() == Some(*errno as i32))
}

impl Reserve {
    /// Of as many ports, of a process that may have `limit` descriptors.
    pub(crate) fn of<const PORTS: usize>(limit: usize) -> [Arc<Self>; PORTS] {
        let (lines, most) = (Arc::new(Lines::new(LINES)), SPARE.min(limit / 64));
        std::array::from_fn(|_| {
            let reserve = Self { most, spare: Mutex::default(), lines: lines.clone() };
            reserve.fill();
            Arc::new(reserve)
        })
    }

    /// Gives up a descriptor for the client that could not be accepted for want of one. Says so in the log.
    pub(crate) fn spend(self: &Arc<Self>, error: &io::Error) -> Option<Spent> {
        let wanting = are_wanting(error);
        if let Some(left_out) = self.lines.next(&()) {
            let advice = if wanting { "raise the limit of open files (LimitNOFILE=, ulimit -n)" } else { "" };
            tracing::warn!(%error, left_out, advice, "cannot accept connections");
        }
        let given_up = if wanting { self.spare.lock().pop() } else { None };
        given_up.map(|_| self.spent(NONE_LEFT))
    }

    /// For a client that was accepted while the reserve is not whole: it has a spare descriptor, and gives it back.
    pub(crate) fn lacks(self: &Arc<Self>) -> Option<Spent> {
        self.fill();
        (self.spare.lock().len() < self.most).then(|| self.spent(NONE_LEFT))
    }

    /// For a client that is one too many for its port. Says so in the log.
    pub(crate) fn crowded(self: &Arc<Self>) -> Spent {
        if let Some(left_out) = self.lines.next(&()) {
            let advice = "raise the limit of open files (LimitNOFILE=, ulimit -n), of which each port has its share";
            tracing::warn!(left_out, advice, "a port has as many connections as it may");
        }
        self.spent(FULL)
    }

    fn spent(self: &Arc<Self>, told: &'static str) -> Spent {
        Spent { reserve: self.clone(), told }
    }

    fn fill(&self) {
        let mut spare = self.spare.lock();
        while spare.len() < self.most
            && let Ok(file) = File::open("/dev/null")
        {
            spare.push(file);
        }
    }
}

impl Drop for Spent {
    fn drop(&mut self) {
        self.reserve.fill();
    }
}

impl Descriptors {
    /// Has the kernel allow as many as it will, and shares them out.
    pub(crate) fn claim() -> Self {
        Self::of(process::raise_open_files())
    }

    /// A third of what is not reserved is for the API, and the rest for clients: neither port can take from the other, nor
    /// both together what keeps the hub alive.
    fn of(limit: usize) -> Self {
        let rest = limit.saturating_sub(RESERVE).max(limit / 2);
        Self { clients: (rest - rest / 3).clamp(1, MOST), api: (rest / 3).clamp(1, MOST), limit }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ports_leave_a_reserve_and_both_have_room_where_little_is_allowed() {
        let of = |limit| {
            let Descriptors { clients, api, .. } = Descriptors::of(limit);
            (clients, api)
        };
        assert_eq!(of(1 << 20), (MOST, MOST));
        assert_eq!(of(1024), (512, 256));
        assert_eq!(of(64), (22, 10));
    }

    #[test]
    fn a_spare_descriptor_is_given_up_for_want_of_one_and_comes_back() {
        let [reserve] = Reserve::of(128);
        let (none_left, other) = (io::Error::from(Errno::EMFILE), io::Error::from(Errno::ECONNABORTED));
        assert!(reserve.spend(&other).is_none());
        let spent: Vec<_> = std::iter::from_fn(|| reserve.spend(&none_left)).collect();
        assert_eq!(spent.len(), 2);
        assert!(reserve.lacks().is_none(), "there are others");
        drop(spent);
        assert_eq!(reserve.spare.lock().len(), 2);
    }
}
