//! Latencies compared: what somebody waits beside an attack, and alone, measured in turn in one run.

use std::time::{Duration, Instant};

use anyhow::Result;

/// What the slowest hundredth waits.
#[derive(Clone, Copy, Debug)]
pub struct Latency {
    pub alone: Duration,
    pub beside: Duration,
}

/// Does `ask` `times` in each of `rounds`, alone and then beside `attack`, which begins `head_start` earlier and is dropped at the
/// end. Whoever asks is never refused: an error ends it.
pub async fn compare(
    rounds: usize,
    times: usize,
    head_start: Duration,
    mut ask: impl AsyncFnMut() -> Result<()>,
    mut attack: impl AsyncFnMut() -> Result<()>,
) -> Result<Latency> {
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        // What the attack before has left is cleared away.
        tokio::time::sleep(head_start).await;
        samples(times, &mut ask, &mut alone).await?;
        let asking = async {
            tokio::time::sleep(head_start).await;
            samples(times, &mut ask, &mut beside).await
        };
        let attacking = async {
            let ended = attack().await;
            // Most attacks end with the round; one that has nothing left to do has done enough.
            if ended.is_ok() {
                std::future::pending::<()>().await;
            }
            ended
        };
        tokio::select! {
            asked = asking => asked?,
            failed = attacking => failed?,
        }
        let latency = Latency { alone: slowest(&alone), beside: slowest(&beside) };
        eprintln!("after round {round}: {latency:?}");
    }
    Ok(Latency { alone: slowest(&alone), beside: slowest(&beside) })
}

async fn samples(times: usize, ask: &mut impl AsyncFnMut() -> Result<()>, into: &mut Vec<Duration>) -> Result<()> {
    for _ in 0..times {
        let begun = Instant::now();
        ask().await?;
        into.push(begun.elapsed());
    }
    Ok(())
}

fn slowest(samples: &[Duration]) -> Duration {
    let mut sorted = samples.to_vec();
    sorted.sort();
    sorted.get(sorted.len().saturating_sub(1) * 99 / 100).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_hundredth_is_found() {
        let samples: Vec<_> = (1..=201).rev().map(Duration::from_millis).collect();
        assert_eq!(slowest(&samples), Duration::from_millis(199));
        assert_eq!(slowest(&[]), Duration::ZERO);
    }
}
