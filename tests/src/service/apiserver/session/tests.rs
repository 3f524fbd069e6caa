//! What an upgrade negotiates, and the messages that a WebSocket's client then gets.

use futures_util::StreamExt as _;
use hyper::header;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use crate::service::apiserver::{ApiServer, TOKEN};
use crate::service::authority::TargetAuthority;

/// Runs `echo hi` as a client that offers these subprotocols; gives the one chosen and the messages before the close.
async fn echo(offered: &str) -> anyhow::Result<(String, Vec<Vec<u8>>)> {
    let authority = TargetAuthority::new()?;
    let server = ApiServer::start(&authority, &[]).await?;
    server.add_pod("first");
    let stream = TcpStream::connect(server.address()).await?;
    let connector = TlsConnector::from(authority.client_config()?);
    let stream = connector.connect(ServerName::try_from("localhost")?, stream).await?;
    let path = "api/v1/namespaces/default/pods/first/exec?command=echo&command=hi&stdout=true";
    let mut request = format!("wss://localhost/{path}").into_client_request()?;
    request.headers_mut().insert(header::AUTHORIZATION, format!("Bearer {TOKEN}").parse()?);
    request.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, offered.parse()?);
    let (mut socket, response) = client_async(request, stream).await?;
    let mut messages = Vec::new();
    while let Some(message) = socket.next().await {
        let message = message?;
        if !message.is_close() {
            messages.push(message.into_data().to_vec());
        }
    }
    Ok((response.headers()[header::SEC_WEBSOCKET_PROTOCOL].to_str()?.to_owned(), messages))
}

#[tokio::test]
async fn output_and_status_come_on_their_channels_in_both_versions() -> anyhow::Result<()> {
    let status = b"\x03{\"metadata\":{},\"status\":\"Success\"}".to_vec();
    for (offered, chosen) in
        [("v4.channel.k8s.io", "v4.channel.k8s.io"), ("v4.channel.k8s.io, v5.channel.k8s.io", "v5.channel.k8s.io")]
    {
        let (protocol, messages) = echo(offered).await?;
        assert_eq!((protocol.as_str(), messages), (chosen, vec![b"\x01hi\n".to_vec(), status.clone()]));
    }
    Ok(())
}

#[tokio::test]
async fn an_unknown_subprotocol_is_refused() {
    let error = echo("v9.channel.k8s.io").await.unwrap_err().to_string();
    assert!(error.contains("400"), "{error}");
}
