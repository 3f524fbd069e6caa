//! Reviews: questions about rights and tokens, answered and not stored.

use http::StatusCode;
use serde_json::{Value, json};

use super::{Answer, ResourceRequest};
use crate::kube::{
    cause::Cause,
    rbac::review::{self, Review, ReviewError},
    status::Status,
    table::IncludeObject,
};

impl ResourceRequest<'_> {
    pub(super) fn review(&self) -> Result<Answer, Status> {
        self.info.require("create", &self.on(""))?;
        let body = Value::Object(self.body()?.object);
        let answer = match Review::parse(self.resource.kind) {
            Some(review) => {
                let (caller, namespace) = (self.info.caller, self.target.namespace.unwrap_or_default());
                let registry = self.info.registry;
                let answered = registry.with_policy(|policy| review::answer(policy, caller, review, namespace, &body));
                answered.map_err(|error| self.refused(error))?
            }
            None => self.token_review(&body)?,
        };
        Ok(self.shape(IncludeObject::default())?.object(StatusCode::CREATED, &answer, &[]))
    }

    fn token_review(&self, body: &Value) -> Result<Value, Status> {
        let token = body["spec"]["token"].as_str().unwrap_or_default();
        if token.is_empty() {
            return Err(Status::bad_request("token is required for TokenReview in authentication"));
        }
        let status = match self.info.registry.authenticate(token, self.now) {
            Ok(login) => json!({"authenticated": true, "user": login.caller()}),
            Err(refusal) => json!({"user": {}, "error": refusal.to_string()}),
        };
        let mut answer = body.clone();
        // A token is a secret, also in an answer; that it is there, typed clients demand.
        answer["spec"]["token"] = "".into();
        answer["metadata"] = json!({"creationTimestamp": null});
        answer["status"] = status;
        Ok(answer)
    }

    fn refused(&self, error: ReviewError) -> Status {
        match error {
            ReviewError::BadRequest(message) => Status::bad_request(message),
            ReviewError::Invalid { causes, .. } => {
                let cause = |cause: review::InvalidField| Cause {
                    reason: "FieldValueInvalid",
                    field: cause.field.to_owned(),
                    message: cause.message,
                };
                Status::invalid(self.resource, "", causes.into_iter().map(cause).collect())
            }
        }
    }
}
