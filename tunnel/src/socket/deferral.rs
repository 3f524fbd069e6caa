//! Deferral: a hub that has no room for a handshake tells its agent when to come again, in one datagram.
//!
//! ```text
//! 0x00 "later" │ milliseconds, 4 bytes, big-endian │ the connection id to which the agent sent its first packet
//! ```
//!
//! It is no QUIC packet (the fixed bit is 0, RFC 9000 section 17.2): an agent that does not know it drops it. The id is 20
//! random bytes, so that nobody can put an agent off who has not seen its first packet, and it is shorter than that.

use std::{
    collections::VecDeque,
    mem,
    sync::OnceLock,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use quinn_proto::ConnectionId;
use tokio::sync::watch;

const MAGIC: &[u8] = b"\0later";

/// The longest time for which an agent stays away because it was told so.
const LONGEST: Duration = Duration::from_secs(60);

/// Datagrams that are kept to be sent again: a ClientHello takes two.
const KEPT: usize = 2;

/// After this long without an answer or another question what was asked is asked again, once. quinn asks at 0, 0.3, 0.9, 2.1, 4.5 and
/// 9.3 s. The age of what is answered is taken for the first round trip: it must not be much.
const AGAIN: Duration = Duration::from_millis(600);

/// What a server says with its first words has at least so many bytes (RFC 9000 section 14.1). Fewer acknowledge.
const FIRST_WORDS: usize = 1200;

/// What came back on the socket of a connection that is dialled.
#[derive(Debug)]
pub(crate) struct FirstAnswers {
    /// Where the first packet went.
    id: OnceLock<ConnectionId>,
    asked: Mutex<Unanswered>,
    heard: watch::Sender<PeerSaid>,
}

/// What a peer was asked that has not answered yet.
#[derive(Debug)]
struct Unanswered {
    /// What was not asked again yet.
    newest: VecDeque<Vec<u8>>,
    last: Instant,
}

/// What a peer that is dialled has said.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PeerSaid {
    /// When it said something, from its answer on; at first, when it was dialled.
    pub(crate) last: Instant,
    /// It has answered.
    pub(crate) answered: bool,
    /// It has no room, and asks to come again then.
    pub(crate) later: Option<Duration>,
}

/// The datagram that puts off the agent whose first packet went to `id`.
pub(crate) fn datagram(id: &ConnectionId, wait: Duration) -> Vec<u8> {
    let milliseconds = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
    [MAGIC, &milliseconds.to_be_bytes(), id].concat()
}

impl FirstAnswers {
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        let asked = Mutex::new(Unanswered { newest: VecDeque::new(), last: now });
        Self {
            id: OnceLock::new(),
            asked,
            heard: watch::Sender::new(PeerSaid { last: now, answered: false, later: None }),
        }
    }

    /// Follows what the peer says.
    pub(crate) fn subscribe(&self) -> watch::Receiver<PeerSaid> {
        self.heard.subscribe()
    }

    /// Whether anybody wants to know: nobody does once the connection is made.
    pub(crate) fn are_awaited(&self) -> bool {
        self.heard.receiver_count() > 0
    }

    /// A datagram is sent. The first one need not be the connection's: what comes from elsewhere may be answered before.
    pub(crate) fn asked(&self, datagram: &[u8]) {
        let Some(id) = initial_id(datagram) else { return };
        self.id.get_or_init(|| id);
        if self.heard.borrow().answered {
            return;
        }
        let mut asked = self.asked.lock();
        asked.last = Instant::now();
        if asked.newest.len() == KEPT {
            asked.newest.pop_front();
        }
        asked.newest.push_back(datagram.to_vec());
    }

    /// What to ask again; and when to look next.
    ///
    /// QUIC asks more and more seldom (RFC 9002 section 6.2.1), where a hub that is back is to be found soon. The same datagrams cost
    /// nobody another handshake.
    pub(crate) fn ask_again(&self, now: Instant) -> (VecDeque<Vec<u8>>, Instant) {
        let mut asked = self.asked.lock();
        let due = asked.last + AGAIN;
        if now < due { (VecDeque::new(), due) } else { (mem::take(&mut asked.newest), now + AGAIN) }
    }

    /// A datagram has come.
    pub(crate) fn heard(&self, datagram: &[u8]) {
        let later = self.id.get().and_then(|id| read(datagram, id));
        self.heard.send_if_modified(|heard| {
            heard.answered |= later.is_some() || is_answer(datagram);
            heard.later = heard.later.or(later);
            if heard.answered {
                heard.last = Instant::now();
            }
            heard.answered
        });
        if self.heard.borrow().answered {
            self.asked.lock().newest = VecDeque::new();
        }
    }
}

/// Whether a server has answered, be it by asking for more (Retry). A hub whose first words were lost acknowledges and repeats itself,
/// more and more seldom: who waits for that is late, and asks it anew.
fn is_answer(datagram: &[u8]) -> bool {
    match datagram.first().map_or(0, |first| first & 0xf0) {
        0xf0 => true,
        0xc0 => datagram.len() >= FIRST_WORDS,
        _ => false,
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

    fn told(answers: &FirstAnswers) -> Option<Duration> {
        answers.heard.borrow().later
    }

    #[test]
    fn who_has_asked_hears_when_to_come() {
        let answers = FirstAnswers::new();
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
        let answers = FirstAnswers::new();
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
    fn what_was_asked_last_is_asked_again_once_until_there_is_an_answer() {
        const NOTHING: [Vec<u8>; 0] = [];
        let (answers, start) = (FirstAnswers::new(), Instant::now());
        let datagram = |number| [&INITIAL[..], &[number]].concat();
        let ask = |number| answers.asked(&datagram(number));
        let again = |after: u32| Vec::from(answers.ask_again(start + after * AGAIN).0);
        (0..9).for_each(ask);
        assert_eq!(again(0), NOTHING, "it was asked just now");
        assert_eq!(again(2), [datagram(7), datagram(8)]);
        assert_eq!(again(3), NOTHING);
        ask(9);
        // That the hub lives is no answer.
        answers.heard(&[0xc0; FIRST_WORDS - 1]);
        answers.heard(&[0xe0; FIRST_WORDS]);
        assert_eq!(again(3), [datagram(9)]);
        ask(10);
        answers.heard(&[0xc0; FIRST_WORDS]);
        ask(11);
        assert_eq!(again(9), NOTHING);
    }

    #[test]
    fn an_answer_of_any_kind_is_heard() {
        let answers = FirstAnswers::new();
        let heard = answers.subscribe();
        assert!(answers.are_awaited() && !heard.has_changed().unwrap());
        answers.heard(&[0xf0, 0, 0, 0, 1]);
        assert!(heard.has_changed().unwrap());
        drop(heard);
        assert!(!answers.are_awaited());
    }

    #[tokio::test]
    async fn a_hub_that_says_nothing_is_asked_the_same_again() {
        let silent = tokio::net::UdpSocket::bind(ANY).await.unwrap();
        let address = silent.local_addr().unwrap();
        let dialling = connect(address, tls().1, "hub", Settings::default(), SOON / 5);
        let asked = async {
            let (mut seen, mut buffer) = (std::collections::HashSet::new(), [0; 2048]);
            loop {
                let length = silent.recv(&mut buffer).await.unwrap();
                // quinn sends nothing twice: its packets have numbers.
                if !seen.insert(buffer[..length].to_vec()) {
                    return;
                }
            }
        };
        let (dialled, asked) = tokio::join!(dialling, tokio::time::timeout(SOON / 2, asked));
        assert!(matches!(dialled, Err(ConnectError::TimedOut(_))), "{dialled:?}");
        asked.expect("it is asked again");
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
        let answers = FirstAnswers::new();
        let mut heard = answers.subscribe();
        let start = Instant::now();
        let speaking = async {
            for word in [&[0xc0; FIRST_WORDS][..], b"anything", b"anything", b"anything"] {
                tokio::time::sleep(patience / 2).await;
                answers.heard(word);
            }
        };
        let (waited, ()) = tokio::join!(put_off(&mut heard, patience), speaking);
        assert_eq!(waited, None);
        assert!(start.elapsed() >= 3 * patience, "{:?}", start.elapsed());
    }
}
