//! Speeds compared: never a number of bytes per second, which is the machine's, but a ratio measured in one run.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

/// How fast `measured` is when `baseline` is 1: the median over `rounds` pairs that are run in turn, so that a machine which
/// slows down or speeds up in between does so for both. Both must move the same number of bytes.
pub async fn ratio(
    rounds: usize,
    mut baseline: impl AsyncFnMut() -> Result<()>,
    mut measured: impl AsyncFnMut() -> Result<()>,
) -> Result<f64> {
    let mut ratios = Vec::new();
    for round in 0..rounds {
        ratios.push(pair(round, &mut baseline, &mut measured).await?);
    }
    median(ratios)
}

/// As [`ratio`], with as many rounds as begin within `span`.
pub async fn ratio_over(
    span: Duration,
    mut baseline: impl AsyncFnMut() -> Result<()>,
    mut measured: impl AsyncFnMut() -> Result<()>,
) -> Result<f64> {
    let (start, mut ratios) = (Instant::now(), Vec::new());
    while start.elapsed() < span {
        ratios.push(pair(ratios.len(), &mut baseline, &mut measured).await?);
    }
    median(ratios)
}

/// The ratio of one round.
async fn pair(
    round: usize,
    baseline: &mut impl AsyncFnMut() -> Result<()>,
    measured: &mut impl AsyncFnMut() -> Result<()>,
) -> Result<f64> {
    // The one that goes first in a round finds colder caches.
    let (alone, beside) = if round.is_multiple_of(2) {
        (seconds(baseline).await?, seconds(measured).await?)
    } else {
        let beside = seconds(measured).await?;
        (seconds(baseline).await?, beside)
    };
    eprintln!("round {round}: baseline {alone:.3} s, measured {beside:.3} s");
    Ok(alone / beside)
}

fn median(mut ratios: Vec<f64>) -> Result<f64> {
    ratios.sort_by(f64::total_cmp);
    ratios.get(ratios.len() / 2).copied().context("nothing is measured in no round")
}

async fn seconds(transfer: &mut impl AsyncFnMut() -> Result<()>) -> Result<f64> {
    let start = Instant::now();
    transfer().await?;
    Ok(start.elapsed().as_secs_f64())
}
