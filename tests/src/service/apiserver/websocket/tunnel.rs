//! A byte stream in the binary messages of a WebSocket, for subprotocols `SPDY/3.1+…`.

use std::io;

use bytes::Bytes;
use futures_util::future::ready;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite, join};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_util::io::{CopyToBytes, SinkWriter, StreamReader};

use super::Socket;

/// The stream; ending it closes the WebSocket.
pub(in crate::service::apiserver) fn open(socket: Socket) -> impl AsyncRead + AsyncWrite + Send {
    let (sink, stream) = socket.split();
    let pieces = stream.filter_map(|message| {
        ready(match message {
            Ok(Message::Binary(bytes)) => Some(Ok(bytes)),
            Ok(_) => None,
            Err(error) => Some(Err(io::Error::other(error))),
        })
    });
    let sink = sink.with(|bytes: Bytes| ready(Ok::<_, Error>(Message::Binary(bytes))));
    join(StreamReader::new(pieces), SinkWriter::new(CopyToBytes::new(sink.sink_map_err(io::Error::other))))
}
