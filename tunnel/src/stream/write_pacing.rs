//! The pacing of a transfer's writes: a pause between small ones, so that each is worth its system call.
//!
//! quinn sends a packet of each stream in turn. With many streams, what has arrived of one is seldom more than a packet or two,
//! and to write so little at a time costs more than all of QUIC: at 64 streams and an MTU of 1500, half of the CPU.

use std::{
    future::Future,
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

use crate::stream::traffic::Traffic;

/// At 32 Mbit/s this gathers three packets, at 500 Mbit/s 64 KiB. Of the 16 ms that a window holds at least it is little.
const REST: Duration = Duration::from_millis(1);

/// A write of so many bytes is worth its system call.
const LARGE: u64 = 32 * 1024;

/// More than this would gather in a rest, and leave the processor's cache before it is written.
const GATHERED: u64 = 96 * 1024;

/// So much without a byte into the tunnel is a transfer, whose bytes nobody answers one by one.
const TRANSFER: u64 = 256 * 1024;

#[derive(Debug, Default)]
pub(crate) struct WritePacing {
    /// Of the last rest; kept for as long as the transfer lasts.
    timer: Option<Pin<Box<Sleep>>>,
    resting: bool,
    /// What had come out of the tunnel at the last small write.
    small: u64,
    /// The stream's traffic when something last went into the tunnel.
    into_tunnel: u64,
    out_of_tunnel: u64,
}

impl WritePacing {
    /// Rests if what came out of the tunnel beyond `before` was little, and is part of a transfer.
    pub(crate) fn after_write(&mut self, traffic: &Traffic, before: u64) {
        let (into_tunnel, out_of_tunnel) = (traffic.into_tunnel(), traffic.out_of_tunnel());
        if into_tunnel != self.into_tunnel {
            (self.into_tunnel, self.out_of_tunnel) = (into_tunnel, before);
        }
        if out_of_tunnel - self.out_of_tunnel < TRANSFER {
            self.timer = None;
            return;
        }
        if out_of_tunnel - before < LARGE {
            let (now, gathered) = (Instant::now(), out_of_tunnel - mem::replace(&mut self.small, out_of_tunnel));
            let end = now + REST;
            let Some(timer) = &mut self.timer else {
                self.timer = Some(Box::pin(sleep_until(end)));
                return;
            };
            let taken = end.saturating_duration_since(timer.deadline());
            self.resting =
                gathered.saturating_mul(REST.as_micros() as u64) <= GATHERED.saturating_mul(taken.as_micros() as u64);
            timer.as_mut().reset(end);
        }
    }

    /// Ready when nothing rests.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(timer) = self.timer.as_mut().filter(|_| self.resting) {
            ready!(timer.as_mut().poll(cx));
            self.resting = false;
        }
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::time::advance;

    use super::*;

    /// How long a stream rests after each of `writes`, which take `time` each and are answered by `answer` bytes.
    async fn rests(writes: &[u64], time: Duration, answer: u64) -> Vec<Duration> {
        let (traffic, mut rest, mut rests) = (Traffic::default(), WritePacing::default(), Vec::new());
        for write in writes {
            advance(time).await;
            let before = traffic.out_of_tunnel();
            traffic.add_out_of_tunnel(*write);
            rest.after_write(&traffic, before);
            let since = Instant::now();
            poll_fn(|cx| rest.poll(cx)).await;
            rests.push(since.elapsed());
            traffic.add_into_tunnel(answer);
        }
        rests
    }

    const NONE: Duration = Duration::ZERO;
    const PACKET: u64 = 1400;

    #[tokio::test(start_paused = true)]
    async fn a_transfer_rests_after_each_small_write() {
        let writes = [TRANSFER, PACKET, PACKET, LARGE, PACKET];
        assert_eq!(rests(&writes, REST, 0).await, [NONE, NONE, REST, NONE, REST]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_transfer_of_which_much_would_gather_does_not_rest() {
        let writes = [&[TRANSFER][..], &[LARGE - 1; 50]].concat();
        assert_eq!(rests(&writes, REST / 4, 0).await, [NONE; 51]);
    }

    #[tokio::test(start_paused = true)]
    async fn answers_and_what_begins_a_transfer_are_not_held_up() {
        assert_eq!(rests(&[PACKET; 100], REST, 0).await, [NONE; 100]);
        assert_eq!(rests(&[LARGE - 1; 100], REST, 64).await, [NONE; 100]);
    }
}
