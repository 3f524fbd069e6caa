//! A running program: its output, its signals, its end.

mod lines;

use std::fs;
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, ChildStdin};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

pub use lines::Lines;

/// How long a killed process may take to be gone: the kernel's own work only.
const REAP: Duration = Duration::from_secs(10);

/// A running program. Its output is kept (the newest lines of each stream) and shown when it is dropped, which the test
/// runner prints for failed tests only. It is killed when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    pid: Pid,
    stdin: Option<ChildStdin>,
    stdout: watch::Receiver<Lines>,
    stderr: watch::Receiver<Lines>,
    /// Whether standard output is not to be shown.
    quiet: bool,
    /// Two tasks that read the streams to their ends; they end with the process.
    _readers: JoinSet<()>,
    _home: TempDir,
}

impl Process {
    pub(crate) fn attach(name: String, mut child: Child, home: TempDir, quiet: bool) -> Result<Self> {
        let pid = child.id().context("the process has no id")?;
        let pid = Pid::from_raw(pid.try_into().context("the process id is out of range")?);
        let mut readers = JoinSet::new();
        let stdout = lines::follow(child.stdout.take().context("standard output is not piped")?, &mut readers);
        let stderr = lines::follow(child.stderr.take().context("standard error is not piped")?, &mut readers);
        let stdin = child.stdin.take();
        Ok(Self { name, child, pid, stdin, stdout, stderr, quiet, _readers: readers, _home: home })
    }

    /// The process id.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// The first line of standard output that `pick` takes, also one written already; an error naming `what` after `bound` or
    /// when the stream has ended without it.
    pub async fn stdout_line<T>(&self, bound: Duration, what: &str, pick: impl Fn(&str) -> Option<T>) -> Result<T> {
        self.line(self.stdout.clone(), bound, what, pick).await
    }

    /// As [`Self::stdout_line`], on standard error.
    pub async fn stderr_line<T>(&self, bound: Duration, what: &str, pick: impl Fn(&str) -> Option<T>) -> Result<T> {
        self.line(self.stderr.clone(), bound, what, pick).await
    }

    /// The first line of standard output that is a JSON object.
    pub async fn stdout_json(&self, bound: Duration) -> Result<Value> {
        self.stdout_line(bound, "a JSON object", |line| serde_json::from_str(line).ok().filter(Value::is_object)).await
    }

    /// The newest lines of standard output, oldest first.
    pub fn stdout(&self) -> Vec<String> {
        self.stdout.borrow().to_vec()
    }

    /// The newest lines of standard error, oldest first.
    pub fn stderr(&self) -> Vec<String> {
        self.stderr.borrow().to_vec()
    }

    /// Writes to standard input, at most for `bound`; an error without [`crate::Program::with_stdin`] or after [`Self::close_stdin`].
    pub async fn write(&mut self, bytes: &[u8], bound: Duration) -> Result<()> {
        let stdin = self.stdin.as_mut().context("standard input is not open")?;
        let written = async {
            stdin.write_all(bytes).await?;
            stdin.flush().await
        };
        timeout(bound, written).await.context("standard input is not read")?.context("standard input was closed")
    }

    /// Ends standard input.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Sends a signal, e.g. `SIGTERM` to ask it to end, `SIGSTOP` to freeze it and `SIGCONT` to thaw it.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(self.pid, signal).with_context(|| format!("{} cannot be sent {signal}", self.name))
    }

    /// Waits for its end, at most for `bound`.
    pub async fn exit(&mut self, bound: Duration) -> Result<ExitStatus> {
        let waited = timeout(bound, self.child.wait()).await;
        Ok(waited.with_context(|| format!("{} has not ended within {bound:?}", self.name))??)
    }

    /// Waits for its end and demands this exit code; a death by signal is an error too.
    pub async fn exits_with(&mut self, code: i32, bound: Duration) -> Result<()> {
        let status = self.exit(bound).await?;
        if status.code() != Some(code) {
            bail!("{} ended with {status}, not {code}", self.name);
        }
        Ok(())
    }

    /// Sends `SIGKILL` and waits until it is gone and its sockets are closed. Nothing is done if it has ended already.
    pub async fn kill(&mut self) -> Result<()> {
        timeout(REAP, self.child.kill()).await.with_context(|| format!("{} does not die", self.name))??;
        Ok(())
    }

    /// Whether it has not ended yet (a frozen process counts as running).
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Memory it holds now (resident set), in bytes.
    pub fn resident_bytes(&self) -> Result<u64> {
        self.kibibytes_of_status("VmRSS:")
    }

    /// The most memory it ever held (resident set), in bytes.
    pub fn peak_resident_bytes(&self) -> Result<u64> {
        self.kibibytes_of_status("VmHWM:")
    }

    /// How many files and sockets it has open now.
    pub fn open_files(&self) -> Result<usize> {
        let entries = fs::read_dir(format!("/proc/{}/fd", self.pid)).with_context(|| self.gone())?;
        Ok(entries.count())
    }

    async fn line<T>(
        &self,
        mut lines: watch::Receiver<Lines>,
        bound: Duration,
        what: &str,
        pick: impl Fn(&str) -> Option<T>,
    ) -> Result<T> {
        let mut found = None;
        let wait = lines.wait_for(|lines| {
            found = lines.iter().find_map(&pick);
            found.is_some() || lines.ended()
        });
        let waited = timeout(bound, wait).await.map(drop);
        match (found, waited) {
            (Some(found), _) => Ok(found),
            (None, Ok(())) => bail!("{} ended its output without {what}", self.name),
            (None, Err(_)) => bail!("{} has not written {what} within {bound:?}", self.name),
        }
    }

    /// A field of `/proc/PID/status` (proc_pid_status(5)), which gives sizes in KiB.
    fn kibibytes_of_status(&self, field: &str) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).with_context(|| self.gone())?;
        let line = status.lines().find_map(|line| line.strip_prefix(field)).with_context(|| self.gone())?;
        let kibibytes: u64 = line.trim().trim_end_matches("kB").trim_end().parse()?;
        Ok(kibibytes * 1024)
    }

    fn gone(&self) -> String {
        format!("{} (process {}) is not there any more", self.name, self.pid)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let shown = [("stdout", &self.stdout), ("stderr", &self.stderr)];
        for (stream, lines) in shown.into_iter().skip(usize::from(self.quiet)) {
            let lines = lines.borrow();
            for line in lines.iter() {
                eprintln!("[{} {} {stream}] {line}", self.name, self.pid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Program, wait_until};

    const BOUND: Duration = Duration::from_secs(10);

    fn shell(script: &str) -> Program {
        Program::at("/bin/sh").args(["-c", script])
    }

    #[tokio::test]
    async fn lines_are_found_whether_written_before_or_after_the_wait() -> Result<()> {
        let mut process = shell("echo first; read go; echo second; echo problem >&2").with_stdin().spawn()?;
        process.stdout_line(BOUND, "first", |line| (line == "first").then_some(())).await?;
        process.write(b"go\n", BOUND).await?;
        process.stdout_line(BOUND, "second", |line| (line == "second").then_some(())).await?;
        process.stdout_line(BOUND, "first", |line| (line == "first").then_some(())).await?;
        process.stderr_line(BOUND, "problem", |line| (line == "problem").then_some(())).await?;
        process.exits_with(0, BOUND).await
    }

    #[tokio::test]
    async fn an_output_that_ends_without_the_line_is_an_error_at_once() -> Result<()> {
        let process = shell("echo other").spawn()?;
        let error = process.stdout_json(Duration::from_secs(3600)).await.unwrap_err();
        assert!(error.to_string().contains("ended its output without a JSON object"), "{error}");
        Ok(())
    }

    #[tokio::test]
    async fn a_json_line_is_picked_out_of_other_lines() -> Result<()> {
        let process = shell(r#"echo 7; echo '{"proxy":"127.0.0.1:1"}'; exec sleep 60"#).spawn()?;
        assert_eq!(process.stdout_json(BOUND).await?["proxy"], "127.0.0.1:1");
        Ok(())
    }

    #[tokio::test]
    async fn signals_end_freeze_and_kill() -> Result<()> {
        let mut process = shell("trap 'exit 7' TERM; echo ready; while :; do sleep 0.01; done").spawn()?;
        process.stdout_line(BOUND, "ready", |line| (line == "ready").then_some(())).await?;
        process.signal(Signal::SIGSTOP)?;
        let status = format!("/proc/{}/stat", process.pid());
        wait_until(BOUND, "a frozen process", async || {
            fs::read_to_string(&status).is_ok_and(|stat| stat.contains(") T "))
        })
        .await?;
        assert!(process.is_running()?);
        process.signal(Signal::SIGCONT)?;
        process.signal(Signal::SIGTERM)?;
        process.exits_with(7, BOUND).await?;

        let mut process = shell("exec sleep 60").spawn()?;
        process.kill().await?;
        assert!(process.exits_with(0, BOUND).await.unwrap_err().to_string().contains("signal: 9"));
        Ok(())
    }

    #[tokio::test]
    async fn memory_and_open_files_are_read_from_a_live_process() -> Result<()> {
        let process = shell("exec sleep 60").spawn()?;
        assert!(process.resident_bytes()? <= process.peak_resident_bytes()?);
        assert!(process.open_files()? >= 3);
        Ok(())
    }

    #[tokio::test]
    async fn a_dropped_process_is_killed() -> Result<()> {
        let process = shell("exec sleep 60").spawn()?;
        let pid = process.pid();
        drop(process);
        wait_until(BOUND, "the end of the process", async || kill(pid, None).is_err()).await
    }
}
