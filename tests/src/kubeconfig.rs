//! A kubeconfig of one cluster and one user, as kubectl reads it.

use std::path::PathBuf;

use anyhow::Result;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{Program, tool};

/// What it says; [`Kubeconfig::write`] makes the file.
#[derive(Debug, Clone)]
pub struct Kubeconfig {
    cluster: Value,
    token: String,
}

/// The file; it is removed when dropped.
#[derive(Debug)]
pub struct KubeconfigFile {
    folder: TempDir,
}

impl Kubeconfig {
    /// The API server at `server` (`https://HOST:PORT`), vouched for by `authority` (PEM), and the user with this token.
    pub fn new(server: impl Into<String>, authority: &str, token: impl Into<String>) -> Self {
        let cluster = json!({ "server": server.into(), "certificate-authority-data": STANDARD.encode(authority) });
        Self { cluster, token: token.into() }
    }

    /// Reaches the server through this proxy, `http://…` or `socks5://…`.
    #[must_use]
    pub fn proxy_url(mut self, url: &str) -> Self {
        self.cluster["proxy-url"] = json!(url);
        self
    }

    /// Expects the server's certificate to name `name` instead of the host in its URL.
    #[must_use]
    pub fn tls_server_name(mut self, name: &str) -> Self {
        self.cluster["tls-server-name"] = json!(name);
        self
    }

    /// Writes the file.
    pub fn write(&self) -> Result<KubeconfigFile> {
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "target", "cluster": self.cluster }],
            "users": [{ "name": "user", "user": { "token": self.token } }],
            "contexts": [{ "name": "target", "context": { "cluster": "target", "user": "user" } }],
            "current-context": "target",
        });
        let file = KubeconfigFile { folder: TempDir::new()? };
        // JSON is YAML.
        std::fs::write(file.path(), config.to_string())?;
        Ok(file)
    }
}

impl KubeconfigFile {
    /// Where it is.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("config")
    }

    /// The machine's kubectl with this configuration; add the command's arguments.
    pub fn kubectl(&self) -> Result<Program> {
        Ok(self.configure(tool::kubectl()?))
    }

    /// Some other kubectl with this configuration.
    pub fn configure(&self, kubectl: Program) -> Program {
        kubectl.env("KUBECONFIG", self.path())
    }
}
