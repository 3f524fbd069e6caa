//! Level-triggered waiting: a state is looked at until it holds, and never slept for.

use std::fmt::Display;
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::{Instant, sleep, timeout_at};

/// How often a state is looked at. Short against every bound in use, long enough to leave two cores to the processes under test.
const INTERVAL: Duration = Duration::from_millis(20);

/// Looks at a state until `holds` says true; an error naming `what` after `bound`.
pub async fn wait_until(bound: Duration, what: &str, mut holds: impl AsyncFnMut() -> bool) -> Result<()> {
    wait_for(bound, what, async || if holds().await { Ok(()) } else { Err("it does not hold") }).await
}

/// Calls `probe` until it gives a value; after `bound` an error naming `what` and the last reason why there was none.
pub async fn wait_for<T, E: Display>(
    bound: Duration,
    what: &str,
    mut probe: impl AsyncFnMut() -> Result<T, E>,
) -> Result<T> {
    let deadline = Instant::now() + bound;
    let mut last = String::from("it was never answered");
    loop {
        match timeout_at(deadline, probe()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(reason)) => last = format!("{reason:#}"),
            Err(_) => last.push_str(", and the last look itself did not end"),
        }
        if Instant::now() + INTERVAL > deadline {
            bail!("waited {bound:?} for {what}: {last}");
        }
        sleep(INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(100);

    #[tokio::test]
    async fn a_state_that_comes_to_hold_ends_the_wait() -> Result<()> {
        let mut looks = 0;
        wait_until(Duration::from_secs(5), "the third look", async || {
            looks += 1;
            looks == 3
        })
        .await
    }

    #[tokio::test]
    async fn the_bound_ends_a_wait_and_names_what_was_missing() {
        let error = wait_until(SOON, "rain", async || false).await.unwrap_err();
        assert!(error.to_string().contains("for rain"), "{error}");
    }

    #[tokio::test]
    async fn a_look_that_never_ends_is_cut_by_the_bound() {
        let error = wait_until(SOON, "silence", async || std::future::pending().await).await.unwrap_err();
        assert!(error.to_string().contains("did not end"), "{error}");
    }

    #[tokio::test]
    async fn the_last_reason_is_part_of_the_error() {
        let error = wait_for(SOON, "a number", async || "x".parse::<u8>()).await.unwrap_err();
        assert!(error.to_string().contains("invalid digit"), "{error}");
    }
}
