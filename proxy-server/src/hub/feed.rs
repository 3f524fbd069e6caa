//! How a hub that drains keeps up with the one that serves: over a socket in the state folder, for its user alone, it hears of each
//! change of the registry, and decides as if it were its own; and of each agent that has come there, to know which have started anew.

use std::{
    fs::{self, File},
    io,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt, stream::FuturesUnordered};
use nix::unistd::Uid;
use registry::Registry;
use serde::{Deserialize, Serialize};
use store::{News, Revision};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::{Notify, broadcast::error::RecvError, watch},
    time::{sleep, timeout},
};
use tokio_util::{
    codec::{Framed, LengthDelimitedCodec},
    sync::CancellationToken,
};

use crate::{
    agents::tunnels::{Arrival, Tunnels},
    hub::succession::{Flag, LOOK},
};

/// Hubs that are told at a time: one drains.
const HUBS: usize = 4;

/// Bytes of one message: 100,000 clusters of 4 KiB as a whole.
const MESSAGE: usize = 1 << 30;

/// How long the other hub may take to say where it is, and to take a message. One that stands still asks anew.
const IO_TIMEOUT: Duration = Duration::from_secs(10);

/// What the hub that serves says.
#[derive(Serialize, Deserialize)]
enum FeedMessage {
    News(News),
    /// An agent has a tunnel there: what another process of it had is over.
    Arrived(Arrival),
    /// What is open there ends.
    End(EndReason),
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum EndReason {
    /// A certificate of its may have opened it.
    RevokedCa,
    /// An older one, or one begun anew: nobody knows what it would say of that.
    OtherRegistry,
}

/// Tells the hub before this one, for as long as there is one.
pub(crate) async fn publish(registry: &Registry, tunnels: &Tunnels, revoked: &Notify, folder: &Path) {
    let listener = match bind(folder) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::warn!(%error, "the hub before this one does not hear of changes, and drains with the rights that it knows");
            return Flag::Former.lowered(folder).await;
        }
    };
    let (revoke, is_revoked) = watch::channel(false);
    let (mut hubs, mut ended) = (FuturesUnordered::new(), pin!(Flag::Former.lowered(folder)));
    loop {
        tokio::select! {
            () = &mut ended => return,
            accepted = listener.accept(), if hubs.len() < HUBS => match accepted {
                // The folder may be open to others, if it was there before.
                Ok((hub, _)) if !is_own(&hub) => tracing::warn!("somebody else asked for what is in the registry"),
                Ok((hub, _)) => hubs.push(tell_one(hub, registry, tunnels, is_revoked.clone())),
                Err(error) => {
                    tracing::debug!(%error, "cannot accept the hub before this one");
                    sleep(LOOK).await;
                }
            },
            // The connection has ended: the other hub comes again.
            Some(Err(error)) = hubs.next() => tracing::debug!(%error, "the hub before this one is told no more"),
            () = revoked.notified() => drop(revoke.send(true)),
        }
    }
}

async fn tell_one(
    hub: UnixStream,
    registry: &Registry,
    tunnels: &Tunnels,
    mut revoked: watch::Receiver<bool>,
) -> io::Result<()> {
    let mut hub = framed(hub);
    let first = timeout(IO_TIMEOUT, hub.next()).await?.ok_or(io::ErrorKind::UnexpectedEof)??;
    let there: Revision = serde_json::from_slice(&first)?;
    let mut feed = registry.store().feed(there);
    let is_other = registry.store().revision() < there;
    let (mut present, mut coming) = tunnels.arrivals();
    loop {
        let told = tokio::select! {
            biased;
            Ok(_) = revoked.wait_for(|revoked| *revoked) => FeedMessage::End(EndReason::RevokedCa),
            () = std::future::ready(()), if is_other => FeedMessage::End(EndReason::OtherRegistry),
            news = feed.next() => match news {
                Some(news) => FeedMessage::News(news),
                None => return Ok(()),
            },
            arrival = async {
                match present.pop() {
                    Some(arrival) => Ok(arrival),
                    None => coming.recv().await,
                }
            } => match arrival {
                Ok(arrival) => FeedMessage::Arrived(arrival),
                Err(RecvError::Lagged(_)) => {
                    (present, coming) = tunnels.arrivals();
                    continue;
                }
                Err(RecvError::Closed) => return Ok(()),
            },
        };
        timeout(IO_TIMEOUT, hub.send(Bytes::from(serde_json::to_vec(&told)?))).await??;
        if matches!(told, FeedMessage::End(_)) {
            return Ok(());
        }
    }
}

/// Takes over what the hub that serves commits, whichever that is, and cancels `abort` when all is to end. Never returns otherwise.
pub(crate) async fn follow(registry: Arc<Registry>, tunnels: Arc<Tunnels>, folder: PathBuf, abort: CancellationToken) {
    loop {
        if let Ok(why) = apply_feed(&registry, &tunnels, &folder).await {
            tracing::warn!(?why, "the hub that serves now ends what is open here");
            return abort.cancel();
        }
        sleep(LOOK).await;
    }
}

/// Hears of the other hub's changes until it ends what is open here; an error when it is there no more, or not yet.
async fn apply_feed(registry: &Registry, tunnels: &Tunnels, folder: &Path) -> io::Result<EndReason> {
    let (_opened, path) = path(folder)?;
    let hub = UnixStream::connect(path).await?;
    if !is_own(&hub) {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let mut hub = framed(hub);
    let here: Revision = registry.store().revision();
    hub.send(Bytes::from(serde_json::to_vec(&here)?)).await?;
    while let Some(message) = hub.next().await {
        match serde_json::from_slice(&message?)? {
            FeedMessage::News(news) => registry.store().follow(news).await.map_err(io::Error::other)?,
            FeedMessage::Arrived(arrival) => tunnels.came_elsewhere(&arrival),
            FeedMessage::End(why) => return Ok(why),
        }
    }
    Err(io::ErrorKind::UnexpectedEof.into())
}

fn is_own(hub: &UnixStream) -> bool {
    hub.peer_cred().is_ok_and(|peer| peer.uid() == Uid::effective().as_raw())
}

fn framed(hub: UnixStream) -> Framed<UnixStream, LengthDelimitedCodec> {
    LengthDelimitedCodec::builder().max_frame_length(MESSAGE).new_framed(hub)
}

/// In the place of the one that a hub before has left.
fn bind(folder: &Path) -> io::Result<UnixListener> {
    let (_opened, path) = path(folder)?;
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => UnixListener::bind(path),
    }
}

/// The socket's path, by the folder's descriptor: a socket's address has 107 bytes (unix(7)).
fn path(folder: &Path) -> io::Result<(File, PathBuf)> {
    let folder = File::open(folder)?;
    let path = format!("/proc/self/fd/{}/feed", folder.as_raw_fd());
    Ok((folder, path.into()))
}

#[cfg(test)]
mod tests {
    use store::Txn;

    use super::*;

    async fn until(mut state: impl FnMut() -> bool) {
        let looks = async {
            while !state() {
                sleep(LOOK).await;
            }
        };
        timeout(Duration::from_secs(10), looks).await.unwrap();
    }

    #[tokio::test]
    async fn a_hub_that_drains_follows_each_one_that_serves_and_hears_of_a_revoked_ca() {
        let place = tempfile::tempdir().unwrap();
        // Longer than a socket's address.
        let folder = place.path().join("x".repeat(120));
        fs::create_dir(&folder).unwrap();
        let file = folder.join("registry.redb");
        let open = || Registry::open(&file).unwrap();
        let put = |key: &str| Txn::new().put(key, b"{}".to_vec());
        let before = Arc::new(open());
        before.store().commit(put("/a")).await.unwrap();
        before.release().await;
        let revoked = CancellationToken::new();
        // The second is there after the first has died.
        let serving = async {
            for key in ["/b", "/c"] {
                let drains = Flag::Former.raise(&folder).unwrap();
                assert!(drains.is_some(), "nobody else drains");
                let (next, tunnels, notify) = (open(), Tunnels::default(), Notify::new());
                next.store().commit(put(key)).await.unwrap();
                let doing = async {
                    until(|| before.store().get(key).is_some()).await;
                    next.store().commit(put(key).delete("/a")).await.unwrap();
                    until(|| before.store().list("") == next.store().list("")).await;
                    assert!(!revoked.is_cancelled());
                    if key == "/c" {
                        notify.notify_one();
                        until(|| revoked.is_cancelled()).await;
                    }
                };
                tokio::select! {
                    () = doing => {}
                    () = publish(&next, &tunnels, &notify, &folder) => panic!("the one before has not ended"),
                }
                next.close().await;
            }
        };
        let following = follow(Arc::clone(&before), Arc::default(), folder.clone(), revoked.clone());
        tokio::join!(following, serving);
    }
}
