//! One root: a CA's certificate, and its key where it is here.

use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{
    issue::{Dates, IssueError, params},
    key::PrivateKey,
    pin::{KeyFingerprint, Pin},
};

/// A CA outlives everything it signs by far.
const CA_VALIDITY: Duration = Duration::from_secs(20 * 365 * 24 * 3600);

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// A CA that is trusted, or was.
#[derive(Debug)]
pub(crate) struct Root {
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) pem: String,
    /// DER.
    subject: Vec<u8>,
    pub(crate) pin: Pin,
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
    /// Its key, where it is here.
    pub(crate) issuer: Option<Issuer<'static, KeyPair>>,
}

impl Root {
    /// The CAs of a PEM text, each once; `None` where one of its certificates is damaged or no CA's.
    pub(crate) fn all_in(pem: &str) -> Option<Vec<Self>> {
        let mut roots: Vec<Self> = Vec::new();
        for block in certificate_blocks(pem) {
            let root = Self::parse(block)?;
            if roots.iter().all(|known| known.certificate != root.certificate) {
                roots.push(root);
            }
        }
        Some(roots)
    }

    /// Gives it its key; `false` when the key is another's, or cannot sign for it.
    pub(crate) fn take_key(&mut self, key: PrivateKey) -> bool {
        if key.fingerprint() != self.pin {
            return false;
        }
        self.issuer = Issuer::from_ca_cert_der(&self.certificate, key.into_pair()).ok();
        self.issuer.is_some()
    }

    /// A new one for `key`, as PEM.
    pub(crate) fn make(key: &PrivateKey) -> Result<String, IssueError> {
        let now = SystemTime::now();
        // A name of its own for each CA: a verifier looks for the issuer by name, and would call another hub's certificate
        // badly signed where it is only foreign.
        let fingerprint = key.fingerprint().to_string();
        let short: String = fingerprint.trim_start_matches("sha256:").chars().take(16).collect();
        let dates = Dates::of_root(now, CA_VALIDITY);
        let mut params = params(&format!("cluster-proxy hub CA {short}"), dates)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        Ok(params.self_signed(key.pair()).map_err(IssueError::Sign)?.pem())
    }

    /// Whether a certificate is named as one of this root's.
    pub(crate) fn is_named_by(&self, leaf: &X509Certificate<'_>) -> bool {
        self.subject == leaf.issuer().as_raw()
    }

    /// Whether this root's key has signed a certificate.
    pub(crate) fn has_signed(&self, leaf: &X509Certificate<'_>) -> bool {
        let parsed = X509Certificate::from_der(&self.certificate);
        parsed.is_ok_and(|(_, root)| leaf.verify_signature(Some(root.public_key())).is_ok())
    }

    fn parse(pem: &str) -> Option<Self> {
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
        let Ok(([], parsed)) = X509Certificate::from_der(&certificate) else { return None };
        if !parsed.is_ca() {
            return None;
        }
        let pin = KeyFingerprint::of(parsed.public_key());
        let [not_before, not_after] =
            [parsed.validity().not_before, parsed.validity().not_after].map(|time| time.to_datetime().into());
        let (subject, pem) = (parsed.subject().as_raw().to_vec(), format!("{pem}\n"));
        Some(Self { certificate: certificate.clone(), pem, subject, pin, not_before, not_after, issuer: None })
    }
}

/// The certificates of a PEM text, each as its own text without the newline at its end.
pub fn certificate_blocks(pem: &str) -> impl Iterator<Item = &str> {
    pem.match_indices(BEGIN).map(|(at, _)| {
        let rest = &pem[at..];
        rest.find(END).map_or(rest, |end| &rest[..end + END.len()])
    })
}
