//! Every kind of link at rates and round trips from a modem's to a data centre's: what one tunnel makes of each.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use links::{Named, Profile, variants};
use parking_lot::Mutex;

use super::{Network, Outcome, tests::ours};

/// In Mbit/s.
const RATES: [u64; 4] = [1, 10, 100, 1000];
/// In ms.
const ROUND_TRIPS: [u64; 5] = [1, 20, 100, 300, 600];

/// A packet's bytes on the wire.
const PACKET: u64 = 1480;

/// Packets for which each queue has room: the pacer sends ten at a time.
const QUEUE: u32 = 20;

/// By how many packets start-up grows in a round trip where it grows least.
const GROWTH: f64 = 320.0;

/// Bytes in flight of which one stream's window may be the bound.
const ONE_STREAM: f64 = 8e6;

/// One link, and the seed that chooses what happens to which packet.
struct Cell {
    name: String,
    link: Named,
    seed: u64,
}

/// What became of it.
struct Found {
    name: String,
    /// Of what the link lets through.
    share: f64,
    /// What stood in the queue, on average, of what it may be.
    queue: f64,
    outcome: Outcome,
}

fn cells(seeds: u64) -> Vec<Cell> {
    let mut cells = Vec::new();
    for mbit in RATES {
        for rtt in ROUND_TRIPS {
            let rtt = Duration::from_millis(rtt);
            for mut link in variants(Profile::new(mbit * 1_000_000, rtt / 2, rtt)) {
                for profile in [&mut link.down, &mut link.up] {
                    profile.queue = profile.queue.max(profile.wire_time(PACKET as usize) * QUEUE);
                }
                let name = format!("{mbit} Mbit/s, {} ms, {}", rtt.as_millis(), link.name);
                cells.extend((0..seeds).map(|seed| Cell { name: name.clone(), link: link.clone(), seed }));
            }
        }
    }
    cells
}

impl Cell {
    /// Packets that are in flight when the path is full.
    fn pipe(&self) -> f64 {
        let jitter = self.link.down.jitter.most + self.link.down.batch;
        self.link.down.capacity() as f64 / 8.0 * (self.link.down.round_trip() + jitter).as_secs_f64() / PACKET as f64
    }

    /// How long the tunnel has for its start.
    fn start(&self) -> Duration {
        let round_trip = self.link.down.round_trip() + 2 * self.link.down.jitter.most;
        Duration::from_secs(3) + round_trip.mul_f64(20.0 + 1.5 * self.pipe() / GROWTH)
    }

    /// Packets of the whole simulation: what it costs.
    fn packets(&self) -> f64 {
        let time = (self.start() + self.span()).as_secs_f64();
        self.link.down.capacity() as f64 / 8.0 / PACKET as f64 * time
    }

    /// How long it is looked at.
    fn span(&self) -> Duration {
        Duration::from_secs(4).max(20 * self.link.down.round_trip())
    }

    fn run(&self) -> Found {
        let mut network = Network::seeded(&self.link, self.seed);
        let streams = if self.pipe() * PACKET as f64 > ONE_STREAM { 4 } else { 1 };
        network.tunnel(Duration::ZERO, streams, false, ours);
        network.run(self.start());
        let before = network.down();
        let outcome = network.run(self.span()).remove(0);
        let queue = network.down().since(&before).average_queue();
        let most = (2 * self.link.down.round_trip()).max(Duration::from_millis(30));
        Found {
            name: format!("{}, seed {}", self.name, self.seed),
            share: outcome.rate * 8.0 / self.link.down.capacity() as f64,
            queue: queue.as_secs_f64() / most.as_secs_f64(),
            outcome,
        }
    }
}

/// Runs them on all processors.
fn run(cells: &[Cell]) -> Vec<Found> {
    let (next, found) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(cell) = cells.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let one = cell.run();
                    eprintln!("{}", one.row());
                    found.lock().push(one);
                }
            });
        }
    });
    found.into_inner()
}

impl Found {
    fn row(&self) -> String {
        let lost = self.outcome.lost as f64 / self.outcome.sent.max(1) as f64;
        format!(
            "| {} | {:.2} | {:.2} | {:.3} | {} |",
            self.name,
            self.share,
            self.queue,
            lost,
            self.outcome.death.as_deref().unwrap_or("")
        )
    }
}

#[test]
#[ignore = "an hour"]
fn the_whole_grid() {
    let seeds = std::env::var("SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(1);
    let most: f64 = std::env::var("MOST").ok().and_then(|most| most.parse().ok()).unwrap_or(f64::MAX);
    let mut cells = cells(seeds);
    cells.retain(|cell| cell.packets() < most);
    eprintln!("{} cells, {} packets", cells.len(), cells.iter().map(Cell::packets).sum::<f64>());
    run(&cells);
}
