//! Network namespaces of this process, made with iproute2 and removed when dropped.

use std::fs;
use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{self, Command};

use anyhow::{Context as _, Result, bail, ensure};

use crate::place;

/// Where iproute2 keeps namespaces by name (ip-netns(8)).
const FOLDER: &str = "/run/netns";
/// What the names of all namespaces of this crate begin with; the process id and a word follow.
const PREFIX: &str = "link-";

/// A network namespace with its loopback up. Deleted when dropped; processes that are still inside keep what they have.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes one called after this process and `word`, e.g. `link-4711-far`; needs root. Those of processes that were killed
    /// are removed first.
    pub fn create(word: &str) -> Result<Self> {
        remove_orphans()?;
        let name = format!("{PREFIX}{}-{word}", process::id());
        ip(&["netns", "add", &name])?;
        let namespace = Self { name };
        namespace.ip(&["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// Its file, e.g. `/run/netns/link-4711-far`.
    pub fn file(&self) -> PathBuf {
        Path::new(FOLDER).join(&self.name)
    }

    /// Its name, as `ip netns exec` takes it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Moves this thread, and all threads and processes that it starts from now on, inside.
    pub fn enter(&self) -> Result<()> {
        place::enter(&self.file())
    }

    /// Takes a device of the caller's namespace inside, gives it an address in a /24, and brings it up.
    pub fn adopt(&self, device: &str, address: Ipv4Addr) -> Result<()> {
        ip(&["link", "set", device, "netns", &self.name])?;
        // Nothing but the traffic under test is to cross the link, so that the seed's losses hit the same packets.
        self.write(&format!("net/ipv6/conf/{device}/disable_ipv6"), "1")?;
        self.ip(&["addr", "add", &format!("{address}/24"), "dev", device])?;
        // The only queue is the emulator's: the device's own takes what a sender can have under way.
        self.ip(&["link", "set", device, "mtu", "1500", "txqueuelen", "10000", "up"])
    }

    /// Lets TCP sockets inside have that many bytes under way.
    pub fn set_tcp_buffers(&self, bytes: u64) -> Result<()> {
        self.write("net/ipv4/tcp_rmem", &format!("4096 131072 {bytes}"))?;
        self.write("net/ipv4/tcp_wmem", &format!("4096 16384 {bytes}"))
    }

    /// Sets the congestion control of TCP sockets inside, `cubic` or `bbr`.
    pub fn set_tcp_congestion(&self, name: &str) -> Result<()> {
        self.write("net/ipv4/tcp_congestion_control", name).with_context(|| {
            format!(
                "{name} is not allowed here: add it with `sysctl -w net.ipv4.tcp_allowed_congestion_control=\"reno bbr cubic\"`"
            )
        })
    }

    /// The congestion control of TCP sockets inside.
    pub fn tcp_congestion(&self) -> Result<String> {
        let read = self.shell("cat /proc/sys/net/ipv4/tcp_congestion_control")?;
        Ok(read.trim().to_owned())
    }

    /// A program to be run inside.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// Runs iproute2's `tc` on the namespace's devices.
    pub fn tc(&self, arguments: &[&str]) -> Result<()> {
        run(Command::new("tc").args(["-n", &self.name]).args(arguments)).map(drop)
    }

    /// Runs iproute2's `ip` on the namespace.
    pub fn ip(&self, arguments: &[&str]) -> Result<()> {
        ip(&[&["-n", &self.name], arguments].concat())
    }

    /// Writes a setting below `/proc/sys`, whose `net` shows the namespace of who reads.
    fn write(&self, setting: &str, value: &str) -> Result<()> {
        self.shell(&format!("echo {value} > /proc/sys/{setting}")).map(drop)
    }

    fn shell(&self, line: &str) -> Result<String> {
        run(self.command("sh").args(["-c", line]))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = ip(&["netns", "delete", &self.name]) {
            eprintln!("{error:#}");
        }
    }
}

/// Removes what processes that are gone have left.
fn remove_orphans() -> Result<()> {
    let entries = match fs::read_dir(FOLDER) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).context("the network namespaces cannot be listed"),
    };
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once('-')?.0.parse::<u32>().ok());
        if owner.is_some_and(|owner| !Path::new(&format!("/proc/{owner}")).exists()) {
            ip(&["netns", "delete", &name])?;
        }
    }
    Ok(())
}

/// Runs iproute2's `ip` outside of any of these namespaces.
pub(crate) fn ip(arguments: &[&str]) -> Result<()> {
    run(Command::new("ip").args(arguments)).map(drop)
}

fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{command:?} does not start: is iproute2 installed?"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Says what is missing for network namespaces with TUN devices, if anything is.
pub fn available() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("network namespaces need root");
    }
    if !Path::new("/dev/net/tun").exists() {
        bail!("there is no /dev/net/tun: load the module with `modprobe tun`");
    }
    run(Command::new("ip").arg("-V")).map(drop)
}
