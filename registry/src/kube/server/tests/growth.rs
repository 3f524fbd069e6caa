//! Nobody's writes open to anybody what their author could not do: random sequences of writes by random authors.
//!
//! Before a sequence a lord changes the world and gives the author some rights. Then the author writes, by every kind of
//! request, and after each write that was let through everybody's rights are counted again.

mod steps;
mod world;

use std::thread;

use self::steps::Step;
use self::world::{Account, World};

/// In all; each is a few writes.
const SEQUENCES: u64 = 10_000;
const WRITES: u64 = 4;
/// After so many sequences a hub has seen everything of its small world.
const PER_HUB: u64 = 250;

/// Numbers drawn from a seed (SplitMix64): a failure names its seed and comes again.
pub(super) struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut drawn = self.0;
        drawn = (drawn ^ (drawn >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        drawn = (drawn ^ (drawn >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (drawn ^ (drawn >> 31)) % sides
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::try_from(self.roll(of.len() as u64)).unwrap()]
    }

    /// Each of them or not.
    fn some<T: Copy>(&mut self, of: &[T]) -> Vec<T> {
        of.iter().copied().filter(|_| self.roll(2) == 0).collect()
    }

    /// Most of them.
    fn most<T: Copy>(&mut self, of: &[T]) -> Vec<T> {
        of.iter().copied().filter(|_| self.roll(4) > 0).collect()
    }

    fn chance(&mut self, of: u64) -> bool {
        self.roll(of) == 0
    }
}

#[test]
fn nobody_opens_by_writes_what_they_could_not_do() {
    let workers = thread::available_parallelism().map_or(2, usize::from) as u64;
    let hubs = SEQUENCES / PER_HUB;
    let accepted: u64 = thread::scope(|scope| {
        let worker = |at| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            (at..hubs)
                .step_by(usize::try_from(workers).unwrap())
                .map(|seed| runtime.block_on(history(seed)))
                .sum::<u64>()
        };
        let running: Vec<_> = (0..workers).map(|at| scope.spawn(move || worker(at))).collect();
        running.into_iter().map(|worker| worker.join().unwrap()).sum()
    });
    // Refusals alone would prove nothing.
    assert!(accepted > SEQUENCES / 4, "{accepted} writes were let through");
}

/// The sequences of one hub; how many of their writes were let through.
async fn history(seed: u64) -> u64 {
    let mut dice = Dice(seed);
    let mut world = World::new().await;
    let mut accepted = 0;
    for sequence in 0..PER_HUB {
        for _ in 0..dice.roll(4) {
            let step = Step::draw(&mut dice);
            let lord = world.hub.admin().caller;
            world.take(&lord, &step, &mut dice).await;
        }
        world.settle().await;
        let author = dice.one(&world::AUTHORS);
        let rules = steps::rights(&mut dice);
        world.hub.grant(author, "", rules.clone()).await;
        let author = world.hub.user(author).caller;
        let held = world.held(&author);
        // Who could do it if a cluster that is not there joined now could do it before.
        let mut known = world.rights(true);
        let mut taken = Vec::new();
        for _ in 0..WRITES {
            let step = Step::draw(&mut dice);
            let done = world.take(&author, &step, &mut dice).await;
            taken.push((step, done.clone()));
            if done.is_none() {
                continue;
            }
            accepted += 1;
            for (account, may) in world.rights(false) {
                let Account { user, groups } = &account;
                let known = known.get(&account);
                for probe in may {
                    assert!(
                        held.contains(&probe) || known.is_some_and(|known| known.contains(&probe)),
                        "seed {seed}, sequence {sequence}: {} with {rules}\nlets {user} {groups:?} {}\nby {taken:#?}",
                        author.user,
                        world::PROBES[probe].join(" "),
                    );
                }
            }
            for (account, may) in world.rights(true) {
                known.entry(account).or_default().extend(may);
            }
        }
    }
    accepted
}
