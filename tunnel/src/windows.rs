//! The windows of one tunnel's streams: the credit that its senders have, and the grants that its receivers owe.
//!
//! Grants travel on the control stream. A grant is an absolute offset, so the newest one of a stream says everything: what
//! waits to be sent is at most one number per stream.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Instant,
};

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;

use crate::{
    credit::{Credit, Granter, Pool, TunnelMemory},
    message::Window,
};

/// Grants sent with one message: at most 20 bytes each, of the 64 KiB that a message may have.
const GRANTS: usize = 1024;

/// Looked at when a stream begins and ends and for each grant, never for each chunk.
#[derive(Debug)]
pub(crate) struct Windows {
    connection: quinn::Connection,
    pool: Pool,
    /// By stream.
    credits: Mutex<HashMap<u64, Arc<Credit>>>,
    /// Limits by stream.
    grants: Mutex<HashMap<u64, u64>>,
    /// Who sends the grants.
    control: AtomicWaker,
    /// Something is to be sent, be it no grant.
    nudged: AtomicBool,
}

/// What a stream's sender may send.
#[derive(Debug)]
pub(crate) struct Sending {
    windows: Arc<Windows>,
    stream: u64,
    credit: Arc<Credit>,
    sent: u64,
}

/// What a stream's receiver has granted.
#[derive(Debug)]
pub(crate) struct Receiving {
    windows: Arc<Windows>,
    stream: u64,
    granter: Granter,
}

impl Windows {
    pub(crate) fn new(connection: quinn::Connection, memory: TunnelMemory) -> Arc<Self> {
        let window = quinn::VarInt::from_u64(memory.bytes()).expect("less than 2^62 bytes");
        connection.set_receive_window(window);
        // What is unacknowledged fits the windows that the peer has granted. Less would be shared out badly: quinn wakes
        // the writer that was blocked last.
        connection.set_send_window(memory.bytes());
        Arc::new(Self {
            connection,
            pool: Pool::new(memory),
            credits: Mutex::default(),
            grants: Mutex::default(),
            control: AtomicWaker::new(),
            nudged: AtomicBool::new(false),
        })
    }

    /// The window that every stream begins with.
    pub(crate) fn base(&self) -> u64 {
        self.pool.base()
    }

    /// A sender that begins with `window`; a peer that does not know of windows has said 0 and grants nothing.
    pub(crate) fn sending(self: &Arc<Self>, stream: quinn::StreamId, window: u64) -> Option<Sending> {
        if window == 0 {
            return None;
        }
        let (stream, credit) = (stream.index(), Arc::new(Credit::new(window)));
        self.credits.lock().insert(stream, credit.clone());
        Some(Sending { windows: self.clone(), stream, credit, sent: 0 })
    }

    /// A receiver whose sender was told [`Self::base`].
    pub(crate) fn receiving(self: &Arc<Self>, stream: quinn::StreamId) -> Receiving {
        let granter = Granter::new(&self.pool, Instant::now());
        Receiving { windows: self.clone(), stream: stream.index(), granter }
    }

    /// Grants by the peer. Streams that have ended are not known any more.
    pub(crate) fn granted(&self, grants: &[Window]) {
        if !grants.is_empty() {
            let credits = self.credits.lock();
            for grant in grants {
                if let Some(credit) = credits.get(&grant.stream) {
                    credit.grant(grant.limit);
                }
            }
        }
    }

    /// Has the grants sent, be there none: the peer acknowledges that.
    pub(crate) fn nudge(&self) {
        self.nudged.store(true, Ordering::Relaxed);
        self.control.wake();
    }

    /// Grants to the peer; none only after [`Self::nudge`].
    pub(crate) fn poll_grants(&self, cx: &mut Context<'_>) -> Poll<Vec<Window>> {
        self.control.register(cx.waker());
        let mut grants = self.grants.lock();
        let streams: Vec<u64> = grants.keys().take(GRANTS).copied().collect();
        let taken = streams.into_iter().filter_map(|stream| grants.remove_entry(&stream));
        let taken: Vec<Window> = taken.map(|(stream, limit)| Window { stream, limit }).collect();
        let nudged = self.nudged.swap(false, Ordering::Relaxed);
        if taken.is_empty() && !nudged { Poll::Pending } else { Poll::Ready(taken) }
    }
}

impl Sending {
    /// How many bytes may be sent: at least one.
    pub(crate) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<usize> {
        self.credit.poll_room(self.sent, cx).map(|room| usize::try_from(room).unwrap_or(usize::MAX))
    }

    pub(crate) fn sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.windows.credits.lock().remove(&self.stream);
    }
}

impl Receiving {
    /// `bytes` were passed on.
    pub(crate) fn consumed(&mut self, bytes: u64) {
        if self.granter.consume(bytes) {
            let Windows { connection, pool, grants, control, .. } = &*self.windows;
            let limit = self.granter.extend(pool, connection.rtt(), Instant::now());
            grants.lock().insert(self.stream, limit);
            control.wake();
        }
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        self.granter.close(&self.windows.pool);
        self.windows.grants.lock().remove(&self.stream);
    }
}

#[cfg(test)]
mod tests;
