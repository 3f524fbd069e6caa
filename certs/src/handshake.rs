//! A TLS handshake in memory, for tests: no socket, no thread.

mod tests;

use std::{ops::DerefMut, sync::Arc};

use rustls::{
    AlertDescription, ClientConfig, ClientConnection, ConnectionCommon, Error, ServerConfig, ServerConnection,
    SideData, pki_types::ServerName,
};

use crate::HUB_SERVER_NAME;

/// Both ends of a connection whose handshake has run as far as it goes.
#[derive(Debug)]
pub(crate) struct Handshake {
    pub(crate) client: ClientConnection,
    pub(crate) server: ServerConnection,
    pub(crate) client_error: Option<Error>,
    pub(crate) server_error: Option<Error>,
}

impl Handshake {
    /// Runs it with the server name that our own clients use.
    pub(crate) fn run(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>) -> Self {
        Self::run_with_name(client, server, HUB_SERVER_NAME)
    }

    pub(crate) fn run_with_name(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>, name: &'static str) -> Self {
        let name = ServerName::try_from(name).unwrap();
        let mut client = ClientConnection::new(client.clone(), name).unwrap();
        let mut server = ServerConnection::new(server.clone()).unwrap();
        let (mut client_error, mut server_error) = (None, None);
        // TLS 1.3 needs three flights; the others are for tickets and alerts.
        for _ in 0..4 {
            let (at_server, at_client) = (carry(&mut client, &mut server), carry(&mut server, &mut client));
            (server_error, client_error) = (server_error.or(at_server), client_error.or(at_client));
        }
        Self { client, server, client_error, server_error }
    }

    /// Neither end has an error, and both have finished.
    pub(crate) fn succeeded(&self) -> bool {
        self.client_error.is_none()
            && self.server_error.is_none()
            && !self.client.is_handshaking()
            && !self.server.is_handshaking()
    }

    /// The alert with which the server refused the client.
    pub(crate) fn alert_to_client(&self) -> Option<AlertDescription> {
        match self.client_error {
            Some(Error::AlertReceived(alert)) => Some(alert),
            _ => None,
        }
    }
}

/// Takes what one end has to say to the other, and gives the error the other has with it.
fn carry<A: SideData, B: SideData>(
    from: &mut impl DerefMut<Target = ConnectionCommon<A>>,
    to: &mut impl DerefMut<Target = ConnectionCommon<B>>,
) -> Option<Error> {
    let mut bytes = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut bytes).unwrap();
    }
    let mut unread = bytes.as_slice();
    while !unread.is_empty() {
        to.read_tls(&mut unread).unwrap();
        if let Err(error) = to.process_new_packets() {
            return Some(error);
        }
    }
    None
}
