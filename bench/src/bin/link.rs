//! Runs a command at the near end of an emulated link, e.g. `link --rate 100mbit --delay 25ms --queue 50ms --loss 1% -- bash`.

use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result};
use bench::link::{FAR, Link, NEAR};
use clap::Parser;
use links::{Jitter, Loss, Policer, Profile, Statistics, parse_queue, parse_rate, parse_share, parse_time};

/// What a policer lets pass at once, at least: a packet or two.
const LEAST_BURST: u64 = 3_000;

/// Runs a command in the near one of two network namespaces that an emulated link connects; the other is reached with
/// `ip netns exec`. Needs root, /dev/net/tun and iproute2.
#[derive(Debug, Parser)]
struct Arguments {
    /// Bits per second in each direction, like 100mbit or 1gbit.
    #[arg(long, default_value = "100mbit", value_parser = parse_rate)]
    rate: u64,
    /// From one end to the other; half of the round trip.
    #[arg(long, default_value = "25ms", value_parser = parse_time)]
    delay: std::time::Duration,
    /// How much may wait for the wire, in time (50ms) or bytes (625kb); what finds more is dropped.
    #[arg(long, default_value = "50ms")]
    queue: String,
    /// The share of packets lost at random in each direction, like 1% or 0.01.
    #[arg(long, default_value = "0", value_parser = parse_share)]
    loss: f64,
    /// How many packets are lost in a row, on average: a channel that is good or bad by turns.
    #[arg(long, default_value_t = 1.0)]
    loss_run: f64,
    /// Packets are late by up to this, and keep their order.
    #[arg(long, default_value = "0ms", value_parser = parse_time)]
    jitter: std::time::Duration,
    /// The share of packets that are late.
    #[arg(long, default_value = "1", value_parser = parse_share)]
    jitter_share: f64,
    /// Those that are late are so by at least this.
    #[arg(long, default_value = "0ms", value_parser = parse_time)]
    jitter_least: std::time::Duration,
    /// Packets that are not as late overtake.
    #[arg(long)]
    reorder: bool,
    /// The share of packets that arrive twice.
    #[arg(long, default_value = "0", value_parser = parse_share)]
    duplicate: f64,
    /// Packets arrive together at the multiples of this time.
    #[arg(long, default_value = "0ms", value_parser = parse_time)]
    batch: std::time::Duration,
    /// What exceeds this average rate, after a burst of 100 ms of it, is dropped.
    #[arg(long, value_parser = parse_rate)]
    police: Option<u64>,
    /// Chooses which packets are lost or late.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Let the kernel's netem carry the packets, where it has one. Its losses are not decided by the seed.
    #[arg(long)]
    netem: bool,
    /// The congestion control of TCP at both ends, cubic or bbr [default: the machine's].
    #[arg(long)]
    tcp_congestion: Option<String>,
    /// What to run at the near end.
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let profile = arguments.profile()?;
    let link = if arguments.netem { Link::start_netem(profile) } else { Link::start(profile, arguments.seed) }?;
    if let Some(name) = &arguments.tcp_congestion {
        link.near().set_tcp_congestion(name)?;
        link.far().set_tcp_congestion(name)?;
    }
    eprintln!("near {NEAR}, far {FAR}: ip netns exec {} COMMAND; {profile:?}", link.far().name());
    link.near().enter()?;
    let [program, rest @ ..] = arguments.command.as_slice() else { anyhow::bail!("no command") };
    let status = Command::new(program)
        .args(rest)
        .env("LINK_FAR", link.far().name())
        .status()
        .with_context(|| format!("{program} does not start"))?;
    for (direction, statistics) in ["near to far", "far to near"].iter().zip(link.statistics().into_iter().flatten()) {
        report(direction, &statistics);
    }
    link.stop()?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}

impl Arguments {
    fn profile(&self) -> Result<Profile> {
        let queue = parse_queue(&self.queue, self.rate)?;
        let Self { jitter_share: share, jitter_least: least, jitter: most, reorder: reorders, .. } = *self;
        Ok(Profile {
            loss: Loss { share: self.loss, run: self.loss_run },
            jitter: if most.is_zero() { Jitter::default() } else { Jitter { share, least, most, reorders } },
            duplicated: self.duplicate,
            batch: self.batch,
            policer: self.police.map(|rate| Policer { rate, burst: (rate / 80).max(LEAST_BURST) }),
            ..Profile::new(self.rate, self.delay, queue)
        })
    }
}

fn report(direction: &str, statistics: &Statistics) {
    let Statistics { lost, dropped, delivered, delivered_bytes, longest_queue, largest_error, .. } = *statistics;
    eprintln!(
        "{direction}: {delivered} packets ({delivered_bytes} bytes) delivered, {lost} lost, {dropped} dropped; queue {:?} on \
         average, up to {longest_queue:?}; error {:?} on average, up to {largest_error:?}",
        statistics.average_queue(),
        statistics.average_error(),
    );
}
