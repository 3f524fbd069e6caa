//! The local ports.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

use tokio::net::{TcpListener, TcpSocket};

use super::pair::Pair;
use crate::failure::{Exit, Failure};

/// Where to listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// `127.0.0.1` and, where there is IPv6, `::1`.
    Localhost,
    One(IpAddr),
}

/// A bound local port.
#[derive(Debug)]
pub(crate) struct Local {
    pub(crate) listener: TcpListener,
    /// As bound.
    pub(crate) address: SocketAddr,
    /// The port in the cluster.
    pub(crate) remote: u16,
}

/// Why a text is no address to listen on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write localhost or an address of this machine, like 127.0.0.1 or 0.0.0.0")]
pub(crate) struct AddressError;

/// Why a local port cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}")]
pub(crate) struct ListenError {
    address: SocketAddr,
    remote: u16,
    source: io::Error,
}

/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let inner = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
        if text == "localhost" { Ok(Self::Localhost) } else { inner.parse().map(Self::One).map_err(|_| AddressError) }
    }
}

/// Binds the pair's local port on every address, a free one on all of them alike.
pub(crate) fn bind(addresses: &[Address], pair: Pair) -> Result<Vec<Local>, ListenError> {
    let mut locals: Vec<Local> = Vec::new();
    for address in addresses {
        // The port that the first address was given is the one of the others.
        let port = locals.first().map_or(pair.local, |first| first.address.port());
        match address {
            Address::One(ip) => locals.push(bind_one(*ip, port, pair.remote)?),
            Address::Localhost => {
                let local = bind_one(Ipv4Addr::LOCALHOST.into(), port, pair.remote)?;
                let port = local.address.port();
                locals.push(local);
                match bind_one(Ipv6Addr::LOCALHOST.into(), port, pair.remote) {
                    Ok(local) => locals.push(local),
                    // A chosen port whose IPv6 twin is another program's would send some clients there.
                    Err(error) if pair.local != 0 && error.source.kind() == io::ErrorKind::AddrInUse => {
                        return Err(error);
                    }
                    // No IPv6 here, or no twin for a port that nobody knows yet.
                    Err(_) => {}
                }
            }
        }
    }
    Ok(locals)
}

fn bind_one(ip: IpAddr, port: u16, remote: u16) -> Result<Local, ListenError> {
    let bind = || {
        let socket = if ip.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // Ports of a run that has just ended are free again.
        socket.set_reuseaddr(true)?;
        socket.bind(SocketAddr::new(ip, port))?;
        let listener = socket.listen(BACKLOG)?;
        let address = listener.local_addr()?;
        Ok(Local { listener, address, remote })
    };
    bind().map_err(|source| ListenError { address: SocketAddr::new(ip, port), remote, source })
}

impl From<ListenError> for Failure {
    fn from(error: ListenError) -> Self {
        let remote = error.remote;
        let kind = error.source.kind();
        let next = if kind == io::ErrorKind::AddrNotAvailable {
            "name an address of this machine with --address".into()
        } else {
            format!("choose another local port, or any free one with ':{remote}'")
        };
        Self::new(Exit::Other, error).next(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_localhost_or_an_ip() {
        assert_eq!("localhost".parse(), Ok(Address::Localhost));
        assert_eq!("[::1]".parse(), Ok(Address::One(Ipv6Addr::LOCALHOST.into())));
        assert_eq!("example.com".parse::<Address>(), Err(AddressError));
    }

    #[tokio::test]
    async fn a_busy_port_is_an_error_that_offers_another() {
        let any = Pair { local: 0, remote: 80 };
        let bound = bind(&[Address::Localhost], any).unwrap();
        let busy = Pair { local: bound[0].address.port(), remote: 80 };
        let line = Failure::from(bind(&[Address::Localhost], busy).unwrap_err()).line();
        assert!(line.contains("127.0.0.1") && line.contains("':80'"), "{line}");
    }

    #[tokio::test]
    async fn a_free_port_is_the_same_on_every_address() {
        let addresses = ["127.0.0.1".parse().unwrap(), "127.0.0.2".parse().unwrap()];
        let bound = bind(&addresses, Pair { local: 0, remote: 80 }).unwrap();
        assert_eq!(bound.len(), 2);
        assert_eq!(bound[0].address.port(), bound[1].address.port());
    }
}
