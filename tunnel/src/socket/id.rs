//! The hub's connection ids: a random number, which also says where packets lead (`steering.rs`), and a tag by which a hub knows that
//! it has made the id, also after a restart. Nobody can tell the next one from those that were.

use std::cell::Cell;

use aws_lc_rs::hmac;
use quinn_proto::ConnectionId;

use crate::endpoint::RESET_KEY_LENGTH;

/// Of the number, and of the tag: a packet that nobody has sent to a hub looks like one of its own once in four thousand million.
const NUMBER: usize = size_of::<u64>();
const TAG: usize = 4;
pub(crate) const LENGTH: usize = NUMBER + TAG;

/// Makes ids, and recognises them.
#[derive(Clone, Debug)]
pub(crate) struct IdKey(hmac::Key);

impl IdKey {
    /// One of the hub's reset key alone, of which nothing else is made in the same way.
    pub(crate) fn new(reset_key: &[u8; RESET_KEY_LENGTH]) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, reset_key);
        Self(hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&key, b"connection ids").as_ref()))
    }

    /// The id of a number.
    pub(crate) fn id(&self, number: u64) -> ConnectionId {
        let mut id = [0; LENGTH];
        let (bytes, tag) = id.split_at_mut(NUMBER);
        bytes.copy_from_slice(&number.to_be_bytes());
        tag.copy_from_slice(&hmac::sign(&self.0, bytes).as_ref()[..TAG]);
        ConnectionId::new(&id)
    }

    /// Whether an id is of this key.
    pub(crate) fn has_made(&self, id: &[u8]) -> bool {
        let Some((number, _)) = id.split_first_chunk() else { return false };
        *self.id(u64::from_be_bytes(*number)) == *id
    }
}

thread_local! {
    /// quinn tells nobody the id that a connection begins with; but it draws it while it accepts, on the same thread.
    static DRAWN: Cell<u64> = const { Cell::new(0) };
}

/// Remembers an id's number for [`drawn`].
pub(crate) fn drew(number: u64) {
    DRAWN.set(number);
}

/// The number of the id that was drawn last on this thread.
pub(crate) fn drawn() -> u64 {
    DRAWN.get()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_known_by_its_key_alone() {
        let [one, other] = [1, 2].map(|byte| IdKey::new(&[byte; RESET_KEY_LENGTH]));
        let id = one.id(0x0123_4567_89ab_cdef);
        assert_eq!(id[..NUMBER], 0x0123_4567_89ab_cdef_u64.to_be_bytes());
        assert!(one.has_made(&id) && !other.has_made(&id));
        for other in [&[][..], &id[..NUMBER], &[&id[..], &[0]].concat()] {
            assert!(!one.has_made(other));
        }
    }
}
