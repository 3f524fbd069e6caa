//! The threads that move bytes: each runs a single-threaded runtime, and a tunnel lives on one of them.
//!
//! A tunnel's packets, its streams and their clients' sockets then never cross threads: a work-stealing runtime takes 15 to 26
//! percent more CPU for the same bytes. The registry, the API and the gateway, which is a part of it,
//! have a runtime with as many threads beside them, and share those.

use std::{
    io,
    num::NonZeroU8,
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

/// How long workers may take to end once nothing is left for them to do.
const END_TIMEOUT: Duration = Duration::from_secs(2);

/// The hub's worker threads. They end when dropped.
#[derive(Debug)]
pub(crate) struct Workers {
    handles: Vec<Handle>,
    threads: Vec<JoinHandle<()>>,
    end: CancellationToken,
}

impl Workers {
    /// Starts `count` threads.
    pub(crate) fn start(count: NonZeroU8) -> io::Result<Self> {
        let mut workers = Self { handles: Vec::new(), threads: Vec::new(), end: CancellationToken::new() };
        for index in 0..count.get() {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            workers.handles.push(runtime.handle().clone());
            let end = workers.end.clone();
            let run = move || runtime.block_on(end.cancelled());
            workers.threads.push(thread::Builder::new().name(format!("worker-{index}")).spawn(run)?);
        }
        Ok(workers)
    }

    /// The runtime of each.
    pub(crate) fn handles(&self) -> &[Handle] {
        &self.handles
    }

    /// Ends them; what still runs on them is dropped.
    pub(crate) async fn stop(mut self) {
        self.end.cancel();
        let threads = std::mem::take(&mut self.threads);
        let joined = tokio::task::spawn_blocking(|| threads.into_iter().all(|thread| thread.join().is_ok()));
        match tokio::time::timeout(END_TIMEOUT, joined).await {
            Ok(Ok(true)) => {}
            Ok(Ok(false) | Err(_)) => tracing::error!("a worker panicked"),
            Err(_) => tracing::warn!("a worker did not end in time"),
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

/// As many workers as there are processors, at most 255.
pub(crate) fn default_count() -> NonZeroU8 {
    let processors = thread::available_parallelism().map_or(1, usize::from);
    u8::try_from(processors).ok().and_then(NonZeroU8::new).unwrap_or(NonZeroU8::MAX)
}
