//! Records: each ask has one from its arrival, and leaves one audit event and one count by it, whatever becomes of the ask.
//! A record that is dropped says that the ask was given up.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    audit::{Audit, Connection, Event, Handshake, Request, Text, Who},
    frontend::client::Peer,
    limits::rates::{Lines, Rate},
    limits::source::Source,
    metrics::{Frontend, Metrics},
    outcome::Outcome,
    proxy::caller::Caller,
};

/// Events of one source without credentials. Who has none could fill the disk in a day, and a client with a wrong setting that asks
/// ten times a second is told whole.
const STRANGERS: Rate = Rate { every: Duration::from_millis(100), burst: 1000 };

/// Makes records.
#[derive(Clone, Debug)]
pub(crate) struct Recorder {
    pub(crate) audit: Audit,
    pub(crate) metrics: Arc<Metrics>,
    strangers: Arc<Lines<Source>>,
}

/// The record of an ask for a target.
#[derive(Debug)]
pub(crate) struct Record {
    /// Taken when it is told.
    asked: Option<Box<Pending<Connection>>>,
    frontend: Frontend,
    opened: bool,
}

/// The record of a request on the registry.
#[derive(Debug)]
pub(crate) struct RequestRecord(Option<Box<Pending<Request>>>);

/// The record of a TLS handshake, which leaves none when it succeeds.
#[derive(Debug)]
pub(crate) struct HandshakeRecord {
    recorder: Recorder,
    frontend: &'static str,
    peer: Peer,
    outcome: Option<Outcome>,
}

#[derive(Debug)]
struct Pending<T> {
    recorder: Recorder,
    peer: Peer,
    started: Instant,
    told: T,
}

impl Recorder {
    pub(crate) fn new(audit: Audit, metrics: Arc<Metrics>) -> Self {
        Self { audit, metrics, strangers: Arc::new(Lines::new(STRANGERS)) }
    }

    /// `peer` is who has caused the event.
    fn record(&self, peer: Peer, event: Event) {
        if let Peer::Tcp(address) = peer
            && event.is_of_a_stranger()
        {
            match self.strangers.next(&address.ip().into()) {
                Some(0) => {}
                Some(count) => self.audit.record(Event::LeftOut { count }),
                None => return,
            }
        }
        self.audit.record(event);
    }

    fn asked<T>(&self, peer: Peer, told: T) -> Box<Pending<T>> {
        Box::new(Pending { recorder: self.clone(), peer, started: Instant::now(), told })
    }

    /// A client asks for a target.
    pub(crate) fn connection(&self, frontend: Frontend, peer: Peer) -> Record {
        let trace_id = format!("{:032x}", rand::random::<u128>());
        let label = frontend.label();
        let told = Connection { peer: Text::of(peer), frontend: label, trace_id, ..Connection::default() };
        Record { asked: Some(self.asked(peer, told)), frontend, opened: false }
    }

    /// A request on the registry has come from `peer`.
    pub(crate) fn request(&self, peer: Peer, told: Request) -> RequestRecord {
        RequestRecord(Some(self.asked(peer, Request { peer: Text::of(peer), ..told })))
    }

    /// A TLS handshake begins. It is recorded if it fails.
    pub(crate) fn handshake(&self, frontend: &'static str, peer: Peer) -> HandshakeRecord {
        HandshakeRecord { recorder: self.clone(), frontend, peer, outcome: Some(Outcome::Cancelled) }
    }
}

impl Record {
    fn told(&mut self) -> Option<&mut Connection> {
        self.asked.as_mut().map(|asked| &mut asked.told)
    }

    /// Who asks, as far as that is known.
    pub(crate) fn by(&mut self, caller: &Caller) {
        if let Some(told) = self.told() {
            told.who = who(caller);
        }
    }

    /// As whom the caller asks.
    pub(crate) fn impersonating(&mut self, user: &str, groups: &[String]) {
        if let Some(told) = self.told() {
            told.who.impersonated_user = user.into();
            told.who.impersonated_groups = Text::some_of(groups);
        }
    }

    pub(crate) fn target(&mut self, target: impl Into<Text>) {
        if let Some(told) = self.told() {
            told.target = target.into();
        }
    }

    pub(crate) fn cluster(&mut self, cluster: &str) {
        if let Some(told) = self.told() {
            told.cluster = cluster.into();
        }
    }

    pub(crate) fn rule(&mut self, rule: String) {
        if let Some(told) = self.told() {
            told.rule = rule.into();
        }
    }

    /// What the agent says that it has dialled.
    pub(crate) fn address(&mut self, address: String) {
        if let Some(told) = self.told() {
            told.address = address.into();
        }
    }

    /// The same id is in the agent's log.
    pub(crate) fn trace_id(&self) -> String {
        self.asked.as_ref().map(|asked| asked.told.trace_id.clone()).unwrap_or_default()
    }

    /// Leaves this one empty: somebody else tells what becomes of the ask.
    pub(crate) fn take(&mut self) -> Self {
        Self { asked: self.asked.take(), frontend: self.frontend, opened: self.opened }
    }

    /// Nothing is opened. Says nothing if that was told.
    pub(crate) fn refuse(&mut self, outcome: Outcome) {
        self.tell(outcome, 0, 0);
    }

    /// The target is connected.
    pub(crate) fn open(&mut self) {
        if let Some(asked) = &self.asked {
            self.opened = true;
            asked.recorder.metrics.opened(self.frontend);
        }
    }

    /// It is over, with so many bytes to and from the target.
    pub(crate) fn tell(&mut self, outcome: Outcome, bytes_to_target: u64, bytes_from_target: u64) {
        let Some(asked) = self.asked.take() else { return };
        let Pending { recorder, peer, started, told } = *asked;
        if self.opened {
            recorder.metrics.closed(self.frontend, outcome);
        } else {
            recorder.metrics.refused(self.frontend, outcome);
        }
        let duration_ms = milliseconds(started);
        let told = Connection { outcome, bytes_to_target, bytes_from_target, duration_ms, ..told };
        recorder.record(peer, Event::Connection(told));
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.tell(Outcome::Cancelled, 0, 0);
    }
}

impl RequestRecord {
    /// The request was answered with `code`, after `change` to what is told.
    pub(crate) fn tell(mut self, outcome: Outcome, code: u16, change: impl FnOnce(&mut Request)) {
        let Some(mut asked) = self.0.take() else { return };
        change(&mut asked.told);
        asked.tell(outcome, code);
    }

    /// The request is none that is recorded.
    pub(crate) fn dismiss(mut self) {
        self.0 = None;
    }
}

impl Drop for RequestRecord {
    fn drop(&mut self) {
        if let Some(asked) = self.0.take() {
            asked.tell(Outcome::Cancelled, 0);
        }
    }
}

impl HandshakeRecord {
    pub(crate) fn succeeded(mut self) {
        self.outcome = None;
    }

    pub(crate) fn failed(mut self, outcome: Outcome) {
        self.outcome = Some(outcome);
    }
}

impl Drop for HandshakeRecord {
    fn drop(&mut self) {
        let Some(outcome) = self.outcome else { return };
        self.recorder.metrics.handshake_failed(self.frontend, outcome);
        let handshake = Handshake { outcome, peer: Text::of(self.peer), frontend: self.frontend };
        self.recorder.record(self.peer, Event::Handshake(handshake));
    }
}

impl Pending<Request> {
    fn tell(self, outcome: Outcome, code: u16) {
        let duration_ms = milliseconds(self.started);
        self.recorder.record(self.peer, Event::Request(Request { outcome, code, duration_ms, ..self.told }));
    }
}

fn milliseconds(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

fn who(caller: &Caller) -> Who {
    let groups = match caller {
        Caller::User(user) => Text::some_of(&user.groups),
        Caller::Socket { .. } => Vec::new(),
    };
    Who { user: Text::of(caller), groups, ..Who::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_has_shown_nothing_is_counted_to_a_source() {
        let connection = |user: &str| {
            let who = Who { user: user.into(), ..Who::default() };
            Event::Connection(Connection { who, ..Connection::default() })
        };
        let request = |code| Event::Request(Request { code, ..Request::default() });
        let handshake =
            Event::Handshake(Handshake { outcome: Outcome::TimedOut, peer: Text::default(), frontend: "api" });
        for (event, counts) in [
            (connection(""), true),
            (connection("alice"), false),
            (request(401), true),
            (request(0), false),
            (handshake, true),
            (Event::Lost { count: 1 }, false),
        ] {
            assert_eq!(event.is_of_a_stranger(), counts, "{event:?}");
        }
    }
}
