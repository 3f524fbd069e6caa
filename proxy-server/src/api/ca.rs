//! `/v1/ca`: the roots for everybody who follows a rotation of the CA, a certificate in the place of the old CA's, and the
//! steps for who may take them.

use std::time::SystemTime;

use certs::{KeyFingerprint, RotationError, Step, ends_at};
use http::{Method, Request, StatusCode, header};
use hyper::body::Incoming;
use jiff::Timestamp;
use registry::{
    MAX_USER_VALIDITY,
    api::{CredentialIssued, NewCredential, TakeStep},
    kube::rbac,
};

use super::{
    Answered, Api, REGISTER,
    failure::{Failure, bad_request, failure},
    json, named,
};
use crate::{api::http_port::Origin, api::rotation::TakeError, authorities::StepError};

/// What the right is about.
const RESOURCE: &str = "certificateauthorities";

impl Api {
    pub(super) async fn ca(
        &self,
        asker: &rbac::Caller,
        origin: &Origin,
        what: &[&str],
        request: Request<Incoming>,
    ) -> Answered {
        let step = match (request.method(), what) {
            (&Method::GET, []) => return Ok(json(StatusCode::OK, &self.rotation.roots())),
            (&Method::POST, ["certificate"]) => return self.issue_again(asker, origin, request).await,
            (&Method::GET, ["status"]) => {
                self.require(asker, "get", REGISTER, RESOURCE, "")?;
                return Ok(json(StatusCode::OK, &self.rotation.status()));
            }
            (&Method::POST, ["begin"]) => Step::Begin,
            (&Method::POST, ["sign"]) => Step::Sign,
            (&Method::POST, ["finish"]) => Step::Finish,
            (&Method::POST, ["abort"]) => Step::Abort,
            (&Method::POST, ["revoke-now"]) => Step::Revoke,
            (method, _) => {
                let message = format!("{method} is not served at {}", request.uri().path());
                return Err(failure(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message));
            }
        };
        let TakeStep { force } = self.permitted_body(asker, origin, request, ("rotate", RESOURCE, "")).await?;
        tracing::warn!(administrator = asker.user, ?step, force, "a step of the CA's rotation was asked for");
        Ok(json(StatusCode::OK, &self.rotation.apply(step, force).await?))
    }

    /// A certificate of the CA that signs now in the place of the one that was shown: for the same user and the same key, and
    /// with the same end. It gives nobody more than it has.
    async fn issue_again(&self, asker: &rbac::Caller, origin: &Origin, request: Request<Incoming>) -> Answered {
        let refuse = |message: &str| failure(StatusCode::FORBIDDEN, "Forbidden", message.to_owned());
        if request.headers().contains_key(header::AUTHORIZATION) {
            return Err(refuse("a certificate is issued again to who shows it, and not to who has a token"));
        }
        let (NewCredential { csr, .. }, asker) = self.body(asker, origin, request).await?;
        let shown =
            origin.certificate.as_ref().ok_or_else(|| refuse("show the certificate that is to be issued again"))?;
        if KeyFingerprint::of_csr(&csr).ok() != KeyFingerprint::of_certificate(shown).ok() {
            return Err(refuse("a certificate is issued again for its own key only"));
        }
        let left = ends_at(shown).and_then(|end| end.duration_since(SystemTime::now()).ok()).unwrap_or_default();
        let (authority, left) = (self.authorities.current(), left.min(MAX_USER_VALIDITY));
        let issued = authority.issue_user(&csr, &asker.name, asker.uid.as_deref(), left);
        let issued = issued.map_err(|error| bad_request(&error))?;
        self.authorities.saw(&asker.name, authority.signer());
        tracing::info!(user = %asker.name, "a user's certificate was issued again by the CA that signs now");
        let not_after = Timestamp::try_from(issued.not_after).unwrap_or(Timestamp::MAX);
        let issued = CredentialIssued { certificate_chain_pem: issued.chain_pem, not_after };
        Ok(named(asker.name.to_string(), json(StatusCode::CREATED, &issued)))
    }
}

impl From<TakeError> for Failure {
    fn from(error: TakeError) -> Self {
        let (status, reason) = match &error {
            TakeError::Lags(_)
            | TakeError::NobodyFollows
            | TakeError::Step(StepError::Rotation(
                RotationError::NotBegun | RotationError::NotSigning | RotationError::NoKey(_),
            )) => (StatusCode::CONFLICT, "Conflict"),
            TakeError::HandedOver | TakeError::Step(StepError::Rotation(RotationError::Write { .. })) => {
                (StatusCode::SERVICE_UNAVAILABLE, "StoreUnavailable")
            }
            TakeError::BrokeOff
            | TakeError::Step(
                StepError::Apply(_) | StepError::Rotation(RotationError::Make(_) | RotationError::Authority(_)),
            ) => (StatusCode::INTERNAL_SERVER_ERROR, "InternalError"),
        };
        let mut message = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(source) = cause {
            message = format!("{message}: {source}");
            cause = source.source();
        }
        failure(status, reason, message)
    }
}
