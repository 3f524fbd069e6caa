//! Trying several addresses of one host, each a little after the one before (Happy Eyeballs, RFC 8305 section 5).

use std::{future::Future, net::SocketAddr, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};

/// How long an attempt has for itself before the next begins: RFC 8305's Connection Attempt Delay.
const HEAD_START: Duration = Duration::from_millis(250);

/// The first attempt that succeeds; the others are dropped, which ends them. When all fail, the error that `telling`
/// ranks highest, of equal ones the earliest; `None` when there are no addresses. Bound the wait.
pub(crate) async fn race<T, E, F: Future<Output = Result<T, E>>>(
    addresses: &[SocketAddr],
    connect: impl Fn(SocketAddr) -> F,
    telling: impl Fn(&E) -> u8,
) -> Result<T, Option<E>> {
    let mut waiting = addresses.iter();
    let mut running = FuturesUnordered::new();
    let mut worst: Option<E> = None;
    loop {
        if let Some(address) = waiting.next() {
            running.push(connect(*address));
        } else if running.is_empty() {
            return Err(worst);
        }
        let more = waiting.len() > 0;
        let head_start = tokio::time::sleep(HEAD_START);
        tokio::pin!(head_start);
        // Until the next attempt is due: nothing is left to start, or this one's head start is over.
        while let Some(ended) = tokio::select! {
            ended = running.next() => ended,
            () = &mut head_start, if more => None,
        } {
            match ended {
                Ok(connected) => return Ok(connected),
                Err(error) => {
                    if worst.as_ref().is_none_or(|worst| telling(&error) > telling(worst)) {
                        worst = Some(error);
                    }
                    if more {
                        break;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use tokio::time::{Instant, sleep};

    use super::*;

    fn addresses(count: u8) -> Vec<SocketAddr> {
        (0..count).map(|last| SocketAddr::from(([10, 0, 0, last], 1))).collect()
    }

    fn index(address: SocketAddr) -> usize {
        let std::net::IpAddr::V4(v4) = address.ip() else { panic!("IPv4 only") };
        v4.octets()[3].into()
    }

    /// Attempt `n` ends after `plan[n].0` milliseconds; the error is the second number, its own rank.
    async fn run(plan: &[(u64, Result<(), u8>)]) -> (Result<usize, Option<u8>>, u128) {
        let start = Instant::now();
        let connect = |address| async move {
            let (delay, result) = plan[index(address)];
            sleep(Duration::from_millis(delay)).await;
            result.map(|()| index(address))
        };
        let result = race(&addresses(plan.len().try_into().unwrap()), connect, |error| *error).await;
        (result, start.elapsed().as_millis())
    }

    #[tokio::test(start_paused = true)]
    async fn a_fast_first_address_is_the_only_one() {
        assert_eq!(run(&[(10, Ok(())), (0, Ok(()))]).await, (Ok(0), 10));
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_address_costs_its_head_start() {
        assert_eq!(run(&[(60_000, Err(1)), (60_000, Err(1)), (5, Ok(()))]).await, (Ok(2), 505));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_starts_the_next_at_once() {
        assert_eq!(run(&[(10, Err(1)), (10, Err(1)), (10, Ok(()))]).await, (Ok(2), 30));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_first_address_may_still_win() {
        assert_eq!(run(&[(300, Ok(())), (100, Ok(()))]).await, (Ok(0), 300));
    }

    #[tokio::test(start_paused = true)]
    async fn when_all_fail_the_most_telling_error_is_kept() {
        assert_eq!(run(&[(10, Err(1)), (20, Err(3)), (400, Err(2))]).await.0, Err(Some(3)));
        assert_eq!(run(&[]).await.0, Err(None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_race_drops_its_attempts() {
        struct Attempt(Arc<AtomicUsize>);
        impl Drop for Attempt {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        let running = Arc::new(AtomicUsize::new(0));
        let connect = |_| {
            running.fetch_add(1, Ordering::Relaxed);
            let attempt = Attempt(running.clone());
            async move {
                let _attempt = attempt;
                std::future::pending::<Result<(), u8>>().await
            }
        };
        let addresses = addresses(3);
        let race = race(&addresses, connect, |error| *error);
        assert!(tokio::time::timeout(Duration::from_secs(1), race).await.is_err());
        assert_eq!(running.load(Ordering::Relaxed), 0);
    }
}
