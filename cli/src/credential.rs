//! `credential`: what kubectl's exec plug-in shows to the hub: a certificate for an hour, refreshed by itself.

use std::time::Duration;

use certs::{CsrError, PrivateKey};
use clap::Args;
use jiff::Timestamp;
use registry::api::{CredentialIssued, MAX_CREDENTIAL_SECONDS, NewCredential};
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use crate::{
    api::{Api, CallError},
    config,
    credentials::Located,
    failure::{Exit, Failure},
    output::print_json,
};

mod cache;

use cache::{Cache, Kept};

/// A certificate is exchanged this long before its end, or at the half of its life if that is later.
const AHEAD: Duration = Duration::from_secs(5 * 60);

/// While the hub is away, kubectl asks again after this.
const AGAIN: Duration = Duration::from_secs(60);

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  \
    cluster-proxy credential\n\n\
    Prints an ExecCredential (client.authentication.k8s.io/v1) with a client certificate for the hub, good for an hour. \
    kubectl runs this by itself in the contexts that 'cluster-proxy kubeconfig' writes. The certificate is kept in the \
    folder of the credentials, exchanged five minutes before its end, and of no use once the user is deleted.")]
pub(crate) struct Credential {}

/// Why there is no certificate to show.
#[derive(Debug, thiserror::Error)]
enum CredentialError {
    #[error(
        "kubectl asks for {0}; client.authentication.k8s.io/v1 and v1beta1 are spoken here, by kubectl from 1.19 on"
    )]
    Version(String),
    #[error("the key cannot be used")]
    Key(#[source] CsrError),
}

impl Credential {
    pub(crate) async fn run(&self, located: &Located) -> Result<(), Failure> {
        let version = version(config::exec_info().as_deref())?;
        let kept = obtain(located).await?;
        print_json(&exec_credential(version, &kept, Timestamp::now()))
    }
}

/// The certificate that is kept, or a new one.
async fn obtain(located: &Located) -> Result<Kept, Failure> {
    let cache = Cache::of(located);
    if let Some(kept) = cache.read().filter(|kept| kept.is_fresh(Timestamp::now())) {
        return Ok(kept);
    }
    // One of many kubectls asks the hub, and the others take what it got.
    let _lock = cache.lock().await;
    let kept = cache.read();
    if let Some(kept) = kept.clone().filter(|kept| kept.is_fresh(Timestamp::now())) {
        return Ok(kept);
    }
    match ask(located).await {
        Ok(new) => {
            // In a folder that cannot be written, each kubectl gets one of its own.
            let _ = cache.write(&new);
            Ok(new)
        }
        Err(failure) => match kept.filter(|kept| failure.is_passing() && kept.is_valid(Timestamp::now())) {
            Some(kept) => Ok(kept),
            None if failure.is_passing() => Err(failure),
            None => {
                // Whom the hub sends away has no certificate any more.
                cache.remove();
                Err(failure)
            }
        },
    }
}

async fn ask(located: &Located) -> Result<Kept, Failure> {
    let api = Api::of(located)?;
    let key = PrivateKey::generate();
    let csr = key.csr_der().map_err(CredentialError::Key)?;
    let new = NewCredential { csr, validity_seconds: MAX_CREDENTIAL_SECONDS };
    let issued_at = Timestamp::now();
    let issued: Result<CredentialIssued, CallError> = api.post("/v1/credential", &new).await;
    let CredentialIssued { certificate_chain_pem, not_after } = issued?;
    Ok(Kept {
        issued_for: located.credentials.chain_pem.clone(),
        issued_at,
        not_after,
        certificate_chain_pem,
        key_pem: key.to_pem().into(),
    })
}

/// What kubectl wants to be answered in.
fn version(exec_info: Option<&str>) -> Result<&'static str, CredentialError> {
    const V1: &str = "client.authentication.k8s.io/v1";
    let info: Value = exec_info.and_then(|info| serde_json::from_str(info).ok()).unwrap_or_default();
    match info["apiVersion"].as_str() {
        None | Some(V1) => Ok(V1),
        Some("client.authentication.k8s.io/v1beta1") => Ok("client.authentication.k8s.io/v1beta1"),
        Some(other) => Err(CredentialError::Version(other.to_owned())),
    }
}

fn exec_credential(version: &str, kept: &Kept, now: Timestamp) -> Value {
    // kubectl asks again from then on; never at each of its requests, and never too late.
    let again = kept.fresh_until().max(now.saturating_add(AGAIN).unwrap_or(now)).min(kept.not_after);
    json!({
        "apiVersion": version,
        "kind": "ExecCredential",
        "status": {
            "expirationTimestamp": again,
            "clientCertificateData": kept.certificate_chain_pem,
            "clientKeyData": kept.key_pem.expose_secret(),
        },
    })
}

impl From<CredentialError> for Failure {
    fn from(error: CredentialError) -> Self {
        Self::new(Exit::Other, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(issued_at: i64, not_after: i64) -> Kept {
        let [issued_at, not_after] = [issued_at, not_after].map(|second| Timestamp::from_second(second).unwrap());
        let (chain, key) = ("CHAIN".to_owned(), "KEY".to_owned().into());
        Kept { issued_for: String::new(), issued_at, not_after, certificate_chain_pem: chain, key_pem: key }
    }

    #[test]
    fn kubectl_is_answered_in_the_version_that_it_asks_for() {
        let info = |version: &str| json!({"apiVersion": version, "kind": "ExecCredential"}).to_string();
        for spoken in ["client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1"] {
            assert_eq!(version(Some(&info(spoken))).unwrap(), spoken);
        }
        assert_eq!(version(None).unwrap(), "client.authentication.k8s.io/v1");
        assert_eq!(version(Some("garbage")).unwrap(), "client.authentication.k8s.io/v1");
        let error = version(Some(&info("client.authentication.k8s.io/v1alpha1"))).unwrap_err();
        assert!(error.to_string().contains("v1alpha1"), "{error}");
    }

    #[test]
    fn a_certificate_is_fresh_until_five_minutes_before_its_end_and_valid_to_the_end() {
        let second = |second| Timestamp::from_second(second).unwrap();
        let hour = kept(0, 3600);
        assert!(hour.is_fresh(second(3299)) && !hour.is_fresh(second(3300)));
        assert!(hour.is_valid(second(3599)) && !hour.is_valid(second(3600)));
        let short = kept(0, 60);
        assert!(short.is_fresh(second(29)) && !short.is_fresh(second(30)), "half of a short life");
    }

    #[test]
    fn kubectl_asks_again_before_the_end() {
        let again = |now| {
            let answer = exec_credential("v", &kept(0, 3600), Timestamp::from_second(now).unwrap());
            answer["status"]["expirationTimestamp"].as_str().unwrap().parse::<Timestamp>().unwrap().as_second()
        };
        assert_eq!(again(0), 3300);
        assert_eq!(again(3400), 3460, "the hub was away: not at each request");
        assert_eq!(again(3590), 3600);
    }
}
