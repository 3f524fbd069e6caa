//! The certificate authority of the targets, which has nothing to do with the hub's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tempfile::TempDir;

/// A certificate authority; its own certificate also lies in a file, for curl's `--cacert` and the like.
#[derive(Debug)]
pub struct TargetAuthority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

impl TargetAuthority {
    /// Makes a new one.
    pub fn new() -> Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "authority of the targets");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let folder = TempDir::new().context("no temporary folder for the authority")?;
        std::fs::write(file_in(folder.path()), issuer.pem())?;
        Ok(Self { issuer, folder })
    }

    /// Its certificate as PEM.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// The file with its certificate as PEM, there as long as this value.
    pub fn file(&self) -> PathBuf {
        file_in(self.folder.path())
    }

    /// TLS for a server called by any of `names` (DNS names or IP addresses) or as this machine, with HTTP/1.1 as its ALPN.
    pub fn server_config(&self, names: &[&str]) -> Result<Arc<ServerConfig>> {
        let mut params = CertificateParams::new(vec![String::from("localhost")])?;
        for name in names {
            params.subject_alt_names.push(match name.parse() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName((*name).try_into()?),
            });
        }
        let loopback: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        params.subject_alt_names.extend(loopback.map(SanType::IpAddress));
        params.distinguished_name.push(DnType::CommonName, "target");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate()?;
        let leaf: CertificateDer<'static> = params.signed_by(&key, &self.issuer)?.into();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![leaf], key)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// TLS for a client that trusts this authority and nothing else.
    pub fn client_config(&self) -> Result<Arc<ClientConfig>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone())?;
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Arc::new(config))
    }
}

fn file_in(folder: &Path) -> PathBuf {
    folder.join("ca.crt")
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::ServerName;
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::*;

    #[tokio::test]
    async fn its_servers_are_trusted_by_its_clients_and_by_no_others() -> Result<()> {
        let (authority, other) = (TargetAuthority::new()?, TargetAuthority::new()?);
        for (trusted, by) in [(true, &authority), (false, &other)] {
            let (client, server) = tokio::io::duplex(16 * 1024);
            let acceptor = TlsAcceptor::from(authority.server_config(&["web.example"])?);
            let connector = TlsConnector::from(by.client_config()?);
            let name = ServerName::try_from("web.example")?;
            let (accepted, connected) = tokio::join!(acceptor.accept(server), connector.connect(name, client));
            assert_eq!((accepted.is_ok(), connected.is_ok()), (trusted, trusted));
        }
        Ok(())
    }
}
