//! How many instructions the tunnel's code runs per relayed MiB and per connection, counted by callgrind: a figure that
//! neither other load nor another machine changes by more than a few percent.
//!
//! Both ends of a tunnel and both relays run in one thread of one process, between connections in memory and over UDP
//! on loopback; the kernel is not counted. The work is done with little and with much of what is asked about, so that
//! start, handshake and end cancel out.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    process::Command,
    sync::Arc,
    task::{Context as TaskContext, Poll},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use rustls::pki_types::PrivateKeyDer;
use tokio::{
    io::{AsyncRead, ReadBuf, empty, sink},
    task::JoinSet,
    time::Instant,
};
use tunnel::{
    ALPN_TUNNEL, AgentControl, AgentTunnel, Dial, Hello, HubControl, HubMessage, HubTunnel, Listener, PortSocket,
    RESET_KEY_LENGTH, RelayEnd, SIGN_OF_LIFE, Settings, Traffic, TunnelMemory, Welcome, connect, relay,
};

/// Longer than any step takes under callgrind, which is fifty times as slow.
const SOON: Duration = Duration::from_secs(60);
const MIB: u64 = 1 << 20;
/// What both runs of a count have in common: code that runs for the first time costs more.
const FEW: u64 = 8;
/// The rest of the longer run, done within a minute.
const MANY_MIB: u64 = 64;
const MANY_CONNECTIONS: u64 = 200;

/// Counts instructions per relayed MiB and per connection; needs valgrind.
#[derive(Debug, Parser)]
struct Arguments {
    /// Do the work itself
    #[arg(long)]
    work: bool,
    /// Relay so many MiB on one connection
    #[arg(long, value_name = "MIB", default_value_t = 0)]
    mib: u64,
    /// Open, use for 64 bytes and close so many connections, one after the other
    #[arg(long, value_name = "N", default_value_t = 0)]
    connections: u64,
}

/// Both ends of a tunnel.
struct Tunnel {
    hub: HubTunnel,
    agent: AgentTunnel,
    _listener: Listener,
    _controls: JoinSet<()>,
}

/// Reads as so many zeros.
struct Zeros(u64);

#[allow(clippy::print_stdout, reason = "the table is what is asked for")]
fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if arguments.work {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        return runtime.block_on(work(arguments.mib, arguments.connections));
    }
    let per_mib = count(FEW + MANY_MIB, 0)?.saturating_sub(count(FEW, 0)?) / MANY_MIB;
    let per_connection = count(0, FEW + MANY_CONNECTIONS)?.saturating_sub(count(0, FEW)?) / MANY_CONNECTIONS;
    println!("instructions, both ends together, without the kernel:");
    println!("{per_mib:>12} per relayed MiB");
    println!("{per_connection:>12} per connection");
    Ok(())
}

/// The instructions that the work takes, with start and end.
fn count(mib: u64, connections: u64) -> Result<u64> {
    let program = std::env::current_exe()?;
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(program).arg("--work");
    valgrind.args([format!("--mib={mib}"), format!("--connections={connections}")]);
    let output = valgrind.output().context("cannot run valgrind; install it")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the work failed: {said}");
    let collected = said.lines().find_map(|line| line.split_once("Collected : "));
    let (_, count) = collected.with_context(|| format!("callgrind says no count: {said}"))?;
    Ok(count.trim().parse()?)
}

async fn work(mib: u64, connections: u64) -> Result<()> {
    let tunnel = Tunnel::open().await?;
    if mib > 0 {
        tunnel.connection(mib * MIB).await?;
    }
    for _ in 0..connections {
        tunnel.connection(64).await?;
    }
    Ok(())
}

impl Tunnel {
    async fn open() -> Result<Self> {
        let (server, client) = tls()?;
        let port = PortSocket::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), 1)?.0.remove(0);
        let listener = Listener::serve(port, server, &[7; RESET_KEY_LENGTH], Settings::default())?;
        let address = listener.local_address()?;
        let dialling = async {
            let connection = connect(address, client, "hub", Settings::default(), SOON).await?;
            let hello = Hello::default();
            anyhow::Ok(AgentTunnel::establish(connection, hello, TunnelMemory::default(), SOON).await?)
        };
        let accepting = async {
            let connection = listener.accept().await.context("closed")?.accept(SOON).await?;
            let (hub, control, _) = HubTunnel::establish(connection, TunnelMemory::default(), SOON).await?;
            control.send(HubMessage::Welcome(Welcome::default()))?;
            anyhow::Ok((hub, control))
        };
        let ((agent, agent_control, _), (hub, hub_control)) = tokio::try_join!(dialling, accepting)?;
        let controls = controls(hub_control, agent_control);
        Ok(Self { hub, agent, _listener: listener, _controls: controls })
    }

    /// One connection, on which the agent's side sends `bytes`.
    async fn connection(&self, bytes: u64) -> Result<()> {
        let dial = Dial { host: "target".into(), port: 80, ..Dial::default() };
        let (received, sent) = (Traffic::default(), Traffic::default());
        let near = async {
            let (stream, _) = self.hub.open(&dial, Instant::now() + SOON, SIGN_OF_LIFE).await?;
            anyhow::Ok(relay(stream, empty(), sink(), &received).await)
        };
        let far = async {
            let request = self.agent.accept().await?.read(SOON).await?;
            let stream = request.accept(SocketAddr::from((Ipv4Addr::LOCALHOST, 80))).await?;
            anyhow::Ok(relay(stream, Zeros(bytes), sink(), &sent).await)
        };
        let ends = tokio::try_join!(near, far)?;
        ensure!(ends == (RelayEnd::Complete, RelayEnd::Complete), "{ends:?}");
        ensure!(received.out_of_tunnel() == bytes, "{} bytes came of {bytes}", received.out_of_tunnel());
        Ok(())
    }
}

/// The control streams are read for as long as the tunnel is kept.
fn controls(mut hub: HubControl, mut agent: AgentControl) -> JoinSet<()> {
    let mut controls = JoinSet::new();
    controls.spawn(async move { while hub.receive().await.is_ok() {} });
    controls.spawn(async move { while agent.receive().await.is_ok() {} });
    controls
}

fn tls() -> Result<(Arc<rustls::ServerConfig>, Arc<rustls::ClientConfig>)> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = rcgen::KeyPair::generate()?;
    let certificate = rcgen::CertificateParams::new(vec!["hub".into()])?.self_signed(&key)?;
    let mut server = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))?;
    server.alpn_protocols = vec![ALPN_TUNNEL.to_vec()];
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate.der().clone())?;
    let mut client = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.alpn_protocols = vec![ALPN_TUNNEL.to_vec()];
    Ok((Arc::new(server), Arc::new(client)))
}

impl AsyncRead for Zeros {
    fn poll_read(self: Pin<&mut Self>, _: &mut TaskContext<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let left = &mut self.get_mut().0;
        let count = buffer.remaining().min(usize::try_from(*left).unwrap_or(usize::MAX));
        buffer.initialize_unfilled_to(count).fill(0);
        buffer.advance(count);
        *left -= count as u64;
        Poll::Ready(Ok(()))
    }
}
