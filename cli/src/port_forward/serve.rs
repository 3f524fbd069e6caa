//! Serving the local ports: each connection accepted is one opened through the hub.

use std::{net::SocketAddr, sync::Arc};

use futures_util::future::join_all;
use process::Acceptor;
use tokio::{io::Interest, net::TcpStream, sync::Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Reporter, Target,
    entry::Entry,
    listen::Local,
    relay::{Broken, relay, reset_when_dropped},
    traffic::Traffic,
};

/// Connections of one port at a time; more wait in the listener's backlog.
const CONNECTIONS: usize = 1024;

/// What local ports lead to, and who is told of it.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    pub(crate) entry: Arc<Entry>,
    pub(crate) target: Target,
    pub(crate) reporter: Reporter,
    pub(crate) traffic: Arc<Traffic>,
}

/// What the connections of one port share.
#[derive(Debug)]
struct Port {
    address: SocketAddr,
    remote: u16,
    service: Service,
}

/// Serves until `stop`, with a task in `tasks` for each connection; `stop` resets those that are left.
pub(crate) async fn serve(locals: Vec<Local>, service: Service, tasks: &TaskTracker, stop: &CancellationToken) {
    let accepting = locals.into_iter().map(|local| {
        let Local { listener, address, remote } = local;
        let port = Port { address, remote, service: service.clone() };
        accept(listener, Arc::new(port), tasks, stop)
    });
    tokio::select! {
        _ = join_all(accepting) => {}
        () = stop.cancelled() => {}
    }
}

async fn accept(listener: tokio::net::TcpListener, port: Arc<Port>, tasks: &TaskTracker, stop: &CancellationToken) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let mut clients = Acceptor::new(listener, "forwarded");
    // The semaphore is never closed, so there is always a permit to wait for.
    while let Ok(permit) = room.clone().acquire_owned().await {
        let (local, _) = clients.next().await;
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
        // Until there is a target, whatever ends this resets the client; then the relay decides. The socket may be
        // gone already, which `left` sees.
        let _ = reset_when_dropped(&local);
        let Service { entry, target, reporter, traffic } = &self.service;
        let _connection = traffic.connection();
        reporter.accepted(self.address);
        let opened = tokio::select! {
            opened = entry.open(target, self.remote) => opened,
            // Nobody is left to be served; dropping the attempt cancels the hub's dial.
            () = left(&local) => return,
        };
        match opened {
            Ok(opened) => {
                // Latency matters more than packets.
                let _ = local.set_nodelay(true);
                // Both ends are reset; who has looked away is told why.
                if relay(local, opened, traffic).await == Err(Broken::Behind) {
                    reporter.broken(self.address);
                }
            }
            Err(error) => reporter.failed(self.address, &error.into()),
        }
    }
}

/// Resolves when the client has reset its connection. One that has only ended its direction still wants an answer.
async fn left(local: &TcpStream) {
    // An error of waiting is an error of the socket.
    let _ = local.ready(Interest::ERROR).await;
}
