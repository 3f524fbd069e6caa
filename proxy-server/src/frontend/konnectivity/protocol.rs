//! The protocol of one stream: what each of a client's packets means in its state. One dial, one connection, one close.

use bytes::Bytes;

use super::packet::{DialRequest, Packet, PacketType, Payload};

/// The state of one stream.
#[derive(Debug, Default)]
pub(crate) struct Protocol {
    state: State,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// No dial yet.
    #[default]
    Idle,
    /// The dial that has this name is under way.
    Dialling { random: i64 },
    /// The connection has this number.
    Open { connect_id: i64 },
}

/// What a packet asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Dial(DialRequest),
    /// The client cancels its dial.
    CancelDial,
    /// Bytes for the target; never none.
    Data(Bytes),
    /// The connection of this number is to be closed.
    Close(i64),
}

/// A packet that the protocol does not allow in this state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProtocolViolation {
    #[error("backend not initialized; send DIAL_REQ first, and wait for its DIAL_RSP")]
    NotDialled { connect_id: i64 },
    #[error("mismatched connection IDs; a stream carries one connection, {ours}, and not {theirs}")]
    Mismatched { ours: i64, theirs: i64 },
    #[error("a stream carries one dial; open another stream for the next")]
    AnotherDial { phase: EarlierDial },
}

/// The dial that a second one follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EarlierDial {
    Dialling { random: i64 },
    Open { connect_id: i64 },
}

impl Protocol {
    /// The dial succeeded: its connection has this number.
    pub(crate) fn opened(&mut self, connect_id: i64) {
        self.state = State::Open { connect_id };
    }

    /// Takes the next packet; `None` if it asks for nothing.
    pub(crate) fn handle(&mut self, packet: Packet) -> Result<Option<Event>, ProtocolViolation> {
        let Packet { kind, payload } = packet;
        match PacketType::try_from(kind) {
            Ok(PacketType::DialReq) => self.dial(payload),
            Ok(PacketType::Data) => self.data(payload),
            Ok(PacketType::CloseReq) => self.close(payload),
            Ok(PacketType::DialCls) => Ok(self.close_dial(payload)),
            // These are the server's own, or a newer client's.
            Ok(PacketType::DialRsp | PacketType::CloseRsp | PacketType::Drain) | Err(_) => Ok(None),
        }
    }

    fn dial(&mut self, payload: Option<Payload>) -> Result<Option<Event>, ProtocolViolation> {
        let phase = match self.state {
            State::Idle => {
                let request =
                    if let Some(Payload::DialRequest(request)) = payload { request } else { DialRequest::default() };
                self.state = State::Dialling { random: request.random };
                return Ok(Some(Event::Dial(request)));
            }
            State::Dialling { random } => EarlierDial::Dialling { random },
            State::Open { connect_id } => EarlierDial::Open { connect_id },
        };
        Err(ProtocolViolation::AnotherDial { phase })
    }

    fn data(&self, payload: Option<Payload>) -> Result<Option<Event>, ProtocolViolation> {
        let Some(Payload::Data(data)) = payload else { return Ok(None) };
        match self.state {
            // konnectivity drops what names no connection.
            State::Dialling { .. } | State::Open { .. } if data.connect_id == 0 => Ok(None),
            State::Open { connect_id } if connect_id == data.connect_id => {
                Ok((!data.data.is_empty()).then_some(Event::Data(data.data)))
            }
            State::Open { connect_id } => {
                Err(ProtocolViolation::Mismatched { ours: connect_id, theirs: data.connect_id })
            }
            State::Idle | State::Dialling { .. } => Err(ProtocolViolation::NotDialled { connect_id: data.connect_id }),
        }
    }

    fn close(&self, payload: Option<Payload>) -> Result<Option<Event>, ProtocolViolation> {
        let named = if let Some(Payload::CloseRequest(close)) = payload { close.connect_id } else { 0 };
        match self.state {
            State::Idle => Err(ProtocolViolation::NotDialled { connect_id: named }),
            State::Dialling { .. } => Ok(Some(Event::Close(named))),
            State::Open { connect_id } if named == connect_id || named == 0 => Ok(Some(Event::Close(connect_id))),
            State::Open { connect_id } => Err(ProtocolViolation::Mismatched { ours: connect_id, theirs: named }),
        }
    }

    fn close_dial(&self, payload: Option<Payload>) -> Option<Event> {
        let named = if let Some(Payload::CloseDial(close)) = payload { close.random } else { 0 };
        let dialling = matches!(self.state, State::Dialling { random } if random == named);
        dialling.then_some(Event::CancelDial)
    }
}

impl ProtocolViolation {
    /// The packets that tell the client.
    pub(crate) fn responses(self) -> Vec<Packet> {
        let error = self.to_string();
        match self {
            Self::NotDialled { connect_id } => vec![Packet::closed(connect_id, error)],
            Self::Mismatched { ours, theirs } => {
                vec![Packet::closed(ours, error.clone()), Packet::closed(theirs, error)]
            }
            Self::AnotherDial { phase: EarlierDial::Dialling { random } } => vec![Packet::not_dialled(random, error)],
            Self::AnotherDial { phase: EarlierDial::Open { connect_id } } => vec![Packet::closed(connect_id, error)],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frontend::konnectivity::packet::{CloseDial, CloseRequest};

    fn packet(kind: PacketType, payload: Payload) -> Packet {
        Packet { kind: kind.into(), payload: Some(payload) }
    }

    fn dial(random: i64) -> Packet {
        let request = DialRequest { protocol: "tcp".into(), address: "c1:443".into(), random };
        packet(PacketType::DialReq, Payload::DialRequest(request))
    }

    fn close(connect_id: i64) -> Packet {
        packet(PacketType::CloseReq, Payload::CloseRequest(CloseRequest { connect_id }))
    }

    fn close_dial(random: i64) -> Packet {
        packet(PacketType::DialCls, Payload::CloseDial(CloseDial { random }))
    }

    fn data(connect_id: i64, bytes: &'static str) -> Packet {
        Packet::data(connect_id, bytes.into())
    }

    fn dialling(random: i64) -> Protocol {
        let mut protocol = Protocol::default();
        assert!(matches!(protocol.handle(dial(random)), Ok(Some(Event::Dial(request))) if request.random == random));
        protocol
    }

    fn open(connect_id: i64) -> Protocol {
        let mut protocol = dialling(5);
        protocol.opened(connect_id);
        protocol
    }

    #[test]
    fn before_a_dial_there_is_no_backend() {
        for packet in [data(3, "x"), data(0, "x"), close(3)] {
            let violation = Protocol::default().handle(packet).unwrap_err();
            assert!(matches!(violation, ProtocolViolation::NotDialled { .. }), "{violation}");
            assert!(violation.to_string().starts_with("backend not initialized"));
        }
        assert_eq!(Protocol::default().handle(close_dial(1)), Ok(None));
    }

    #[test]
    fn a_dial_is_cancelled_by_its_own_name() {
        let mut protocol = dialling(5);
        assert_eq!(protocol.handle(close_dial(6)), Ok(None));
        assert_eq!(protocol.handle(data(0, "x")), Ok(None));
        assert_eq!(protocol.handle(close_dial(5)), Ok(Some(Event::CancelDial)));
        assert_eq!(protocol.handle(close(1)), Ok(Some(Event::Close(1))));
        assert_eq!(protocol.handle(data(1, "x")), Err(ProtocolViolation::NotDialled { connect_id: 1 }));
        protocol.opened(7);
        assert_eq!(protocol.handle(close_dial(5)), Ok(None), "too late");
    }

    #[test]
    fn a_stream_carries_one_dial() {
        let violation = dialling(5).handle(dial(6)).unwrap_err();
        assert_eq!(violation.responses(), [Packet::not_dialled(5, violation.to_string())]);
        let violation = open(7).handle(dial(6)).unwrap_err();
        assert_eq!(violation.responses(), [Packet::closed(7, violation.to_string())]);
    }

    #[test]
    fn data_is_the_connections_own() {
        let mut protocol = open(7);
        assert_eq!(protocol.handle(data(7, "x")), Ok(Some(Event::Data("x".into()))));
        assert_eq!(protocol.handle(data(7, "")), Ok(None));
        assert_eq!(protocol.handle(data(0, "x")), Ok(None));
        let violation = protocol.handle(data(8, "x")).unwrap_err();
        assert_eq!(violation, ProtocolViolation::Mismatched { ours: 7, theirs: 8 });
        let sentence = violation.to_string();
        assert_eq!(violation.responses(), [Packet::closed(7, sentence.clone()), Packet::closed(8, sentence)]);
    }

    #[test]
    fn a_close_is_the_connections_own_or_names_none() {
        assert_eq!(open(7).handle(close(7)), Ok(Some(Event::Close(7))));
        assert_eq!(open(7).handle(close(0)), Ok(Some(Event::Close(7))));
        assert_eq!(open(7).handle(close(8)), Err(ProtocolViolation::Mismatched { ours: 7, theirs: 8 }));
    }

    #[test]
    fn what_is_not_known_means_nothing_and_what_does_not_fit_reads_as_empty() {
        for kind in [1, 3, 6, 7, 99, -1] {
            for mut protocol in [Protocol::default(), dialling(5), open(7)] {
                assert_eq!(protocol.handle(Packet { kind, payload: None }), Ok(None));
            }
        }
        let odd = packet(PacketType::Data, Payload::CloseDial(CloseDial { random: 5 }));
        assert_eq!(open(7).handle(odd), Ok(None));
        let odd = Packet { kind: PacketType::DialReq.into(), payload: None };
        assert_eq!(Protocol::default().handle(odd), Ok(Some(Event::Dial(DialRequest::default()))));
    }
}
