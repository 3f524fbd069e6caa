//! The buffers of a thread, which its relays use while they run and give back before they wait: an idle connection holds none.

use std::{
    cell::Cell,
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::AsyncRead;

/// Below 64 KiB the system calls show (a TLS relay with 8 KiB buffers has 0.4 of the throughput); above it nothing is
/// gained.
const ARENA: usize = 64 * 1024;

/// With less than this left the arena is replaced, so that no read of a busy connection is a small one.
const LITTLE: usize = 16 * 1024;

/// What is read holds its whole arena until the peer has acknowledged it. Less than this is copied instead, into
/// memory of its own size.
const TINY: usize = 1024;

/// Chunks read and written with one call: packets of 1.4 KiB make a write of up to 45 KiB.
pub(crate) const CHUNKS: usize = 32;

/// The slots for chunks, all empty while nobody works with them.
pub(crate) type Chunks = Box<[Bytes]>;

thread_local! {
    /// Empty, with the room that the last reads have left.
    static ARENA_OF_THREAD: Cell<BytesMut> = Cell::default();
    static CHUNKS_OF_THREAD: Cell<Option<Chunks>> = const { Cell::new(None) };
}

/// Reads at most `limit` bytes, at least one; nothing at the end. `reader` fills the thread's arena, from which what
/// was read is split off.
pub(crate) fn poll_read(
    reader: &mut (impl AsyncRead + Unpin),
    cx: &mut Context<'_>,
    limit: usize,
) -> Poll<io::Result<Bytes>> {
    // Taken, not borrowed: a reader that reads in here itself gets an arena of its own.
    let mut arena = ARENA_OF_THREAD.take();
    if arena.capacity() < LITTLE {
        arena.reserve(ARENA);
    }
    let limit = limit.min(arena.capacity());
    let read = tokio_util::io::poll_read_buf(Pin::new(reader), cx, &mut (&mut arena).limit(limit));
    let bytes = read.map_ok(|count| {
        if count < TINY {
            let copy = Bytes::copy_from_slice(&arena);
            arena.clear();
            copy
        } else {
            arena.split().freeze()
        }
    });
    ARENA_OF_THREAD.set(arena);
    bytes
}

/// Empty slots; [`give_back`] them empty.
pub(crate) fn chunks() -> Chunks {
    CHUNKS_OF_THREAD.take().unwrap_or_else(|| vec![Bytes::new(); CHUNKS].into())
}

pub(crate) fn give_back(chunks: Chunks) {
    debug_assert!(chunks.iter().all(Bytes::is_empty));
    CHUNKS_OF_THREAD.set(Some(chunks));
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn read(mut reader: &[u8], limit: usize) -> Bytes {
        let mut cx = Context::from_waker(Waker::noop());
        let Poll::Ready(Ok(bytes)) = poll_read(&mut reader, &mut cx, limit) else { panic!("a slice is always ready") };
        bytes
    }

    #[test]
    fn a_tiny_read_takes_nothing_of_the_arena_and_the_others_share_it() {
        let sent: Vec<u8> = (0..=255).cycle().take(5000).collect();
        let first = read(&sent, usize::MAX);
        let tiny = read(&sent[..TINY - 1], usize::MAX);
        let second = read(&sent, usize::MAX);
        assert_eq!((&first[..], &tiny[..], &second[..]), (&sent[..], &sent[..TINY - 1], &sent[..]));
        assert_eq!(first.as_ptr().addr() + first.len(), second.as_ptr().addr());
    }

    #[test]
    fn no_read_is_longer_than_its_limit_or_shorter_than_it_must_be() {
        let sent = vec![7; 2 * ARENA];
        assert_eq!(read(&sent, 3).len(), 3);
        for _ in 0..8 {
            let count = read(&sent, usize::MAX).len();
            assert!((LITTLE..=ARENA).contains(&count), "{count}");
        }
        assert!(read(&[], usize::MAX).is_empty());
    }
}
