//! Refusals, as the API server words them.

use axum::body::{Body, Bytes};
use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::resources::Resource;

/// A refused request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) code: u16,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self { code: 400, reason: "BadRequest", message: message.into() }
    }

    pub(crate) fn forbidden(message: impl Into<String>) -> Self {
        Self { code: 403, reason: "Forbidden", message: message.into() }
    }

    /// Nothing is served under this path.
    pub(crate) fn no_such_path() -> Self {
        Self::not_found("the server could not find the requested resource".to_owned())
    }

    /// There is no such object.
    pub(crate) fn no_such_object(resource: &Resource, name: &str) -> Self {
        Self::not_found(format!("{} {name:?} not found", resource.qualified_plural()))
    }

    fn not_found(message: String) -> Self {
        Self { code: 404, reason: "NotFound", message }
    }

    pub(crate) fn method_not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource".to_owned();
        Self { code: 405, reason: "MethodNotAllowed", message }
    }

    pub(crate) fn already_exists(resource: &Resource, name: &str) -> Self {
        let message = format!("{} {name:?} already exists", resource.qualified_plural());
        Self { code: 409, reason: "AlreadyExists", message }
    }

    pub(crate) fn conflict(resource: &Resource, name: &str, message: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} {name:?}: {message}", resource.qualified_plural());
        Self { code: 409, reason: "Conflict", message }
    }

    pub(crate) fn expired(message: impl Into<String>) -> Self {
        Self { code: 410, reason: "Expired", message: message.into() }
    }

    pub(crate) fn unsupported_patch(content_type: &str) -> Self {
        let message = format!("the body of the request was in an unknown format - {content_type}");
        Self { code: 415, reason: "UnsupportedMediaType", message }
    }

    pub(crate) fn invalid(resource: &Resource, name: &str, errors: &[String]) -> Self {
        let list = match errors {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let message = format!("{} {name:?} is invalid: {list}", resource.qualified_kind());
        Self { code: 422, reason: "Invalid", message }
    }

    /// A JSON Patch that does not apply, or one of whose tests fails.
    pub(crate) fn patch_does_not_apply(error: &json_patch::PatchError) -> Self {
        let message = format!("the server rejected our request due to an error in our request: {error}");
        Self { code: 422, reason: "Invalid", message }
    }

    /// The object that says so.
    pub(crate) fn status(&self) -> Value {
        json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code
        })
    }

    pub(crate) fn into_response(self) -> Response<Body> {
        respond(self.code, &self.status())
    }
}

/// A response with this document.
pub(crate) fn respond(code: u16, document: &Value) -> Response<Body> {
    respond_text(code, document.to_string().into())
}

/// A response with this document, written already.
pub(crate) fn respond_text(code: u16, document: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::from(document));
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}
