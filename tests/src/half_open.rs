//! Handshakes that begin and go no further: Initial packets of QUIC, made beforehand and sent from any address of loopback.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use quinn::crypto::rustls::QuicClientConfig;
use tokio::net::UdpSocket;
use tokio::time::timeout;
use tunnel::ALPN_TUNNEL;

use crate::{HUB_NAME, Hub};

/// How long a client's first datagrams may take; there are one or two.
const FIRST: Duration = Duration::from_secs(2);
const MORE: Duration = Duration::from_millis(5);

/// First flights of clients, each of a connection of its own, and sockets to send them from.
#[derive(Debug)]
pub struct HalfOpen {
    flights: Vec<Vec<Vec<u8>>>,
    sockets: Vec<UdpSocket>,
    hub: SocketAddr,
}

impl HalfOpen {
    /// `count` flights for `hub`, from `sources` addresses.
    pub async fn prepare(hub: &Hub, count: usize, sources: u8) -> Result<Self> {
        let mut tls = rustls::ClientConfig::clone(&*hub.credentials().tls()?);
        tls.alpn_protocols = vec![ALPN_TUNNEL.to_vec()];
        let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
        let endpoint = quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into())?;
        let catcher = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let mut flights = Vec::new();
        let mut buffer = vec![0; 2048];
        for _ in 0..count {
            let connecting = endpoint.connect_with(config.clone(), catcher.local_addr()?, HUB_NAME)?;
            let length = timeout(FIRST, catcher.recv(&mut buffer)).await.context("no Initial packet comes")??;
            let mut flight = vec![buffer[..length].to_vec()];
            while let Ok(length) = timeout(MORE, catcher.recv(&mut buffer)).await {
                flight.push(buffer[..length?].to_vec());
            }
            drop(connecting);
            // Its farewell is nobody's first word.
            while timeout(MORE, catcher.recv(&mut buffer)).await.is_ok() {}
            flights.push(flight);
        }
        let mut sockets = Vec::new();
        for host in 1..=sources {
            sockets.push(UdpSocket::bind((IpAddr::V4(Ipv4Addr::new(127, 255, 255, host)), 0)).await?);
        }
        Ok(Self { flights, sockets, hub: hub.addresses().tunnel })
    }

    /// Sends them again and again, `rate` a second. A handshake that the hub has forgotten is a new one.
    pub async fn send(&self, rate: u32) -> Result<()> {
        let mut turns = tokio::time::interval(Duration::from_secs(1) / rate);
        for (flight, socket) in self.flights.iter().cycle().zip(self.sockets.iter().cycle()) {
            turns.tick().await;
            for datagram in flight {
                socket.send_to(datagram, self.hub).await?;
            }
        }
        Ok(())
    }
}
