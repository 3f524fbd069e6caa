//! The arithmetic of flow control: what a stream's sender may send, and who may have how much of a tunnel's memory.
//!
//! QUIC has one window size for all streams (RFC 9000 section 4). As large as one fast stream needs it, a thousand
//! readers that stall would hold it a thousand times; and once they fill the connection's window, every other stream of
//! the tunnel stands still. So streams have windows of their own inside QUIC's: each begins with a small one, and grows
//! it by use, out of a pool that all of them share. What all windows are together fits the tunnel's memory, so that no
//! stream ever waits for another, and a stream that was granted much and is not read holds no more than that.
//!
//! A receiver is a [`Granter`]: it counts what it has passed on and says up to which offset the sender may send. A
//! sender has [`Credit`], which grants extend. Offsets count from the first byte after the stream's first message.

use std::{
    str::FromStr,
    sync::atomic::{AtomicU64, Ordering},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures_util::task::AtomicWaker;

use crate::transport::{AGENT_STREAMS, STREAM_WINDOW};

const MIB: u64 = 1 << 20;

/// The largest first window: a request and its answer mostly fit, and it grows ahead of a congestion window that begins
/// with 10 or even 64 packets.
const LARGEST_BASE: u64 = 64 << 10;

/// The largest window. QUIC's own is the same.
const LARGEST_WINDOW: u64 = STREAM_WINDOW as u64;

/// A window is extended when this part of it is used up. With `w` the window and `rtt` the round trip a stream can then
/// move `w * 3/4` per round trip: 16 MiB carry 1 Gbit/s over 100 ms. Smaller parts would cost more messages.
const PART: u64 = 4;

/// A part that is used up within a round trip asks for more. On a fast network that is too short: rather than send a
/// message each few packets, a window there may hold what arrives in 16 ms.
const SHORTEST_ROUND_TRIP: Duration = Duration::from_millis(4);

/// A part that took longer than this is given back: what was busy once, and is now used by keystrokes, needs no window of
/// many megabytes.
const SLOW: Duration = Duration::from_secs(10);

/// A window may not become larger than the free pool divided by this, so that there is always something left for the
/// next one: `n` that want all of it get `1/(n + 4)` each.
const SHARE: u64 = 4;

/// A stream opens a fifth of the pool with each of these that it has passed on. Sockets' buffers take some 100 KiB up to
/// 10 MiB (`net.ipv4.tcp_wmem` and `tcp_rmem`) before it shows that nobody reads: what many such streams have taken, once
/// and for all, leaves the rest of the pool to those that are really read.
const PROOFS: [u64; 4] = [256 << 10, MIB, 4 * MIB, 16 * MIB];

/// What messages may take: on the control stream, and as the first ones of streams.
const MESSAGES: u64 = MIB;

/// The most memory that one tunnel's peer can make this end hold, in bytes: the data that arrived and was not passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TunnelMemory(u64);

/// The part of a tunnel's memory that windows grow into.
#[derive(Debug)]
pub(crate) struct Pool {
    base: u64,
    size: u64,
    free: AtomicU64,
}

/// The receiver's account of one stream's direction.
#[derive(Debug)]
pub(crate) struct Granter {
    /// Offset up to which everything was passed on.
    consumed: u64,
    /// Offset up to which the sender may send.
    limit: u64,
    window: u64,
    /// When `limit` was set.
    since: Instant,
}

/// What one stream's sender may send. The sender and the control stream share it.
#[derive(Debug)]
pub(crate) struct Credit {
    limit: AtomicU64,
    sender: AtomicWaker,
}

impl TunnelMemory {
    /// Each of 4096 streams still has 6 KiB.
    pub const SMALLEST: Self = Self(64 * MIB);

    /// A slip of the pen beyond this.
    pub const LARGEST: Self = Self(1 << 40);

    /// `bytes`, if it is from [`Self::SMALLEST`] to [`Self::LARGEST`].
    pub fn new(bytes: u64) -> Option<Self> {
        (Self::SMALLEST..=Self::LARGEST).contains(&Self(bytes)).then_some(Self(bytes))
    }

    /// In bytes.
    pub fn bytes(self) -> u64 {
        self.0
    }

    /// What windows may be together. quinn announces more room for the connection only when an eighth of it has become
    /// free, so that much of it may not be there when it is needed.
    fn windows(self) -> u64 {
        self.0 - self.0 / 8 - MESSAGES
    }
}

/// 512 MiB: the first windows of 4096 streams are less than half of it.
impl Default for TunnelMemory {
    fn default() -> Self {
        Self(512 * MIB)
    }
}

/// `512MiB` or `2GiB`.
impl FromStr for TunnelMemory {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |unit: &str| text.strip_suffix(unit)?.trim_end().parse::<u64>().ok();
        let bytes = number("MiB").and_then(|count| count.checked_mul(MIB));
        let bytes = bytes.or_else(|| number("GiB")?.checked_mul(MIB << 10));
        bytes.and_then(Self::new).ok_or_else(|| "must be from 64MiB to 1024GiB; write it like 512MiB".to_owned())
    }
}

impl Pool {
    /// Sets a first window aside for every stream that a tunnel can have.
    pub(crate) fn new(memory: TunnelMemory) -> Self {
        let streams = u64::from(AGENT_STREAMS);
        let base = LARGEST_BASE.min(memory.windows() / 2 / streams);
        let size = memory.windows() - base * streams;
        Self { base, size, free: size.into() }
    }

    /// Every stream's first window, and the smallest.
    pub(crate) fn base(&self) -> u64 {
        self.base
    }

    /// Takes what a window lacks to become `window`, for a stream that has passed on `consumed` bytes.
    fn take(&self, bytes: u64, window: u64, consumed: u64) -> bool {
        let missing = PROOFS.iter().filter(|proof| **proof > consumed).count() as u64;
        let kept = self.size / (PROOFS.len() as u64 + 1) * missing;
        let take = |free: u64| (free >= kept + window * SHARE).then(|| free - bytes);
        self.free.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }

    /// What the streams that are open hold beyond their first windows.
    #[cfg(test)]
    pub(crate) fn taken(&self) -> u64 {
        self.size - self.free.load(Ordering::Relaxed)
    }

    fn give(&self, bytes: u64) {
        self.free.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Granter {
    /// A stream whose sender was granted the first window at `now`.
    pub(crate) fn new(pool: &Pool, now: Instant) -> Self {
        Self { consumed: 0, limit: pool.base, window: pool.base, since: now }
    }

    /// `bytes` were passed on. Whether it is time to [`Self::extend`].
    pub(crate) fn consume(&mut self, bytes: u64) -> bool {
        self.consumed += bytes;
        // A sender that ignores its credit may be beyond its limit.
        self.limit.saturating_sub(self.consumed) <= self.window - self.window / PART
    }

    /// The sender's new limit.
    pub(crate) fn extend(&mut self, pool: &Pool, round_trip: Duration, now: Instant) -> u64 {
        let taken = now.saturating_duration_since(self.since);
        let larger = (2 * self.window).min(LARGEST_WINDOW);
        if taken <= round_trip.max(SHORTEST_ROUND_TRIP) {
            let lack = larger - self.window;
            if lack > 0 && pool.take(lack, larger, self.consumed) {
                self.window = larger;
            }
        } else if taken >= SLOW {
            // What was granted is granted: the window shrinks by no more than what was used of it.
            let smaller = self.limit.saturating_sub(self.consumed).max(pool.base);
            pool.give(self.window - smaller);
            self.window = smaller;
        }
        self.since = now;
        self.limit = self.limit.max(self.consumed + self.window);
        self.limit
    }

    /// What was passed on.
    pub(crate) fn consumed(&self) -> u64 {
        self.consumed
    }

    /// The stream has ended.
    pub(crate) fn close(&mut self, pool: &Pool) {
        pool.give(self.window - pool.base);
        self.window = pool.base;
    }
}

impl Credit {
    pub(crate) fn new(limit: u64) -> Self {
        Self { limit: limit.into(), sender: AtomicWaker::new() }
    }

    /// The receiver's grant. One that is older than what is known says nothing.
    pub(crate) fn grant(&self, limit: u64) {
        if self.limit.fetch_max(limit, Ordering::Release) < limit {
            self.sender.wake();
        }
    }

    /// How many bytes may be sent, when `sent` are: at least one.
    pub(crate) fn poll_room(&self, sent: u64, cx: &mut Context<'_>) -> Poll<u64> {
        let room = || Some(self.limit.load(Ordering::Acquire).saturating_sub(sent)).filter(|room| *room > 0);
        if let Some(room) = room() {
            return Poll::Ready(room);
        }
        self.sender.register(cx.waker());
        // A grant between the look and the registration woke nobody.
        room().map_or(Poll::Pending, Poll::Ready)
    }
}

#[cfg(test)]
mod tests;
