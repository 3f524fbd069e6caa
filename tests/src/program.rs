//! A program about to be run: its arguments, its clean environment, and the two ways to run it.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::timeout;

use crate::config;
use crate::process::Process;

/// A program with its arguments. It sees no variable of the caller's environment but `PATH`, and an empty home folder of its
/// own, so that neither proxy settings nor configuration of the machine reach it.
#[derive(Debug, Clone)]
pub struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    stdin: bool,
    quiet: bool,
}

/// What a program that ran to its end left.
#[derive(Debug)]
pub struct Finished {
    name: String,
    /// How it ended.
    pub status: ExitStatus,
    /// All it wrote to standard output, as it is.
    pub stdout: Vec<u8>,
    /// All it wrote to standard error, invalid UTF-8 replaced.
    pub stderr: String,
}

impl Program {
    /// The program at `path`.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), arguments: Vec::new(), environment: Vec::new(), stdin: false, quiet: false }
    }

    /// One of the workspace's own binaries, e.g. `proxy-server`; an error says to build it when it is missing.
    pub fn of_workspace(name: &str) -> Result<Self> {
        config::workspace_binary(name).map(Self::at)
    }

    /// Has a shell run `line` first, in the process that then becomes the program: for what is inherited, like limits and ignored
    /// signals.
    #[must_use]
    pub fn after_shell(self, line: &str) -> Self {
        let become_program = format!("{line}; exec \"$0\" \"$@\"");
        let arguments = ["-c".into(), become_program.into(), self.path.into_os_string()];
        Self { path: "/bin/sh".into(), arguments: arguments.into_iter().chain(self.arguments).collect(), ..self }
    }

    /// Runs between other commands of a shell, like `head file |` and `| sha256sum`.
    #[must_use]
    pub fn in_pipeline(self, before: &str, after: &str) -> Self {
        let pipeline = format!("{before} \"$0\" \"$@\" {after}");
        let arguments = ["-c".into(), pipeline.into(), self.path.into_os_string()];
        Self { path: "/bin/sh".into(), arguments: arguments.into_iter().chain(self.arguments).collect(), ..self }
    }

    /// Runs in a mount namespace of its own, where this file is `/etc/hosts`. Needs root.
    #[must_use]
    pub fn with_hosts(self, hosts: &Path) -> Self {
        let mount = "mount --bind \"$0\" /etc/hosts && exec \"$@\"";
        let own = ["--mount", "/bin/sh", "-c", mount].map(OsString::from).into_iter().chain([hosts.into()]);
        let arguments = own.chain([self.path.into_os_string()]).chain(self.arguments).collect();
        Self { path: "unshare".into(), arguments, ..self }
    }

    /// Runs in mount and process namespaces of its own, all of which end with it, after a shell line of which `$0` is `path` and
    /// `$@` the program. Needs root.
    #[must_use]
    pub fn within_namespaces(self, line: &str, path: &Path) -> Self {
        let own = ["--mount-proc", "--pid", "--fork", "--kill-child", "/bin/sh", "-c", line].map(OsString::from);
        let own = own.into_iter().chain([path.into(), self.path.into_os_string()]);
        Self { path: "unshare".into(), arguments: own.chain(self.arguments).collect(), ..self }
    }

    /// Runs as a user who may nothing. Needs root.
    #[must_use]
    pub fn as_nobody(self) -> Self {
        let own = ["--reuid=65534", "--regid=65534", "--clear-groups"].map(OsString::from);
        let arguments = own.into_iter().chain([self.path.into_os_string()]).chain(self.arguments).collect();
        Self { path: "setpriv".into(), arguments, ..self }
    }

    /// Runs on a terminal of its own, which `script` of util-linux makes; its exit code is kept.
    #[must_use]
    pub fn within_terminal(self) -> Self {
        // `script` takes one line for a shell, and the words cannot be given beside it: each is quoted.
        let words = [self.path.clone().into_os_string()].into_iter().chain(self.arguments);
        let quote = |word: OsString| format!("'{}'", word.to_string_lossy().replace('\'', r"'\''"));
        let line = words.map(quote).collect::<Vec<_>>().join(" ");
        let arguments = ["--quiet", "--return", "--flush", "--command", &line, "/dev/null"].map(OsString::from);
        Self { path: "script".into(), arguments: arguments.into(), ..self }
    }

    /// Runs inside a network namespace, given by its file, e.g. `/run/netns/far`. Needs root.
    #[must_use]
    pub fn inside(self, netns: &Path) -> Self {
        let mut enter = OsString::from("--net=");
        enter.push(netns);
        let arguments = [enter, self.path.into_os_string()].into_iter().chain(self.arguments).collect();
        Self { path: "nsenter".into(), arguments, ..self }
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// Sets one environment variable.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Keeps standard input open for [`Process::write`]; without this it is empty.
    #[must_use]
    pub fn with_stdin(mut self) -> Self {
        self.stdin = true;
        self
    }

    /// Does not show its standard output when it is dropped; what it writes to standard error is still shown.
    #[must_use]
    pub fn quiet(mut self) -> Self {
        self.quiet = true;
        self
    }

    /// The file name, for messages.
    pub fn name(&self) -> String {
        self.path.file_name().unwrap_or(self.path.as_os_str()).to_string_lossy().into_owned()
    }

    /// Starts the program; it is killed when the returned value is dropped.
    pub fn spawn(&self) -> Result<Process> {
        let home = TempDir::new().context("no temporary folder for the program's home")?;
        let mut command = self.command(&home)?;
        command.stdin(if self.stdin { Stdio::piped() } else { Stdio::null() });
        let child = command.spawn().with_context(|| format!("{} does not start", self.path.display()))?;
        Process::attach(self.name(), child, home, self.quiet)
    }

    /// Runs the program to its end, at most for `bound`; it is killed when that has passed.
    pub async fn run(&self, bound: Duration) -> Result<Finished> {
        let home = TempDir::new().context("no temporary folder for the program's home")?;
        let mut command = self.command(&home)?;
        let output = timeout(bound, command.stdin(Stdio::null()).output())
            .await
            .with_context(|| format!("{} did not end within {bound:?}: {:?}", self.name(), self.arguments))?
            .with_context(|| format!("{} does not start", self.path.display()))?;
        Ok(Finished {
            name: self.name(),
            status: output.status,
            stdout: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    fn command(&self, home: &TempDir) -> Result<Command> {
        let mut command = Command::new(&self.path);
        command.env_clear().env("PATH", config::search_path()?).env("HOME", home.path()).env("LANG", "C.UTF-8");
        command.envs(self.environment.iter().map(|(name, value)| (name, value))).args(&self.arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        Ok(command)
    }
}

impl Finished {
    /// Standard output as text, if the exit code was 0; otherwise an error with all the program said.
    pub fn success(self) -> Result<String> {
        self.exited_with(0)
    }

    /// Standard output as text, if the exit code was `code`; otherwise an error with all the program said.
    pub fn exited_with(self, code: i32) -> Result<String> {
        let stdout = String::from_utf8_lossy(&self.stdout).into_owned();
        if self.status.code() != Some(code) {
            bail!("{} ended with {}, not {code}\n{stdout}\n{}", self.name, self.status, self.stderr);
        }
        Ok(stdout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: Duration = Duration::from_secs(10);

    fn shell(script: &str) -> Program {
        Program::at("/bin/sh").args(["-c", script])
    }

    #[tokio::test]
    async fn a_program_sees_a_clean_environment() -> Result<()> {
        let seen = shell("env; ls -A \"$HOME\"").env("GIVEN", "1").run(BOUND).await?.success()?;
        let mut names: Vec<&str> = seen.lines().filter_map(|line| line.split('=').next()).collect();
        names.retain(|name| !["PWD", "OLDPWD", "SHLVL", "_"].contains(name));
        names.sort_unstable();
        assert_eq!(names, ["GIVEN", "HOME", "LANG", "PATH"]);
        Ok(())
    }

    #[tokio::test]
    async fn a_wrong_exit_code_shows_what_was_said() -> Result<()> {
        let error = shell("echo out; echo err >&2; exit 3").run(BOUND).await?.success().unwrap_err().to_string();
        assert!(error.contains("exit status: 3") && error.contains("out") && error.contains("err"), "{error}");
        Ok(())
    }

    #[tokio::test]
    async fn a_program_inherits_what_a_shell_sets_before_it() -> Result<()> {
        let program = shell("ulimit -f; echo \"$1\"").args(["name", "a b"]).after_shell("ulimit -f 7");
        assert_eq!(program.run(BOUND).await?.success()?, "7\na b\n");
        Ok(())
    }

    #[tokio::test]
    async fn a_program_on_a_terminal_sees_one_and_keeps_its_words_and_its_code() -> Result<()> {
        let program = shell("tty >&2; echo \"$1\"; exit 3").args(["name", "it's  one"]).within_terminal();
        let said = program.run(BOUND).await?.exited_with(3)?;
        assert!(said.contains("/dev/pts/") && said.contains("it's  one"), "{said}");
        Ok(())
    }

    #[tokio::test]
    async fn a_program_that_does_not_end_is_an_error() {
        let error = shell("exec sleep 60").run(Duration::from_millis(100)).await.unwrap_err();
        assert!(error.to_string().contains("did not end within"), "{error}");
    }
}
