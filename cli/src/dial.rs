//! Dialling the hub: TCP and TLS with the user's certificate, within a deadline.

use std::{io, sync::Arc, time::Duration};

use certs::{HUB_SERVER_NAME, WrongClock};
use rustls::{ClientConfig, pki_types::ServerName};
use socket2::{SockRef, TcpKeepalive};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::failure::{Exit, Failure};

/// For TCP and TLS together.
const DIAL_DEADLINE: Duration = Duration::from_secs(10);

/// A hub whose machine has vanished is noticed after these, by the kernel: 15 s of silence, then 3 probes 5 s apart.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(15);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_PROBES: u32 = 3;

/// Why the hub could not be reached.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    #[error("cannot reach the hub at {address}")]
    Connect { address: String, source: io::Error },
    #[error("the hub at {address} did not answer within 10 seconds")]
    TimedOut { address: String },
    #[error("the hub at {address} broke off the TLS handshake")]
    Handshake { address: String, source: io::Error },
    #[error("the hub at {address} is genuine, but its certificate is not valid by this machine's clock")]
    WrongClock { address: String, source: io::Error },
    #[error("what answers at {address} is not the hub of these credentials")]
    NotTheHub { address: String, source: io::Error },
}

/// Connects to `address` (`host:port`), which must show the hub's certificate whatever its name.
pub(crate) async fn dial(address: &str, tls: &Arc<ClientConfig>) -> Result<TlsStream<TcpStream>, DialError> {
    let dialling = async {
        let connect = |source| DialError::Connect { address: address.into(), source };
        let tcp = TcpStream::connect(address).await.map_err(connect)?;
        prepare(&tcp).map_err(connect)?;
        let name = ServerName::try_from(HUB_SERVER_NAME).expect("the hub's name is a DNS name");
        let handshake = TlsConnector::from(tls.clone()).connect(name, tcp);
        handshake.await.map_err(|source| handshake_error(address, source))
    };
    // Boxed: the handshake's state is large, and this future waits inside others.
    match timeout(DIAL_DEADLINE, Box::pin(dialling)).await {
        Ok(dialled) => dialled,
        Err(_) => Err(DialError::TimedOut { address: address.into() }),
    }
}

fn prepare(tcp: &TcpStream) -> io::Result<()> {
    let keepalive =
        TcpKeepalive::new().with_time(KEEPALIVE_AFTER).with_interval(KEEPALIVE_INTERVAL).with_retries(KEEPALIVE_PROBES);
    SockRef::from(tcp).set_tcp_keepalive(&keepalive)?;
    tcp.set_nodelay(true)
}

fn handshake_error(address: &str, source: io::Error) -> DialError {
    let address = address.into();
    if WrongClock::find(&source).is_some() {
        return DialError::WrongClock { address, source };
    }
    match rustls_error(&source) {
        Some(rustls::Error::InvalidCertificate(_) | rustls::Error::InvalidMessage(_)) => {
            DialError::NotTheHub { address, source }
        }
        _ => DialError::Handshake { address, source },
    }
}

/// What TLS said, if it was TLS.
fn rustls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// Whether the hub takes the certificate that it was shown for one that has ended.
pub(crate) fn is_ended_certificate(error: &io::Error) -> bool {
    matches!(rustls_error(error), Some(rustls::Error::AlertReceived(rustls::AlertDescription::CertificateExpired)))
}

/// Whether the hub refused the certificate that it was shown. TLS 1.3 says so after the client's handshake is over, so
/// this may be the error of a first read.
pub(crate) fn is_refused_certificate(error: &io::Error) -> bool {
    use rustls::AlertDescription as Alert;
    matches!(
        rustls_error(error),
        Some(rustls::Error::AlertReceived(
            Alert::BadCertificate
                | Alert::UnsupportedCertificate
                | Alert::CertificateRevoked
                | Alert::CertificateExpired
                | Alert::CertificateUnknown
                | Alert::UnknownCA
                | Alert::AccessDenied
        ))
    )
}

impl DialError {
    /// Whether a hub that is just starting would look like this.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::TimedOut { .. } => true,
            Self::Handshake { source, .. } => !is_refused_certificate(source),
            Self::NotTheHub { .. } | Self::WrongClock { .. } => false,
        }
    }
}

impl From<DialError> for Failure {
    fn from(error: DialError) -> Self {
        let (exit, next) = match &error {
            DialError::NotTheHub { .. } => (
                Exit::NotAllowed,
                "check the addresses in the credentials' hub.toml; or the hub's CA was rotated since they were used last: ask an \
                 administrator for new ones",
            ),
            DialError::WrongClock { .. } => {
                (Exit::Unavailable, "compare 'date -u' on both machines; where the hub's was wrong, restart it")
            }
            DialError::Handshake { source, .. } if is_refused_certificate(source) => (
                Exit::NotAllowed,
                "ask an administrator for new credentials ('cluster-proxy user renew NAME', or 'user token create NAME --name TOKEN')",
            ),
            DialError::Connect { .. } | DialError::TimedOut { .. } | DialError::Handshake { .. } => {
                (Exit::Unavailable, "start it there with 'proxy-server', or name another hub with --credentials DIR")
            }
        };
        Self::new(exit, error).next(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_certificate_is_told_from_a_lost_connection() {
        let alert = rustls::Error::AlertReceived(rustls::AlertDescription::CertificateExpired);
        assert!(is_refused_certificate(&io::Error::new(io::ErrorKind::InvalidData, alert)));
        assert!(!is_refused_certificate(&io::ErrorKind::ConnectionReset.into()));
    }
}
