//! WebSockets, the server's side, as newer Kubernetes clients speak them.

pub(super) mod channels;
pub(super) mod tunnel;

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role;

/// What has been upgraded to a WebSocket.
pub(super) type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Speaks on what has just been upgraded.
pub(super) async fn accept(upgraded: Upgraded) -> Socket {
    WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await
}
