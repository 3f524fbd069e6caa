//! The machine and the sources that a report was made with.

use std::fs;
use std::process::Command;
use std::thread::available_parallelism;

use anyhow::{Context as _, Result};
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
}
