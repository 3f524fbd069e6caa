//! Resolving names in the spoke, with the system's own resolver: `/etc/hosts`, search domains and all.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use dns_lookup::LookupErrorKind;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use crate::target::Host;

/// Look-ups at once. Each holds a thread of the runtime's 512 for as long as the name servers are silent, also after
/// its dial has been given up; a flood of dials to a broken zone must leave threads for the rest.
const LOOKUPS: usize = 64;

/// Addresses of a name that are tried. A name with more is a pool, of which any member will do.
const ADDRESSES: usize = 16;

/// How long the addresses of a denied name are taken for all that it has.
const FRESH: Duration = Duration::from_secs(5);

/// How long an address of a denied name is denied after it was last seen: answers take turns, and fail.
const REMEMBERED: Duration = Duration::from_secs(600);

/// Addresses that are remembered of one denied name.
const REMEMBERED_ADDRESSES: usize = 4096;

/// How long a dial waits for what a denied name resolves to now: a name server that is silent must hold up nothing that it has
/// nothing to do with.
const DENIED_LOOKUP_TIMEOUT: Duration = Duration::from_secs(1);

/// A denied name.
#[derive(Debug, Default)]
struct Denied {
    known: Mutex<Known>,
    /// Held while it is looked up.
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// What is known of a denied name.
#[derive(Debug, Default)]
struct Known {
    asked: Option<Instant>,
    seen: HashMap<IpAddr, Instant>,
    failing: bool,
}

/// The system's resolver, bounded. Clones are the same resolver.
#[derive(Clone, Debug)]
pub(crate) struct Resolver {
    permits: Arc<Semaphore>,
    lookups: TaskTracker,
    /// Of the names that the policy denies, and so of as many.
    denied: Arc<Mutex<HashMap<Host, Arc<Denied>>>>,
}

impl Resolver {
    pub(crate) fn new() -> Self {
        Self { permits: Arc::new(Semaphore::new(LOOKUPS)), lookups: TaskTracker::new(), denied: Arc::default() }
    }

    /// The addresses of `host` in the order to try them (RFC 8305 section 4): the resolver's, with the families taking
    /// turns. Bound the wait; a look-up that is given up ends by the resolver's own time-out.
    pub(crate) async fn resolve(&self, host: &Host, port: u16) -> io::Result<Vec<SocketAddr>> {
        let addresses = self.look_up(host).await?;
        Ok(interleave(addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect()))
    }

    /// Every address of `host`, a name that the policy denies, that was seen of late. A name that is known not to exist has
    /// none: a rule may speak of a service that this spoke does not have. `None` where no name server has said yet: go no
    /// further without the answer.
    pub(crate) async fn addresses_of_denied(&self, host: &Host) -> Option<Vec<IpAddr>> {
        let denied = self.denied.lock().entry(host.clone()).or_default().clone();
        // Late is no harm where something is known: what was seen stays denied.
        let _ = tokio::time::timeout(DENIED_LOOKUP_TIMEOUT, self.learn(host, &denied)).await;
        let known = denied.known.lock();
        known.is_told().then(|| known.seen.keys().copied().collect())
    }

    /// Looks the name up if that was not done of late. Goes on when nobody waits for it any more: the next one would begin anew.
    async fn learn(&self, host: &Host, denied: &Arc<Denied>) {
        let turn = denied.turn.clone().lock_owned().await;
        if denied.known.lock().asked.is_some_and(|asked| asked.elapsed() < FRESH) {
            return;
        }
        let (resolver, host, denied) = (self.clone(), host.clone(), denied.clone());
        let learning = self.lookups.spawn(async move {
            let answer = resolver.look_up(&host).await;
            denied.known.lock().learn(&host, answer, Instant::now());
            drop(turn);
        });
        // It ends without a word only with the runtime.
        let _ = learning.await;
    }

    /// An error of the kind `NotFound` says that there is no such name, any other that nobody has said.
    async fn look_up(&self, host: &Host) -> io::Result<Vec<IpAddr>> {
        let name = match host {
            Host::Address(address) => return Ok(vec![*address]),
            Host::Name(name) => name.clone(),
            // The root's dot: no search list, and no wildcard in it, comes first (resolv.conf(5), ndots).
            Host::Full(name) => format!("{name}."),
        };
        let permit = self.permits.clone().acquire_owned().await.map_err(io::Error::other)?;
        let lookup = self.lookups.spawn_blocking(move || {
            let _permit = permit;
            dns_lookup::lookup_host(&name).map(Iterator::collect).map_err(|error| {
                if matches!(error.kind(), LookupErrorKind::NoName | LookupErrorKind::NoData) {
                    return io::Error::new(io::ErrorKind::NotFound, error);
                }
                error.into()
            })
        });
        lookup.await.map_err(io::Error::other)?
    }
}

impl Known {
    fn is_told(&self) -> bool {
        self.asked.is_some() || !self.seen.is_empty()
    }

    fn learn(&mut self, host: &Host, answer: io::Result<Vec<IpAddr>>, now: Instant) {
        let failing = answer.as_ref().is_err_and(|error| error.kind() != io::ErrorKind::NotFound);
        match answer {
            Ok(addresses) => self.seen.extend(addresses.into_iter().map(|address| (address, now))),
            Err(error) if !self.failing && self.is_told() => {
                tracing::warn!(name = %host, %error, "a name that the policy denies does not resolve; its last addresses stay denied");
            }
            Err(error) if !self.failing => {
                tracing::warn!(name = %host, %error, "a name that the policy denies cannot be looked up; every dial is refused until it can");
            }
            Err(_) => {}
        }
        // What cannot be asked is not forgotten either.
        if !failing {
            self.asked = Some(now);
            self.seen.retain(|_, seen| now.duration_since(*seen) < REMEMBERED);
        }
        while self.seen.len() > REMEMBERED_ADDRESSES
            && let Some(oldest) = self.seen.iter().min_by_key(|(_, seen)| **seen).map(|(address, _)| *address)
        {
            self.seen.remove(&oldest);
        }
        self.failing = failing;
    }
}

fn interleave(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let Some(first) = addresses.first().copied() else { return addresses };
    let (same, other): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv4() == first.is_ipv4());
    let mut other = other.into_iter();
    let mut ordered = Vec::new();
    for address in same {
        ordered.push(address);
        ordered.extend(other.next());
    }
    ordered.extend(other);
    // The resolver repeats an address for every line of /etc/hosts that has it.
    let mut seen = std::collections::HashSet::new();
    ordered.retain(|address| seen.insert(*address));
    ordered.truncate(ADDRESSES);
    ordered
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| SocketAddr::new(text.parse().unwrap(), 1)).collect()
    }

    #[test]
    fn an_address_of_a_denied_name_stays_denied_while_it_cannot_be_asked() {
        let (mut known, host, start) = (Known::default(), Host::Name("a".into()), Instant::now());
        let held = |known: &Known| {
            let mut held: Vec<_> = known.seen.keys().map(ToString::to_string).collect();
            held.sort();
            held
        };
        known.learn(&host, Ok(ips(&["10.0.0.1"])), start);
        // Answers that take turns are all of the name.
        known.learn(&host, Ok(ips(&["10.0.0.2", "10.0.0.2"])), start + FRESH);
        assert_eq!(held(&known), ["10.0.0.1", "10.0.0.2"]);
        known.learn(&host, Err(io::Error::other("no answer")), start + 2 * REMEMBERED);
        assert_eq!(held(&known), ["10.0.0.1", "10.0.0.2"]);
        known.learn(&host, Ok(ips(&["10.0.0.3"])), start + 2 * REMEMBERED);
        assert_eq!(held(&known), ["10.0.0.3"]);
        let many = (0..5000_u32).map(|n| std::net::Ipv4Addr::from(n).into()).collect();
        known.learn(&host, Ok(many), start + 2 * REMEMBERED + FRESH);
        assert_eq!(known.seen.len(), REMEMBERED_ADDRESSES);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_name_server_holds_up_nothing_beside_a_denied_name_that_is_known() {
        let (resolver, host): (_, Host) = (Resolver::new(), "vault".parse().unwrap());
        let denied = Arc::new(Denied::default());
        denied.known.lock().seen.insert([10, 0, 0, 1].into(), Instant::now());
        resolver.denied.lock().insert(host.clone(), denied.clone());
        // A look-up that does not end.
        let _asking = denied.turn.clone().lock_owned().await;
        let asked = tokio::time::timeout(2 * DENIED_LOOKUP_TIMEOUT, resolver.addresses_of_denied(&host)).await;
        assert_eq!(asked.expect("the dial waits for the name server"), Some(vec![[10, 0, 0, 1].into()]));
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_denied_name_resolves_to_is_told_or_nothing_is_opened() {
        let (resolver, host): (_, Host) = (Resolver::new(), "vault".parse().unwrap());
        let denied = Arc::new(Denied::default());
        resolver.denied.lock().insert(host.clone(), denied.clone());
        let asking = denied.turn.clone().lock_owned().await;
        assert_eq!(resolver.addresses_of_denied(&host).await, None, "the name server is silent");
        denied.known.lock().learn(&host, Err(io::Error::other("SERVFAIL")), Instant::now());
        assert_eq!(resolver.addresses_of_denied(&host).await, None, "the name server fails");
        denied.known.lock().learn(&host, Err(io::ErrorKind::NotFound.into()), Instant::now());
        drop(asking);
        assert_eq!(resolver.addresses_of_denied(&host).await, Some(Vec::new()), "there is no such name");
    }

    #[test]
    fn families_take_turns_beginning_with_the_resolvers_choice() {
        assert_eq!(
            interleave(addresses(&["::1", "::2", "::3", "10.0.0.1", "10.0.0.2"])),
            addresses(&["::1", "10.0.0.1", "::2", "10.0.0.2", "::3"])
        );
        assert_eq!(interleave(addresses(&["10.0.0.1", "::1", "::2"])), addresses(&["10.0.0.1", "::1", "::2"]));
        assert_eq!(interleave(addresses(&["10.0.0.1", "10.0.0.1"])), addresses(&["10.0.0.1"]));
        assert_eq!(interleave(Vec::new()), Vec::new());
    }

    #[tokio::test]
    async fn an_address_is_itself() {
        let host = "192.0.2.1".parse().unwrap();
        assert_eq!(Resolver::new().resolve(&host, 1).await.unwrap(), addresses(&["192.0.2.1"]));
    }

    #[tokio::test]
    async fn the_hosts_own_names_are_known() {
        let found = Resolver::new().resolve(&"localhost".parse().unwrap(), 7).await.unwrap();
        assert!(found.iter().all(|address| address.ip().is_loopback() && address.port() == 7), "{found:?}");
    }

    proptest! {
        #[test]
        fn nothing_is_invented_and_the_first_stays_first(hosts in proptest::collection::vec((any::<bool>(), 0_u8..4), 1..40)) {
            let given: Vec<_> = hosts.into_iter().map(|(v4, last)| {
                let ip = if v4 { [10, 0, 0, last].into() } else { IpAddr::from([0, 0, 0, 0, 0, 0, 0, u16::from(last)]) };
                SocketAddr::new(ip, 1)
            }).collect();
            let ordered = interleave(given.clone());
            prop_assert_eq!(ordered[0], given[0]);
            prop_assert!(ordered.iter().all(|address| given.contains(address)));
            prop_assert!(ordered.len() <= ADDRESSES);
        }
    }
}
