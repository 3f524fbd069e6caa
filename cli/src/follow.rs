//! Following the hub's CA while it is rotated: who is somebody at the hub is told its roots, and gets the certificate in the
//! folder of credentials issued again by the CA that signs.
//!
//! It costs nothing as long as the hub shows the CAs that are in the folder.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{MetadataExt, lchown},
    path::Path,
};

use certs::{BundleError, Credentials, CredentialsError, CsrError, Pin, PrivateKey, PrivateKeyError};
use http::Method;
use registry::api::{CaRoots, CredentialIssued, MAX_CREDENTIAL_SECONDS, NewCredential};
use rustls::pki_types::CertificateDer;
use secrecy::ExposeSecret;

use crate::api::{Api, CallError, EntryError};

/// Why a folder of credentials does not follow.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FollowError {
    #[error(transparent)]
    Call(CallError),
    #[error("the hub's roots cannot be used")]
    Roots(#[source] BundleError),
    #[error("the key in it cannot be used")]
    Key(#[source] PrivateKeyError),
    #[error("the key in it signs nothing")]
    Csr(#[source] CsrError),
    #[error("it cannot be read or written")]
    Folder(#[source] CredentialsError),
    #[error("it cannot be used")]
    Entry(#[source] EntryError),
}

/// Whether a hub that has shown this chain has other CAs than those.
pub(crate) fn is_behind(own: &[Pin], shown: &[CertificateDer<'_>]) -> bool {
    let set = |pins: &[Pin]| pins.iter().copied().collect::<BTreeSet<_>>();
    set(own) != set(&certs::pins_shown(shown))
}

/// Brings a folder up to date; `None` when there is nothing to be done.
pub(crate) async fn follow(folder: &Path) -> Result<Option<Credentials>, FollowError> {
    // As it is now: another command may have followed, and the hub keeps its administrator's.
    let own = &Credentials::load(folder).map_err(FollowError::Folder)?;
    let api = Api::new(own).map_err(FollowError::Entry)?;
    let CaRoots { roots_pem, signer, retired } =
        api.ask(Method::GET, "/v1/ca", None).await.map_err(FollowError::Call)?;
    let mut followed = own.clone();
    followed.ca_pem = certs::follow_roots(&own.ca_pem, &roots_pem, &retired).map_err(FollowError::Roots)?;
    if certs::issuer_among(&own.chain_pem, &roots_pem) != Some(signer) {
        let key = PrivateKey::from_pem(own.key_pem.expose_secret()).map_err(FollowError::Key)?;
        let csr = key.csr_der().map_err(FollowError::Csr)?;
        // With the end of the one that is there.
        let new = NewCredential { csr, validity_seconds: MAX_CREDENTIAL_SECONDS };
        let new = serde_json::to_vec(&new).expect("the API's messages are JSON");
        let issued = api.ask(Method::POST, "/v1/ca/certificate", Some(new.into())).await;
        let CredentialIssued { certificate_chain_pem, .. } = issued.map_err(FollowError::Call)?;
        followed.chain_pem = certificate_chain_pem;
    }
    followed.hub.pin = signer;
    if followed.ca_pem == own.ca_pem && followed.chain_pem == own.chain_pem && followed.hub == own.hub {
        return Ok(None);
    }
    followed.save(folder).map_err(FollowError::Folder)?;
    keep_owner(folder);
    Ok(Some(followed))
}

/// With sudo, a folder's files stay its owner's.
fn keep_owner(folder: &Path) {
    let Ok(owner) = fs::metadata(folder) else { return };
    for file in ["ca.crt", "tls.crt", "tls.key", "token", "kubeconfig", "hub.toml"] {
        // Without sudo they are one's own already.
        let _ = lchown(folder.join(file), Some(owner.uid()), Some(owner.gid()));
    }
}

#[cfg(test)]
mod tests {
    use certs::{Authority, Step};

    use super::*;

    #[test]
    fn who_has_the_cas_that_the_hub_shows_is_not_behind() {
        let folder = tempfile::tempdir().unwrap();
        let old = Authority::load_or_create(folder.path()).unwrap();
        let begun = Authority::step(folder.path(), Step::Begin).unwrap().unwrap();
        let leaf = CertificateDer::from(vec![0]);
        // In the place of the old root a hub shows one that has its key.
        let chain = |authority: &Authority| [vec![leaf.clone()], authority.roots()].concat();
        let pins = |authority: &Authority| authority.pins().map(|(pin, _)| pin).collect::<Vec<_>>();
        assert!(!is_behind(&pins(&old), &chain(&old)) && !is_behind(&pins(&begun), &chain(&begun)));
        assert!(is_behind(&pins(&old), &chain(&begun)) && is_behind(&pins(&begun), &chain(&old)));
    }
}
