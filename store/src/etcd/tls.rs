//! TLS to etcd: the CAs it is verified under and the certificate shown to it, from PEM files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use thiserror::Error;
use tokio_rustls::TlsConnector;

use super::Etcd;

/// Why TLS cannot be set up.
#[derive(Debug, Error)]
pub(crate) enum TlsFilesError {
    #[error("an https endpoint needs the CA of etcd's certificate")]
    NoCa,
    #[error("{path} cannot be read as PEM")]
    File {
        path: PathBuf,
        #[source]
        source: pem::Error,
    },
    #[error("{0} holds no certificate")]
    Empty(PathBuf),
    #[error("the CA in {path} cannot be used")]
    Ca {
        path: PathBuf,
        #[source]
        source: rustls::Error,
    },
    #[error("the client certificate and its key cannot be used")]
    Identity(#[source] rustls::Error),
}

/// Reads the files once; a new certificate needs a new start.
pub(super) fn connector(etcd: &Etcd) -> Result<TlsConnector, TlsFilesError> {
    let ca = etcd.ca.as_deref().ok_or(TlsFilesError::NoCa)?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca)? {
        roots.add(certificate).map_err(|source| TlsFilesError::Ca { path: ca.to_owned(), source })?;
    }
    let builder = ClientConfig::builder_with_provider(certs::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsFilesError::Identity)?
        .with_root_certificates(roots);
    let mut config = match &etcd.identity {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            let key_der = PrivateKeyDer::from_pem_file(key)
                .map_err(|source| TlsFilesError::File { path: key.clone(), source })?;
            builder.with_client_auth_cert(certificates(chain)?, key_der).map_err(TlsFilesError::Identity)?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsFilesError> {
    let file = |source| TlsFilesError::File { path: path.to_owned(), source };
    let found = CertificateDer::pem_file_iter(path).map_err(file)?.collect::<Result<Vec<_>, _>>().map_err(file)?;
    if found.is_empty() {
        return Err(TlsFilesError::Empty(path.to_owned()));
    }
    Ok(found)
}
