//! The machine and the sources that a report was made with.

use std::fs;
use std::process::Command;
use std::thread::available_parallelism;

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};

/// What one has to know to compare two reports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Its model, as the kernel names it.
    pub cpu: String,
    /// How many CPUs a process may use.
    pub cores: usize,
    /// The release of the kernel.
    pub kernel: String,
    /// Memory in MiB.
    pub memory: u64,
    /// Processes that wanted to run in the minute before, as the kernel's load average.
    pub load: String,
    /// The commit of the sources, with `+` where they were changed since; empty where there is no git.
    pub commit: String,
}

impl Machine {
    /// This one, now.
    pub fn this() -> Result<Self> {
        let read = |path: &str| fs::read_to_string(path).with_context(|| format!("{path} is not readable"));
        let (cpuinfo, meminfo) = (read("/proc/cpuinfo")?, read("/proc/meminfo")?);
        let memory = field(&meminfo, "MemTotal").and_then(|kib| kib.strip_suffix(" kB")?.parse::<u64>().ok());
        Ok(Self {
            cpu: field(&cpuinfo, "model name").unwrap_or("unknown").to_owned(),
            cores: available_parallelism()?.get(),
            kernel: read("/proc/sys/kernel/osrelease")?.trim_end().to_owned(),
            memory: memory.context("/proc/meminfo has no MemTotal")? / 1024,
            load: read("/proc/loadavg")?.split(' ').next().unwrap_or_default().to_owned(),
            commit: commit(),
        })
    }

    /// In one line.
    pub fn describe(&self) -> String {
        let Self { cpu, cores, kernel, memory, load, commit } = self;
        let gib = (*memory as f64 / 1024.0).round();
        format!("{cores} cores of {cpu}, {gib} GiB, Linux {kernel}, load {load} before, commit {commit}")
    }
}

/// The value of the first `name : value` line.
fn field<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    lines.map(|(key, value)| (key.trim(), value.trim())).find(|(key, _)| *key == name).map(|(_, value)| value)
}

fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
    };
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|changes| !changes.is_empty());
    let commit = git(&["rev-parse", "--short", "HEAD"]).unwrap_or_default();
    if changed { commit + "+" } else { commit }
}

/// The limit of the memory that all TCP sockets of the machine hold together, in all network namespaces.
#[derive(Debug, Clone, Copy)]
pub struct TcpMemory {
    /// Pages from which on the kernel holds the sockets down.
    pressure: u64,
}

impl TcpMemory {
    /// The machine's. Only its first network namespace shows it.
    pub fn limit() -> Result<Self> {
        let limits = read("/proc/sys/net/ipv4/tcp_mem")?;
        Ok(Self { pressure: pressure(&limits).context("TCP's limits of memory are not told as tcp(7) says")? })
    }

    /// Fails while the kernel holds sockets down: every figure of TCP is then that of whoever holds the memory.
    pub fn check(self) -> Result<()> {
        let held = held(&read("/proc/net/sockstat")?).context("TCP's memory is not told as proc_net(5) says")?;
        ensure!(
            held < self.pressure,
            "TCP sockets of this machine hold {held} pages, and the kernel holds them down from {} on: end what holds them",
            self.pressure
        );
        Ok(())
    }
}

fn read(file: &str) -> Result<String> {
    fs::read_to_string(file).with_context(|| format!("{file} cannot be read"))
}

/// Pages that all TCP sockets hold.
fn held(sockets: &str) -> Option<u64> {
    let tcp = sockets.lines().find_map(|line| line.strip_prefix("TCP:"))?;
    tcp.split_ascii_whitespace().skip_while(|word| *word != "mem").nth(1)?.parse().ok()
}

/// Pages from which on they are under pressure.
fn pressure(limits: &str) -> Option<u64> {
    limits.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let text = "model\t\t: 17\nmodel name\t: AMD EPYC\nmodel name\t: other\n";
        assert_eq!((field(text, "model name"), field(text, "name")), (Some("AMD EPYC"), None));
    }

    #[test]
    fn this_machine_has_cores_and_memory() -> Result<()> {
        let machine = Machine::this()?;
        assert!(machine.cores > 0 && machine.memory > 0);
        assert!(machine.describe().contains("GiB, Linux"), "{}", machine.describe());
        Ok(())
    }

    #[test]
    fn the_memory_of_all_tcp_sockets_is_read_beside_its_limit() {
        let sockets =
            "sockets: used 5073\nTCP: inuse 2021 orphan 0 tw 2202 alloc 2021 mem 581446\nUDP: inuse 1007 mem 1301\n";
        assert_eq!((held(sockets), pressure("287901\t383868\t575802\n")), (Some(581_446), Some(383_868)));
        assert_eq!((held("UDP: inuse 1 mem 2"), pressure("1")), (None, None));
    }
}
