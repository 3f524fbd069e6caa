//! What the path to a hub carries, as its last tunnel has found out: the next one need not search.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use tunnel::{Mtu, Settings};

/// How long what was found counts: a path that carries more since is searched anew after that.
const COUNTS: Duration = Duration::from_secs(24 * 3600);

/// A tunnel that lived shorter may not have come to the end of its search, which takes six round trips.
const SEARCHED: Duration = Duration::from_secs(2);

/// The path of the last tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Path {
    hub: SocketAddr,
    mtu: Mtu,
    found: Instant,
}

impl Path {
    /// What is known after a tunnel to `hub` that lived from `up` to `now` and came as far as `mtu`; `known` was known before.
    pub(crate) fn after(
        known: Option<Self>,
        hub: SocketAddr,
        mtu: Option<Mtu>,
        up: Instant,
        now: Instant,
    ) -> Option<Self> {
        match known {
            Some(known) if known.hub == hub && Some(known.mtu) == mtu => Some(known),
            known if now - up < SEARCHED => known,
            _ => mtu.map(|mtu| Self { hub, mtu, found: up }),
        }
    }

    /// The settings for a tunnel to `address`.
    pub(crate) fn settings(known: Option<Self>, address: SocketAddr, settings: Settings) -> Settings {
        let counts = |known: &Self| known.hub == address && known.found.elapsed() < COUNTS;
        Settings { path: known.filter(counts).map(|known| known.mtu), ..settings }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_known_from_a_tunnel_that_lived_until_another_one_finds_less() {
        let hub = SocketAddr::from(([192, 0, 2, 1], 8091));
        let other = SocketAddr::from(([192, 0, 2, 2], 8091));
        let (large, small): (Option<Mtu>, Option<Mtu>) = ("9000".parse().ok(), "1500".parse().ok());
        let (up, short, long) = (Instant::now(), Duration::from_secs(1), Duration::from_secs(60));
        let settings = |known, address| Path::settings(known, address, Settings::default()).path;
        assert_eq!(Path::after(None, hub, small, up, up + short), None);
        let known = Path::after(None, hub, large, up, up + long);
        assert_eq!((settings(known, hub), settings(known, other)), (large, None));
        // What is confirmed does not count for longer, and what was short says nothing.
        assert_eq!(Path::after(known, hub, large, up + long, up + 2 * long), known);
        assert_eq!(Path::after(known, hub, None, up, up + short), known);
        assert_eq!(settings(Path::after(known, hub, small, up, up + long), hub), small);
        assert_eq!(Path::after(known, hub, None, up, up + long), None);
        assert_eq!(settings(Path::after(known, other, small, up, up + long), hub), None);
    }
}
