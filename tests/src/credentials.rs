//! A user's credentials: the folder that the hub and the operator's command write, as its documented files.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;

/// The name in every hub's certificate, whatever address it is dialled at.
pub const HUB_NAME: &str = "hub.cluster-proxy.internal";

/// The folder; one made by the harness is removed when dropped.
#[derive(Debug)]
pub struct Credentials {
    folder: PathBuf,
    _made: Option<TempDir>,
}

impl Credentials {
    /// The credentials in `folder`.
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), _made: None }
    }

    /// Writes a folder of the harness' own, without `hub.toml`, which only the operator's command needs.
    pub(crate) fn write(authority: &str, chain: &str, key: &str, token: &str) -> Result<Self> {
        let made = TempDir::new().context("no temporary folder for credentials")?;
        for (name, text) in [("ca.crt", authority), ("tls.crt", chain), ("tls.key", key), ("token", token)] {
            fs::write(made.path().join(name), text)?;
        }
        Ok(Self { folder: made.path().to_owned(), _made: Some(made) })
    }

    /// The folder, for `cluster-proxy --credentials`.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The hub's CA, PEM.
    pub fn authority_file(&self) -> PathBuf {
        self.folder.join("ca.crt")
    }

    /// The user's certificate and what leads to the CA, PEM.
    pub fn certificate_file(&self) -> PathBuf {
        self.folder.join("tls.crt")
    }

    /// The user's private key, PEM.
    pub fn key_file(&self) -> PathBuf {
        self.folder.join("tls.key")
    }

    /// The token's text.
    pub fn token(&self) -> Result<String> {
        let file = self.folder.join("token");
        let token = fs::read_to_string(&file).with_context(|| format!("{} is not readable", file.display()))?;
        Ok(token.trim_end().to_owned())
    }

    /// TLS to the hub without a client certificate.
    pub fn tls(&self) -> Result<Arc<ClientConfig>> {
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let builder = builder.with_safe_default_protocol_versions()?.with_root_certificates(self.roots()?);
        Ok(Arc::new(builder.with_no_client_auth()))
    }

    /// TLS to the hub with the user's certificate.
    pub fn mutual_tls(&self) -> Result<Arc<ClientConfig>> {
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let builder = builder.with_safe_default_protocol_versions()?.with_root_certificates(self.roots()?);
        let chain = certificates(&self.certificate_file())?;
        let key = PrivateKeyDer::from_pem_file(self.key_file()).context("tls.key is no private key")?;
        Ok(Arc::new(builder.with_client_auth_cert(chain, key)?))
    }

    fn roots(&self) -> Result<RootCertStore> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&self.authority_file())? {
            roots.add(certificate)?;
        }
        Ok(roots)
    }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let found = CertificateDer::pem_file_iter(file).and_then(|found| found.collect());
    found.with_context(|| format!("{} holds no certificates", file.display()))
}
