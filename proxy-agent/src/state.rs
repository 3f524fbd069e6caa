//! The state folder: where an agent keeps what a join gave it.
//!
//! | file | what |
//! |---|---|
//! | `agent.key` | the agent's private key, made here; it never leaves |
//! | `ca.crt` | the hub's CA, PEM; two while the hub rotates it |
//! | `agent.toml` | the hub's addresses, the cluster's and the agent's name |
//! | `agent.crt` | the agent's certificate chain, PEM; written last, so that a join is complete when it is there |

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use certs::{AgentName, ClusterName, PrivateKey, PrivateKeyError, guard_folder, write_public};
use serde::{Deserialize, Serialize};

use crate::hub::HubAddress;

/// An agent's state folder (0700).
#[derive(Clone, Debug)]
pub struct StateFolder(PathBuf);

/// What `agent.toml` holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Membership {
    /// Where the hub is; every address is kept connected.
    pub hubs: Vec<HubAddress>,
    /// The cluster that the hub has put this agent into.
    pub cluster: ClusterName,
    /// This agent's name in it.
    pub agent: AgentName,
}

/// Why the state cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// There is no certificate: the agent has not joined.
    #[error(
        "{} holds no identity: run 'proxy-agent join --hub HOST:PORT --token-file FILE --pin PIN' first \
         (on the hub, 'cluster-proxy join-command' prints the whole line)",
        .0.display()
    )]
    NotJoined(PathBuf),
    /// A file is missing, or access to it.
    #[error("cannot read or write {}: check that it exists and belongs to the user of the agent", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        source: io::Error,
    },
    /// `agent.toml` cannot be understood.
    #[error("{} cannot be understood: correct it, or run 'proxy-agent join' again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        source: toml::de::Error,
    },
    /// `agent.toml` cannot be expressed.
    #[error("agent.toml cannot be written")]
    Write(#[source] toml::ser::Error),
    /// `agent.key` is not there.
    #[error(
        "{} is missing: restore a copy of it, or have this agent join again under its name, which puts a new key in the place \
         of the old (on the hub, 'cluster-proxy join-command CLUSTER' prints the line); no other agent is concerned",
        .0.display()
    )]
    KeyMissing(PathBuf),
    /// `agent.key` cannot be used.
    #[error(
        "the agent's key cannot be used: restore a copy of agent.key, or move it away and have this agent join again under \
         its name (on the hub, 'cluster-proxy join-command CLUSTER' prints the line); no other agent is concerned"
    )]
    Key(#[source] PrivateKeyError),
}

impl StateFolder {
    /// The folder at `path`, which may not exist yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The private key.
    pub fn key_path(&self) -> PathBuf {
        self.0.join("agent.key")
    }

    /// The certificate chain.
    pub fn chain_path(&self) -> PathBuf {
        self.0.join("agent.crt")
    }

    /// The hub's CA.
    pub fn ca_path(&self) -> PathBuf {
        self.0.join("ca.crt")
    }

    /// Hubs and names.
    pub fn membership_path(&self) -> PathBuf {
        self.0.join("agent.toml")
    }

    /// The key, made (0600) in the folder when there is none.
    pub fn load_or_create_key(&self) -> Result<PrivateKey, StateError> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.0);
        made.map_err(|source| StateError::File { path: self.0.clone(), source })?;
        PrivateKey::load_or_create(&self.key_path()).map_err(StateError::Key)
    }

    /// The key of a joined agent.
    pub fn load_key(&self) -> Result<PrivateKey, StateError> {
        // `load_or_create` must not make a key that no certificate is for.
        match self.read(&self.key_path()) {
            Err(StateError::File { path, source }) if source.kind() == io::ErrorKind::NotFound => {
                return Err(StateError::KeyMissing(path));
            }
            read => read.map(drop)?,
        }
        guard_folder(&self.0).map_err(|source| StateError::File { path: self.0.clone(), source })?;
        PrivateKey::load_or_create(&self.key_path()).map_err(StateError::Key)
    }

    /// Hubs and names of a joined agent.
    pub fn load_membership(&self) -> Result<Membership, StateError> {
        let path = self.membership_path();
        toml::from_str(&self.read(&path)?).map_err(|source| StateError::Damaged { path, source })
    }

    /// The certificate chain, PEM; [`StateError::NotJoined`] when there is none.
    pub fn load_chain(&self) -> Result<String, StateError> {
        match self.read(&self.chain_path()) {
            Err(StateError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Err(StateError::NotJoined(self.0.clone()))
            }
            read => read,
        }
    }

    /// The hub's CA, PEM.
    pub fn load_ca(&self) -> Result<String, StateError> {
        self.read(&self.ca_path())
    }

    /// Keeps what a join gave; each file whole or not at all, the certificate last.
    pub fn save_join(&self, membership: &Membership, ca_pem: &str, chain_pem: &str) -> Result<(), StateError> {
        self.save_ca(ca_pem)?;
        self.write(&self.membership_path(), &toml::to_string(membership).map_err(StateError::Write)?)?;
        self.save_chain(chain_pem)
    }

    /// Keeps the CAs that stand for the hub.
    pub fn save_ca(&self, ca_pem: &str) -> Result<(), StateError> {
        self.write(&self.ca_path(), ca_pem)
    }

    /// Keeps a renewed certificate.
    pub fn save_chain(&self, chain_pem: &str) -> Result<(), StateError> {
        self.write(&self.chain_path(), chain_pem)
    }

    fn read(&self, path: &Path) -> Result<String, StateError> {
        fs::read_to_string(path).map_err(|source| StateError::File { path: path.to_owned(), source })
    }

    fn write(&self, path: &Path, contents: &str) -> Result<(), StateError> {
        write_public(path, contents).map_err(|source| StateError::File { path: path.to_owned(), source })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn membership() -> Membership {
        Membership {
            hubs: vec!["hub:8091".parse().unwrap(), "[::1]:8091".parse().unwrap()],
            cluster: "c1".parse().unwrap(),
            agent: "a1".parse().unwrap(),
        }
    }

    #[test]
    fn what_a_join_gave_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateFolder::new(folder.path());
        state.save_join(&membership(), "ca", "chain").unwrap();
        assert_eq!(state.load_membership().unwrap(), membership());
        assert_eq!((state.load_ca().unwrap(), state.load_chain().unwrap()), ("ca".into(), "chain".into()));
    }

    #[test]
    fn the_key_is_made_once_and_its_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateFolder::new(folder.path().join("deep/state"));
        let first = state.load_or_create_key().unwrap().fingerprint();
        assert_eq!(state.load_or_create_key().unwrap().fingerprint(), first);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&state.key_path()), 0o600);
        assert_eq!(mode(state.path()), 0o700);
    }

    #[test]
    fn a_folder_without_a_join_says_how_to_join() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateFolder::new(folder.path());
        assert!(state.load_chain().unwrap_err().to_string().contains("proxy-agent join --hub"));
        assert!(matches!(state.load_key(), Err(StateError::KeyMissing(_))));
        assert!(!state.key_path().exists());
    }

    #[test]
    fn a_damaged_membership_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateFolder::new(folder.path());
        for text in [
            "",
            "cluster = 1",
            "hubs = [\"\"]\ncluster = \"c1\"\nagent = \"a1\"",
            "hubs = []\ncluster = \"C\"\nagent = \"a\"",
        ] {
            fs::write(state.membership_path(), text).unwrap();
            let error = state.load_membership().unwrap_err();
            assert!(matches!(error, StateError::Damaged { .. }), "{text}");
            assert!(error.to_string().contains("agent.toml"));
        }
    }
}
