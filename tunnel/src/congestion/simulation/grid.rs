//! Every kind of link at rates and round trips from a modem's to a data centre's: what one tunnel makes of each.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use links::{Named, Profile, variants};
use parking_lot::Mutex;

use super::{Network, tests::ours};

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

/// Rows that are shown.
const WORST: usize = 10;

/// One link, and the seed that chooses what happens to which packet.
struct Cell {
    name: String,
    link: Named,
    seed: u64,
}

/// What became of one link, or on average of its seeds.
#[derive(Debug)]
struct Found {
    name: String,
    /// Of what the link lets through.
    share: f64,
    /// What stood in the queue, on average, of what it may be.
    queue: f64,
    /// Of the packets.
    lost: f64,
    /// What the share is to be.
    least: f64,
    death: Option<String>,
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
    /// The longest round trip of the empty path.
    fn round_trip(&self) -> Duration {
        let Profile { jitter, batch, .. } = self.link.down;
        self.link.down.round_trip() + 2 * (jitter.most + batch)
    }

    fn packets(&self, time: Duration) -> f64 {
        self.link.down.capacity() as f64 / 8.0 * time.as_secs_f64() / PACKET as f64
    }

    /// How long the tunnel has for its start, and how long it is looked at.
    fn times(&self) -> [Duration; 2] {
        let rounds = 20.0 + 1.5 * self.packets(self.round_trip()) / GROWTH;
        let start = Duration::from_secs(3) + self.round_trip().mul_f64(rounds);
        [start, Duration::from_secs(4).max(20 * self.link.down.round_trip())]
    }

    /// In packets.
    fn cost(&self) -> f64 {
        self.packets(self.times().iter().sum())
    }

    /// The share of the link that is to be reached: half, but for what quinn does not let it reach.
    fn least(&self) -> f64 {
        let Profile { jitter, batch, loss, .. } = self.link.down;
        let pipe = self.packets(self.round_trip());
        // A stream has a gap for each packet that was lost and that is not made good: two round trips' and more.
        let gaps = pipe * loss.share > 150.0 || pipe > 5000.0;
        // Packets that others overtake count as lost at some time: after so many, or so many round trips.
        let overtaken =
            jitter.reorders && (self.packets(jitter.most) > 300.0 || jitter.most > self.link.down.round_trip());
        // ACKs come together, and the pacer sends what they make room for within 2 ms: more than the queue holds.
        let bunches = jitter.most.max(batch) > 2 * self.link.down.queue && self.link.down.capacity() > 50_000_000;
        // With four packets in flight the last of them is often lost, and nothing tells so but time.
        let few = pipe < 8.0 && loss.share >= 0.1;
        if gaps || overtaken || bunches || few { 0.0 } else { 0.5 }
    }

    fn run(&self) -> Found {
        let mut network = Network::seeded(&self.link, self.seed);
        let pipe = self.packets(self.round_trip()) * PACKET as f64;
        network.tunnel(Duration::ZERO, if pipe > ONE_STREAM { 4 } else { 1 }, false, ours);
        let [start, span] = self.times();
        network.run(start);
        let before = network.down();
        let outcome = network.run(span).remove(0);
        let queue = network.down().since(&before).average_queue();
        let packets = self.link.down.wire_time(PACKET as usize) * 6;
        let most = (2 * self.round_trip()).max(Duration::from_millis(30)).max(packets);
        Found {
            name: self.name.clone(),
            share: outcome.rate * 8.0 / self.link.down.capacity() as f64,
            queue: queue.as_secs_f64() / most.as_secs_f64(),
            lost: outcome.lost as f64 / outcome.sent.max(1) as f64,
            least: self.least(),
            death: outcome.death,
        }
    }
}

/// Runs them on all processors; by name, each on average of its seeds.
fn run(cells: &[Cell]) -> Vec<Found> {
    let (next, found) = (AtomicUsize::new(0), Mutex::new(BTreeMap::<String, Vec<Found>>::new()));
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(cell) = cells.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let one = cell.run();
                    found.lock().entry(one.name.clone()).or_default().push(one);
                }
            });
        }
    });
    found.into_inner().into_iter().map(|(name, seeds)| Found::average(name, seeds)).collect()
}

impl Found {
    fn average(name: String, seeds: Vec<Self>) -> Self {
        let mean = |of: fn(&Self) -> f64| seeds.iter().map(of).sum::<f64>() / seeds.len() as f64;
        let (share, queue, lost) = (mean(|one| one.share), mean(|one| one.queue), mean(|one| one.lost));
        let least = mean(|one| one.least);
        Self { name, share, queue, lost, least, death: seeds.into_iter().find_map(|one| one.death) }
    }

    fn is_good(&self) -> bool {
        self.share >= self.least && self.queue <= 1.0 && self.death.is_none()
    }

    fn row(&self) -> String {
        let Self { name, share, queue, lost, .. } = self;
        format!(
            "| {name} | {share:.2} | {queue:.2} | {:.1} % | {} |",
            100.0 * lost,
            self.death.as_deref().unwrap_or("")
        )
    }
}

/// The links of the grid that cost at most so many packets, and the worst of them.
fn check(seeds: u64, most: f64) {
    let mut cells = cells(seeds);
    cells.retain(|cell| cell.cost() <= most);
    let mut found = run(&cells);
    found.sort_by(|one, other| one.share.total_cmp(&other.share));
    let links = found.len();
    eprintln!(
        "{links} links, {seeds} seeds\n| link | of it | queue, of what it may be | lost | end |\n|---|---|---|---|---|"
    );
    found.iter().take(WORST).for_each(|one| eprintln!("{}", one.row()));
    let faults: Vec<String> = found.iter().filter(|one| !one.is_good()).map(Found::row).collect();
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn every_link_of_the_grid_is_half_full() {
    check(4, 1e5);
}

#[test]
#[ignore = "a quarter of an hour for each seed"]
#[expect(clippy::disallowed_methods, reason = "how long it may take is said to `make`")]
fn every_link_of_the_whole_grid_is_half_full() {
    let seeds = std::env::var("SIM_SEEDS").ok().and_then(|seeds| seeds.parse().ok());
    check(seeds.unwrap_or(1), f64::INFINITY);
}
