//! What a direction of a link does to packets, and its written form.

use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};

/// The properties of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// Bits per second of whole IP packets, above 0.
    pub rate: u64,
    /// From one end to the other, beside the queue and the packet's own time on the wire. Half of the idle RTT.
    pub delay: Duration,
    /// How much may wait for the wire, in time; a packet that finds more is dropped (drop-tail).
    pub queue: Duration,
    /// Which packets are lost before the queue. As with `tc netem`, a lost packet takes no time of the wire, so that the link's
    /// capacity is the same at each loss.
    pub loss: Loss,
    /// By how much packets are later than the delay.
    pub jitter: Jitter,
    /// The share of packets that arrive twice, 0 to 1.
    pub duplicated: f64,
    /// Packets arrive together at the multiples of this time, as on Wi-Fi and cable; one by one where it is zero.
    pub batch: Duration,
    /// Who drops what exceeds an average rate, before the queue.
    pub policer: Option<Policer>,
}

/// Which packets are lost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Loss {
    /// Of all packets, 0 to 1.
    pub share: f64,
    /// How many are lost in a row, on average: a channel that is good or bad by turns (Gilbert 1960), and loses all while it is bad.
    /// Up to 1, each packet is lost or not by itself.
    pub run: f64,
}

/// By how much packets are late.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Jitter {
    /// Of all packets, those that are late, 0 to 1.
    pub share: f64,
    /// A late one is so by at least this, and by at most that, equally likely.
    pub least: Duration,
    pub most: Duration,
    /// Whether one that is not as late overtakes; else it waits.
    pub reorders: bool,
}

/// A token bucket: what finds too few tokens is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Policer {
    /// Bits per second.
    pub rate: u64,
    /// What the bucket holds, in bytes.
    pub burst: u64,
}

impl Jitter {
    /// All packets are late, by up to `most`.
    pub fn up_to(most: Duration) -> Self {
        Self { share: 1.0, least: Duration::ZERO, most, reorders: false }
    }

    /// The same, and overtake each other.
    pub fn reordering(most: Duration) -> Self {
        Self { reorders: true, ..Self::up_to(most) }
    }
}

impl Profile {
    /// 100 Mbit/s, 50 ms idle RTT, a queue of 50 ms, no loss: the link of questions 4 and 5.
    pub const WIDE_AREA: Self = Self::new(100_000_000, Duration::from_millis(25), Duration::from_millis(50));
    /// 400 Mbit/s, 100 ms idle RTT, a queue of 50 ms, no loss: the long fat link of question 5.
    pub const LONG_FAT: Self = Self::new(400_000_000, Duration::from_millis(50), Duration::from_millis(50));

    /// A link that loses nothing by itself, and is never late.
    pub const fn new(rate: u64, delay: Duration, queue: Duration) -> Self {
        let jitter = Jitter { share: 0.0, least: Duration::ZERO, most: Duration::ZERO, reorders: false };
        let loss = Loss { share: 0.0, run: 1.0 };
        Self { rate, delay, queue, loss, jitter, duplicated: 0.0, batch: Duration::ZERO, policer: None }
    }

    /// The same link that loses this share of the packets, 0 to 1, each by itself.
    #[must_use]
    pub const fn with_loss(self, share: f64) -> Self {
        Self { loss: Loss { share, run: 1.0 }, ..self }
    }

    /// How long a packet of that many bytes is on the wire.
    pub fn wire_time(&self, bytes: usize) -> Duration {
        let bits = bytes as u128 * 8;
        let nanoseconds = bits * 1_000_000_000 / u128::from(self.rate.max(1));
        Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }

    /// Bits per second that get through for long.
    pub fn capacity(&self) -> u64 {
        self.policer.map_or(self.rate, |policer| policer.rate.min(self.rate))
    }

    /// There and back on an idle link.
    pub fn round_trip(&self) -> Duration {
        2 * self.delay
    }
}

/// A rate as `tc` writes it: `100mbit`, `1.5gbit`, `64kbit`. Bits per second.
pub fn parse_rate(text: &str) -> Result<u64> {
    let rate = scaled(text, &[("kbit", 1e3), ("mbit", 1e6), ("gbit", 1e9), ("bit", 1.0)])?;
    ensure!(rate >= 1.0, "a link has a rate above 0");
    Ok(rate as u64)
}

/// A time: `25ms`, `800us`, `0.1s`, `10m`.
pub fn parse_time(text: &str) -> Result<Duration> {
    Ok(Duration::from_secs_f64(scaled(text, &[("us", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0)])?))
}

/// A share: `1%` or `0.01`. 0 to 1.
pub fn parse_share(text: &str) -> Result<f64> {
    let share = match text.strip_suffix('%') {
        Some(percent) => f64::from_str(percent)? / 100.0,
        None => f64::from_str(text)?,
    };
    ensure!((0.0..=1.0).contains(&share), "a share lies between 0 and 100 %");
    Ok(share)
}

/// A queue's limit in time (`50ms`), or in bytes (`625kb`, `1mb`), which `rate` turns into time.
pub fn parse_queue(text: &str, rate: u64) -> Result<Duration> {
    match scaled(text, &[("kb", 1e3), ("mb", 1e6), ("b", 1.0)]) {
        Ok(bytes) => Ok(Duration::from_secs_f64(bytes * 8.0 / rate as f64)),
        Err(_) => parse_time(text).context("a queue is a time like 50ms or a size like 625kb"),
    }
}

/// A number that ends in one of the units, times what the unit stands for.
fn scaled(text: &str, units: &[(&str, f64)]) -> Result<f64> {
    for (unit, factor) in units {
        let number = text.strip_suffix(unit).and_then(|number| f64::from_str(number).ok());
        if let Some(number) = number.filter(|number| number.is_finite() && *number >= 0.0) {
            return Ok(number * factor);
        }
    }
    let units: Vec<&str> = units.iter().map(|(unit, _)| *unit).collect();
    bail!("{text:?} is no number with one of the units {}", units.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_tc_writes_them() {
        assert_eq!(parse_rate("100mbit").unwrap(), 100_000_000);
        assert_eq!(parse_rate("1.5gbit").unwrap(), 1_500_000_000);
        assert_eq!(parse_time("25ms").unwrap(), Duration::from_millis(25));
        assert_eq!(parse_time("10m").unwrap(), Duration::from_secs(600));
        assert_eq!(parse_share("1%").unwrap(), 0.01);
        assert_eq!(parse_share("0.5").unwrap(), 0.5);
        assert_eq!(parse_queue("50ms", 1).unwrap(), Duration::from_millis(50));
        assert_eq!(parse_queue("625kb", 100_000_000).unwrap(), Duration::from_millis(50));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "mbit", "-1mbit", "100", "0bit", "nanmbit"] {
            assert!(parse_rate(text).is_err(), "{text}");
        }
        assert!(parse_time("5 minutes").is_err());
        assert!(parse_share("101%").is_err());
        assert!(parse_queue("much", 1).unwrap_err().to_string().contains("625kb"));
    }

    #[test]
    fn a_packets_time_on_the_wire_is_its_bits_by_the_rate() {
        assert_eq!(Profile::WIDE_AREA.wire_time(1250), Duration::from_micros(100));
    }
}
