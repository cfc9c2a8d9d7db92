//! A call to the API server that failed: what was being done, and what the failure means.

use kube::core::Status;

use crate::{CallTimeout, ReconcileError};

/// A call to the API server that failed. It names the call once: "cannot read VMReplicaSet web: forbidden ...".
#[derive(Debug, thiserror::Error)]
#[error("cannot {action}: {cause}")]
pub struct ApiError {
    /// What was being done, with the object: an infinitive.
    action: String,
    /// Why it failed.
    #[source]
    cause: ApiErrorCause,
}

/// What a failed call means for the caller.
#[derive(Debug, thiserror::Error)]
pub enum ApiErrorCause {
    /// The webhook or the schema refuses the write: the same write would be refused again.
    #[error("refused: {0}")]
    Refused(String),
    /// The write was meant for an object that has changed since it was read, or that is gone: read it again.
    #[error("the object has changed: {0}")]
    Stale(String),
    /// The API server cannot serve the call now, or nobody knows whether it was carried out: try again later.
    #[error("the API server is unavailable: {0}")]
    Unavailable(String),
    /// Anything else, such as missing rights.
    #[error("{0}")]
    Other(#[source] Box<kube::Error>),
}

impl ApiError {
    /// For `map_err`: names what was being done, as an infinitive with the object ("read VMReplicaSet web").
    pub fn doing(action: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let action = action.into();
        move |error| Self { action, cause: error.into() }
    }

    /// A write that was not sent, because what was read shows already that it would be stale.
    #[must_use]
    pub fn stale(action: impl Into<String>, message: impl Into<String>) -> Self {
        Self { action: action.into(), cause: ApiErrorCause::Stale(message.into()) }
    }

    /// What the failure means.
    #[must_use]
    pub fn cause(&self) -> &ApiErrorCause {
        &self.cause
    }

    /// Whether the object has changed since it was read, or is gone.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        matches!(self.cause, ApiErrorCause::Stale(_))
    }

    /// Whether another attempt may help, or the first one may have been carried out.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        matches!(self.cause, ApiErrorCause::Unavailable(_))
    }

    /// What the webhook or the schema said, if it refused the write.
    #[must_use]
    pub fn refusal(&self) -> Option<&str> {
        match &self.cause {
            ApiErrorCause::Refused(message) => Some(message),
            _ => None,
        }
    }

    /// The `result` label of metrics that count writes.
    pub(crate) fn label(&self) -> &'static str {
        match &self.cause {
            ApiErrorCause::Refused(_) => "refused",
            ApiErrorCause::Stale(_) => "stale",
            ApiErrorCause::Unavailable(_) => "unavailable",
            ApiErrorCause::Other(_) => "error",
        }
    }
}

impl ReconcileError for ApiError {
    /// A refused write waits for the change that makes another write right. A stale one is tried again on a newer cache.
    fn is_terminal(&self) -> bool {
        matches!(self.cause, ApiErrorCause::Refused(_))
    }
}

/// For guarded writes: whether it was written; `false` when the object is no longer what the write was meant for.
pub fn written<T>(result: Result<T, ApiError>) -> Result<bool, ApiError> {
    match result {
        Ok(_) => Ok(true),
        Err(error) if error.is_stale() => Ok(false),
        Err(error) => Err(error),
    }
}

impl From<kube::Error> for ApiErrorCause {
    fn from(error: kube::Error) -> Self {
        match &error {
            kube::Error::Api(status) => match classify(status) {
                Some(classified) => classified,
                None => Self::Other(Box::new(error)),
            },
            kube::Error::Service(inner) if inner.is::<CallTimeout>() => Self::Unavailable(inner.to_string()),
            kube::Error::Service(_) | kube::Error::HyperError(_) | kube::Error::ReadEvents(_) => {
                Self::Unavailable(error.to_string())
            }
            _ => Self::Other(Box::new(error)),
        }
    }
}

/// What the API server's answer means. A denial by a webhook may come with any code of 4xx; a webhook that cannot be called
/// comes with 500, and a failed `test` of a patch with 422 and no field.
fn classify(status: &Status) -> Option<ApiErrorCause> {
    let message = status.message.clone();
    if status.code < 500
        && let Some((_, refusal)) = message.split_once(" denied the request: ")
    {
        return Some(ApiErrorCause::Refused(refusal.to_owned()));
    }
    let names_fields = status.details.as_ref().is_some_and(|d| d.causes.iter().any(|cause| !cause.field.is_empty()));
    match status.code {
        422 if names_fields => Some(ApiErrorCause::Refused(message)),
        404 | 409 | 410 | 422 => Some(ApiErrorCause::Stale(message)),
        429 | 500.. => Some(ApiErrorCause::Unavailable(message)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use kube::core::response::{StatusCause, StatusDetails};

    use super::*;

    fn api(code: u16, message: &str) -> ApiError {
        let error = kube::Error::Api(Status::failure(message, "X").with_code(code).boxed());
        ApiError::doing("write Server n/web-0")(error)
    }

    #[test]
    fn a_denial_by_the_webhook_is_a_refusal() {
        for code in [400, 403, 422] {
            let error = api(code, r#"admission webhook "servers.berth.dev" denied the request: status.claim: no"#);
            assert_eq!(error.refusal(), Some("status.claim: no"), "{error:?}");
            assert!(error.is_terminal());
        }
    }

    #[test]
    fn a_failed_test_and_a_missing_object_are_stale() {
        let failed = "testing value /metadata/uid failed: test failed";
        for (code, message) in [(422, failed), (404, "not found"), (409, "conflict"), (410, "gone")] {
            assert!(api(code, message).is_stale(), "{code}");
        }
    }

    #[test]
    fn a_violation_of_the_schema_is_a_refusal() {
        let cause = StatusCause { field: "status.tasks".into(), message: "bad".into(), reason: "X".into() };
        let details = StatusDetails {
            name: String::new(),
            group: String::new(),
            kind: String::new(),
            uid: String::new(),
            causes: vec![cause],
            retry_after_seconds: 0,
        };
        let status = Status::failure("Server is invalid", "Invalid").with_code(422).with_details(details);
        let error = ApiErrorCause::from(kube::Error::Api(status.boxed()));
        assert!(matches!(error, ApiErrorCause::Refused(_)), "{error:?}");
    }

    #[test]
    fn temporary_failures_are_unavailable_and_missing_rights_are_other_errors() {
        let webhook_down = r#"Internal error occurred: failed calling webhook "servers.berth.dev": connection refused"#;
        for (code, message) in [(429, "slow down"), (500, webhook_down), (503, "no"), (504, "timeout")] {
            let error = api(code, message);
            assert!(error.is_unavailable() && !error.is_terminal(), "{code}");
        }
        let timeout = kube::Error::Service(CallTimeout(std::time::Duration::from_secs(10)).into());
        assert!(matches!(ApiErrorCause::from(timeout), ApiErrorCause::Unavailable(_)));
        let forbidden = api(403, "servers.berth.dev is forbidden: User cannot patch");
        assert!(matches!(forbidden.cause(), ApiErrorCause::Other(_)) && !forbidden.is_terminal());
        let text = forbidden.to_string();
        assert!(text.starts_with("cannot write Server n/web-0: ") && text.contains("is forbidden"), "{text}");
    }
}
