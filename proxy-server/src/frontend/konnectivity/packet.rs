//! The messages of konnectivity's `ProxyService`. Names, field numbers and values are that protocol's.

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;

/// Length of gRPC's prefix: a flag, and the message's length.
pub(crate) const PREFIX: usize = 5;

/// What crosses a stream, both ways. `kind` says what it is; a payload of another kind reads as an empty one.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Packet {
    #[prost(enumeration = "PacketType", tag = "1")]
    pub(crate) kind: i32,
    #[prost(oneof = "Payload", tags = "2, 3, 4, 5, 6, 7")]
    pub(crate) payload: Option<Payload>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum PacketType {
    DialReq = 0,
    DialRsp = 1,
    CloseReq = 2,
    CloseRsp = 3,
    Data = 4,
    DialCls = 5,
    Drain = 6,
}

#[derive(Clone, PartialEq, Eq, prost::Oneof)]
pub(crate) enum Payload {
    #[prost(message, tag = "2")]
    DialRequest(DialRequest),
    #[prost(message, tag = "3")]
    DialResponse(DialResponse),
    #[prost(message, tag = "4")]
    Data(Data),
    #[prost(message, tag = "5")]
    CloseRequest(CloseRequest),
    #[prost(message, tag = "6")]
    CloseResponse(CloseResponse),
    #[prost(message, tag = "7")]
    CloseDial(CloseDial),
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct DialRequest {
    #[prost(string, tag = "1")]
    pub(crate) protocol: String,
    /// `host:port`.
    #[prost(string, tag = "2")]
    pub(crate) address: String,
    /// The client's name for this dial.
    #[prost(int64, tag = "3")]
    pub(crate) random: i64,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct DialResponse {
    #[prost(string, tag = "1")]
    pub(crate) error: String,
    #[prost(int64, tag = "2")]
    pub(crate) connect_id: i64,
    #[prost(int64, tag = "3")]
    pub(crate) random: i64,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Data {
    /// 0 where there is none.
    #[prost(int64, tag = "1")]
    pub(crate) connect_id: i64,
    /// Used by nobody.
    #[prost(string, tag = "2")]
    pub(crate) error: String,
    #[prost(bytes = "bytes", tag = "3")]
    pub(crate) data: Bytes,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(crate) struct CloseRequest {
    #[prost(int64, tag = "1")]
    pub(crate) connect_id: i64,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct CloseResponse {
    #[prost(string, tag = "1")]
    pub(crate) error: String,
    #[prost(int64, tag = "2")]
    pub(crate) connect_id: i64,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(crate) struct CloseDial {
    #[prost(int64, tag = "1")]
    pub(crate) random: i64,
}

impl Packet {
    /// The target is connected.
    pub(crate) fn dialled(random: i64, connect_id: i64) -> Self {
        Self::dial_response(DialResponse { error: String::new(), connect_id, random })
    }

    /// The target is not connected.
    pub(crate) fn not_dialled(random: i64, error: String) -> Self {
        Self::dial_response(DialResponse { error, connect_id: 0, random })
    }

    /// The connection is over; without `error`, by its proper end.
    pub(crate) fn closed(connect_id: i64, error: String) -> Self {
        let payload = Payload::CloseResponse(CloseResponse { error, connect_id });
        Self { kind: PacketType::CloseRsp.into(), payload: Some(payload) }
    }

    /// Bytes of a connection.
    pub(crate) fn data(connect_id: i64, data: Bytes) -> Self {
        let payload = Payload::Data(Data { connect_id, error: String::new(), data });
        Self { kind: PacketType::Data.into(), payload: Some(payload) }
    }

    fn dial_response(response: DialResponse) -> Self {
        Self { kind: PacketType::DialRsp.into(), payload: Some(Payload::DialResponse(response)) }
    }

    /// As one message of gRPC (gRPC over HTTP/2, "Length-Prefixed-Message").
    pub(crate) fn framed(&self) -> Bytes {
        let length = self.encoded_len();
        let mut message = BytesMut::with_capacity(PREFIX + length);
        message.put_u8(0);
        // What is answered here is never larger than a message from the tunnel.
        message.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
        self.encode_raw(&mut message);
        message.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_look_as_konnectivitys_generated_code_makes_them() {
        let dial = DialRequest { protocol: "tcp".into(), address: "c1:443".into(), random: 5 };
        let dial = Packet { kind: PacketType::DialReq.into(), payload: Some(Payload::DialRequest(dial)) };
        // The kind is 0, and so is not there.
        assert_eq!(dial.encode_to_vec(), b"\x12\x0f\x0a\x03tcp\x12\x06c1:443\x18\x05");
        assert_eq!(Packet::dialled(5, 7).framed(), &b"\0\0\0\0\x08\x08\x01\x1a\x04\x10\x07\x18\x05"[..]);
        assert_eq!(Packet::not_dialled(5, "no".into()).encode_to_vec(), b"\x08\x01\x1a\x06\x0a\x02no\x18\x05");
        assert_eq!(Packet::closed(7, "x".into()).encode_to_vec(), b"\x08\x03\x32\x05\x0a\x01x\x10\x07");
        assert_eq!(Packet::data(7, "ab".into()).encode_to_vec(), b"\x08\x04\x22\x06\x08\x07\x1a\x02ab");
    }

    #[test]
    fn what_a_newer_client_adds_is_skipped() {
        assert_eq!(Packet::decode(&b"\x08\x63\x42\x00\x7a\x01x"[..]).unwrap().kind, 99);
    }
}
