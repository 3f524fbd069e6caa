//! Why the command line's own API refuses: the status, the reason and the sentence of each error.

use http::StatusCode;
use registry::{ClusterError, NewTokenError, NewUserError, TokenError, UserError, api::ApiError};

use crate::{api::discovery::DiscoveryError, limits::bodies::BodyFault};

/// An answer that is no success.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) status: StatusCode,
    pub(super) error: ApiError,
}

pub(super) fn failure(status: StatusCode, reason: &str, message: String) -> Failure {
    Failure { status, error: ApiError { reason: reason.into(), message } }
}

pub(super) fn bad_request(error: &dyn std::error::Error) -> Failure {
    failure(StatusCode::BAD_REQUEST, "BadRequest", error.to_string())
}

/// With what the store says: that names what is to be done about the disk.
fn store_failure(error: &dyn std::error::Error) -> Failure {
    let message = match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    };
    failure(StatusCode::SERVICE_UNAVAILABLE, "StoreUnavailable", message)
}

impl From<BodyFault> for Failure {
    fn from(fault: BodyFault) -> Self {
        let (status, reason) = match fault {
            BodyFault::TooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, "BadRequest"),
            BodyFault::Late => (StatusCode::REQUEST_TIMEOUT, "Timeout"),
            BodyFault::Broken => (StatusCode::BAD_REQUEST, "BadRequest"),
            BodyFault::Crowded => (StatusCode::TOO_MANY_REQUESTS, "TooManyRequests"),
        };
        failure(status, reason, fault.to_string())
    }
}

impl From<DiscoveryError> for Failure {
    fn from(error: DiscoveryError) -> Self {
        let (status, reason) = error.status();
        failure(status, reason, error.to_string())
    }
}

impl From<ClusterError> for Failure {
    fn from(error: ClusterError) -> Self {
        match error {
            ClusterError::Unknown { .. } | ClusterError::UnknownAgent { .. } => {
                failure(StatusCode::NOT_FOUND, "NotFound", error.to_string())
            }
            ClusterError::OtherAgent { .. } => failure(StatusCode::CONFLICT, "Conflict", error.to_string()),
            ClusterError::Store { .. } => store_failure(&error),
        }
    }
}

impl From<NewTokenError> for Failure {
    fn from(error: NewTokenError) -> Self {
        match error {
            NewTokenError::TimeToLive => failure(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", error.to_string()),
            NewTokenError::Store(_) => store_failure(&error),
        }
    }
}

impl From<TokenError> for Failure {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Unknown { .. } => failure(StatusCode::NOT_FOUND, "NotFound", error.to_string()),
            TokenError::Store(_) => store_failure(&error),
        }
    }
}

impl From<NewUserError> for Failure {
    fn from(error: NewUserError) -> Self {
        match error {
            NewUserError::Exists { .. } => failure(StatusCode::CONFLICT, "AlreadyExists", error.to_string()),
            NewUserError::Validity => failure(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", error.to_string()),
            NewUserError::Store(_) => store_failure(&error),
        }
    }
}

impl From<UserError> for Failure {
    fn from(error: UserError) -> Self {
        match error {
            UserError::Unknown { .. } | UserError::UnknownToken { .. } => {
                failure(StatusCode::NOT_FOUND, "NotFound", error.to_string())
            }
            UserError::TokenExists { .. } => failure(StatusCode::CONFLICT, "AlreadyExists", error.to_string()),
            UserError::TokenName { .. } | UserError::TooManyTokens { .. } | UserError::Validity => {
                failure(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", error.to_string())
            }
            UserError::Store(_) => store_failure(&error),
        }
    }
}
