//! The response side of one stream: packets and the call's status, as the body of the HTTP response.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use hyper::body::{Body, Frame};
use tokio::sync::mpsc;
use tokio_util::sync::PollSender;

use super::packet::Packet;

/// How long a client may take to let the end be sent.
const END_TIMEOUT: Duration = Duration::from_secs(4);

/// How a call ends (gRPC's status codes).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Status {
    pub(crate) code: Code,
    pub(crate) message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(crate) enum Code {
    Ok = 0,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    ResourceExhausted = 8,
    Unimplemented = 12,
    Unauthenticated = 16,
}

/// Where a stream's packets go. Dropped before its end was sent, it resets the stream: nobody takes that for an end.
#[derive(Debug)]
pub(crate) struct Responses {
    sender: PollSender<Response>,
}

#[derive(Debug)]
pub(crate) enum Response {
    Message(Bytes),
    End(Status),
}

/// The response's body. It holds one message, besides what HTTP/2 has taken.
#[derive(Debug)]
pub(crate) enum ResponseBody {
    /// What a stream's task says.
    Stream(mpsc::Receiver<Response>),
    /// A sentence for people who do not speak gRPC.
    Text(&'static str),
    /// All is said.
    Ended,
}

/// Nobody listens any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the client is gone")]
pub(crate) struct Gone;

/// The stream's task is gone.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the stream broke off")]
pub(crate) struct BrokenOff;

/// Answers, and the body that they come out of.
pub(crate) fn pair() -> (Responses, ResponseBody) {
    let (sender, receiver) = mpsc::channel(1);
    (Responses { sender: PollSender::new(sender) }, ResponseBody::Stream(receiver))
}

impl Status {
    pub(crate) fn ok() -> Self {
        Self { code: Code::Ok, message: String::new() }
    }

    pub(crate) fn of(code: Code, error: &impl ToString) -> Self {
        Self { code, message: error.to_string() }
    }

    /// As fields of a response's trailers, or of its head where nothing else is said.
    pub(crate) fn fields(&self) -> HeaderMap {
        let mut fields = HeaderMap::new();
        fields.insert("grpc-status", HeaderValue::from(self.code as u16));
        if !self.message.is_empty()
            && let Ok(message) = HeaderValue::from_str(&escaped(&self.message))
        {
            fields.insert("grpc-message", message);
        }
        fields
    }
}

/// `message` in gRPC's percent-encoding: all but printable ASCII is escaped, and '%'.
fn escaped(message: &str) -> String {
    let escape = |byte: u8| match byte {
        b'%' => "%25".to_owned(),
        b' '..=b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    message.bytes().map(escape).collect()
}

impl Responses {
    /// Ready when there is room for one answer, which is there until it is used.
    pub(crate) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        self.sender.poll_reserve(cx).map_err(|_| Gone)
    }

    /// Sends one message of gRPC into the room there is.
    pub(crate) fn send_reserved(&mut self, message: Bytes) -> Result<(), Gone> {
        self.sender.send_item(Response::Message(message)).map_err(|_| Gone)
    }

    /// Sends `packet`, if the client takes it soon.
    pub(crate) async fn send(&mut self, packet: &Packet) -> Result<(), Gone> {
        self.put(Response::Message(packet.framed())).await
    }

    /// The last word.
    pub(crate) async fn end(mut self, status: Status) {
        // A client that does not listen sees a reset.
        let _ = self.put(Response::End(status)).await;
    }

    async fn put(&mut self, answer: Response) -> Result<(), Gone> {
        let room = std::future::poll_fn(|cx| self.sender.poll_reserve(cx));
        tokio::time::timeout(END_TIMEOUT, room).await.map_err(|_| Gone)?.map_err(|_| Gone)?;
        self.sender.send_item(answer).map_err(|_| Gone)
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        let body = self.get_mut();
        let frame = match body {
            Self::Stream(receiver) => match ready!(receiver.poll_recv(cx)) {
                Some(Response::Message(message)) => return Poll::Ready(Some(Ok(Frame::data(message)))),
                Some(Response::End(status)) => Ok(Frame::trailers(status.fields())),
                None => Err(BrokenOff),
            },
            Self::Text(text) => Ok(Frame::data(Bytes::from_static(text.as_bytes()))),
            Self::Ended => return Poll::Ready(None),
        };
        *body = Self::Ended;
        Poll::Ready(Some(frame))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Ended)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[test]
    fn a_message_of_any_text_is_a_field() {
        assert_eq!(escaped("100 % of é\n"), "100 %25 of %C3%A9%0A");
        let fields = Status::of(Code::InvalidArgument, &"é").fields();
        assert_eq!((fields["grpc-status"].as_bytes(), fields["grpc-message"].as_bytes()), (&b"3"[..], &b"%C3%A9"[..]));
    }

    #[tokio::test]
    async fn answers_that_are_dropped_break_the_body_off() {
        let (responses, mut body) = pair();
        drop(responses);
        assert!(body.frame().await.unwrap().is_err());
        assert!(body.is_end_stream());
    }

    #[tokio::test]
    async fn a_body_holds_one_message_and_ends_with_the_status() {
        let (mut responses, mut body) = pair();
        responses.send(&Packet::dialled(1, 2)).await.unwrap();
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(responses.poll_ready(&mut cx).is_pending());
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), Packet::dialled(1, 2).framed());
        responses.end(Status::ok()).await;
        assert_eq!(body.frame().await.unwrap().unwrap().into_trailers().unwrap()["grpc-status"], "0");
        assert!(body.frame().await.is_none());
    }
}
