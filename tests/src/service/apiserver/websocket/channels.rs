//! The streams of a command over a WebSocket, subprotocols `v5.channel.k8s.io` and `v4.channel.k8s.io`.
//!
//! Each binary message begins with its channel: 0 standard input, 1 standard output, 2 standard error, 3 the final `Status`,
//! 4 the terminal's size, and in v5 255, which closes the channel named by its next byte.

use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

use super::Socket;
use crate::service::apiserver::streams::{Carried, Channel, Streams, Wanted};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;
/// How long a client may take to answer the closing handshake.
const FAREWELL: Duration = Duration::from_secs(10);

/// A message of a client.
#[derive(Debug, PartialEq, Eq)]
enum Sent {
    Input(Bytes),
    Size(Bytes),
    EndOfInput,
    Nothing,
}

/// Carries the streams of `work`, which ends with a status, or is dropped when the client leaves.
pub(in crate::service::apiserver) async fn serve<W: Future<Output = Value>>(
    socket: Socket,
    wanted: Wanted,
    work: impl FnOnce(Streams) -> W,
) -> Result<(), Error> {
    let (mut sink, mut stream) = socket.split();
    let (streams, carried) = wanted.streams();
    let last = streams.output.clone();
    let Carried { output: mut pieces, mut stdin, resize } = carried;
    // It ends when the client has left or has answered the closing handshake.
    let read = async {
        while let Some(message) = stream.next().await {
            match Sent::parse(message?) {
                // What a command does not read is dropped.
                Sent::Input(bytes) => {
                    if let Some(stdin) = stdin.clone() {
                        let _read = stdin.send(bytes).await;
                    }
                }
                Sent::Size(bytes) => drop(resize.send(bytes).await),
                Sent::EndOfInput => stdin = None,
                Sent::Nothing => {}
            }
        }
        Ok::<_, Error>(())
    };
    let written = async {
        while let Some((channel, bytes)) = pieces.recv().await {
            if !wanted.output(channel) {
                continue;
            }
            sink.send(message(channel, &bytes)).await?;
        }
        // kubectl takes any other code for a failure, also after a good status.
        sink.send(Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::default() }))).await
    };
    let worked = async {
        let status = work(streams).await;
        // Where nobody carries it the client has left.
        let _sent = last.send((Channel::Status, status.to_string().into())).await;
        drop(last);
    };
    let all = async { tokio::join!(written, worked).0 };
    {
        tokio::pin!(read);
        tokio::select! {
            read = &mut read => return read,
            written = all => written?,
        }
        // The client answers, and hangs up. Whether it does or not, kube-apiserver closes as one does.
        let _ = timeout(FAREWELL, read).await;
    }
    // Then the stream below ends too, TLS with its close_notify.
    match sink.reunite(stream) {
        Ok(mut socket) => Ok(socket.get_mut().shutdown().await?),
        Err(_) => Ok(()),
    }
}

impl Sent {
    fn parse(message: Message) -> Self {
        let Message::Binary(mut bytes) = message else { return Self::Nothing };
        if bytes.is_empty() {
            return Self::Nothing;
        }
        let channel = bytes.split_to(1)[0];
        match (channel, bytes.first()) {
            (STDIN, _) => Self::Input(bytes),
            (RESIZE, _) => Self::Size(bytes),
            (CLOSE, Some(&STDIN)) => Self::EndOfInput,
            _ => Self::Nothing,
        }
    }
}

fn message(channel: Channel, bytes: &[u8]) -> Message {
    let mut message = BytesMut::with_capacity(1 + bytes.len());
    message.put_u8(match channel {
        Channel::Stdout => STDOUT,
        Channel::Stderr => STDERR,
        Channel::Status => STATUS,
    });
    message.put_slice(bytes);
    Message::Binary(message.freeze())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_first_byte_of_a_message_is_its_channel(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let input = [&[STDIN], bytes.as_slice()].concat();
            prop_assert_eq!(Sent::parse(Message::Binary(input.into())), Sent::Input(bytes.clone().into()));
            let output = message(Channel::Stderr, &bytes).into_data();
            prop_assert_eq!((output[0], &output[1..]), (STDERR, bytes.as_slice()));
            // Whatever else comes is no input.
            let other = [&[STDOUT], bytes.as_slice()].concat();
            prop_assert_eq!(Sent::parse(Message::Binary(other.into())), Sent::Nothing);
        }
    }

    #[test]
    fn closing_the_input_is_a_message_of_two_bytes() {
        assert_eq!(Sent::parse(Message::Binary(vec![CLOSE, STDIN].into())), Sent::EndOfInput);
        assert_eq!(Sent::parse(Message::Binary(vec![CLOSE].into())), Sent::Nothing);
        assert_eq!(Sent::parse(Message::Binary(Bytes::new())), Sent::Nothing);
    }
}
