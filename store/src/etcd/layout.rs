//! The keys in etcd below the store's prefix: `store` (whose it is), `content` and each key of the store, and
//! `writers/<process>/<slot>` (the markers of its transactions).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::Etcd;

/// Turns the store's keys into etcd's and back.
#[derive(Debug)]
pub(super) struct Layout {
    root: String,
}

/// What a key of etcd is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place<'a> {
    Content(&'a str),
    Marker {
        writer: &'a str,
        slot: u64,
    },
    /// The store's identity, or nothing of ours.
    Other,
}

/// Tells this store from another one at the same place, as after etcd was made anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    pub(super) format: u64,
    pub(super) id: String,
}

/// What became of a transaction: the value of a marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Marker {
    /// The transaction, counted by its process.
    pub(super) number: u64,
    pub(super) outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Committed,
    /// A precondition did not hold.
    Refused,
    /// Its answer was lost, it had not been applied, and it cannot be any more.
    Fenced,
}

/// A process whose marker is older has long been answered, or is gone.
const DEAD_AFTER: Duration = Duration::from_secs(3600);

impl Layout {
    /// `None` when the prefix is too long.
    pub(super) fn new(prefix: &str) -> Option<Self> {
        let root = prefix.trim_end_matches('/').to_owned();
        (root.len() <= Etcd::MAX_PREFIX).then_some(Self { root })
    }

    /// First key and the one after the last.
    pub(super) fn range(&self) -> (String, String) {
        // '0' follows '/'.
        (format!("{}/", self.root), format!("{}0", self.root))
    }

    pub(super) fn store(&self) -> String {
        format!("{}/store", self.root)
    }

    pub(super) fn content(&self, key: &str) -> String {
        format!("{}/content{key}", self.root)
    }

    pub(super) fn marker(&self, writer: &str, slot: u64) -> String {
        format!("{}{slot}", self.writer(writer))
    }

    /// What every marker of a process begins with.
    pub(super) fn writer(&self, writer: &str) -> String {
        format!("{}/writers/{writer}/", self.root)
    }

    pub(super) fn place<'a>(&self, key: &'a [u8]) -> Place<'a> {
        let inside = str::from_utf8(key).ok().and_then(|key| key.strip_prefix(&self.root)?.strip_prefix('/'));
        let Some(inside) = inside else { return Place::Other };
        if let Some(key) = inside.strip_prefix("content") {
            return Place::Content(key);
        }
        let marker = inside.strip_prefix("writers/").and_then(|inside| inside.split_once('/'));
        match marker.and_then(|(writer, slot)| Some((writer, slot.parse().ok()?))) {
            Some((writer, slot)) => Place::Marker { writer, slot },
            None => Place::Other,
        }
    }
}

impl Identity {
    pub(super) const FORMAT: u64 = 1;

    pub(super) fn draw() -> Self {
        Self { format: Self::FORMAT, id: format!("{:032x}", rand::random::<u128>()) }
    }

    pub(super) fn to_json(&self) -> Vec<u8> {
        serde_json::json!({ "format": self.format, "id": self.id }).to_string().into()
    }

    pub(super) fn from_json(json: &[u8]) -> Option<Self> {
        serde_json::from_slice(json).ok()
    }
}

impl Marker {
    pub(super) fn to_value(self) -> Vec<u8> {
        let outcome = match self.outcome {
            Outcome::Committed => "committed",
            Outcome::Refused => "refused",
            Outcome::Fenced => "fenced",
        };
        format!("{} {outcome} {}", self.number, now()).into()
    }

    pub(super) fn from_value(value: &[u8]) -> Option<Self> {
        let mut words = str::from_utf8(value).ok()?.split(' ');
        let number = words.next()?.parse().ok()?;
        let outcome = match words.next()? {
            "committed" => Outcome::Committed,
            "refused" => Outcome::Refused,
            "fenced" => Outcome::Fenced,
            _ => return None,
        };
        Some(Self { number, outcome })
    }

    /// Whether a marker with this value was written so long ago that nobody waits for it.
    pub(super) fn is_dead(value: &[u8]) -> bool {
        let written = str::from_utf8(value).ok().and_then(|value| value.split(' ').nth(2)?.parse::<u64>().ok());
        written.is_some_and(|written| written.saturating_add(DEAD_AFTER.as_secs()) < now())
    }
}

/// Seconds since 1970. Only tells very old markers from others, so a wrong clock is harmless.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_key_is_found_again_at_its_place(prefix in "[a-z/]{0,20}", key in ".{0,40}", slot: u64) {
            let layout = Layout::new(&prefix).unwrap();
            let (first, end) = layout.range();
            let (content, marker) = (layout.content(&key), layout.marker("w", slot));
            prop_assert_eq!(layout.place(content.as_bytes()), Place::Content(&key));
            prop_assert_eq!(layout.place(marker.as_bytes()), Place::Marker { writer: "w", slot });
            for inside in [content, marker, layout.store()] {
                prop_assert!(first <= inside && inside < end);
            }
        }

        #[test]
        fn no_value_of_a_marker_panics(value: Vec<u8>) {
            let _ = (Marker::from_value(&value), Marker::is_dead(&value));
        }
    }

    #[test]
    fn a_marker_says_what_became_of_its_transaction() {
        for outcome in [Outcome::Committed, Outcome::Refused, Outcome::Fenced] {
            let marker = Marker { number: 7, outcome };
            assert_eq!(Marker::from_value(&marker.to_value()), Some(marker));
            assert!(!Marker::is_dead(&marker.to_value()));
        }
        assert!(Marker::is_dead(b"7 committed 1000000000"));
    }

    #[test]
    fn a_neighbour_with_a_longer_name_is_not_ours() {
        let layout = Layout::new("/cluster-proxy/").unwrap();
        assert_eq!(layout.place(b"/cluster-proxy2/content/a"), Place::Other);
        assert_eq!(layout.place(b"\xff"), Place::Other);
        assert!(Layout::new(&"x".repeat(129)).is_none());
    }
}
