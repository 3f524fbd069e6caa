//! The CPU seconds of processes, user and system, of all their threads.

use std::fs;

use anyhow::{Context as _, Result};
use nix::unistd::Pid;

/// Ticks a second in `/proc/PID/stat`: USER_HZ, which is 100 on every architecture that Linux has kept.
const TICKS: f64 = 100.0;

/// What processes have used together since they were started, in seconds.
pub fn seconds(pids: &[i32]) -> Result<f64> {
    pids.iter().map(|pid| seconds_of(*pid)).sum()
}

/// The id of this process.
pub fn own_pid() -> i32 {
    Pid::this().as_raw()
}

fn seconds_of(pid: i32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("process {pid} has ended"))?;
    parse(&stat).with_context(|| format!("/proc/{pid}/stat is not as proc_pid_stat(5) says"))
}

/// The fields `utime` and `stime`, the 14th and the 15th. The second is the program's name, which may hold anything.
fn parse(stat: &str) -> Option<f64> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let (user, system): (f64, f64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some((user + system) / TICKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_and_system_ticks_are_found_behind_any_name() {
        assert_eq!(parse("7 (a ) 1 2 b) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20"), Some(3.0));
        assert_eq!(parse("7 (a) S 1 2"), None);
    }

    #[test]
    fn a_busy_process_uses_more_and_one_that_is_gone_is_an_error() -> Result<()> {
        let own = [own_pid()];
        let (before, mut spins) = (seconds(&own)?, 0_u64);
        while seconds(&own)? < before + 0.05 {
            spins += 1;
        }
        assert!(spins > 0);
        assert!(seconds(&[i32::MAX]).is_err());
        Ok(())
    }
}
