//! The process' file descriptors: how many there are, and how many connections each port may have of them.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

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
}

impl Descriptors {
    /// Has the kernel allow as many as it will, and shares them out.
    pub(crate) fn claim() -> Self {
        // A hub that may not ask gets along with what there is. A shell's 1024 is for programs that use select(2).
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1024, 1024));
        let raised = setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok();
        Self::of(usize::try_from(if raised { hard } else { soft }).unwrap_or(usize::MAX))
    }

    /// A third of what is not reserved is for the API, and the rest for clients: neither port can take from the other, nor
    /// both together what keeps the hub alive.
    fn of(limit: usize) -> Self {
        let rest = limit.saturating_sub(RESERVE).max(limit / 2);
        Self { clients: (rest - rest / 3).clamp(1, MOST), api: (rest / 3).clamp(1, MOST) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ports_leave_a_reserve_and_both_have_room_where_little_is_allowed() {
        assert_eq!(Descriptors::of(1 << 20), Descriptors { clients: MOST, api: MOST });
        assert_eq!(Descriptors::of(1024), Descriptors { clients: 512, api: 256 });
        assert_eq!(Descriptors::of(64), Descriptors { clients: 22, api: 10 });
    }
}
