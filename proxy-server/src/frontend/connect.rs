//! HTTP CONNECT (RFC 9110 section 9.3.6), with the answers that kube-apiserver's egress selector expects.

use http::StatusCode;

use crate::{
    frontend::client::{Client, Peer},
    frontend::head::{HeadError, host_and_port},
    metrics::Frontend,
    outcome::Outcome,
    proxy::Proxy,
    proxy::caller::PresentedCredentials,
    proxy::refusal::OpenError,
};

/// Exactly 200, and nothing behind the head: the egress selector takes any other 2xx, and any byte read together with
/// it, for an error.
const ESTABLISHED: &[u8] = b"HTTP/1.1 200 Connection Established\r\n\r\n";

/// Serves one CONNECT, and its connection to the end.
pub(crate) async fn serve(
    proxy: &Proxy,
    mut client: Client,
    peer: Peer,
    presented: PresentedCredentials,
    authority: &str,
    authorization: Option<Vec<u8>>,
) {
    let (host, port) = host_and_port(authority).unwrap_or((authority, 0));
    let record = proxy.recorder.connection(Frontend::Connect, peer);
    let guest = presented.guest.clone();
    let presented = presented.with_authorization(authorization.as_deref());
    let opened = tokio::select! {
        // What needs no dial is answered even if the client has half-closed already.
        biased;
        opened = proxy.open(record, presented, host.to_owned(), port) => opened,
        // Nobody is left to be answered; dropping the dial cancels it.
        () = client.left() => return,
    };
    match opened {
        Ok((stream, proxied)) => match client.answer(ESTABLISHED).await {
            Ok(()) => {
                client.hold_guest(guest);
                proxied.relay(client, stream);
            }
            Err(_) => proxied.close(Outcome::ClientReset),
        },
        Err(error) => refuse(&mut client, &error).await,
    }
}

async fn refuse(client: &mut Client, error: &OpenError) {
    answer(client, error.status(), &error.to_string()).await;
}

/// Answers a first request that cannot be read.
pub(crate) async fn refuse_head(client: &mut Client, error: &HeadError) {
    let status = match error {
        HeadError::Malformed => StatusCode::BAD_REQUEST,
        HeadError::TooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        HeadError::Ended => return,
    };
    answer(client, status, &error.to_string()).await;
}

/// One sentence as plain text, then the end.
pub(crate) async fn answer(client: &mut Client, status: StatusCode, sentence: &str) {
    let challenge = match status {
        StatusCode::PROXY_AUTHENTICATION_REQUIRED => "Proxy-Authenticate: Basic realm=\"cluster-proxy\"\r\n",
        StatusCode::SERVICE_UNAVAILABLE => "Retry-After: 1\r\n",
        _ => "",
    };
    let reason = status.canonical_reason().unwrap_or_default();
    let answer = format!(
        "HTTP/1.1 {} {reason}\r\n{challenge}Content-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{sentence}\n",
        status.as_u16(),
        sentence.len() + 1,
    );
    client.conclude(answer.as_bytes()).await;
}
