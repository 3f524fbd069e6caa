//! The signals that a service heeds: those that stop it, and the one that has it open its files anew.

use std::{convert::Infallible, future::pending, io};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// SIGTERM and SIGINT, which end the process no more.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

/// SIGHUP, which ends the process no more.
#[derive(Debug)]
pub struct Hangup(Signal);

impl Signals {
    /// Heeds them from now on.
    pub fn listen() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits until the process is told to stop.
    pub async fn told(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Waits for the end of what `run` makes of two tokens: the first signal cancels the first one, to drain, and the second
    /// the other, to cut. SIGHUP calls `reopen`.
    pub async fn govern<F: Future>(
        mut self,
        hangup: Hangup,
        reopen: impl Fn(),
        run: impl FnOnce(CancellationToken, CancellationToken) -> F,
    ) -> F::Output {
        let (stop, abort) = (CancellationToken::new(), CancellationToken::new());
        let running = run(stop.clone(), abort.clone());
        tokio::select! {
            ended = running => ended,
            never = self.forward([stop, abort]) => match never {},
            never = hangup.forward(reopen) => match never {},
        }
    }

    async fn forward(&mut self, tokens: [CancellationToken; 2]) -> Infallible {
        for token in tokens {
            self.told().await;
            token.cancel();
        }
        pending().await
    }
}

impl Hangup {
    /// Heeds it from now on.
    pub fn listen() -> io::Result<Self> {
        signal(SignalKind::hangup()).map(Self)
    }

    async fn forward(mut self, reopen: impl Fn()) -> Infallible {
        while self.0.recv().await.is_some() {
            reopen();
        }
        pending().await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU8, Ordering};

    use nix::sys::signal::{Signal, raise};

    use super::*;

    #[tokio::test]
    async fn the_first_signal_drains_and_the_second_cuts() {
        let (signals, hangup, reopened) = (Signals::listen().unwrap(), Hangup::listen().unwrap(), AtomicU8::new(0));
        let reopen = || {
            reopened.fetch_add(1, Ordering::Relaxed);
            raise(Signal::SIGTERM).unwrap();
        };
        raise(Signal::SIGHUP).unwrap();
        let ended = signals.govern(hangup, reopen, |stop, abort| async move {
            stop.cancelled().await;
            assert!(!abort.is_cancelled());
            raise(Signal::SIGINT).unwrap();
            abort.cancelled().await;
            "ended"
        });
        assert_eq!((ended.await, reopened.load(Ordering::Relaxed)), ("ended", 1));
    }
}
