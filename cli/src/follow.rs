//! Following the hub's CA while it is rotated: who is somebody at the hub is told its roots, and gets the certificate in the
//! folder of credentials issued again by the CA that signs.
//!
//! It costs nothing as long as the hub shows the CAs that are in the folder.

use std::{collections::BTreeSet, fs, os::unix::fs::MetadataExt, path::Path};

use certs::{BundleError, Credentials, CredentialsError, CsrError, Pin, PrivateKey, PrivateKeyError};
use http::Method;
use nix::unistd::Uid;
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
    #[error(
        "it belongs to the user with the id {owner}; run any command as that user to update it (sudo -u '#{owner}' cluster-proxy …)"
    )]
    Foreign { owner: Uid },
}

/// What credentials know of the hub's CA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    roots: BTreeSet<Pin>,
    /// The root that has issued their certificate.
    issuer: Option<Pin>,
}

impl Known {
    pub(crate) fn of(credentials: &Credentials) -> Self {
        let Credentials { ca_pem, chain_pem, .. } = credentials;
        Self { roots: certs::pins_in(ca_pem).into_iter().collect(), issuer: certs::issuer_among(chain_pem, ca_pem) }
    }

    /// Whether a hub that has shown this chain has other CAs, or signs with another one.
    pub(crate) fn is_behind(&self, shown: &[CertificateDer<'_>]) -> bool {
        let shown = certs::pins_shown(shown);
        let signed_by_other = self.issuer.is_some_and(|issuer| shown.first() != Some(&issuer));
        signed_by_other || self.roots != shown.into_iter().collect()
    }
}

/// Brings a folder up to date; `None` when there is nothing to be done. Not one of another user's, who may have put anything in the
/// place of its files.
pub(crate) async fn follow(folder: &Path) -> Result<Option<Credentials>, FollowError> {
    let owner = fs::metadata(folder).map_or_else(|_| Uid::effective(), |folder| Uid::from_raw(folder.uid()));
    if owner != Uid::effective() {
        return Err(FollowError::Foreign { owner });
    }
    // As it is now: another command may have followed, and the hub keeps its administrator's.
    let own = &Credentials::load(folder).map_err(FollowError::Folder)?;
    let api = Api::new(own).map_err(FollowError::Entry)?;
    let CaRoots { roots_pem, pin, signer, retired } =
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
    followed.hub.pin = pin;
    if followed.ca_pem == own.ca_pem && followed.chain_pem == own.chain_pem && followed.hub == own.hub {
        return Ok(None);
    }
    followed.save(folder).map_err(FollowError::Folder)?;
    Ok(Some(followed))
}

#[cfg(test)]
mod tests {
    use certs::{Authority, Step};

    use super::*;

    #[test]
    fn who_has_the_cas_that_the_hub_shows_and_a_certificate_of_the_one_that_signs_is_not_behind() {
        let folder = tempfile::tempdir().unwrap();
        let leaf = CertificateDer::from(vec![0]);
        let step = |step| Authority::step(folder.path(), step).unwrap().unwrap();
        let seen = |authority: &Authority| {
            let (signing, others): (Vec<_>, Vec<_>) =
                authority.roots().into_iter().partition(|root| root == authority.certificate());
            let known =
                Known { roots: authority.pins().map(|(pin, _)| pin).collect(), issuer: Some(authority.signer()) };
            (known, [vec![leaf.clone()], signing, others].concat())
        };
        let (old, old_chain) = seen(&Authority::load_or_create(folder.path()).unwrap());
        let (begun, begun_chain) = seen(&step(Step::Begin));
        let (signing, signing_chain) = seen(&step(Step::Sign));
        for (known, chain) in [(&old, &old_chain), (&begun, &begun_chain), (&signing, &signing_chain)] {
            assert!(!known.is_behind(chain));
        }
        assert!(old.is_behind(&begun_chain) && begun.is_behind(&old_chain));
        assert!(begun.is_behind(&signing_chain) && signing.is_behind(&begun_chain));
        let unknown = Known { issuer: None, ..begun };
        assert!(!unknown.is_behind(&signing_chain), "a certificate that the hub has not issued");
    }
}
