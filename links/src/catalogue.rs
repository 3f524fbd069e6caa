//! Links as users have them: the rows that the simulation and the bench ask.

use std::time::Duration;

use crate::{Jitter, Loss, Policer, Profile};

/// 60 Mbit/s, 20 ms there and back, a queue of 60 ms.
const CLEAN: Profile = Profile::new(60_000_000, Duration::from_millis(10), Duration::from_millis(60));

/// A link with its name.
#[derive(Debug, Clone)]
pub struct Named {
    /// What it does to packets: `loss 3 %`.
    pub name: String,
    /// Towards who downloads.
    pub down: Profile,
    /// From there.
    pub up: Profile,
}

impl Named {
    fn new(name: impl Into<String>, both: Profile) -> Self {
        Self { name: name.into(), down: both, up: both }
    }
}

/// The variants of a link of 60 Mbit/s and 20 ms.
pub fn catalogue() -> Vec<Named> {
    variants(CLEAN)
}

/// A link and what it may be like: each does one thing, where nothing else is said in both directions.
pub fn variants(clean: Profile) -> Vec<Named> {
    let ms = Duration::from_millis;
    let late = |share| Profile { jitter: Jitter { share, least: ms(5), most: ms(20), reorders: true }, ..clean };
    let lossy = [3, 7, 10, 15]
        .map(|percent| Named::new(format!("loss {percent} %"), clean.with_loss(f64::from(percent) / 100.0)));
    let jittery = [5, 10, 20, 50]
        .map(|most| Named::new(format!("jitter {most} ms"), Profile { jitter: Jitter::up_to(ms(most)), ..clean }));
    let reordered = [2, 5, 20].map(|most| {
        Named::new(format!("reordered {most} ms"), Profile { jitter: Jitter::reordering(ms(most)), ..clean })
    });
    let queue = |round_trips| Profile { queue: clean.round_trip().mul_f64(round_trips), ..clean };
    let policer = Policer { rate: clean.rate, burst: (clean.rate / 8 / 20).max(1 << 16) };
    let others = [
        Named { up: clean, ..Named::new("loss 7 % down", clean.with_loss(0.07)) },
        Named { down: clean, ..Named::new("loss 7 % up", clean.with_loss(0.07)) },
        Named::new("2 % late", late(0.02)),
        Named::new("10 % late", late(0.1)),
        Named::new("1 % twice", Profile { duplicated: 0.01, ..clean }),
        Named::new("batches of 10 ms", Profile { batch: ms(10), ..clean }),
        Named::new("bursts of 8, 2 %", Profile { loss: Loss { share: 0.02, run: 8.0 }, ..clean }),
        Named { up: Profile { rate: clean.rate / 20, ..clean }, ..Named::new("up a twentieth", clean) },
        Named::new("queue a quarter", queue(0.25)),
        Named::new("queue fourfold", queue(4.0)),
        Named::new("policed", Profile { rate: 4 * clean.rate, policer: Some(policer), ..clean }),
    ];
    let mut all = vec![Named::new("clean", clean)];
    all.extend(lossy.into_iter().chain(jittery).chain(reordered).chain(others));
    all
}
