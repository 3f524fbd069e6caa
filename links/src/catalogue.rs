//! Links as users have them: the rows that the simulation and the bench ask.

use std::time::Duration;

use crate::{Jitter, Loss, Profile};

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

/// Each does one thing, in both directions.
pub fn catalogue() -> Vec<Named> {
    let ms = Duration::from_millis;
    let late = |share| Profile { jitter: Jitter { share, least: ms(5), most: ms(20), reorders: true }, ..CLEAN };
    let lossy = [3, 7, 10, 15]
        .map(|percent| Named::new(format!("loss {percent} %"), CLEAN.with_loss(f64::from(percent) / 100.0)));
    let jittery = [5, 10, 20, 50]
        .map(|most| Named::new(format!("jitter {most} ms"), Profile { jitter: Jitter::up_to(ms(most)), ..CLEAN }));
    let reordered = [2, 5, 20].map(|most| {
        Named::new(format!("reordered {most} ms"), Profile { jitter: Jitter::reordering(ms(most)), ..CLEAN })
    });
    let others = [
        Named::new("2 % late", late(0.02)),
        Named::new("10 % late", late(0.1)),
        Named::new("batches of 10 ms", Profile { batch: ms(10), ..CLEAN }),
        Named::new("bursts of 8, 2 %", Profile { loss: Loss { share: 0.02, run: 8.0 }, ..CLEAN }),
        Named { up: Profile { rate: CLEAN.rate / 20, ..CLEAN }, ..Named::new("up a twentieth", CLEAN) },
    ];
    let mut all = vec![Named::new("clean", CLEAN)];
    all.extend(lossy.into_iter().chain(jittery).chain(reordered).chain(others));
    all
}
