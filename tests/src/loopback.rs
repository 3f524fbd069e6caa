//! Loopback addresses of one's own: a port that a program gave up for a while is still there when it comes back.

use std::net::Ipv4Addr;
use std::process;
use std::sync::atomic::{AtomicU16, Ordering};

/// A loopback address that nobody else has, of this run nor, most likely, of another run on this machine: in 127.X.0.0/16, where X
/// comes from this process. All of 127.0.0.0/8 is local to the machine.
pub(crate) fn unused() -> Ipv4Addr {
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    let [high, low] = TAKEN.fetch_add(1, Ordering::Relaxed).wrapping_add(1).to_be_bytes();
    let run = u8::try_from(process::id() % 250).map_or(1, |run| run + 1);
    Ipv4Addr::new(127, run, high, low)
}
