//! A stream's two directions as the relay reads and writes them: the bytes in DATA packets.

use std::{
    fmt,
    future::Future,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use hyper::body::Body;
use prost::encoding::{encode_varint, encoded_len_varint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::CancellationToken;

use super::{
    packet::{PREFIX, Packet, PacketType},
    packets::PacketError,
    protocol::Event,
    request_stream::{RequestError, RequestStream},
    responses::Responses,
};

/// Most bytes of a DATA packet. Go's client holds ten packets, and gives up a tunnel whose application takes none for ten
/// seconds: few and large ones serve it best.
const MESSAGE: usize = 64 * 1024;

/// How many packets a client that has closed is still sent: nobody may be left who takes them out of Go's queue of ten, and
/// behind them is the answer to its CLOSE_REQ.
const LAST_PACKETS: usize = 8;

/// How many bytes are read away behind them, so that the target's end is seen. A target that sends on waits for its reset.
const DROPPED: usize = 1024 * 1024;

/// How long a client may go on sending when the target has ended. konnectivity has no half-close, but what was under way
/// should arrive.
const LAST_BYTES: Duration = Duration::from_secs(2);

/// What the client sends.
pub(crate) struct FromClient<B> {
    requests: RequestStream<B>,
    bytes: Bytes,
    /// Cancelled when either side has ended.
    closing: CancellationToken,
    /// Resolves when the client has had its time after the target's end.
    over: Pin<Box<dyn Future<Output = ()> + Send>>,
    ended: bool,
    /// Why the client broke off.
    fault: Option<RequestError>,
}

/// What the target sends.
#[derive(Debug)]
pub(crate) struct ToClient {
    responses: Responses,
    connect_id: i64,
    /// Cancelled when either side has ended.
    closing: CancellationToken,
    packets_after_close: usize,
    /// Bytes that the client lost by closing.
    dropped: usize,
    /// CLOSE_RSP is said.
    closed: bool,
}

impl<B> FromClient<B> {
    pub(crate) fn new(requests: RequestStream<B>, closing: &CancellationToken) -> Self {
        let ended = closing.clone();
        let over = Box::pin(async move {
            ended.cancelled().await;
            tokio::time::sleep(LAST_BYTES).await;
        });
        Self { requests, bytes: Bytes::new(), closing: closing.clone(), over, ended: false, fault: None }
    }

    /// Why the client broke off, if it did.
    pub(crate) fn fault(&self) -> Option<RequestError> {
        self.fault
    }
}

impl<B: Body<Data = Bytes> + Unpin> AsyncRead for FromClient<B> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let client = self.get_mut();
        while client.bytes.is_empty() && !client.ended {
            match client.requests.poll_next(cx) {
                Poll::Ready(Ok(Some(Event::Data(bytes)))) => client.bytes = bytes,
                // A connection that is open hears of no dials.
                Poll::Ready(Ok(None | Some(Event::Close(_) | Event::Dial(_) | Event::CancelDial))) => {
                    client.ended = true;
                    client.closing.cancel();
                }
                // Go's client leaves as soon as it hears that the target has ended.
                Poll::Ready(Err(RequestError::Packet(PacketError::Reset))) if client.closing.is_cancelled() => {
                    client.ended = true;
                }
                Poll::Ready(Err(fault)) => {
                    client.fault = Some(fault);
                    return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
                }
                Poll::Pending => {
                    ready!(client.over.as_mut().poll(cx));
                    client.ended = true;
                }
            }
        }
        let count = client.bytes.len().min(buffer.remaining());
        buffer.put_slice(&client.bytes[..count]);
        client.bytes.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl<B> fmt::Debug for FromClient<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FromClient").field("ended", &self.ended).field("fault", &self.fault).finish_non_exhaustive()
    }
}

impl ToClient {
    pub(crate) fn new(responses: Responses, connect_id: i64, closing: &CancellationToken) -> Self {
        let closing = closing.clone();
        Self { responses, connect_id, closing, packets_after_close: 0, dropped: 0, closed: false }
    }

    /// The responses, and whether CLOSE_RSP is among them.
    pub(crate) fn into_responses(self) -> (Responses, bool) {
        (self.responses, self.closed)
    }
}

impl AsyncWrite for ToClient {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let client = self.get_mut();
        let length: usize = slices.iter().map(|slice| slice.len()).sum();
        // Go's client reads an empty DATA as the end.
        if length == 0 {
            return Poll::Ready(Ok(0));
        }
        if client.closing.is_cancelled() {
            if client.packets_after_close == LAST_PACKETS {
                // Nothing more is waited for: the connection's time after its close runs out.
                if client.dropped >= DROPPED {
                    return Poll::Pending;
                }
                client.dropped += length;
                return Poll::Ready(Ok(length));
            }
            ready!(client.responses.poll_ready(cx)).map_err(gone)?;
            client.packets_after_close += 1;
        } else {
            ready!(client.responses.poll_ready(cx)).map_err(gone)?;
        }
        let length = length.min(MESSAGE);
        client.responses.send_reserved(data(client.connect_id, slices, length)).map_err(gone)?;
        Poll::Ready(Ok(length))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// The target has ended: that is the end of the connection.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let client = self.get_mut();
        ready!(client.responses.poll_ready(cx)).map_err(gone)?;
        let error = if client.dropped > 0 { "closed while the target still sent; the rest was dropped" } else { "" };
        client.responses.send_reserved(Packet::closed(client.connect_id, error.to_owned()).framed()).map_err(gone)?;
        client.closed = true;
        client.closing.cancel();
        Poll::Ready(Ok(()))
    }
}

fn gone(_: super::responses::Gone) -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

/// A DATA packet with the first `length` bytes of `slices` as gRPC's message, copied once.
fn data(connect_id: i64, slices: &[IoSlice<'_>], length: usize) -> Bytes {
    const KIND: u8 = 1 << 3;
    const DATA: u8 = 4 << 3 | 2;
    const CONNECT_ID: u8 = 1 << 3;
    const BYTES: u8 = 3 << 3 | 2;
    let connect_id = u64::from_ne_bytes(connect_id.to_ne_bytes());
    let inner = 2 + encoded_len_varint(connect_id) + encoded_len_varint(length as u64) + length;
    let packet = 3 + encoded_len_varint(inner as u64) + inner;
    let mut message = BytesMut::with_capacity(PREFIX + packet);
    message.put_u8(0);
    // At most MESSAGE and a few bytes.
    message.put_u32(u32::try_from(packet).unwrap_or(u32::MAX));
    message.put_slice(&[KIND, PacketType::Data as u8, DATA]);
    encode_varint(inner as u64, &mut message);
    message.put_u8(CONNECT_ID);
    encode_varint(connect_id, &mut message);
    message.put_u8(BYTES);
    encode_varint(length as u64, &mut message);
    let mut left = length;
    for slice in slices {
        let count = slice.len().min(left);
        message.put_slice(&slice[..count]);
        left -= count;
    }
    message.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_message_is_the_generated_codes() {
        for (connect_id, length) in [(1, 1), (127, 127), (128, 128), (i64::MAX, MESSAGE), (300, 20_000)] {
            let bytes = vec![7; length];
            let slices = [IoSlice::new(&bytes[..length / 2]), IoSlice::new(&[]), IoSlice::new(&bytes[length / 2..])];
            assert!(data(connect_id, &slices, length) == Packet::data(connect_id, bytes.clone().into()).framed());
        }
        let cut = data(1, &[IoSlice::new(b"abc"), IoSlice::new(b"def")], 4);
        assert_eq!(cut, Packet::data(1, "abcd".into()).framed());
    }
}
