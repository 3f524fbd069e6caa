//! Fuzz targets: what reads strangers' bytes, and the invariants that hold for any of them. `make fuzz` runs them.
//!
//! A file is a target: its first line says what it attacks and what must hold. To see a failure again, run
//! `target/debug/fuzz` on the file that `make fuzz` has left in `target/fuzz/<target>/`.

mod cost;
mod forward;
mod gateway_path;
mod head;
mod hpack;
mod packets;
mod patch;
mod protobuf;
mod selector;
mod socks5;
mod stored;
mod wire;
mod yaml;

/// What is fuzzed.
#[derive(Debug)]
pub struct Target {
    pub name: &'static str,
    /// Where the fuzzer begins.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Panics where an invariant does not hold for these bytes.
    pub check: fn(&[u8]),
}

/// All targets, in the order in which they are run.
pub static TARGETS: [Target; 11] = [
    Target { name: "head", seeds: head::seeds, check: head::check },
    Target { name: "gateway_path", seeds: gateway_path::seeds, check: gateway_path::check },
    Target { name: "forward", seeds: forward::seeds, check: forward::check },
    Target { name: "socks5", seeds: socks5::seeds, check: socks5::check },
    Target { name: "hpack", seeds: hpack::seeds, check: hpack::check },
    Target { name: "packets", seeds: packets::seeds, check: packets::check },
    Target { name: "wire", seeds: wire::seeds, check: wire::check },
    Target { name: "yaml", seeds: yaml::seeds, check: yaml::check },
    Target { name: "protobuf", seeds: protobuf::seeds, check: protobuf::check },
    Target { name: "patch", seeds: patch::seeds, check: patch::check },
    Target { name: "selector", seeds: selector::seeds, check: selector::check },
];

#[cfg(test)]
mod tests {
    use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};

    use super::*;

    /// Inputs near the seeds of each target.
    const NEAR: usize = 1000;

    #[test]
    fn every_target_holds_for_its_seeds_and_what_is_near() {
        for target in &TARGETS {
            let seeds = (target.seeds)();
            seeds.iter().for_each(|seed| (target.check)(seed));
            let mut random = StdRng::seed_from_u64(1);
            for _ in 0..NEAR {
                let mut input = seeds.choose(&mut random).unwrap().clone();
                for _ in 0..random.random_range(1..4) {
                    change(&mut input, seeds.choose(&mut random).unwrap(), &mut random);
                }
                (target.check)(&input);
            }
        }
    }

    /// Sets a byte, or puts a part of `other` in the place of a part of `input`.
    fn change(input: &mut Vec<u8>, other: &[u8], random: &mut StdRng) {
        let mut part = |length: usize| {
            let start = random.random_range(0..=length);
            start..random.random_range(start..=length.min(start + 20))
        };
        let (old, new) = (part(input.len()), part(other.len()));
        match (random.random(), input.get_mut(old.start)) {
            (true, Some(byte)) => *byte = random.random(),
            _ => drop(input.splice(old, other[new].iter().copied())),
        }
    }

    #[test]
    fn targets_and_seeds_are_told_apart() {
        for (at, target) in TARGETS.iter().enumerate() {
            assert!(TARGETS[..at].iter().all(|other| other.name != target.name));
            assert!(!(target.seeds)().is_empty(), "{}", target.name);
        }
    }
}
