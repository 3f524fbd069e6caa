//! Serving the local ports: each connection accepted is one opened through the hub.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use futures_util::future::join_all;
use tokio::{net::TcpStream, sync::Semaphore, time::sleep};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Target,
    entry::Entry,
    forwarded::{Forwarded, reset},
    listen::Local,
};
use crate::failure::Failure;

/// Connections of one port at a time; more wait in the listener's backlog.
const CONNECTIONS: usize = 1024;

/// After an error of accept, as when the process has no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Who is told what happens to connections of a local address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Events {
    pub(crate) accepted: fn(SocketAddr),
    pub(crate) failed: fn(SocketAddr, &Failure),
}

/// What the connections of one port share.
#[derive(Debug)]
struct Port {
    address: SocketAddr,
    remote: u16,
    target: Target,
    entry: Arc<Entry>,
    events: Events,
}

/// Serves until `stop`, with a task in `tasks` for each connection; `stop` resets those that are left.
pub(crate) async fn serve(
    locals: Vec<Local>,
    entry: Arc<Entry>,
    target: Target,
    events: Events,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) {
    let accepting = locals.into_iter().map(|local| {
        let Local { listener, address, remote } = local;
        let port = Port { address, remote, target: target.clone(), entry: entry.clone(), events };
        accept(listener, Arc::new(port), tasks, stop)
    });
    tokio::select! {
        _ = join_all(accepting) => {}
        () = stop.cancelled() => {}
    }
}

async fn accept(listener: tokio::net::TcpListener, port: Arc<Port>, tasks: &TaskTracker, stop: &CancellationToken) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    // The semaphore is never closed, so there is always a permit to wait for.
    while let Ok(permit) = room.clone().acquire_owned().await {
        let Ok((local, _)) = listener.accept().await else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let (port, stop) = (port.clone(), stop.clone());
        tasks.spawn(async move {
            let _permit = permit;
            tokio::select! {
                () = port.forward(local) => {}
                () = stop.cancelled() => {}
            }
        });
    }
}

impl Port {
    async fn forward(&self, local: TcpStream) {
        // Until there is a target, whatever ends this resets the client.
        let unopened = Unopened(Some(local));
        (self.events.accepted)(self.address);
        match self.entry.open(&self.target, self.remote).await {
            Ok(opened) => {
                if let Some(local) = unopened.take() {
                    // Latency matters more than packets; a relay that breaks off has told both ends by resetting them.
                    let _ = local.set_nodelay(true);
                    let _ = Forwarded::relay(local, opened).await;
                }
            }
            Err(error) => (self.events.failed)(self.address, &error.into()),
        }
    }
}

/// A client that is reset when dropped.
struct Unopened(Option<TcpStream>);

impl Unopened {
    fn take(mut self) -> Option<TcpStream> {
        self.0.take()
    }
}

impl Drop for Unopened {
    fn drop(&mut self) {
        if let Some(local) = &self.0 {
            reset(local);
        }
    }
}
