//! Connections that read and write by a schedule, and tell how far they are.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use futures_util::task::AtomicWaker;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Notify,
};

/// What is read: `length` bytes by `seed`, in pieces of these sizes, over and over; 0 is a pause.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) length: u64,
    pub(super) pieces: Vec<u16>,
    pub(super) seed: u8,
}

/// What comes after the last byte that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Fin,
    Silence,
    Reset,
}

/// How much is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Take {
    All,
    Stall(u64),
    Reset(u64),
}

/// How far a direction is.
#[derive(Debug, Default)]
pub(super) struct Progress {
    read: AtomicU64,
    written: AtomicU64,
    shut: AtomicBool,
    changed: Notify,
    left: AtomicBool,
    stalled: AtomicWaker,
}

pub(super) struct Reader {
    source: Source,
    end: End,
    calls: usize,
    progress: Arc<Progress>,
}

pub(super) struct Writer {
    seed: u8,
    takes: Vec<u16>,
    take: Take,
    calls: usize,
    progress: Arc<Progress>,
}

pub(super) fn reader(source: Source, end: End, progress: Arc<Progress>) -> Reader {
    Reader { source, end, calls: 0, progress }
}

pub(super) fn writer(seed: u8, takes: Vec<u16>, take: Take, progress: Arc<Progress>) -> Writer {
    Writer { seed, takes, take, calls: 0, progress }
}

/// The byte at `offset`. 251 is prime, so that no shift by a power of two goes unseen.
fn byte(seed: u8, offset: u64) -> u8 {
    seed.wrapping_add(u8::try_from(offset % 251).expect("less than 251"))
}

impl Progress {
    pub(super) fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    pub(super) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    pub(super) fn is_complete(&self, length: u64) -> bool {
        self.written() == length && self.shut.load(Ordering::Relaxed)
    }

    /// A writer that is stalled breaks.
    pub(super) fn leave(&self) {
        self.left.store(true, Ordering::Relaxed);
        self.stalled.wake();
    }

    /// Waits until `reached`.
    pub(super) async fn wait(&self, reached: impl Fn() -> bool) {
        loop {
            let changed = self.changed.notified();
            if reached() {
                return;
            }
            changed.await;
        }
    }
}

/// The next step of a schedule; 0 has the task woken and wait for its next turn.
fn next(schedule: &[u16], calls: &mut usize, cx: &Context<'_>) -> Poll<usize> {
    let size = schedule[*calls % schedule.len()];
    *calls += 1;
    // A schedule of pauses alone would never end.
    if size == 0 && !calls.is_multiple_of(schedule.len() + 1) {
        cx.waker().wake_by_ref();
        return Poll::Pending;
    }
    Poll::Ready(usize::from(if size == 0 { 500 } else { size }))
}

impl AsyncRead for Reader {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { source, end, calls, progress } = self.get_mut();
        let offset = progress.read();
        if offset == source.length {
            return match end {
                End::Fin => Poll::Ready(Ok(())),
                End::Silence => Poll::Pending,
                End::Reset => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            };
        }
        let Poll::Ready(size) = next(&source.pieces, calls, cx) else { return Poll::Pending };
        let until = source.length.min(offset + size.min(buffer.remaining()) as u64);
        let bytes: Vec<u8> = (offset..until).map(|offset| byte(source.seed, offset)).collect();
        buffer.put_slice(&bytes);
        progress.read.store(until, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Writer {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Self { seed, takes, take, calls, progress } = self.get_mut();
        let offset = progress.written();
        let room = match *take {
            Take::All => u64::MAX,
            Take::Stall(after) if offset == after && !progress.left.load(Ordering::Relaxed) => {
                progress.stalled.register(cx.waker());
                return Poll::Pending;
            }
            Take::Stall(after) if offset == after => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            Take::Reset(after) if offset == after => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            Take::Stall(after) | Take::Reset(after) => after - offset,
        };
        let Poll::Ready(size) = next(takes, calls, cx) else { return Poll::Pending };
        let count = size.min(bytes.len()).min(usize::try_from(room).unwrap_or(usize::MAX));
        for (byte_offset, got) in (offset..).zip(&bytes[..count]) {
            assert_eq!(*got, byte(*seed, byte_offset), "at {byte_offset}");
        }
        progress.written.store(offset + count as u64, Ordering::Relaxed);
        progress.changed.notify_waiters();
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.progress.shut.store(true, Ordering::Relaxed);
        self.progress.changed.notify_waiters();
        Poll::Ready(Ok(()))
    }
}
