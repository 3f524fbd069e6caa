//! The queue of handshakes that find no room in the lobby, in the order of arrival. It is as long as what can be completed
//! before those who wait give up; the others are told when to come again.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    agents::handshake_rate::{Away, HandshakeRate, LONGEST},
    limits::lobby::{Guest, Lobby},
    limits::source::Source,
};

/// How many may wait, however fast they get their turns, and however slowly.
const MOST: usize = 4096;
const LEAST: usize = 64;

/// The longest that one is told to wait of whose source nobody waits: turns are given to many that will not come, too, and each
/// puts off the next. A fleet of 5,000 sources takes as long.
const STRANGERS: Duration = Duration::from_secs(10);

/// What waits before a lobby.
#[derive(Debug)]
pub(crate) struct HandshakeQueue<T> {
    lobby: Arc<Lobby>,
    /// After this long whoever waits has given up: to begin with it would be work for nothing.
    patience: Duration,
    waiting: VecDeque<Waiting<T>>,
    by_source: HashMap<Source, Share>,
    pace: HandshakeRate,
    /// Of the sources of which nobody waits.
    strangers: Away,
    /// Somebody has waited for room since the queue was empty.
    full: bool,
}

/// What the queue has to do.
#[derive(Debug)]
pub(crate) struct Turn<T> {
    /// Who is next, and its place in the lobby.
    pub(crate) next: Option<(T, Guest)>,
    /// Whose patience has ended, and when to come again.
    pub(crate) late: Vec<(T, Duration)>,
}

#[derive(Debug)]
struct Waiting<T> {
    what: T,
    source: Source,
    since: Instant,
}

/// What of one source waits.
#[derive(Debug, Default)]
struct Share {
    count: usize,
    away: Away,
}

impl<T> HandshakeQueue<T> {
    pub(crate) fn new(lobby: Arc<Lobby>, patience: Duration) -> Self {
        let (waiting, by_source, pace) = (VecDeque::new(), HashMap::new(), HandshakeRate::default());
        Self { lobby, patience, waiting, by_source, pace, strangers: Away::default(), full: false }
    }

    /// Lets it in behind those that wait. Where more wait than can get their turn in time, of all or, half as many, of one source,
    /// it is given back with the time after which to come again: agents behind one address are many, and leave room for others.
    /// Who comes from where fewer wait is let in for the last one from where most do, which is given back then.
    pub(crate) fn push(&mut self, what: T, source: Source, now: Instant) -> Result<(), (T, Duration)> {
        let most = self.pace.within(self.patience).clamp(LEAST, MOST);
        let own = self.count(&source);
        self.by_source.get_mut(&source).map_or(&mut self.strangers, |share| &mut share.away).came(now);
        if own >= most / 2 {
            return Err((what, self.later(&source, now)));
        }
        let put_off = if self.waiting.len() < most { None } else { self.make_room(own, now) };
        if self.waiting.len() >= most && put_off.is_none() {
            return Err((what, self.later(&source, now)));
        }
        self.by_source.entry(source).or_default().count += 1;
        self.lobby.wait_before(1);
        self.waiting.push_back(Waiting { what, source, since: now });
        put_off.map_or(Ok(()), Err)
    }

    fn count(&self, source: &Source) -> usize {
        self.by_source.get(source).map_or(0, |share| share.count)
    }

    /// Takes the last one out of the source of which most wait, if that stays ahead of one of which `own` wait.
    fn make_room(&mut self, own: usize, now: Instant) -> Option<(T, Duration)> {
        let (source, share) = self.by_source.iter().max_by_key(|(_, share)| share.count)?;
        let (source, count) = (*source, share.count);
        let last = self.waiting.iter().rposition(|waiting| waiting.source == source)?;
        if count <= own + 1 {
            return None;
        }
        let wait = self.later(&source, now);
        Some((self.take(last)?.what, wait))
    }

    /// When one of a source is to come again: the sources get their turns side by side.
    fn later(&mut self, source: &Source, now: Instant) -> Duration {
        let sources = self.by_source.len().max(1);
        match self.by_source.get_mut(source) {
            Some(Share { count, away }) => self.pace.later(*count, sources, away, LONGEST, now),
            None => self.pace.later(self.waiting.len(), 1, &mut self.strangers, STRANGERS, now),
        }
    }

    /// Who is next, of those that wait the first whose source has room in the lobby; and all whose patience has ended before.
    pub(crate) fn next(&mut self, now: Instant) -> Turn<T> {
        let mut late = Vec::new();
        while let Some(Waiting { since, source, .. }) = self.waiting.front()
            && now.duration_since(*since) >= self.patience
        {
            let source = *source;
            let wait = self.later(&source, now);
            late.extend(self.take(0).map(|waiting| (waiting.what, wait)));
        }
        let next = self.admit();
        match &next {
            Some(_) if self.full => self.pace.turn(now),
            Some(_) => {}
            None => self.full = true,
        }
        if self.waiting.is_empty() {
            self.full = false;
            self.pace.rests();
            self.strangers = Away::default();
        }
        Turn { next, late }
    }

    fn admit(&mut self) -> Option<(T, Guest)> {
        // One try for each source: where one of its own found no room, none does.
        let mut tried: Vec<Source> = Vec::new();
        for index in 0..self.waiting.len() {
            let source = self.waiting[index].source;
            if tried.len() == self.by_source.len() {
                break;
            }
            if tried.contains(&source) {
                continue;
            }
            match self.lobby.enter(source) {
                Some(guest) => return self.take(index).map(|waiting| (waiting.what, guest)),
                // For a source without a guest there is room where there is any.
                None if self.lobby.guests_of(&source) == 0 => return None,
                None => tried.push(source),
            }
        }
        None
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    fn take(&mut self, index: usize) -> Option<Waiting<T>> {
        let waiting = self.waiting.remove(index)?;
        self.lobby.wait_before(-1);
        if let Some(share) = self.by_source.get_mut(&waiting.source) {
            share.count -= 1;
            if share.count == 0 {
                self.by_source.remove(&waiting.source);
            }
        }
        Some(waiting)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;
    use crate::limits::lobby::Size;

    const PATIENCE: Duration = Duration::from_secs(2);

    fn source(host: u8) -> Source {
        IpAddr::V4(Ipv4Addr::new(192, 0, 2, host)).into()
    }

    fn queue(guests: usize, of_source: usize) -> HandshakeQueue<u32> {
        HandshakeQueue::new(Lobby::new(Size { guests, of_source, grace: Duration::from_secs(60) }, 1), PATIENCE)
    }

    #[test]
    fn turns_come_in_the_order_of_arrival_as_places_are_left() {
        let (mut queue, now) = (queue(2, 2), Instant::now());
        for number in 0..5 {
            queue.push(number, source(1), now).unwrap();
        }
        let mut inside = Vec::new();
        while let Some(next) = queue.next(now).next {
            inside.push(next);
        }
        assert_eq!(inside.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [0, 1]);
        inside.remove(0);
        assert_eq!(queue.next(now).next.unwrap().0, 2);
    }

    #[test]
    fn a_source_that_fills_its_share_holds_up_nobody_else() {
        let (mut queue, now) = (queue(3, 2), Instant::now());
        for number in 0..5 {
            queue.push(number, source(1), now).unwrap();
        }
        queue.push(9, source(2), now).unwrap();
        let inside: Vec<_> = std::iter::from_fn(|| queue.next(now).next).collect();
        assert_eq!(inside.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [0, 1, 9]);
    }

    #[test]
    fn who_has_given_up_is_not_begun_with() {
        let (mut queue, now) = (queue(1, 1), Instant::now());
        queue.push(0, source(1), now).unwrap();
        queue.push(1, source(1), now + PATIENCE).unwrap();
        let Turn { next, late } = queue.next(now + PATIENCE);
        let late: Vec<_> = late.into_iter().map(|(who, _)| who).collect();
        assert_eq!((next.unwrap().0, late), (1, vec![0]));
        assert!(queue.is_empty() && queue.by_source.is_empty());
    }

    #[test]
    fn what_waits_is_bounded_in_all_and_of_one_source() {
        let (mut queue, now) = (queue(1, 1), Instant::now());
        let waits = |queue: &mut HandshakeQueue<u32>, host| {
            (0..).take_while(|n| queue.push(*n, source(host), now).is_ok()).count()
        };
        // A turn a millisecond is what a queue takes for its pace at first.
        let most = 2000;
        assert_eq!(waits(&mut queue, 1), most / 2);
        assert_eq!(waits(&mut queue, 2), most - most / 2);
        // Who comes from elsewhere has the place of the last one of those.
        assert_eq!(queue.push(7, source(3), now).unwrap_err().0, 999);
        assert_eq!((queue.waiting.len(), queue.count(&source(3))), (most, 1));
    }

    #[test]
    fn a_crowd_that_is_put_off_again_and_again_puts_off_nobody_from_elsewhere() {
        let (mut queue, now) = (queue(4, 2), Instant::now());
        for number in 0..20_000 {
            let _ = queue.push(number, source(1 + (number % 4) as u8), now);
        }
        let (_, of_crowd) = queue.push(0, source(1), now).unwrap_err();
        assert!(of_crowd > Duration::from_secs(10), "{of_crowd:?}");
        let before = queue.waiting.len();
        for number in 50_000..50_100 {
            let (put_off, _) = queue.push(number, source(9), now).unwrap_err();
            assert!(put_off < 20_000, "it is put off itself");
        }
        assert_eq!((queue.waiting.len(), queue.count(&source(9))), (before, 100));
        // Even one for whom there is no room hears of its own place alone.
        let own = queue.later(&source(9), now);
        assert!(own < Duration::from_secs(1), "{own:?}");
    }

    /// A fleet that comes at once, before a lobby that completes `a_second`, and a third of that for the first `slow` ticks: until
    /// when all are served, in multiples of the least time, and how often each was put off.
    fn storm(agents: u32, a_second: u32, sources: u8, of_source: usize, slow: u32) -> (f64, f64) {
        let (mut queue, start) = (queue(192, of_source), Instant::now());
        let (mut inside, mut begun, mut put_off) = (VecDeque::new(), vec![0; agents as usize], 0_u32);
        // By the tick at which they come, a millisecond each; in what order they were let in.
        let mut coming: std::collections::BTreeMap<u32, Vec<u32>> = [(0, (0..agents).collect())].into();
        let (mut arrivals, mut arrived, mut order, mut seed) =
            (0, HashMap::new(), vec![0; usize::from(sources)], 7_u64);
        let mut jitter = |wait: Duration| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (wait.as_millis() as f64 * (0.5 + (seed >> 40) as f64 / (1_u64 << 24) as f64) / 3.0) as u32
        };
        let (mut served, mut tick, mut due) = (0, 0, 0.0);
        while served < agents {
            assert!(tick < 600_000, "{served} of {agents} are served");
            let now = start + Duration::from_millis(tick.into());
            let a_tick = f64::from(a_second) / if tick < slow { 3000.0 } else { 1000.0 };
            due = f64::min(due + a_tick, 192.0);
            while due >= 1.0 && inside.pop_front().is_some() {
                (served, due) = (served + 1, due - 1.0);
            }
            let mut back = Vec::new();
            for agent in coming.remove(&tick).unwrap_or_default() {
                let own = (agent % u32::from(sources)) as u8;
                let put_off = queue.push(agent, source(own), now).err();
                if put_off.is_none_or(|(who, _)| who != agent) {
                    arrivals += 1;
                    arrived.insert(agent, arrivals);
                }
                back.extend(put_off);
            }
            loop {
                let Turn { next, late } = queue.next(now);
                back.extend(late);
                let Some((agent, guest)) = next else { break };
                begun[agent as usize] += 1;
                let last = &mut order[(agent % u32::from(sources)) as usize];
                assert!(arrived[&agent] >= *last, "who came first is let in first");
                *last = arrived[&agent];
                inside.push_back(guest);
            }
            put_off += u32::try_from(back.len()).unwrap();
            for (agent, wait) in back {
                coming.entry(tick + jitter(wait).max(1)).or_default().push(agent);
            }
            tick += 1;
        }
        assert!(begun.iter().all(|times| *times == 1), "what is begun is completed, and nothing is begun twice");
        let least = f64::from(slow) * 2.0 / 3.0 + f64::from(agents) / f64::from(a_second) * 1000.0;
        (f64::from(tick) / least, f64::from(put_off) / f64::from(agents))
    }

    #[test]
    fn a_fleet_that_comes_at_once_is_served_as_fast_as_can_be_and_each_of_it_once() {
        for (agents, a_second, sources, of_source, slow) in [
            (1_000, 400, 1, 128, 0),
            (5_000, 400, 1, 128, 0),
            (5_000, 1_000, 200, 128, 0),
            (10_000, 250, 1, 128, 0),
            (10_000, 700, 3, 128, 0),
            (5_000, 900, 1, 128, 3_000),
            (10_000, 900, 1, 128, 3_000),
            (10_000, 900, 100, 128, 5_000),
            (50_000, 900, 1, 128, 3_000),
        ] {
            let (took, put_off) = storm(agents, a_second, sources, of_source, slow);
            assert!(
                took < if slow == 0 { 1.25 } else { 1.5 } && put_off < 5.0,
                "{agents} at {a_second}: {took} times the least, put off {put_off} times"
            );
        }
    }

    #[test]
    fn a_crowd_of_strangers_behind_one_address_puts_nobody_else_off() {
        let (mut queue, now) = (queue(4, 2), Instant::now());
        while queue.push(0, source(1), now).is_ok() {}
        for number in 1..100 {
            queue.push(number, source(2), now).unwrap();
        }
        let inside: Vec<_> = std::iter::from_fn(|| queue.next(now).next).collect();
        assert_eq!(inside.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [0, 0, 1, 2]);
    }
}
