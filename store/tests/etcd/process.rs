//! A real etcd for a test: one member on loopback, in a folder of its own, ended with the value.

use std::ffi::OsString;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};

use tempfile::TempDir;

use super::Etcd;

/// An etcd that may be killed and started again on what it has written.
pub struct EtcdProcess {
    folder: TempDir,
    host: Ipv4Addr,
    arguments: Vec<OsString>,
    child: Mutex<Option<Child>>,
}

impl EtcdProcess {
    const CLIENTS: u16 = 2379;
    const PEERS: u16 = 2380;

    /// Starts one. It may not be ready yet: stores wait for it.
    pub fn start() -> Self {
        Self::start_at(Self::own_host(), tempfile::tempdir().unwrap(), "http", &[])
    }

    /// Starts one at a host of its own, in `folder`, whose clients speak `scheme`, with more arguments.
    pub fn start_at(host: Ipv4Addr, folder: TempDir, scheme: &str, arguments: &[OsString]) -> Self {
        let clients = format!("{scheme}://{host}:{}", Self::CLIENTS);
        let own = [format!("--listen-client-urls={clients}"), format!("--advertise-client-urls={clients}")];
        let arguments = own.map(OsString::from).into_iter().chain(arguments.iter().cloned()).collect();
        let etcd = Self { folder, host, arguments, child: Mutex::default() };
        etcd.restart();
        etcd
    }

    /// An address of the loopback network that no other etcd has. A port that is chosen because it is free now, and is free
    /// again after a kill, is one that the kernel may give to somebody else before etcd listens on it.
    pub fn own_host() -> Ipv4Addr {
        static COUNT: AtomicU8 = AtomicU8::new(1);
        let [.., high, low] = std::process::id().to_be_bytes();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        assert!(count < u8::MAX, "a process of tests has so many etcds at most");
        // 127.0.0.0/16 is everybody's.
        Ipv4Addr::new(127, high | 0x80, low, count)
    }

    /// One for all tests of this process, for as long as one of them uses it.
    pub fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<EtcdProcess>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap();
        shared.upgrade().unwrap_or_else(|| {
            let new = Arc::new(Self::start());
            *shared = Arc::downgrade(&new);
            new
        })
    }

    /// Where clients reach it.
    pub fn address(&self) -> SocketAddrV4 {
        SocketAddrV4::new(self.host, Self::CLIENTS)
    }

    /// How a store reaches it, with the default prefix.
    pub fn options(&self) -> Etcd {
        Etcd {
            endpoints: vec![format!("http://{}", self.address())],
            ca: None,
            identity: None,
            prefix: Etcd::PREFIX.to_owned(),
        }
    }

    /// The same for a store of its own.
    pub fn own_options(&self) -> Etcd {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let prefix = format!("/test-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        Etcd { prefix, ..self.options() }
    }

    /// `kill -9`.
    pub fn kill(&self) {
        if let Some(mut child) = self.child.lock().unwrap().take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Starts it again where it was.
    pub fn restart(&self) {
        self.kill();
        let peers = format!("http://{}:{}", self.host, Self::PEERS);
        let log = File::options().create(true).append(true).open(self.folder.path().join("log")).unwrap();
        let child = Command::new(find())
            .arg("--data-dir")
            .arg(self.folder.path().join("data"))
            .args([format!("--listen-peer-urls={peers}"), format!("--initial-advertise-peer-urls={peers}")])
            .arg(format!("--initial-cluster=default={peers}"))
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        *self.child.lock().unwrap() = Some(child);
    }

    /// Starts it again with nothing.
    pub fn restart_empty(&self) {
        self.kill();
        std::fs::remove_dir_all(self.folder.path().join("data")).unwrap();
        self.restart();
    }

    /// Stops or continues it, as a machine that hangs.
    pub fn freeze(&self, frozen: bool) {
        let id = self.child.lock().unwrap().as_ref().unwrap().id();
        let signal = if frozen { "-STOP" } else { "-CONT" };
        assert!(Command::new("kill").args([signal, &id.to_string()]).status().unwrap().success());
    }
}

impl Drop for EtcdProcess {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            let newest: Vec<&str> = log.lines().rev().take(40).collect();
            eprintln!("what etcd said last, newest first:\n{}", newest.join("\n"));
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a test's own environment")]
fn find() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let tools = std::env::current_exe().unwrap().ancestors().map(|folder| folder.join("tools/bin")).collect::<Vec<_>>();
    let places = std::env::split_paths(&path).chain(tools).map(|folder| folder.join("etcd"));
    let found = places.into_iter().find(|place| Path::is_file(place));
    found.expect("etcd is not installed: run `tests/install.sh`, which installs it")
}
