//! Deferral: a hub that has no room for a handshake tells its agent when to come again, in one datagram.
//!
//! ```text
//! 0x00 "later" │ milliseconds, 4 bytes, big-endian │ the connection id to which the agent sent its first packet
//! ```
//!
//! It is no QUIC packet (the fixed bit is 0, RFC 9000 section 17.2): an agent that does not know it drops it. The id is 20
//! random bytes, so that nobody can put an agent off who has not seen its first packet, and it is shorter than that.

use std::{
    sync::OnceLock,
    time::{Duration, Instant},
};

use quinn_proto::ConnectionId;
use tokio::sync::watch;

const MAGIC: &[u8] = b"\0later";

/// The longest time for which an agent stays away because it was told so.
const LONGEST: Duration = Duration::from_secs(60);

/// What came back on the socket of a connection that is dialled.
#[derive(Debug)]
pub(crate) struct Answers {
    /// Where the first packet went.
    id: OnceLock<ConnectionId>,
    heard: watch::Sender<Heard>,
}

/// What a peer that is dialled has said.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heard {
    /// When it said something; at first, when it was dialled.
    pub(crate) last: Instant,
    /// It has no room, and asks to come again then.
    pub(crate) later: Option<Duration>,
}

/// The datagram that puts off the agent whose first packet went to `id`.
pub(crate) fn datagram(id: &ConnectionId, wait: Duration) -> Vec<u8> {
    let milliseconds = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
    [MAGIC, &milliseconds.to_be_bytes(), id].concat()
}

impl Answers {
    pub(crate) fn new() -> Self {
        let heard = Heard { last: Instant::now(), later: None };
        Self { id: OnceLock::new(), heard: watch::Sender::new(heard) }
    }

    /// Follows what the peer says.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Heard> {
        self.heard.subscribe()
    }

    /// Whether anybody wants to know: nobody does once the connection is made.
    pub(crate) fn are_awaited(&self) -> bool {
        self.heard.receiver_count() > 0
    }

    /// A datagram is sent. The first one need not be the connection's: what comes from elsewhere may be answered before.
    pub(crate) fn asked(&self, datagram: &[u8]) {
        if self.id.get().is_none()
            && let Some(id) = initial_id(datagram)
        {
            self.id.get_or_init(|| id);
        }
    }

    /// A datagram has come.
    pub(crate) fn heard(&self, datagram: &[u8]) {
        let later = self.id.get().and_then(|id| read(datagram, id));
        self.heard.send_modify(|heard| {
            heard.last = Instant::now();
            heard.later = heard.later.or(later);
        });
    }
}

/// The destination of an Initial packet (RFC 9000 section 17.2.2).
fn initial_id(datagram: &[u8]) -> Option<ConnectionId> {
    let [first, 0, 0, 0, 1, length, rest @ ..] = datagram else { return None };
    let id = rest.get(..usize::from(*length))?;
    (first & 0xf0 == 0xc0 && (8..=20).contains(&id.len())).then(|| ConnectionId::new(id))
}

/// For how long the datagram puts off who has asked at `id`.
fn read(datagram: &[u8], id: &ConnectionId) -> Option<Duration> {
    let (milliseconds, of) = datagram.strip_prefix(MAGIC)?.split_first_chunk()?;
    let wait = Duration::from_millis(u32::from_be_bytes(*milliseconds).into());
    (of == &id[..]).then(|| wait.min(LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::put_off;
    use crate::tests::{ANY, SOON, listen, tls};
    use crate::{ConnectError, Settings, connect};

    const INITIAL: [u8; 14] = [0xc0, 0, 0, 0, 1, 8, 1, 2, 3, 4, 5, 6, 7, 8];

    fn told(answers: &Answers) -> Option<Duration> {
        answers.heard.borrow().later
    }

    #[test]
    fn who_has_asked_hears_when_to_come() {
        let answers = Answers::new();
        // What quinn answers to a stranger is not what is asked.
        for other in
            [&[0x40; 80][..], &[0xc0, 0, 0, 0, 1, 64], &[0xc0; 80], &[0xe0, 0, 0, 0, 1, 8, 9, 9, 9, 9, 9, 9, 9, 9], &[]]
        {
            answers.asked(other);
        }
        answers.asked(&INITIAL);
        // After a Retry packets go elsewhere.
        answers.asked(&[0xc0, 0, 0, 0, 1, 8, 9, 9, 9, 9, 9, 9, 9, 9]);
        answers.heard(&datagram(&ConnectionId::new(&INITIAL[6..]), Duration::from_millis(2500)));
        assert_eq!(told(&answers), Some(Duration::from_millis(2500)));
    }

    #[test]
    fn nobody_is_put_off_by_who_has_not_seen_its_packet_and_nobody_for_long() {
        let answers = Answers::new();
        let (own, other) = (ConnectionId::new(&INITIAL[6..]), ConnectionId::new(&[1, 2, 3, 4, 5, 6, 7, 9]));
        answers.heard(&datagram(&own, Duration::from_secs(9)));
        answers.asked(&INITIAL);
        for forged in [datagram(&other, LONGEST), datagram(&ConnectionId::new(&[]), LONGEST), MAGIC.to_vec(), vec![]] {
            answers.heard(&forged);
            assert_eq!(told(&answers), None, "{forged:?}");
        }
        answers.heard(&datagram(&own, Duration::MAX));
        assert_eq!(told(&answers), Some(LONGEST));
    }

    #[test]
    fn an_answer_of_any_kind_is_heard() {
        let answers = Answers::new();
        let heard = answers.subscribe();
        assert!(answers.are_awaited() && !heard.has_changed().unwrap());
        answers.heard(&[0xf0, 0, 0, 0, 1]);
        assert!(heard.has_changed().unwrap());
        drop(heard);
        assert!(!answers.are_awaited());
    }

    #[tokio::test]
    async fn an_agent_that_is_put_off_ends_its_attempt_at_once_and_knows_when_to_come() {
        let (server, client) = tls();
        let listener = listen(ANY, server);
        let address = listener.local_address().unwrap();
        let dialling = connect(address, client, "hub", Settings::default(), SOON);
        let putting_off = async {
            let incoming = listener.accept().await.unwrap();
            // Also after it has shown that its address is its own.
            incoming.retry();
            listener.accept().await.unwrap().put_off(Duration::from_secs(7));
        };
        let (dialled, ()) =
            tokio::time::timeout(SOON / 2, async { tokio::join!(dialling, putting_off) }).await.unwrap();
        assert!(
            matches!(dialled, Err(ConnectError::Later { wait, .. }) if wait == Duration::from_secs(7)),
            "{dialled:?}"
        );
    }

    #[tokio::test]
    async fn a_hub_that_answers_and_then_says_nothing_is_given_up_and_one_that_goes_on_is_not() {
        let patience = Duration::from_millis(500);
        let answers = Answers::new();
        let mut heard = answers.subscribe();
        let start = Instant::now();
        let speaking = async {
            for _ in 0..4 {
                tokio::time::sleep(patience / 2).await;
                answers.heard(b"anything");
            }
        };
        let (waited, ()) = tokio::join!(put_off(&mut heard, patience), speaking);
        assert_eq!(waited, None);
        assert!(start.elapsed() >= 3 * patience, "{:?}", start.elapsed());
    }
}
