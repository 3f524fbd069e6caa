//! One end of a simulated tunnel: quinn's state machine and the application above it.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn_proto::{
    ClientConfig, Connection, ConnectionHandle, DatagramEvent, Dir, Endpoint, EndpointConfig, Event,
    MtuDiscoveryConfig, ServerConfig, Side, StreamId, TransportConfig, VarInt, congestion::ControllerFactory,
};

const SERVER: ([u8; 4], u16) = ([192, 0, 2, 1], 1);
const CLIENT: ([u8; 4], u16) = ([192, 0, 2, 2], 2);

/// Size of a small request and of its reply.
const REQUEST: usize = 64;

const REQUEST_INTERVAL: Duration = Duration::from_millis(20);

/// As many segments as quinn gives to one system call.
const SEGMENTS: usize = 10;

/// What the server sends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    pub(super) streams: usize,
    pub(super) requests: bool,
    /// The bulk streams rest.
    pub(super) paused: bool,
}

pub(super) struct End {
    endpoint: Endpoint,
    connection: Option<(ConnectionHandle, Connection)>,
    remote: SocketAddr,
    side: Side,
    pub(super) load: Load,
    pub(super) inbound: Vec<BytesMut>,
    connected: bool,
    bulk: Vec<StreamId>,
    /// The stream of small requests.
    asking: Option<StreamId>,
    /// At the client, requests under way; at the server, bytes to be answered.
    asked: VecDeque<Instant>,
    unanswered: usize,
    answered: usize,
    next_request: Instant,
    /// Bytes read of each bulk stream.
    bulk_read: BTreeMap<StreamId, u64>,
    pub(super) requests: Vec<Duration>,
    pub(super) death: Option<String>,
    buffer: Vec<u8>,
    zeroes: Bytes,
}

fn transport(mtu: u16, controller: Arc<dyn ControllerFactory + Send + Sync>) -> Arc<TransportConfig> {
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(mtu);
    let mut transport = TransportConfig::default();
    transport
        .mtu_discovery_config(Some(discovery))
        .max_idle_timeout(Some(VarInt::from_u32(12_000).into()))
        .stream_receive_window(VarInt::from_u32(16 << 20))
        .receive_window(VarInt::MAX)
        .send_window(1 << 30)
        .congestion_controller_factory(controller);
    crate::transport::tolerate_reordering(&mut transport);
    Arc::new(transport)
}

/// Server and client, whose handshake begins with the first call of `drive`.
pub(super) fn pair(
    mtu: u16,
    load: Load,
    seed: u8,
    controller: Arc<dyn ControllerFactory + Send + Sync>,
    now: Instant,
) -> [End; 2] {
    let (server_tls, client_tls) = crate::tests::tls();
    let transport = transport(mtu, controller);
    let mut server = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(server_tls).unwrap()));
    server.transport_config(transport.clone());
    let mut client = ClientConfig::new(Arc::new(QuicClientConfig::try_from(client_tls).unwrap()));
    client.transport_config(transport);
    let endpoint = |server, side: u8| {
        let mut config = EndpointConfig::default();
        config.rng_seed(Some([seed * 2 + side; 32])).max_udp_payload_size(mtu).unwrap();
        Endpoint::new(Arc::new(config), server, true, None)
    };
    let accepting = End::new(endpoint(Some(Arc::new(server)), 0), CLIENT.into(), Side::Server, load, now);
    let mut dialling = End::new(endpoint(None, 1), SERVER.into(), Side::Client, load, now);
    dialling.connection = Some(dialling.endpoint.connect(now, client, SERVER.into(), "hub").unwrap());
    [accepting, dialling]
}

impl End {
    fn new(endpoint: Endpoint, remote: SocketAddr, side: Side, load: Load, now: Instant) -> Self {
        Self {
            endpoint,
            connection: None,
            remote,
            side,
            load,
            inbound: Vec::new(),
            connected: false,
            bulk: Vec::new(),
            asking: None,
            asked: VecDeque::new(),
            unanswered: 0,
            answered: 0,
            next_request: now,
            bulk_read: BTreeMap::new(),
            requests: Vec::new(),
            death: None,
            buffer: Vec::new(),
            zeroes: Bytes::from(vec![0; 1 << 16]),
        }
    }

    pub(super) fn received(&self) -> BTreeMap<StreamId, u64> {
        self.bulk_read.clone()
    }

    pub(super) fn window(&self) -> u64 {
        self.connection.as_ref().map_or(0, |(_, connection)| connection.stats().path.cwnd)
    }

    pub(super) fn packets(&self) -> (u64, u64) {
        let path = self.connection.as_ref().map(|(_, connection)| connection.stats().path).unwrap_or_default();
        (path.sent_packets, path.lost_packets)
    }

    pub(super) fn wakeup(&mut self) -> Option<Instant> {
        let timer = self.connection.as_mut().and_then(|(_, connection)| connection.poll_timeout());
        let request = self.asking.filter(|_| self.side.is_client()).map(|_| self.next_request);
        [timer, request].into_iter().flatten().min()
    }

    /// All that there is to do now; datagrams go to `send`.
    pub(super) fn drive(&mut self, now: Instant, mut send: impl FnMut(Instant, &[u8])) {
        for datagram in std::mem::take(&mut self.inbound) {
            self.receive(now, datagram);
        }
        let Some((handle, mut connection)) = self.connection.take() else { return };
        if connection.poll_timeout().is_some_and(|time| time <= now) {
            connection.handle_timeout(now);
        }
        while let Some(event) = connection.poll_endpoint_events() {
            if let Some(event) = self.endpoint.handle_event(handle, event) {
                connection.handle_event(event);
            }
        }
        while let Some(event) = connection.poll() {
            self.on_event(&mut connection, event);
        }
        if self.connected && self.death.is_none() {
            match self.side {
                Side::Server => self.serve(&mut connection),
                Side::Client => self.consume(&mut connection, now),
            }
        }
        self.transmit(&mut connection, now, &mut send);
        self.connection = Some((handle, connection));
    }

    fn receive(&mut self, now: Instant, datagram: BytesMut) {
        self.buffer.clear();
        match self.endpoint.handle(now, self.remote, None, None, datagram, &mut self.buffer) {
            Some(DatagramEvent::NewConnection(incoming)) => {
                self.connection = self.endpoint.accept(incoming, now, &mut self.buffer, None).ok();
            }
            Some(DatagramEvent::ConnectionEvent(_, event)) => {
                if let Some((_, connection)) = &mut self.connection {
                    connection.handle_event(event);
                }
            }
            Some(DatagramEvent::Response(_)) | None => {}
        }
    }

    fn on_event(&mut self, connection: &mut Connection, event: Event) {
        match event {
            Event::Connected => {
                self.connected = true;
                if self.side.is_server() {
                    self.bulk = (0..self.load.streams).filter_map(|_| connection.streams().open(Dir::Uni)).collect();
                } else if self.load.requests {
                    self.asking = connection.streams().open(Dir::Bi);
                }
            }
            Event::ConnectionLost { reason } => self.death = Some(reason.to_string()),
            Event::HandshakeDataReady | Event::Stream(_) | Event::DatagramReceived | Event::DatagramsUnblocked => {}
        }
    }

    fn serve(&mut self, connection: &mut Connection) {
        self.asking = self.asking.or_else(|| connection.streams().accept(Dir::Bi));
        if let Some(id) = self.asking {
            self.unanswered += read(connection, id);
            let reply = self.unanswered - self.unanswered % REQUEST;
            if reply > 0 {
                self.unanswered -= connection.send_stream(id).write(&self.zeroes[..reply]).unwrap_or(0);
            }
        }
        for &id in self.bulk.iter().filter(|_| !self.load.paused) {
            while connection.send_stream(id).write_chunks(&mut [self.zeroes.clone()]).is_ok() {}
        }
    }

    fn consume(&mut self, connection: &mut Connection, now: Instant) {
        while let Some(id) = connection.streams().accept(Dir::Uni) {
            self.bulk.push(id);
        }
        for &id in &self.bulk {
            *self.bulk_read.entry(id).or_default() += read(connection, id) as u64;
        }
        let Some(id) = self.asking else { return };
        while self.next_request <= now {
            self.next_request = now + REQUEST_INTERVAL;
            if connection.send_stream(id).write(&self.zeroes[..REQUEST]).is_ok() {
                self.asked.push_back(now);
            }
        }
        self.answered += read(connection, id);
        while self.answered >= REQUEST {
            self.answered -= REQUEST;
            self.requests.extend(self.asked.pop_front().map(|asked| now - asked));
        }
    }

    fn transmit(&mut self, connection: &mut Connection, now: Instant, send: &mut impl FnMut(Instant, &[u8])) {
        self.buffer.clear();
        while let Some(transmit) = connection.poll_transmit(now, SEGMENTS, &mut self.buffer) {
            for datagram in self.buffer[..transmit.size].chunks(transmit.segment_size.unwrap_or(transmit.size)) {
                send(now, datagram);
            }
            self.buffer.clear();
        }
    }
}

/// Reads what there is; its length.
fn read(connection: &mut Connection, id: StreamId) -> usize {
    let mut length = 0;
    let mut stream = connection.recv_stream(id);
    if let Ok(mut chunks) = stream.read(true) {
        while let Ok(Some(chunk)) = chunks.next(usize::MAX) {
            length += chunk.bytes.len();
        }
        // The connection decides by itself what it transmits next.
        let _ = chunks.finalize();
    }
    length
}
