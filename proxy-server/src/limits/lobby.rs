//! The lobby of a port: guests, who have connected and not shown yet who they are. It is small, of each source fewer still find
//! room in it, and where it is full the oldest guest makes room for the newest: who shows in time who it is, is let in however
//! many are silent beside it.
//!
//! Where a guest comes from is an address mostly; of the tunnels, whose number has a bound too, it is the agent.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
    future::pending,
    hash::Hash,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicIsize, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{
    limits::rates::{Rate, Rates},
    limits::shares::{Share, Shares},
    limits::source::Source,
    outcome::Outcome,
};

/// Guests of a port at a time, however large it is: one in TLS costs 40 KiB.
const MOST_GUESTS: usize = 2048;

/// Wrong tokens of one source that are looked at one by one. A program with an old token asks again every few seconds, and many
/// of those may share an address.
const MISTAKES: Rate = Rate { every: Duration::from_millis(200), burst: 50 };

/// How many guests there may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) guests: usize,
    /// Of one source. Clients behind one address have this much together.
    pub(crate) of_source: usize,
    /// Nobody younger makes room: where guests arrive faster than they can be served, each would push out the other.
    pub(crate) grace: Duration,
}

/// The guests of a port, and the connections of those who have shown who they are.
#[derive(Debug)]
pub(crate) struct Lobby<S: Eq + Hash = Source> {
    size: Size,
    inside: Mutex<Inside<S>>,
    known: Arc<Shares<Arc<str>>>,
    /// Wrong tokens.
    mistakes: Rates<S>,
    /// Told of each guest that goes.
    left: Notify,
    /// Who waits for room in it, in queues before it.
    before: AtomicIsize,
}

#[derive(Debug)]
struct Inside<S> {
    next: u64,
    /// In the order of their coming.
    guests: BTreeMap<u64, Waiting<S>>,
    by_source: HashMap<S, BTreeSet<u64>>,
}

#[derive(Debug)]
struct Waiting<S> {
    source: S,
    since: Instant,
    leave: CancellationToken,
}

/// A connection, which is a guest's at first. Leaves when dropped.
#[derive(Debug)]
pub(crate) struct Guest<S: Eq + Hash = Source> {
    lobby: Arc<Lobby<S>>,
    id: u64,
    source: S,
    leave: CancellationToken,
    user: OnceLock<Share<Arc<str>>>,
}

/// Why a guest has to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parting {
    /// It has not shown in time who it is.
    Late,
    /// A newer guest needed the room.
    CrowdedOut,
}

impl Parting {
    pub(crate) fn outcome(self) -> Outcome {
        match self {
            Self::Late => Outcome::Late,
            Self::CrowdedOut => Outcome::CrowdedOut,
        }
    }
}

impl Lobby {
    /// The lobby of a port with room for `connections`. Half of them may be guests, and half of those of one source: a guest
    /// that is served takes moments, so that this is thousands of clients a second, also behind one address. A quarter is what
    /// one user may have.
    pub(crate) fn of_port(connections: usize) -> Arc<Self> {
        let guests = (connections / 2).clamp(1, MOST_GUESTS);
        let size = Size { guests, of_source: guests.div_ceil(2), grace: Duration::ZERO };
        Self::new(size, connections.div_ceil(4))
    }
}

impl<S: Clone + Eq + Hash> Lobby<S> {
    /// One with room for `size`, of a port on which each user may have `per_user` connections.
    pub(crate) fn new(size: Size, per_user: usize) -> Arc<Self> {
        let inside = Inside { next: 0, guests: BTreeMap::new(), by_source: HashMap::new() };
        Arc::new(Self {
            size,
            inside: Mutex::new(inside),
            known: Shares::new(per_user),
            mistakes: Rates::new(MISTAKES),
            left: Notify::new(),
            before: AtomicIsize::new(0),
        })
    }

    /// Takes a guest in; `None` where everybody who could make room has come just now.
    pub(crate) fn enter(self: &Arc<Self>, source: S) -> Option<Guest<S>> {
        let Size { guests, of_source, grace } = self.size;
        let mut inside = self.inside.lock();
        let own = inside.count(&source);
        if own >= of_source {
            inside.push_out(&source.clone(), grace)?;
        } else if inside.guests.len() >= guests {
            let (largest, count) = inside.largest()?;
            // From who has more the room is taken at once: it is one source's doing that there is none.
            inside.push_out(&largest, if count > own + 1 { Duration::ZERO } else { grace })?;
        }
        let (id, leave) = (inside.next, CancellationToken::new());
        inside.next += 1;
        inside.guests.insert(id, Waiting { source: source.clone(), since: Instant::now(), leave: leave.clone() });
        inside.by_source.entry(source.clone()).or_default().insert(id);
        Some(Guest { lobby: self.clone(), id, source, leave, user: OnceLock::new() })
    }

    /// Waits until a guest has gone since somebody was told last.
    pub(crate) async fn left(&self) {
        self.left.notified().await;
    }

    /// Guests at present.
    pub(crate) fn guests(&self) -> usize {
        self.inside.lock().guests.len()
    }

    /// Guests of a source.
    pub(crate) fn guests_of(&self, source: &S) -> usize {
        self.inside.lock().count(source)
    }

    /// So many more wait before it.
    pub(crate) fn wait_before(&self, more: isize) {
        self.before.fetch_add(more, Ordering::Relaxed);
    }

    /// Guests, and who wants to be one.
    pub(crate) fn crowd(&self) -> usize {
        self.guests() + usize::try_from(self.before.load(Ordering::Relaxed)).unwrap_or_default()
    }
}

impl<S: Clone + Eq + Hash> Inside<S> {
    fn count(&self, source: &S) -> usize {
        self.by_source.get(source).map_or(0, BTreeSet::len)
    }

    /// The source with the most guests; of those that have as many, the one whose guest is the oldest.
    fn largest(&self) -> Option<(S, usize)> {
        let (source, guests) =
            self.by_source.iter().max_by_key(|(_, guests)| (guests.len(), Reverse(guests.first().copied())))?;
        Some((source.clone(), guests.len()))
    }

    /// Has the oldest of a source leave, unless it is younger than `grace`.
    fn push_out(&mut self, source: &S, grace: Duration) -> Option<()> {
        let oldest = *self.by_source.get(source)?.first()?;
        if self.guests.get(&oldest)?.since.elapsed() < grace {
            return None;
        }
        self.remove(oldest)?.leave.cancel();
        Some(())
    }
}

impl<S: Eq + Hash> Inside<S> {
    fn remove(&mut self, id: u64) -> Option<Waiting<S>> {
        let waiting = self.guests.remove(&id)?;
        if let Some(guests) = self.by_source.get_mut(&waiting.source) {
            guests.remove(&id);
            if guests.is_empty() {
                self.by_source.remove(&waiting.source);
            }
        }
        Some(waiting)
    }
}

impl<S: Clone + Eq + Hash> Guest<S> {
    /// Has shown to be `user`, and is no guest any more. False if the user has all the connections already that one may have.
    pub(crate) fn is_of(&self, user: &str) -> bool {
        if self.user.get().is_some() {
            return true;
        }
        let Some(share) = self.lobby.known.take(&user.into()) else { return false };
        // Another request of this connection may have been faster; what it took is enough.
        let _ = self.user.set(share);
        self.lobby.inside.lock().remove(self.id);
        true
    }

    /// The most connections that a user may have.
    pub(crate) fn most(&self) -> usize {
        self.lobby.known.most()
    }

    /// Has shown a token that nobody has; an error with the time to wait where its source does so too often. A right token is
    /// never kept waiting, whatever others of its source do.
    pub(crate) fn mistaken(&self) -> Result<(), Duration> {
        self.lobby.mistakes.spend(&self.source)
    }

    /// Resolves when the guest has to leave, after `patience` at the latest; never once it has shown who it is.
    pub(crate) async fn outstayed(&self, patience: Option<Duration>) -> Parting {
        let late = async {
            match patience {
                Some(patience) => tokio::time::sleep(patience).await,
                None => pending().await,
            }
        };
        let parting = tokio::select! {
            () = self.leave.cancelled() => Parting::CrowdedOut,
            () = late => Parting::Late,
        };
        if self.user.get().is_some() { pending().await } else { parting }
    }
}

impl<S: Eq + Hash> Drop for Guest<S> {
    fn drop(&mut self) {
        self.lobby.inside.lock().remove(self.id);
        self.lobby.left.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use futures_util::FutureExt;

    use super::*;

    const SIZE: Size = Size { guests: 5, of_source: 3, grace: Duration::ZERO };

    fn source(host: u8) -> Source {
        IpAddr::V4(Ipv4Addr::new(192, 0, 2, host)).into()
    }

    fn left(guest: &Guest) -> bool {
        guest.outstayed(None).now_or_never().is_some()
    }

    #[test]
    fn the_oldest_of_a_source_makes_room_for_its_newest_and_for_nobody_elses() {
        let lobby = Lobby::new(SIZE, 9);
        let other = lobby.enter(source(2)).unwrap();
        let many: Vec<_> = (0..5).map(|_| lobby.enter(source(1)).unwrap()).collect();
        assert_eq!(many.iter().map(left).collect::<Vec<_>>(), [true, true, false, false, false]);
        assert!(!left(&other));
        assert_eq!(lobby.guests(), 4);
    }

    #[test]
    fn in_a_full_lobby_room_is_made_by_who_has_the_most() {
        let lobby = Lobby::new(SIZE, 9);
        let many: Vec<_> = (0..3).map(|_| lobby.enter(source(1)).unwrap()).collect();
        let others: Vec<_> = (2..5).map(|host| lobby.enter(source(host)).unwrap()).collect();
        assert!(left(&many[0]) && !left(&many[1]));
        assert!(!others.iter().any(left));
    }

    #[test]
    fn of_many_sources_with_a_guest_each_the_oldest_makes_room() {
        let lobby = Lobby::new(SIZE, 9);
        let guests: Vec<_> = (0..40).map(|host| lobby.enter(source(host)).unwrap()).collect();
        assert!(guests[..35].iter().all(left) && !guests[35..].iter().any(left));
    }

    #[test]
    fn who_has_shown_who_it_is_stays_and_takes_no_room() {
        let lobby = Lobby::new(SIZE, 1);
        let known = lobby.enter(source(1)).unwrap();
        assert!(known.is_of("alice") && known.is_of("alice"));
        assert_eq!(lobby.guests(), 0);
        let _many: Vec<_> = (0..9).map(|_| lobby.enter(source(1)).unwrap()).collect();
        assert!(!left(&known));
        let second = lobby.enter(source(1)).unwrap();
        assert!(!second.is_of("alice") && second.is_of("bob"));
        drop(known);
        assert!(lobby.enter(source(1)).unwrap().is_of("alice"));
    }

    #[test]
    fn nobody_who_came_just_now_makes_room() {
        let lobby = Lobby::new(Size { grace: Duration::from_secs(60), ..SIZE }, 1);
        let guests: Vec<_> = (0..3).map(|_| lobby.enter(source(1)).unwrap()).collect();
        assert!(lobby.enter(source(1)).is_none());
        // But for those who have less.
        let others: Vec<_> = (2..5).map(|host| lobby.enter(source(host)).unwrap()).collect();
        assert!(left(&guests[0]) && !left(&guests[1]));
        let last = lobby.enter(source(6)).unwrap();
        // Now nobody has more than anybody else.
        assert!(lobby.enter(source(7)).is_none());
        drop((guests, others, last));
        assert_eq!(lobby.guests(), 0);
    }
}
