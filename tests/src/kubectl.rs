//! A kubectl of one version with one user's kubeconfig, and what it makes of a command.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use crate::kubeconfig::{Kubeconfig, KubeconfigFile};
use crate::{Credentials, Finished, Hub, Process, Program, tool};

/// How long one command may take on a loaded machine; what waits has a shorter time-out of its own.
const COMMAND: Duration = Duration::from_secs(60);

/// A kubectl with a kubeconfig, and a folder for its caches and for what it is given to read. No command sees the folders of
/// another [`Kubectl`].
#[derive(Debug)]
pub struct Kubectl {
    name: String,
    program: Program,
    folder: TempDir,
    files: AtomicU32,
    _config: Option<KubeconfigFile>,
}

impl Kubectl {
    /// This one, for the hub's own API, as its administrator: with the kubeconfig that the hub wrote at its first start.
    pub fn administrator(hub: &Hub, kubectl: Program) -> Result<Self> {
        Self::with(kubectl, &hub.credentials().folder().join("kubeconfig"))
    }

    /// This one, with a kubeconfig that is there.
    pub fn with(kubectl: Program, kubeconfig: &Path) -> Result<Self> {
        Self::new(kubectl, kubeconfig, None)
    }

    /// The machine's own, for the hub's own API, as a user with a token.
    pub fn user(hub: &Hub, user: &Credentials) -> Result<Self> {
        Self::bearer(hub, &user.token()?)
    }

    /// The machine's own, for the hub's own API, with any text as its token.
    pub fn bearer(hub: &Hub, token: &str) -> Result<Self> {
        let authority = fs::read_to_string(hub.credentials().authority_file())?;
        let config = Kubeconfig::new(format!("https://{}", hub.addresses().api), &authority, token).write()?;
        let path = config.path();
        Self::new(tool::kubectl()?, &path, Some(config))
    }

    /// This one, with any kubeconfig.
    pub fn of(kubectl: Program, config: KubeconfigFile) -> Result<Self> {
        let path = config.path();
        Self::new(kubectl, &path, Some(config))
    }

    /// A file of any content in the folder that its commands may read.
    pub fn bytes(&self, name: &str, content: &[u8]) -> Result<PathBuf> {
        let path = self.folder.path().join(name);
        fs::write(&path, content)?;
        Ok(path)
    }

    fn new(kubectl: Program, kubeconfig: &Path, config: Option<KubeconfigFile>) -> Result<Self> {
        let folder = TempDir::new().context("no temporary folder for kubectl")?;
        let program = kubectl.env("KUBECONFIG", kubeconfig);
        let program = program.arg("--cache-dir").arg(folder.path().join("cache"));
        Ok(Self { name: program.name(), program, folder, files: AtomicU32::new(0), _config: config })
    }

    /// Sets a variable of its environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.program = self.program.env(name, value);
        self
    }

    /// The file name, which tells the version.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The command, for what is not run to its end; its words are split as a shell does.
    pub fn program(&self, command: &str) -> Program {
        self.program.clone().args(words(command))
    }

    /// Starts a command that goes on by itself.
    pub fn spawn(&self, command: &str) -> Result<Process> {
        self.program(command).spawn()
    }

    /// Runs a command to its end. Its words are divided by spaces, except within single quotes.
    pub async fn run(&self, command: &str) -> Result<Finished> {
        self.program(command).run(COMMAND).await
    }

    /// Demands that a command ends well, and gives its output.
    pub async fn ok(&self, command: &str) -> Result<String> {
        self.run(command).await?.success().with_context(|| format!("{} {command}", self.name))
    }

    /// Demands that a command ends well and says exactly this.
    pub async fn says(&self, command: &str, expected: &str) -> Result<()> {
        let said = self.ok(command).await?;
        if said.trim_end() != expected.trim_end() {
            bail!("{} {command}\nsaid\n{said}\nnot\n{expected}", self.name);
        }
        Ok(())
    }

    /// Demands that a command fails, and gives what it wrote to standard error.
    pub async fn fails(&self, command: &str) -> Result<String> {
        let finished = self.run(command).await?;
        let stderr = finished.stderr.clone();
        finished.exited_with(1).with_context(|| format!("{} {command}", self.name))?;
        Ok(stderr)
    }

    /// Demands that a command fails with this text in its error.
    pub async fn refused(&self, command: &str, expected: &str) -> Result<()> {
        let said = self.fails(command).await?;
        if !said.contains(expected) {
            bail!("{} {command}\nfailed with\n{said}\nwithout\n{expected}", self.name);
        }
        Ok(())
    }

    /// Writes a file for `--filename` and gives its path.
    pub fn file(&self, text: &str) -> Result<String> {
        let number = self.files.fetch_add(1, Ordering::Relaxed);
        let path = self.folder.path().join(format!("{number}.yaml"));
        fs::write(&path, text)?;
        path.into_os_string().into_string().ok().context("the temporary folder's path is no text")
    }

    /// An executable script, e.g. for `EDITOR`.
    pub fn script(&self, name: &str, lines: &str) -> Result<PathBuf> {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.folder.path().join(name);
        fs::write(&path, format!("#!/bin/sh\nset -e\n{lines}\n"))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(path)
    }

    /// The object that a resource and a name mean, as JSON.
    pub async fn get(&self, what: &str) -> Result<serde_json::Value> {
        Ok(serde_json::from_str(&self.ok(&format!("get {what} --output json")).await?)?)
    }

    /// A table of `get` as rows, each with its cells by column; cells without text are empty.
    pub async fn table(&self, command: &str) -> Result<Vec<BTreeMap<String, String>>> {
        rows(&self.ok(command).await?)
    }
}

/// The words of a command.
fn words(command: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (at, part) in command.split('\'').enumerate() {
        match at % 2 {
            0 => words.extend(part.split_whitespace().map(str::to_owned)),
            _ => words.push(part.to_owned()),
        }
    }
    words
}

/// kubectl begins each column of a table at the same place in every row, with three spaces before it.
pub fn rows(table: &str) -> Result<Vec<BTreeMap<String, String>>> {
    let mut lines = table.lines();
    let head = lines.next().context("no table")?;
    let mut columns: Vec<(usize, &str)> = Vec::new();
    let mut at = 0;
    for name in head.split("   ") {
        if !name.trim().is_empty() {
            columns.push((at + (name.len() - name.trim_start().len()), name.trim()));
        }
        at += name.len() + 3;
    }
    let cell = |line: &str, index: usize| {
        let begin = columns[index].0;
        let end = columns.get(index + 1).map_or(line.len(), |next| next.0);
        line.get(begin..end.min(line.len())).unwrap_or_default().trim().to_owned()
    };
    let row = |line: &str| (0..columns.len()).map(|index| (columns[index].1.to_owned(), cell(line, index))).collect();
    Ok(lines.map(row).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_keep_words_together() {
        assert_eq!(
            words("patch mcl c1 -p '{\"a\": 1}' -o name"),
            ["patch", "mcl", "c1", "-p", "{\"a\": 1}", "-o", "name"]
        );
    }

    #[test]
    fn a_table_is_read_by_its_columns() -> Result<()> {
        let table = "NAME   HUB ACCEPTED   URLS      AGE\nc1     true                     1s\nc22                   https://x\n";
        let rows = rows(table)?;
        assert_eq!(
            (rows[0]["HUB ACCEPTED"].as_str(), rows[0]["URLS"].as_str(), rows[0]["AGE"].as_str()),
            ("true", "", "1s")
        );
        assert_eq!((rows[1]["NAME"].as_str(), rows[1]["HUB ACCEPTED"].as_str()), ("c22", ""));
        Ok(())
    }
}
