//! Speeds compared: never a number of bytes per second, which is the machine's, but a ratio measured in one run.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

/// How fast `measured` is when `baseline` is 1: the median over `rounds` pairs that are run in turn, so that a machine which
/// slows down or speeds up in between does so for both. Both must move the same number of bytes.
pub async fn ratio(
    rounds: usize,
    mut baseline: impl AsyncFnMut() -> Result<()>,
    mut measured: impl AsyncFnMut() -> Result<()>,
) -> Result<f64> {
    ensure!(rounds > 0, "nothing is measured in no round");
    let mut ratios = Vec::new();
    for round in 0..rounds {
        // The one that goes first in a round finds colder caches.
        let (alone, beside) = if round.is_multiple_of(2) {
            (seconds(&mut baseline).await?, seconds(&mut measured).await?)
        } else {
            let beside = seconds(&mut measured).await?;
            (seconds(&mut baseline).await?, beside)
        };
        eprintln!("round {round}: baseline {alone:.3} s, measured {beside:.3} s");
        ratios.push(alone / beside);
    }
    ratios.sort_by(f64::total_cmp);
    ratios.get(rounds / 2).copied().context("no round was measured")
}

async fn seconds(transfer: &mut impl AsyncFnMut() -> Result<()>) -> Result<f64> {
    let start = Instant::now();
    transfer().await?;
    Ok(start.elapsed().as_secs_f64())
}
