//! The roots that somebody holds to verify a hub: how they follow what the hub says of its CA.

use rustls::pki_types::{CertificateDer, pem::PemObject};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{
    pin::{KeyFingerprint, Pin},
    root::{Root, certificate_blocks},
};

/// A hub has two while its CA is rotated; of more than this something is wrong.
const MOST: usize = 32;

/// Why roots are not followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    #[error("the roots that are there cannot be decoded")]
    Own,
    #[error("the roots that the hub sent cannot be decoded")]
    Sent,
    #[error("{0} roots would be too many")]
    TooMany(usize),
    #[error("no root would be left")]
    Empty,
}

/// The roots in `own` (PEM) and those that the hub has sent, but for those that it has retired. What is held already stays as
/// it is written; several hubs of one registry may know of a rotation at different times, and none takes away what another has
/// said.
pub fn follow_roots(own: &str, sent: &str, retired: &[Pin]) -> Result<String, BundleError> {
    let held = Root::all_in(own).ok_or(BundleError::Own)?;
    let sent = Root::all_in(sent).ok_or(BundleError::Sent)?;
    let mut roots: Vec<Root> = Vec::new();
    for root in held.into_iter().chain(sent) {
        if !retired.contains(&root.pin) && roots.iter().all(|known| known.pin != root.pin) {
            roots.push(root);
        }
    }
    match roots.len() {
        0 => Err(BundleError::Empty),
        count if count > MOST => Err(BundleError::TooMany(count)),
        _ => Ok(roots.iter().map(|root| root.pem.as_str()).collect()),
    }
}

/// The pins of the CAs in a PEM text.
pub fn pins_in(pem: &str) -> Vec<Pin> {
    let roots = certificate_blocks(pem).filter_map(|block| Root::all_in(block)?.pop());
    roots.map(|root| root.pin).collect()
}

/// The pin of the root in `roots_pem` that is named as the issuer of the first certificate in `chain_pem`.
pub fn issuer_among(chain_pem: &str, roots_pem: &str) -> Option<Pin> {
    let leaf = CertificateDer::from_pem_slice(chain_pem.as_bytes()).ok()?;
    let (_, leaf) = X509Certificate::from_der(&leaf).ok()?;
    Root::all_in(roots_pem)?.iter().find(|root| root.is_named_by(&leaf)).map(|root| root.pin)
}

/// The pins of the CAs in a chain that a hub has shown, whose leaf has verified; the one that signs first.
pub fn pins_shown(chain: &[CertificateDer<'_>]) -> Vec<Pin> {
    chain.iter().skip(1).filter_map(|certificate| KeyFingerprint::of_certificate(certificate).ok()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::PrivateKey;

    fn root() -> (Pin, String) {
        let key = PrivateKey::generate();
        (key.fingerprint(), Root::make(&key).unwrap())
    }

    #[test]
    fn what_is_said_is_added_once_and_what_is_over_goes() {
        let ((old, old_pem), (new, new_pem)) = (root(), root());
        let both = follow_roots(&old_pem, &format!("{old_pem}{new_pem}"), &[]).unwrap();
        assert_eq!(pins_in(&both), [old, new]);
        assert_eq!(follow_roots(&both, &old_pem, &[]).unwrap(), both, "a hub that knows less takes nothing away");
        assert_eq!(pins_in(&follow_roots(&both, &new_pem, &[old]).unwrap()), [new]);
        assert_eq!(follow_roots(&old_pem, "", &[old]), Err(BundleError::Empty), "nobody is left without a root");
        assert_eq!(follow_roots("", &new_pem, &[]).unwrap(), new_pem);
        let damaged = new_pem.replace("MII", "???");
        assert_eq!(follow_roots(&old_pem, &damaged, &[]), Err(BundleError::Sent));
        assert_eq!(follow_roots(&damaged, &new_pem, &[]), Err(BundleError::Own));
    }

    #[test]
    fn a_leaf_is_no_root() {
        let folder = tempfile::tempdir().unwrap();
        let authority = crate::Authority::load_or_create(folder.path()).unwrap();
        let csr = PrivateKey::generate().csr_der().unwrap();
        let issued =
            authority.issue_user(&csr, &"a".parse().unwrap(), None, std::time::Duration::from_secs(60)).unwrap();
        assert_eq!(follow_roots("", &issued.chain_pem, &[]), Err(BundleError::Sent));
        assert_eq!(pins_in(&issued.chain_pem), [authority.pin()]);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,200}") {
            let _ = follow_roots(&text, &format!("-----BEGIN CERTIFICATE-----\n{text}"), &[]);
            let _ = pins_in(&text);
        }

        /// Whatever two hubs of one registry say in whatever order: once both have said the same last, it holds.
        #[test]
        fn hubs_that_agree_at_last_are_followed(order in prop::collection::vec(0..3usize, 0..12)) {
            let ((old, old_pem), (new, new_pem)) = (root(), root());
            let says = [
                (old_pem.clone(), vec![]),
                (format!("{old_pem}{new_pem}"), vec![]),
                (new_pem.clone(), vec![old]),
            ];
            let mut held = old_pem;
            for at in order.into_iter().chain([2]) {
                held = follow_roots(&held, &says[at].0, &says[at].1).unwrap();
                prop_assert!(!pins_in(&held).is_empty());
            }
            prop_assert_eq!(pins_in(&held), [new]);
        }
    }
}
