//! The short-lived certificate that a user gets for itself: what kubectl's exec plug-in shows instead of the long-lived one.

use std::time::{Duration, SystemTime};

use certs::ends_at;
use http::{HeaderMap, Request, StatusCode, header};
use hyper::body::Incoming;
use jiff::Timestamp;
use registry::{
    api::{CredentialIssued, MAX_CREDENTIAL_SECONDS, NewCredential},
    kube::rbac,
};
use rustls::pki_types::CertificateDer;

use super::{
    Answered, Api,
    failure::{bad_request, failure},
    json, named,
};
use crate::{api::http_port::Origin, proxy::caller::Credentials};

impl Api {
    /// Issues a certificate to who asks, for a key of its own.
    ///
    /// One that was asked for ends with what was shown for it at the latest: what is stolen cannot be renewed for ever.
    pub(super) async fn issue_credential(
        &self,
        asker: &rbac::Caller,
        origin: &Origin,
        request: Request<Incoming>,
    ) -> Answered {
        let has_token = has_token(request.headers());
        let (NewCredential { csr, validity_seconds }, asker) = self.body(asker, origin, request).await?;
        if !(1..=MAX_CREDENTIAL_SECONDS).contains(&validity_seconds) {
            let message = format!("validitySeconds is {validity_seconds}; ask for 1 to {MAX_CREDENTIAL_SECONDS}");
            return Err(failure(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message));
        }
        let shown = origin.certificate.as_ref().filter(|_| !has_token);
        let of_token = |end: Timestamp| end.duration_since(Timestamp::now()).try_into().unwrap_or_default();
        let rest = shown.map_or(Duration::MAX, rest_of).min(asker.token_end().map_or(Duration::MAX, of_token));
        let validity = Duration::from_secs(validity_seconds).min(rest);
        let user = &asker.name;
        let issued = self.authorities.current().issue_user(&csr, user, asker.uid.as_deref(), validity);
        let issued = issued.map_err(|error| bad_request(&error))?;
        let not_after = Timestamp::try_from(issued.not_after).unwrap_or(Timestamp::MAX);
        tracing::debug!(%user, %not_after, "certificate issued");
        let issued = CredentialIssued { certificate_chain_pem: issued.chain_pem, not_after };
        Ok(named(user.to_string(), json(StatusCode::CREATED, &issued)))
    }
}

/// Whether a token, and not the certificate, says who asks.
fn has_token(headers: &HeaderMap) -> bool {
    let value = headers.get(header::AUTHORIZATION);
    value.is_some_and(|value| Credentials::parse(value.as_bytes()).is_ok_and(|shown| shown.token.is_some()))
}

/// How long the certificate is still good for.
fn rest_of(certificate: &CertificateDer<'_>) -> Duration {
    let rest = ends_at(certificate).and_then(|end| end.duration_since(SystemTime::now()).ok());
    rest.unwrap_or_default()
}
