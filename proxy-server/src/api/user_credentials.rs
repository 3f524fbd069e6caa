//! The credentials of users that are there: further tokens, and a certificate in the place of one that ends.

use std::time::Duration;

use certs::UserName;
use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use jiff::Timestamp;
use registry::{
    UserError,
    api::{CredentialIssued, NewCredential, NewUserToken, UserTokenCreated, UserTokenList, UserTokenView},
    kube::rbac,
};

use super::{
    Answered, Api, REGISTER, check_validity,
    failure::{Failure, bad_request, failure},
    json, lacking, nothing,
};
use crate::api::http_port::Origin;

impl Api {
    /// Serves what is below a user's name. A user sees and deletes its own tokens; others need the right.
    pub(super) async fn user_credentials(
        &self,
        asker: &rbac::Caller,
        origin: &Origin,
        name: &str,
        what: &[&str],
        request: Request<Incoming>,
        now: Timestamp,
    ) -> Answered {
        let user: UserName = name.parse().map_err(|error| bad_request(&error))?;
        let administrator = asker.user.as_str();
        let making = ("create", "users/tokens", name);
        match (request.method(), what) {
            (&Method::GET, ["tokens"]) => {
                self.require_own(asker, "get", name)?;
                let known = self.registry.user(&user).ok_or(UserError::Unknown { name: user })?;
                let items = known.tokens.iter().map(UserTokenView::from).collect();
                Ok(json(StatusCode::OK, &UserTokenList { items }))
            }
            (&Method::POST, ["tokens"]) => {
                let new = self.permitted_body(asker, origin, request, making).await?;
                let NewUserToken { name: token, validity_seconds } = new;
                self.may_hand_out(asker, &user)?;
                let validity = Duration::from_secs(validity_seconds);
                let (token, text) = self.registry.create_user_token(&user, &token, validity, now).await?;
                tracing::info!(administrator, %user, token = token.id, "user token created");
                let view = UserTokenView::from(&token);
                Ok(json(StatusCode::CREATED, &UserTokenCreated { view, token: text }))
            }
            (&Method::DELETE, ["tokens", token]) => {
                self.require_own(asker, "delete", name)?;
                self.registry.delete_user_token(&user, token).await?;
                tracing::info!(administrator, %user, token, "user token deleted");
                Ok(nothing())
            }
            (&Method::POST, ["certificate"]) => {
                let new = self.permitted_body(asker, origin, request, making).await?;
                let NewCredential { csr, validity_seconds } = new;
                self.may_hand_out(asker, &user)?;
                let validity = Duration::from_secs(validity_seconds);
                check_validity(validity)?;
                let known = self.registry.user(&user).ok_or(UserError::Unknown { name: user })?;
                let authority = self.authorities.current();
                let issued = authority.issue_user(&csr, &known.name, known.uid.as_deref(), validity);
                let issued = issued.map_err(|error| bad_request(&error))?;
                self.authorities.saw(&known.name, authority.signer());
                tracing::info!(administrator, user = %known.name, "user certificate issued");
                let not_after = Timestamp::try_from(issued.not_after).unwrap_or(Timestamp::MAX);
                let issued = CredentialIssued { certificate_chain_pem: issued.chain_pem, not_after };
                Ok(json(StatusCode::CREATED, &issued))
            }
            (method, _) => {
                let message = format!("{method} is not served at {}", request.uri().path());
                Err(failure(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message))
            }
        }
    }

    fn require_own(&self, asker: &rbac::Caller, verb: &str, name: &str) -> Result<(), Failure> {
        if asker.user == name { Ok(()) } else { self.require(asker, verb, REGISTER, "users/tokens", name) }
    }

    /// Who hands out another's credentials can use them, and so must hold what they give here, and may speak as that user, to
    /// whose name the clusters bind more. Not even to oneself: a stolen certificate would be renewed for ever. Asked once the
    /// body is there: the user may be another by then.
    fn may_hand_out(&self, asker: &rbac::Caller, user: &UserName) -> Result<(), Failure> {
        self.require(asker, "impersonate", "", "users", user.as_ref())?;
        let known = self.registry.user(user).ok_or_else(|| UserError::Unknown { name: user.clone() })?;
        self.registry.may_speak_for(asker, &known).map_err(|escalation| lacking(&escalation))
    }
}
