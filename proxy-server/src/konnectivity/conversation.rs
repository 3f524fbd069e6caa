//! What a client's packets mean, by what was said before: one dial, one connection, and then its end.

use bytes::Bytes;

use super::packet::{DialRequest, Packet, PacketType, Payload};

/// A stream's conversation.
#[derive(Debug, Default)]
pub(crate) struct Conversation {
    phase: Phase,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    /// Nothing is dialled.
    #[default]
    Silent,
    /// The dial that has this name is under way.
    Dialling { random: i64 },
    /// The connection has this number.
    Open { connect_id: i64 },
}

/// What a packet means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    Dial(DialRequest),
    /// The dial is not wanted any more.
    CancelDial,
    /// Bytes for the target; never none.
    Data(Bytes),
    /// The connection of this number is to be closed.
    Close(i64),
    /// Nothing that matters here.
    Nothing,
}

/// What the protocol does not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Offence {
    #[error("backend not initialized; send DIAL_REQ first, and wait for its DIAL_RSP")]
    NotDialled { connect_id: i64 },
    #[error("mismatched connection IDs; a stream carries one connection, {ours}, and not {theirs}")]
    Mismatched { ours: i64, theirs: i64 },
    #[error("a stream carries one dial; open another stream for the next")]
    AnotherDial { phase: Before },
}

/// What another dial came upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Before {
    Dialling { random: i64 },
    Open { connect_id: i64 },
}

impl Conversation {
    /// The dial has been answered: its connection has this number.
    pub(crate) fn opened(&mut self, connect_id: i64) {
        self.phase = Phase::Open { connect_id };
    }

    /// What `packet` means now.
    pub(crate) fn hear(&mut self, packet: Packet) -> Result<Said, Offence> {
        let Packet { kind, payload } = packet;
        match PacketType::try_from(kind) {
            Ok(PacketType::DialReq) => self.dial(payload),
            Ok(PacketType::Data) => self.data(payload),
            Ok(PacketType::CloseReq) => self.close(payload),
            Ok(PacketType::DialCls) => Ok(self.close_dial(payload)),
            // Those are ours to say, or of a newer client.
            Ok(PacketType::DialRsp | PacketType::CloseRsp | PacketType::Drain) | Err(_) => Ok(Said::Nothing),
        }
    }

    fn dial(&mut self, payload: Option<Payload>) -> Result<Said, Offence> {
        let phase = match self.phase {
            Phase::Silent => {
                let request =
                    if let Some(Payload::DialRequest(request)) = payload { request } else { DialRequest::default() };
                self.phase = Phase::Dialling { random: request.random };
                return Ok(Said::Dial(request));
            }
            Phase::Dialling { random } => Before::Dialling { random },
            Phase::Open { connect_id } => Before::Open { connect_id },
        };
        Err(Offence::AnotherDial { phase })
    }

    fn data(&self, payload: Option<Payload>) -> Result<Said, Offence> {
        let Some(Payload::Data(data)) = payload else { return Ok(Said::Nothing) };
        match self.phase {
            // konnectivity drops what names no connection.
            Phase::Dialling { .. } | Phase::Open { .. } if data.connect_id == 0 => Ok(Said::Nothing),
            Phase::Open { connect_id } if connect_id == data.connect_id => {
                Ok(if data.data.is_empty() { Said::Nothing } else { Said::Data(data.data) })
            }
            Phase::Open { connect_id } => Err(Offence::Mismatched { ours: connect_id, theirs: data.connect_id }),
            Phase::Silent | Phase::Dialling { .. } => Err(Offence::NotDialled { connect_id: data.connect_id }),
        }
    }

    fn close(&self, payload: Option<Payload>) -> Result<Said, Offence> {
        let named = if let Some(Payload::CloseRequest(close)) = payload { close.connect_id } else { 0 };
        match self.phase {
            Phase::Silent => Err(Offence::NotDialled { connect_id: named }),
            Phase::Dialling { .. } => Ok(Said::Close(named)),
            Phase::Open { connect_id } if named == connect_id || named == 0 => Ok(Said::Close(connect_id)),
            Phase::Open { connect_id } => Err(Offence::Mismatched { ours: connect_id, theirs: named }),
        }
    }

    fn close_dial(&self, payload: Option<Payload>) -> Said {
        let named = if let Some(Payload::CloseDial(close)) = payload { close.random } else { 0 };
        let dialling = matches!(self.phase, Phase::Dialling { random } if random == named);
        if dialling { Said::CancelDial } else { Said::Nothing }
    }
}

impl Offence {
    /// What the client is told.
    pub(crate) fn answers(self) -> Vec<Packet> {
        let error = self.to_string();
        match self {
            Self::NotDialled { connect_id } => vec![Packet::closed(connect_id, error)],
            Self::Mismatched { ours, theirs } => {
                vec![Packet::closed(ours, error.clone()), Packet::closed(theirs, error)]
            }
            Self::AnotherDial { phase: Before::Dialling { random } } => vec![Packet::not_dialled(random, error)],
            Self::AnotherDial { phase: Before::Open { connect_id } } => vec![Packet::closed(connect_id, error)],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::konnectivity::packet::{CloseDial, CloseRequest};

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

    fn dialling(random: i64) -> Conversation {
        let mut conversation = Conversation::default();
        assert!(matches!(conversation.hear(dial(random)), Ok(Said::Dial(request)) if request.random == random));
        conversation
    }

    fn open(connect_id: i64) -> Conversation {
        let mut conversation = dialling(5);
        conversation.opened(connect_id);
        conversation
    }

    #[test]
    fn before_a_dial_there_is_no_backend() {
        for packet in [data(3, "x"), data(0, "x"), close(3)] {
            let offence = Conversation::default().hear(packet).unwrap_err();
            assert!(matches!(offence, Offence::NotDialled { .. }), "{offence}");
            assert!(offence.to_string().starts_with("backend not initialized"));
        }
        assert_eq!(Conversation::default().hear(close_dial(1)), Ok(Said::Nothing));
    }

    #[test]
    fn a_dial_is_cancelled_by_its_own_name() {
        let mut conversation = dialling(5);
        assert_eq!(conversation.hear(close_dial(6)), Ok(Said::Nothing));
        assert_eq!(conversation.hear(data(0, "x")), Ok(Said::Nothing));
        assert_eq!(conversation.hear(close_dial(5)), Ok(Said::CancelDial));
        assert_eq!(conversation.hear(close(1)), Ok(Said::Close(1)));
        assert_eq!(conversation.hear(data(1, "x")), Err(Offence::NotDialled { connect_id: 1 }));
        conversation.opened(7);
        assert_eq!(conversation.hear(close_dial(5)), Ok(Said::Nothing), "too late");
    }

    #[test]
    fn a_stream_carries_one_dial() {
        let offence = dialling(5).hear(dial(6)).unwrap_err();
        assert_eq!(offence.answers(), [Packet::not_dialled(5, offence.to_string())]);
        let offence = open(7).hear(dial(6)).unwrap_err();
        assert_eq!(offence.answers(), [Packet::closed(7, offence.to_string())]);
    }

    #[test]
    fn data_is_the_connections_own() {
        let mut conversation = open(7);
        assert_eq!(conversation.hear(data(7, "x")), Ok(Said::Data("x".into())));
        assert_eq!(conversation.hear(data(7, "")), Ok(Said::Nothing));
        assert_eq!(conversation.hear(data(0, "x")), Ok(Said::Nothing));
        let offence = conversation.hear(data(8, "x")).unwrap_err();
        assert_eq!(offence, Offence::Mismatched { ours: 7, theirs: 8 });
        let sentence = offence.to_string();
        assert_eq!(offence.answers(), [Packet::closed(7, sentence.clone()), Packet::closed(8, sentence)]);
    }

    #[test]
    fn a_close_is_the_connections_own_or_names_none() {
        assert_eq!(open(7).hear(close(7)), Ok(Said::Close(7)));
        assert_eq!(open(7).hear(close(0)), Ok(Said::Close(7)));
        assert_eq!(open(7).hear(close(8)), Err(Offence::Mismatched { ours: 7, theirs: 8 }));
    }

    #[test]
    fn what_is_not_known_means_nothing_and_what_does_not_fit_reads_as_empty() {
        for kind in [1, 3, 6, 7, 99, -1] {
            for mut conversation in [Conversation::default(), dialling(5), open(7)] {
                assert_eq!(conversation.hear(Packet { kind, payload: None }), Ok(Said::Nothing));
            }
        }
        let odd = packet(PacketType::Data, Payload::CloseDial(CloseDial { random: 5 }));
        assert_eq!(open(7).hear(odd), Ok(Said::Nothing));
        let odd = Packet { kind: PacketType::DialReq.into(), payload: None };
        assert_eq!(Conversation::default().hear(odd), Ok(Said::Dial(DialRequest::default())));
    }
}
