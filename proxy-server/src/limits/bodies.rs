//! The bodies that are read whole, and those of answers: how much memory they may take together, and how much each user of that.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use dashmap::DashMap;
use http_body_util::BodyExt;
use hyper::body::Body;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// All bodies together. Read as JSON or YAML a body can take thirty times its length; what is read is read on as many threads
/// as there are processors, so that this stays below what a hub's tunnels may hold (`--tunnel-memory`).
const TOGETHER: usize = 48 << 20;

/// Those of one user: four of the largest. Four users must conspire to have another one wait.
const OF_USER: usize = 12 << 20;

/// What is set aside for a body of unknown length; one that is longer is given all that it may take.
const FIRST: usize = 64 << 10;

/// How long a body may wait for room, and then take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes for which there is one permit.
const UNIT: usize = 1 << 10;

/// All answers that wait for their clients, and those of one user: a list of 10,000 clusters is 20 MB.
const ANSWERS_TOGETHER: usize = 256 << 20;
const ANSWERS_OF_USER: usize = 64 << 20;

/// The memory for bodies.
#[derive(Debug)]
pub(crate) struct Bodies {
    requests: Budget,
    answers: Budget,
}

#[derive(Debug)]
struct Budget {
    together: Arc<Semaphore>,
    by_user: DashMap<Arc<str>, Arc<Semaphore>>,
    of_user: usize,
}

/// A body, and its room as long as it is needed.
#[derive(Debug)]
pub(crate) struct BufferedBody {
    pub(crate) bytes: Bytes,
    pub(crate) room: Room,
}

/// Given back when dropped.
#[derive(Debug)]
pub(crate) struct Room {
    bytes: usize,
    _permits: [OwnedSemaphorePermit; 2],
}

/// Why there is no body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BodyFault {
    #[error("the body is too large; send at most {0} bytes")]
    TooLarge(usize),
    #[error("the body did not arrive in time")]
    Late,
    #[error("the body did not arrive whole")]
    Broken,
    #[error("too many large requests are under way, of you or of all; try again in a second")]
    Crowded,
}

impl Default for Bodies {
    fn default() -> Self {
        Self { requests: Budget::new(TOGETHER, OF_USER), answers: Budget::new(ANSWERS_TOGETHER, ANSWERS_OF_USER) }
    }
}

fn semaphore(bytes: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(bytes / UNIT))
}

impl Bodies {
    /// Reads a body of `user`, of at most `limit` bytes.
    pub(crate) async fn read<B>(&self, mut body: B, user: &str, limit: usize) -> Result<BufferedBody, BodyFault>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let told = body.size_hint().exact().map(|length| usize::try_from(length).unwrap_or(usize::MAX));
        if told.is_some_and(|length| length > limit) {
            pass_over(body, 2 * limit).await;
            return Err(BodyFault::TooLarge(limit));
        }
        let mut room = self.room(user, told.unwrap_or_else(|| FIRST.min(limit))).await?;
        let mut bytes = BytesMut::new();
        let deadline = tokio::time::Instant::now() + BODY_TIMEOUT;
        while let Some(frame) = tokio::time::timeout_at(deadline, body.frame()).await.map_err(|_| BodyFault::Late)? {
            let Ok(data) = frame.map_err(|_| BodyFault::Broken)?.into_data() else { continue };
            let length = bytes.len() + data.len();
            if length > limit {
                drop((room, bytes));
                pass_over(body, limit).await;
                return Err(BodyFault::TooLarge(limit));
            }
            if length > room.bytes {
                drop(room);
                room = self.room(user, limit).await?;
            }
            bytes.extend_from_slice(&data);
        }
        Ok(BufferedBody { bytes: bytes.freeze(), room })
    }

    /// Room for an answer to `user`, until its client has taken it. `None` where too much waits already: who asks on and takes
    /// nothing is told so.
    pub(crate) fn answer(&self, user: &str, bytes: usize) -> Option<Room> {
        let (own, units) = (self.answers.of(user), self.answers.units(bytes));
        let own = own.try_acquire_many_owned(units).ok()?;
        let together = self.answers.together.clone().try_acquire_many_owned(units).ok()?;
        Some(Room { bytes, _permits: [own, together] })
    }

    /// The user's own first, in which requests of others do not wait.
    async fn room(&self, user: &str, bytes: usize) -> Result<Room, BodyFault> {
        let (own, units) = (self.requests.of(user), self.requests.units(bytes));
        let acquire = async {
            let own = own.acquire_many_owned(units).await.ok()?;
            Some([own, self.requests.together.clone().acquire_many_owned(units).await.ok()?])
        };
        match tokio::time::timeout(BODY_TIMEOUT, acquire).await {
            Ok(Some(permits)) => Ok(Room { bytes, _permits: permits }),
            // The semaphores are never closed.
            Ok(None) | Err(_) => Err(BodyFault::Crowded),
        }
    }
}

impl Budget {
    fn new(together: usize, of_user: usize) -> Self {
        Self { together: semaphore(together), by_user: DashMap::new(), of_user }
    }

    fn of(&self, user: &str) -> Arc<Semaphore> {
        match self.by_user.get(user) {
            Some(own) => own.clone(),
            None => self.by_user.entry(user.into()).or_insert_with(|| semaphore(self.of_user)).clone(),
        }
    }

    /// What is larger than all that one user may have takes all of it.
    fn units(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.min(self.of_user).div_ceil(UNIT)).unwrap_or(u32::MAX)
    }
}

/// Throws away what still comes of a body, `most` bytes at most: a client reads no answer while it sends.
async fn pass_over<B: Body<Data = Bytes> + Unpin>(mut body: B, most: usize) {
    let passing = async {
        let mut passed = 0;
        while let Some(Ok(frame)) = body.frame().await {
            passed += frame.data_ref().map_or(0, Bytes::len);
            if passed > most {
                break;
            }
        }
    };
    // Who is late loses the answer.
    let _ = tokio::time::timeout(BODY_TIMEOUT, passing).await;
}

#[cfg(test)]
mod tests {
    use futures_util::{StreamExt, stream};
    use http_body_util::{Full, StreamBody};
    use hyper::body::Frame;

    use super::*;

    const LIMIT: usize = 3 << 20;

    fn body(length: usize) -> Full<Bytes> {
        Full::from(vec![7; length])
    }

    #[test]
    fn answers_that_nobody_takes_have_a_bound_for_each_user() {
        let bodies = Bodies::default();
        let held: Vec<_> = std::iter::from_fn(|| bodies.answer("a", 1 << 20)).take(1000).collect();
        assert_eq!(held.len(), ANSWERS_OF_USER >> 20);
        let all = bodies.answer("b", usize::MAX).unwrap();
        assert!(bodies.answer("b", 1).is_none());
        drop((held, all));
        assert!(bodies.answer("a", ANSWERS_OF_USER).is_some());
    }

    #[tokio::test]
    async fn what_is_too_long_is_refused_whether_its_length_is_told_or_not() {
        let bodies = Bodies::default();
        assert_eq!(bodies.read(body(LIMIT), "a", LIMIT).await.unwrap().bytes.len(), LIMIT);
        assert_eq!(bodies.read(body(LIMIT + 1), "a", LIMIT).await.unwrap_err(), BodyFault::TooLarge(LIMIT));
        let pieces = |count| {
            StreamBody::new(
                stream::iter(0..count).map(|_| Ok::<_, hyper::Error>(Frame::data(Bytes::from(vec![7; 1 << 20])))),
            )
        };
        assert_eq!(bodies.read(pieces(3), "a", LIMIT).await.unwrap().bytes.len(), LIMIT);
        assert_eq!(bodies.read(pieces(4), "a", LIMIT).await.unwrap_err(), BodyFault::TooLarge(LIMIT));
    }

    #[tokio::test(start_paused = true)]
    async fn a_user_waits_for_its_own_bodies_and_not_for_anybody_elses() {
        let bodies = Bodies::default();
        let mut held = Vec::new();
        for _ in 0..OF_USER / LIMIT {
            held.push(bodies.read(body(LIMIT), "a", LIMIT).await.unwrap());
        }
        assert_eq!(bodies.read(body(1), "a", LIMIT).await.unwrap_err(), BodyFault::Crowded);
        bodies.read(body(LIMIT), "b", LIMIT).await.unwrap();
        held.pop();
        bodies.read(body(1), "a", LIMIT).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn all_together_have_a_bound_and_a_body_that_stalls_an_end() {
        let bodies = Bodies::default();
        let stalled = || StreamBody::new(stream::pending::<Result<Frame<Bytes>, hyper::Error>>());
        assert_eq!(bodies.read(stalled(), "a", LIMIT).await.unwrap_err(), BodyFault::Late);
        let mut held = Vec::new();
        for user in ["a", "b", "c", "d"] {
            for _ in 0..OF_USER / LIMIT {
                held.push(bodies.read(body(LIMIT), user, LIMIT).await.unwrap());
            }
        }
        assert_eq!(bodies.read(body(1), "e", LIMIT).await.unwrap_err(), BodyFault::Crowded);
    }
}
