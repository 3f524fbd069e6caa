//! The hub's services: what must run for as long as the hub does. The first that ends before it, or panics, ends the hub.

use std::thread;

use tokio::{runtime::Handle, sync::watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Why a hub ended unasked. Serving on without the part, it would keep what it says no more: whose rights were revoked, or who
/// is there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    #[error("a part of the hub, {0}, ended by itself; look at the log before this line, and start the hub again")]
    Ended(&'static str),
    #[error("a part of the hub, {0}, panicked; report what the log says before this line, and start the hub again")]
    Panicked(&'static str),
}

/// Starts services and watches over them.
#[derive(Clone, Debug)]
pub(crate) struct Services {
    tasks: TaskTracker,
    failed: watch::Sender<Option<RunError>>,
}

/// Tells, by being dropped, that a service runs no more.
struct Running {
    service: &'static str,
    /// When it may end.
    end: CancellationToken,
    failed: watch::Sender<Option<RunError>>,
}

impl Services {
    pub(crate) fn new(tasks: TaskTracker) -> Self {
        Self { tasks, failed: watch::Sender::new(None) }
    }

    /// Runs a service until `end`.
    pub(crate) fn spawn(
        &self,
        service: &'static str,
        on: &Handle,
        end: &CancellationToken,
        run: impl Future<Output = ()> + Send + 'static,
    ) {
        let running = Running { service, end: end.clone(), failed: self.failed.clone() };
        self.tasks.spawn_on(
            async move {
                let running = running;
                // Boxed: a future of any size, which is started once.
                running.end.run_until_cancelled(Box::pin(run)).await;
            },
            on,
        );
    }

    /// Waits for a service to fail.
    pub(crate) async fn failed(&self) -> RunError {
        let mut failed = self.failed.subscribe();
        // The sender is this one's own.
        let error = failed.wait_for(Option::is_some).await.ok().and_then(|failed| failed.clone());
        match error {
            Some(error) => error,
            None => std::future::pending().await,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let error = match thread::panicking() {
            true => RunError::Panicked(self.service),
            false if self.end.is_cancelled() => return,
            false => RunError::Ended(self.service),
        };
        self.failed.send_if_modified(|failed| {
            let first = failed.is_none();
            failed.get_or_insert(error);
            first
        });
    }
}

#[cfg(test)]
mod tests {
    use std::{future::pending, time::Duration};

    use tokio::time::timeout;

    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    fn services() -> (Services, CancellationToken, Handle) {
        (Services::new(TaskTracker::new()), CancellationToken::new(), Handle::current())
    }

    #[tokio::test]
    async fn a_service_that_ends_or_panics_is_told_by_its_name() {
        let (services, end, here) = services();
        services.spawn("one that runs", &here, &end, pending());
        services.spawn("one that ends", &here, &end, async {});
        assert_eq!(timeout(SOON, services.failed()).await, Ok(RunError::Ended("one that ends")));

        let (services, end, here) = self::services();
        services.spawn("one that panics", &here, &end, async { panic!("as asked") });
        assert_eq!(timeout(SOON, services.failed()).await, Ok(RunError::Panicked("one that panics")));
    }

    #[tokio::test]
    async fn at_its_end_every_service_may_end() {
        let (services, end, here) = services();
        let ended = end.clone();
        services.spawn("one that is ended", &here, &end, pending());
        services.spawn("one that ends itself then", &here, &end, async move { ended.cancelled().await });
        end.cancel();
        services.tasks.close();
        timeout(SOON, services.tasks.wait()).await.expect("both end");
        assert!(services.failed.borrow().is_none());
    }

    #[tokio::test]
    async fn a_service_whose_thread_has_gone_is_told() {
        let (services, end, _) = services();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        services.spawn("one elsewhere", runtime.handle(), &end, pending());
        runtime.shutdown_background();
        assert_eq!(timeout(SOON, services.failed()).await, Ok(RunError::Ended("one elsewhere")));
    }
}
