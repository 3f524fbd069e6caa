//! The thread that carries packets between two devices, each through its lane.

use std::io::{ErrorKind, PipeReader};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use links::Lane;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use tun_rs::SyncDevice;

use super::Lanes;

/// Packets read from one device before the other has its turn: a fraction of a millisecond of work.
const BATCH: usize = 64;
/// Longer than any packet of a device with an MTU of 1500.
const LONGEST_PACKET: usize = 2048;
/// How often the devices are looked at while there is traffic. A wake-up for each packet would cost a third of a core at
/// 100 Mbit/s; and what comes out early or late by half of this is far below any delay of interest.
const TICK: Duration = Duration::from_micros(200);
/// How long an idle wait may last; nothing depends on it.
const IDLE: Duration = Duration::from_secs(1);

/// Two devices: what is read from one comes out of the other.
pub(super) struct Pump {
    pub(super) devices: [SyncDevice; 2],
    pub(super) lanes: Lanes,
    /// Ends the pump when its other end is closed.
    pub(super) stop: PipeReader,
}

impl Pump {
    /// Carries packets until it is stopped, or a device fails.
    pub(super) fn run(self) -> Result<()> {
        let start = Instant::now();
        let mut buffer = [0; LONGEST_PACKET];
        loop {
            let begun = start.elapsed();
            let mut carried = 0;
            for index in 0..2 {
                carried += self.read(index, start, &mut buffer)? + self.write(index, start)?;
            }
            let rest = TICK.saturating_sub(start.elapsed() - begun);
            let stopped = if carried > 0 { self.pause(rest)? } else { self.wait(self.until_next(start))? };
            if stopped {
                return Ok(());
            }
        }
    }

    /// Puts what has come to a device into its lane; gives the number of packets.
    fn read(&self, index: usize, start: Instant, buffer: &mut [u8]) -> Result<usize> {
        let lane = &mut self.lanes.lock()[index];
        for count in 0..BATCH {
            match self.devices[index].recv(buffer) {
                Ok(length) => _ = lane.offer(start.elapsed(), length, buffer[..length].to_vec()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(count),
                Err(error) => return Err(error).context("a TUN device cannot be read"),
            }
        }
        Ok(BATCH)
    }

    /// Hands what is due in a lane to the other device; gives the number of packets.
    fn write(&self, index: usize, start: Instant) -> Result<usize> {
        let lane = &mut self.lanes.lock()[index];
        let mut count = 0;
        let now = start.elapsed();
        while let Some(packet) = lane.take(now, now + TICK / 2) {
            self.devices[1 - index].send(&packet).context("a TUN device cannot be written")?;
            count += 1;
        }
        Ok(count)
    }

    /// The time until a packet is due.
    fn until_next(&self, start: Instant) -> Duration {
        let next = self.lanes.lock().iter().filter_map(Lane::next).min();
        next.map_or(IDLE, |next| next.saturating_sub(start.elapsed()).min(IDLE))
    }

    /// Waits for that long; says whether the pump is to stop.
    fn pause(&self, time: Duration) -> Result<bool> {
        poll([PollFd::new(self.stop.as_fd(), PollFlags::POLLIN)], time).map(|[stop]| stop)
    }

    /// Waits until a packet comes, at most for that long; says whether the pump is to stop.
    fn wait(&self, time: Duration) -> Result<bool> {
        let [near, far] = &self.devices;
        let watched = [self.stop.as_fd(), near.as_fd(), far.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        poll(watched, time).map(|[stop, ..]| stop)
    }
}

/// Which of the descriptors have something to say, after `time` at the latest.
fn poll<const N: usize>(mut watched: [PollFd<'_>; N], time: Duration) -> Result<[bool; N]> {
    match ppoll(&mut watched, Some(TimeSpec::from_duration(time)), None) {
        Ok(_) | Err(Errno::EINTR) => Ok(watched.map(|fd| fd.any().unwrap_or(false))),
        Err(error) => Err(error).context("the TUN devices cannot be waited for"),
    }
}
