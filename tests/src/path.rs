//! A path of UDP before one server: how long it takes and which way it leads can change under way.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::future::pending;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// The longest payload of a UDP datagram.
const LONGEST: usize = 65_507;

/// A path. It ends when dropped.
#[derive(Debug)]
pub struct Path {
    address: SocketAddr,
    weather: watch::Sender<Weather>,
    _task: JoinSet<()>,
}

/// What the path is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weather {
    /// Each way.
    pub delay: Duration,
    /// Whether what clients send arrives.
    pub there: bool,
    /// Whether what the server sends arrives.
    pub back: bool,
    /// Bytes of the largest datagram that arrives; larger ones vanish without a word.
    pub largest: usize,
}

impl Weather {
    /// Both ways are open, and take this long each.
    pub const fn fair(delay: Duration) -> Self {
        Self { delay, there: true, back: true, largest: LONGEST }
    }

    /// Nothing arrives.
    pub fn down() -> Self {
        Self { there: false, back: false, ..Self::fair(Duration::ZERO) }
    }
}

impl Path {
    /// Starts one to `server`.
    pub async fn start(server: SocketAddr, weather: Weather) -> io::Result<Self> {
        let inner = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?);
        let address = inner.local_addr()?;
        let (weather, seen) = watch::channel(weather);
        let mut task = JoinSet::new();
        task.spawn(async move {
            // A socket that fails ends the path: what goes along it shows that.
            let _ended: io::Result<()> = lead(inner, server, seen).await;
        });
        Ok(Self { address, weather, _task: task })
    }

    /// Where clients send to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes what it is like. What is under way arrives as it would have.
    pub fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }
}

/// What is under way, in the order in which it arrives: what takes as long keeps its order.
struct UnderWay<T> {
    sent: u64,
    datagrams: BTreeMap<(Instant, u64), T>,
}

impl<T> UnderWay<T> {
    fn new() -> Self {
        Self { sent: 0, datagrams: BTreeMap::new() }
    }

    fn send(&mut self, datagram: T, delay: Duration) {
        self.sent += 1;
        self.datagrams.insert((Instant::now() + delay, self.sent), datagram);
    }

    /// The next one, when it arrives.
    async fn arrives(&mut self) -> T {
        let Some((due, _)) = self.datagrams.keys().next() else { return pending().await };
        sleep_until(*due).await;
        match self.datagrams.pop_first() {
            Some((_, datagram)) => datagram,
            None => pending().await,
        }
    }
}

async fn lead(inner: Arc<UdpSocket>, server: SocketAddr, weather: watch::Receiver<Weather>) -> io::Result<()> {
    let mut clients: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
    let (mut under_way, mut answers) = (UnderWay::<(Arc<UdpSocket>, Vec<u8>)>::new(), JoinSet::new());
    let mut datagram = vec![0; LONGEST];
    loop {
        let (length, client) = tokio::select! {
            received = inner.recv_from(&mut datagram) => received?,
            (outer, datagram) = under_way.arrives() => {
                drop(outer.send(&datagram).await);
                continue;
            }
        };
        let outer = match clients.entry(client) {
            Entry::Occupied(known) => known.get().clone(),
            Entry::Vacant(new) => {
                let outer = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?);
                outer.connect(server).await?;
                answers.spawn(answer(inner.clone(), outer.clone(), client, weather.clone()));
                new.insert(outer).clone()
            }
        };
        let Weather { delay, there, largest, .. } = *weather.borrow();
        if there && length <= largest {
            under_way.send((outer, datagram[..length].to_vec()), delay);
        }
    }
}

async fn answer(inner: Arc<UdpSocket>, outer: Arc<UdpSocket>, client: SocketAddr, weather: watch::Receiver<Weather>) {
    let (mut under_way, mut datagram) = (UnderWay::<Vec<u8>>::new(), vec![0; LONGEST]);
    loop {
        let received = tokio::select! {
            received = outer.recv(&mut datagram) => received,
            datagram = under_way.arrives() => {
                drop(inner.send_to(&datagram, client).await);
                continue;
            }
        };
        // The server may be away for a while: the kernel tells that here.
        let Ok(length) = received else { continue };
        let Weather { delay, back, largest, .. } = *weather.borrow();
        if back && length <= largest {
            under_way.send(datagram[..length].to_vec(), delay);
        }
    }
}
