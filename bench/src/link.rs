//! A link between two network namespaces with a rate, a delay, a queue and random losses, emulated by a thread of this process.
//!
//! ```text
//! near namespace, 10.77.0.1 ── TUN ──► lane: lose? queue full? wire time, delay ──► TUN ── far namespace, 10.77.0.2
//!                           ◄────────────────────── a lane of its own ◄──────────
//! ```

mod netem;
mod pump;

use std::io::PipeWriter;
use std::net::Ipv4Addr;
use std::process::{self, Command};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use anyhow::{Context as _, Result, bail, ensure};
use links::{Lane, Profile, Statistics};
use nix::sys::prctl;
use parking_lot::Mutex;
use tun_rs::{DeviceBuilder, SyncDevice};

use crate::machine::TcpMemory;
use crate::netns::{self, Namespace};
use crate::place::{Place, Places};

use netem::Netem;
use pump::Pump;

/// The near end's address.
pub const NEAR: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// The far end's address.
pub const FAR: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);

/// What a TCP socket at an end may have under way: several times what a link of 1 Gbit/s and 100 ms holds, so that no baseline is
/// limited by the machine's default.
const TCP_BUFFERS: u64 = 64 << 20;

/// The lanes from the near end to the far one, and back.
type Lanes = Arc<Mutex<[Lane<Vec<u8>>; 2]>>;

/// A link between two namespaces of its own. It ends, and its namespaces are removed, when it is dropped.
///
/// What becomes of a packet is decided by the profile, the seed and the number of the packet alone.
#[derive(Debug)]
pub struct Link {
    carrier: Carrier,
    near: Namespace,
    far: Namespace,
    tcp_memory: TcpMemory,
}

/// Who carries the packets.
#[derive(Debug)]
enum Carrier {
    /// A thread of this process.
    Thread { lanes: Lanes, stop: Option<PipeWriter>, pump: Option<JoinHandle<Result<()>>> },
    /// The kernel.
    Netem(Netem),
}

impl Link {
    /// Whether there can be one here; the error says what is missing.
    pub fn available() -> Result<()> {
        netns::available()
    }

    /// Makes the namespaces, connects them, and starts to carry packets.
    pub fn start(profile: Profile, seed: u64) -> Result<Self> {
        let (near, far) = ends()?;
        let devices = [device(&near, "n", NEAR)?, device(&far, "f", FAR)?];
        // Two seeds, so that the directions do not lose the same packets.
        let lanes = Arc::new(Mutex::new([Lane::new(profile, seed), Lane::new(profile, seed.wrapping_add(1))]));
        let (stopped, stop) = std::io::pipe()?;
        let pump = Pump { devices, lanes: Arc::clone(&lanes), stop: stopped };
        let pump = thread::Builder::new().name("link".to_owned()).spawn(move || {
            be_punctual();
            pump.run()
        })?;
        let carrier = Carrier::Thread { lanes, stop: Some(stop), pump: Some(pump) };
        Ok(Self { carrier, near, far, tcp_memory: TcpMemory::limit()? })
    }

    /// The same by the kernel's netem, where it has one. Its losses are not decided by a seed.
    pub fn start_netem(profile: Profile) -> Result<Self> {
        let simple = Profile::new(profile.rate, profile.delay, profile.queue).with_loss(profile.loss.share);
        ensure!(profile == simple, "netem is asked for a rate, a delay, a queue and random losses alone");
        let (near, far) = ends()?;
        let carrier = Carrier::Netem(Netem::start(&profile, &near, &far)?);
        Ok(Self { carrier, near, far, tcp_memory: TcpMemory::limit()? })
    }

    /// From now on another profile, in both directions; what is under way arrives as it would have.
    pub fn set_profile(&self, profile: Profile) -> Result<()> {
        match &self.carrier {
            Carrier::Thread { .. } => self.set_profiles([profile; 2])?,
            Carrier::Netem(netem) => netem.set_profile(&profile)?,
        }
        Ok(())
    }

    /// The same from near to far, and from far to near.
    pub fn set_profiles(&self, profiles: [Profile; 2]) -> Result<()> {
        let Carrier::Thread { lanes, .. } = &self.carrier else { bail!("netem has one profile for both directions") };
        lanes.lock().iter_mut().zip(profiles).for_each(|(lane, profile)| lane.set_profile(profile));
        Ok(())
    }

    /// What happened so far from near to far, and from far to near; not known of netem.
    pub fn statistics(&self) -> Option<[Statistics; 2]> {
        match &self.carrier {
            Carrier::Thread { lanes, .. } => Some(lanes.lock().each_ref().map(Lane::statistics)),
            Carrier::Netem(_) => None,
        }
    }

    /// The near end's namespace: hub and clients.
    pub fn near(&self) -> &Namespace {
        &self.near
    }

    /// The far end's namespace: agents and services.
    pub fn far(&self) -> &Namespace {
        &self.far
    }

    /// Both ends, for a thread that is inside the near one.
    pub fn places(&self) -> Places {
        let near = Place { ip: NEAR.into(), netns: None };
        Places { near, far: Place { ip: FAR.into(), netns: Some(self.far.file()) } }
    }

    /// The machine's limit, which the ends share with everything else on it.
    pub fn tcp_memory(&self) -> TcpMemory {
        self.tcp_memory
    }

    /// Ends it; an error says why it had ended before.
    pub fn stop(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        let Carrier::Thread { stop, pump, .. } = &mut self.carrier else { return Ok(()) };
        drop(stop.take());
        match pump.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(ended)) => ended,
            Some(Err(_)) => anyhow::bail!("the link's thread has panicked"),
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("the link had failed: {error:#}");
        }
    }
}

/// The namespaces of both ends, not connected yet.
fn ends() -> Result<(Namespace, Namespace)> {
    Link::available()?;
    let (near, far) = (Namespace::create("near")?, Namespace::create("far")?);
    near.set_tcp_buffers(TCP_BUFFERS)?;
    far.set_tcp_buffers(TCP_BUFFERS)?;
    Ok((near, far))
}

/// A device's name that no other process gives.
fn device_name(suffix: &str) -> String {
    format!("link{}{suffix}", process::id())
}

/// A TUN device in `namespace`, without offloads: what comes out of it are packets as they are on a wire.
fn device(namespace: &Namespace, suffix: &str, address: Ipv4Addr) -> Result<SyncDevice> {
    let name = device_name(suffix);
    let device = DeviceBuilder::new().name(&name).enable(false).build_sync().context("no TUN device")?;
    device.set_nonblocking(true)?;
    namespace.adopt(&name, address)?;
    Ok(device)
}

/// Has this thread wake up in time: without the slack of ordinary timers, and before the programs under test.
fn be_punctual() {
    if let Err(error) = prctl::set_timerslack(1) {
        eprintln!("the link's timers keep their slack of 50 us: {error}");
    }
    let thread = nix::unistd::gettid().to_string();
    let raised = Command::new("chrt").args(["--rr", "--pid", "1", &thread]).status();
    if !raised.is_ok_and(|status| status.success()) {
        eprintln!("the link's thread runs at ordinary priority: `chrt` cannot raise it");
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::net::UdpSocket;
    use std::time::{Duration, Instant};

    use super::*;

    const BOUND: Duration = Duration::from_secs(10);

    /// A socket at an end; the thread that makes it stays outside.
    fn socket(end: &Namespace, address: Ipv4Addr) -> Result<UdpSocket> {
        thread::scope(|threads| {
            let inside = threads.spawn(|| {
                end.enter()?;
                let socket = UdpSocket::bind((address, 0))?;
                socket.set_read_timeout(Some(BOUND))?;
                anyhow::Ok(socket)
            });
            inside.join().expect("the thread does not panic")
        })
    }

    #[test]
    fn datagrams_cross_after_the_delay_and_are_lost_as_the_profile_says() -> Result<()> {
        if let Err(missing) = Link::available() {
            eprintln!("skipped: {missing:#}");
            return Ok(());
        }
        let link = Link::start(Profile::WIDE_AREA, 1)?;
        let (near, far) = (socket(link.near(), NEAR)?, socket(link.far(), FAR)?);
        let mut datagram = [0; 16];
        let start = Instant::now();
        near.send_to(b"there", far.local_addr()?)?;
        let (length, from) = far.recv_from(&mut datagram)?;
        assert_eq!(&datagram[..length], b"there");
        far.send_to(b"back", from)?;
        near.recv_from(&mut datagram)?;
        // A loaded machine makes it later, and nothing earlier than the pump's tick.
        assert!(start.elapsed() > Duration::from_millis(49), "{:?}", start.elapsed());

        link.set_profile(Profile::WIDE_AREA.with_loss(1.0))?;
        far.set_read_timeout(Some(Duration::from_millis(200)))?;
        near.send_to(b"lost", far.local_addr()?)?;
        let lost = far.recv_from(&mut datagram).map_err(|error| error.kind());
        assert_eq!(lost, Err(io::ErrorKind::WouldBlock));
        let [there, back] = link.statistics().expect("a thread carries the packets");
        assert_eq!((there.delivered, there.lost, back.delivered), (1, 1, 1));
        let names = [link.near().name(), link.far().name()].map(|name| format!("/run/netns/{name}"));
        link.stop()?;
        assert!(names.iter().all(|name| !std::path::Path::new(name).exists()), "the namespaces stay");
        Ok(())
    }
}
