//! The windows of one tunnel's streams: the credit that its senders have, and the grants that its receivers owe; and where
//! they break off.
//!
//! Both travel on the control stream. A grant is an absolute offset, so the newest one of a stream says everything, and it
//! breaks off once: what waits to be sent is at most one note of each kind per stream.

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
    stream::credit::{Credit, Granter, Pool, TunnelMemory},
    stream::ending::{Ending, Partings},
    wire::code::ResetReason,
    wire::message::{Break, Notes, Window},
};

/// Notes of each kind sent with one message: at most 40 bytes each, of the 64 KiB that a message may have.
const NOTES: usize = 768;

/// Looked at when a stream begins and ends and for each grant, never for each chunk.
#[derive(Debug)]
pub(crate) struct Windows {
    connection: quinn::Connection,
    pool: Pool,
    /// What the peer says of each stream.
    streams: Mutex<HashMap<u64, Arc<Peer>>>,
    /// Limits by stream.
    grants: Mutex<HashMap<u64, u64>>,
    breaks: Mutex<Vec<Break>>,
    /// Who sends the notes.
    control: AtomicWaker,
    /// Something is to be sent, be it no note.
    nudged: AtomicBool,
    partings: Partings,
}

/// What the peer says of a stream, to its two halves here.
#[derive(Debug)]
struct Peer {
    credit: Credit,
    ending: Ending,
}

/// What a stream's sender may send.
#[derive(Debug)]
pub(crate) struct Sending {
    windows: Arc<Windows>,
    stream: u64,
    peer: Arc<Peer>,
    sent: u64,
    /// The peer knows breaks.
    breaks: bool,
}

/// What a stream's receiver has granted.
#[derive(Debug)]
pub(crate) struct Receiving {
    windows: Arc<Windows>,
    stream: u64,
    peer: Arc<Peer>,
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
            streams: Mutex::default(),
            grants: Mutex::default(),
            breaks: Mutex::default(),
            control: AtomicWaker::new(),
            nudged: AtomicBool::new(false),
            partings: Partings::new(),
        })
    }

    /// The window that every stream begins with.
    pub(crate) fn base(&self) -> u64 {
        self.pool.base()
    }

    /// Both halves of a stream that is dialled. Its sender begins with `window`; a peer that does not know of windows has
    /// said 0 and grants nothing. The peer's sender was told [`Self::base`].
    pub(crate) fn begin(
        self: &Arc<Self>,
        stream: quinn::StreamId,
        window: u64,
        breaks: bool,
    ) -> (Option<Sending>, Receiving) {
        let stream = stream.index();
        let peer = Arc::new(Peer { credit: Credit::new(window), ending: Ending::new() });
        self.streams.lock().insert(stream, peer.clone());
        let granter = Granter::new(&self.pool, Instant::now());
        let sending =
            (window > 0).then(|| Sending { windows: self.clone(), stream, peer: peer.clone(), sent: 0, breaks });
        (sending, Receiving { windows: self.clone(), stream, peer, granter })
    }

    /// What the peer notes. Streams that have ended are not known any more.
    pub(crate) fn heard(&self, notes: &Notes) {
        if *notes == Notes::default() {
            return;
        }
        let streams = self.streams.lock();
        for grant in &notes.windows {
            if let Some(peer) = streams.get(&grant.stream) {
                peer.credit.grant(grant.limit);
            }
        }
        for told in &notes.breaks {
            if let Some(peer) = streams.get(&told.stream) {
                peer.ending.tell(told);
            }
        }
    }

    /// Whether there are streams.
    pub(crate) fn is_in_use(&self) -> bool {
        !self.streams.lock().is_empty()
    }

    /// Has the notes sent, be there none: the peer acknowledges that.
    pub(crate) fn nudge(&self) {
        self.nudged.store(true, Ordering::Relaxed);
        self.control.wake();
    }

    /// Notes for the peer; none only after [`Self::nudge`].
    pub(crate) fn poll_notes(&self, cx: &mut Context<'_>) -> Poll<Notes> {
        self.control.register(cx.waker());
        let mut grants = self.grants.lock();
        let streams: Vec<u64> = grants.keys().take(NOTES).copied().collect();
        let taken = streams.into_iter().filter_map(|stream| grants.remove_entry(&stream));
        let windows: Vec<Window> = taken.map(|(stream, limit)| Window { stream, limit }).collect();
        drop(grants);
        let mut breaks = self.breaks.lock();
        let count = breaks.len().min(NOTES);
        let notes = Notes { windows, breaks: breaks.drain(..count).collect() };
        let nudged = self.nudged.swap(false, Ordering::Relaxed);
        if notes == Notes::default() && !nudged { Poll::Pending } else { Poll::Ready(notes) }
    }
}

impl Sending {
    /// How many bytes may be sent: at least one.
    pub(crate) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<usize> {
        self.peer.credit.poll_room(self.sent, cx).map(|room| usize::try_from(room).unwrap_or(usize::MAX))
    }

    pub(crate) fn sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
    }

    /// Whether the peer may still need what was sent when the stream breaks off.
    pub(crate) fn outlives_a_break(&self) -> bool {
        self.breaks && self.sent > 0
    }

    /// Breaks `stream` off behind what was sent.
    pub(crate) fn part(self, stream: quinn::SendStream, reason: ResetReason) {
        let Windows { breaks, control, partings, .. } = &*self.windows;
        breaks.lock().push(Break { stream: self.stream, offset: self.sent, code: reason.code() });
        control.wake();
        partings.add(stream, reason);
    }
}

impl Receiving {
    /// Why the peer broke off, when everything before that was read and passed on.
    pub(crate) fn broken(&self) -> Option<ResetReason> {
        self.peer.ending.reached(self.granter.consumed())
    }

    /// Has `cx` woken when the peer breaks off; says whether it has.
    pub(crate) fn poll_broken(&self, cx: &Context<'_>) -> Option<ResetReason> {
        self.peer.ending.register(cx);
        self.broken()
    }

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
        self.windows.streams.lock().remove(&self.stream);
        self.granter.close(&self.windows.pool);
        self.windows.grants.lock().remove(&self.stream);
    }
}

#[cfg(test)]
mod tests;
