//! Windows against their rules: one by one, and as a model of a whole tunnel whose streams come, stall, rush and go.

use std::{collections::VecDeque, sync::Arc, task::Wake};

use proptest::prelude::*;

use super::*;

const RTT: Duration = Duration::from_millis(50);

fn now() -> Instant {
    Instant::now()
}

/// Passes on `bytes` at `pace` for each part of the window; the last limit.
fn pass_on(granter: &mut Granter, pool: &Pool, mut bytes: u64, pace: Duration, clock: &mut Instant) -> u64 {
    while bytes > 0 {
        let step = bytes.min(1000);
        bytes -= step;
        if granter.consume(step) {
            *clock += pace;
            granter.extend(pool, RTT, *clock);
        }
    }
    granter.limit
}

#[test]
fn a_fast_reader_gets_the_largest_window_and_its_end_gives_it_back() {
    let pool = Pool::new(TunnelMemory::default());
    let (mut clock, free) = (now(), pool.free.load(Ordering::Relaxed));
    let mut granter = Granter::new(&pool, clock);
    pass_on(&mut granter, &pool, 8 << 20, RTT / 2, &mut clock);
    assert_eq!(granter.window, LARGEST_WINDOW);
    granter.close(&pool);
    assert_eq!(pool.free.load(Ordering::Relaxed), free);
}

#[test]
fn a_reader_slower_than_its_round_trips_keeps_the_first_window() {
    let pool = Pool::new(TunnelMemory::default());
    let mut clock = now();
    let mut granter = Granter::new(&pool, clock);
    let limit = pass_on(&mut granter, &pool, 8 << 20, RTT * 2, &mut clock);
    assert_eq!((granter.window, limit <= granter.consumed + pool.base), (pool.base, true));
}

#[test]
fn a_stream_that_has_become_slow_gives_back_what_it_uses_up() {
    let pool = Pool::new(TunnelMemory::default());
    let (mut clock, free) = (now(), pool.free.load(Ordering::Relaxed));
    let mut granter = Granter::new(&pool, clock);
    let limit = pass_on(&mut granter, &pool, 8 << 20, RTT / 2, &mut clock);
    let later = pass_on(&mut granter, &pool, 64 << 20, SLOW, &mut clock);
    assert!(later > limit);
    assert_eq!((granter.window, pool.free.load(Ordering::Relaxed)), (pool.base, free));
}

#[test]
fn a_thousand_that_stall_leave_a_large_window_to_the_one_that_is_read() {
    let pool = Pool::new(TunnelMemory::default());
    let mut clock = now();
    let mut granters: Vec<Granter> = (0..1000).map(|_| Granter::new(&pool, clock)).collect();
    for granter in &mut granters {
        // Into the buffers of a socket that nobody reads.
        pass_on(granter, &pool, 6 << 20, Duration::ZERO, &mut clock);
    }
    assert!(granters.iter().all(|granter| granter.window >= pool.base));
    let mut read = Granter::new(&pool, clock);
    pass_on(&mut read, &pool, 64 << 20, RTT / 2, &mut clock);
    assert!(read.window >= 4 << 20, "{}", read.window);
}

#[test]
fn memory_is_read_with_its_unit_and_within_its_bounds() {
    assert_eq!("64MiB".parse(), Ok(TunnelMemory::SMALLEST));
    assert_eq!("1024 GiB".parse(), Ok(TunnelMemory::LARGEST));
    for text in ["", "MiB", "512", "63MiB", "1025GiB", "18446744073709551615GiB", "-1GiB", "1GB"] {
        assert!(text.parse::<TunnelMemory>().is_err(), "{text}");
    }
}

/// A stream's direction: what its sender has sent, its receiver, and the grants under way between them.
struct Direction {
    credit: Credit,
    sent: u64,
    granter: Granter,
    grants: VecDeque<u64>,
    woken: Arc<Woken>,
}

#[derive(Default)]
struct Woken(AtomicU64);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Open,
    End(prop::sample::Index),
    Send(prop::sample::Index, u64),
    /// The receiver passes on at most so much of what was sent.
    PassOn(prop::sample::Index, u64),
    /// The oldest grant arrives; a newer one may have overtaken it.
    Grant(prop::sample::Index),
    Wait(Duration),
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        2 => Just(Step::Open),
        1 => index().prop_map(Step::End),
        6 => (index(), 1..20_000_000_u64).prop_map(|(at, bytes)| Step::Send(at, bytes)),
        6 => (index(), 1..20_000_000_u64).prop_map(|(at, bytes)| Step::PassOn(at, bytes)),
        6 => index().prop_map(Step::Grant),
        1 => (0..20_000_u64).prop_map(|ms| Step::Wait(Duration::from_millis(ms))),
    ]
}

impl Direction {
    fn new(pool: &Pool, clock: Instant) -> Self {
        Self {
            credit: Credit::new(pool.base()),
            sent: 0,
            granter: Granter::new(pool, clock),
            grants: VecDeque::new(),
            woken: Arc::default(),
        }
    }

    fn room(&self) -> Poll<u64> {
        let waker = self.woken.clone().into();
        self.credit.poll_room(self.sent, &mut Context::from_waker(&waker))
    }

    fn send(&mut self, bytes: u64) {
        if let Poll::Ready(room) = self.room() {
            assert!(room > 0);
            self.sent += room.min(bytes);
        }
        assert!(self.sent <= self.granter.limit, "more was sent than granted");
    }

    fn pass_on(&mut self, pool: &Pool, bytes: u64, clock: Instant) {
        let bytes = bytes.min(self.sent - self.granter.consumed);
        if self.granter.consume(bytes) {
            self.grants.push_back(self.granter.extend(pool, RTT, clock));
        }
    }

    fn grant(&mut self) {
        let Some(limit) = self.grants.pop_front() else { return };
        let woken = self.woken.0.load(Ordering::Relaxed);
        let waiting = self.room().is_pending();
        self.credit.grant(limit);
        let woke = self.woken.0.load(Ordering::Relaxed) > woken;
        assert!(!waiting || woke || self.room().is_pending(), "a sender sleeps on its credit");
    }
}

/// What all receivers may have to hold, and what a pool says of it.
fn assert_within(memory: TunnelMemory, pool: &Pool, directions: &[Direction]) {
    let granted: u64 = directions.iter().map(|it| it.granter.limit - it.granter.consumed).sum();
    let taken: u64 = directions.iter().map(|it| it.granter.window - pool.base).sum();
    assert!(granted <= memory.windows(), "{granted}");
    assert!(directions.iter().all(|it| it.granter.limit - it.granter.consumed <= it.granter.window));
    assert!(directions.iter().all(|it| (pool.base..=LARGEST_WINDOW).contains(&it.granter.window)));
    assert_eq!(taken + pool.free.load(Ordering::Relaxed), pool.size);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn windows_never_exceed_the_memory_and_no_sender_is_forgotten(
        memory in (64..2048_u64).prop_map(|mib| TunnelMemory::new(mib * MIB).unwrap()),
        steps in prop::collection::vec(step(), 1..400),
    ) {
        let pool = Pool::new(memory);
        let (mut clock, mut directions) = (now(), vec![Direction::new(&pool, now())]);
        for step in steps {
            match step {
                Step::Open => directions.push(Direction::new(&pool, clock)),
                Step::End(at) => {
                    let mut ended = directions.swap_remove(at.index(directions.len()));
                    ended.granter.close(&pool);
                    if directions.is_empty() {
                        directions.push(Direction::new(&pool, clock));
                    }
                }
                Step::Send(at, bytes) => at.get_mut(&mut directions).send(bytes),
                Step::PassOn(at, bytes) => at.get_mut(&mut directions).pass_on(&pool, bytes, clock),
                Step::Grant(at) => at.get_mut(&mut directions).grant(),
                Step::Wait(time) => clock += time,
            }
            assert_within(memory, &pool, &directions);
        }
        // Whoever is read goes on, whatever the others do.
        for direction in &mut directions {
            direction.pass_on(&pool, u64::MAX, clock);
            while !direction.grants.is_empty() {
                direction.grant();
            }
            prop_assert!(direction.room().is_ready());
            direction.granter.close(&pool);
        }
        prop_assert_eq!(pool.free.load(Ordering::Relaxed), pool.size);
    }
}
