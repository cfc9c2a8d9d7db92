//! Writing a Server's status: a guarded patch, and what its failure means.

use berth_core::{api::Server, protocol::StatusWrite};
use json_patch::{PatchOperation, TestOperation, jsonptr::PointerBuf};
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
    core::Status,
};

use crate::{CallTimeout, Context, Metrics, ReconcileError};

/// Why a Server's status was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The webhook (or the schema) refuses it: the same write would be refused again.
    #[error("refused: {message}")]
    Refused {
        /// The field, and what is allowed.
        message: String,
    },
    /// It was meant for a Server that is no longer so, or no longer there: look again.
    #[error("the Server has changed: {message}")]
    Stale {
        /// What the API server said.
        message: String,
    },
    /// Nobody knows whether it was written, or it was not: try again later.
    #[error("the API server cannot be used now: {message}")]
    Unavailable {
        /// What was wrong.
        message: String,
    },
    /// Anything else, as missing rights.
    #[error("cannot write the Server's status: {0}")]
    Api(#[source] Box<kube::Error>),
}

impl ReconcileError for WriteError {
    /// A refused write waits for the change that makes another one right; an outdated one for a newer cache.
    fn is_terminal(&self) -> bool {
        matches!(self, Self::Refused { .. })
    }
}

impl From<kube::Error> for WriteError {
    fn from(error: kube::Error) -> Self {
        match &error {
            kube::Error::Api(status) => match classify(status) {
                Some(classified) => classified,
                None => Self::Api(Box::new(error)),
            },
            kube::Error::Service(inner) if inner.is::<CallTimeout>() => {
                Self::Unavailable { message: inner.to_string() }
            }
            kube::Error::Service(_) | kube::Error::HyperError(_) | kube::Error::ReadEvents(_) => {
                Self::Unavailable { message: error.to_string() }
            }
            _ => Self::Api(Box::new(error)),
        }
    }
}

impl WriteError {
    fn label(&self) -> &'static str {
        match self {
            Self::Refused { .. } => "refused",
            Self::Stale { .. } => "stale",
            Self::Unavailable { .. } => "unavailable",
            Self::Api(_) => "error",
        }
    }
}

/// What the API server's answer means. A denial by a webhook may come with any code of 4xx; a webhook that cannot be
/// called comes with 500, a failed `test` of a patch with 422 and no field.
fn classify(status: &Status) -> Option<WriteError> {
    let message = status.message.clone();
    if status.code < 500
        && let Some((_, refusal)) = message.split_once(" denied the request: ")
    {
        return Some(WriteError::Refused { message: refusal.to_owned() });
    }
    let names_fields = status.details.as_ref().is_some_and(|d| d.causes.iter().any(|cause| !cause.field.is_empty()));
    match status.code {
        422 if names_fields => Some(WriteError::Refused { message }),
        404 | 409 | 410 | 422 => Some(WriteError::Stale { message }),
        429 | 500.. => Some(WriteError::Unavailable { message }),
        _ => None,
    }
}

impl Context {
    /// Writes a Server's status and returns the Server as the webhook left it.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub async fn write(&self, server: &Server, write: StatusWrite) -> Result<Server, WriteError> {
        self.patch(server, write.into_patch()).await
    }

    /// Writes a Server's status only while this process holds its lock.
    pub(crate) async fn write_as_holder(&self, server: &Server, write: StatusWrite) -> Result<Server, WriteError> {
        let mut patch = write.into_patch();
        let holder = PointerBuf::from_tokens(["status", "lock", "holder"]);
        patch.0.insert(0, PatchOperation::Test(TestOperation { path: holder, value: self.holder.clone().into() }));
        self.patch(server, patch).await
    }

    async fn patch(&self, server: &Server, patch: json_patch::Patch) -> Result<Server, WriteError> {
        let servers = Api::<Server>::namespaced(self.client.clone(), &server.namespace().unwrap_or_default());
        let params = PatchParams { field_manager: Some(self.executor.name().to_owned()), ..PatchParams::default() };
        let written = servers.patch_status(&server.name_any(), &params, &Patch::Json::<()>(patch)).await;
        let result = written.map_err(WriteError::from);
        Metrics::count(&self.metrics.writes, result.as_ref().map_or_else(WriteError::label, |_| "written"));
        result
    }
}

#[cfg(test)]
mod tests {
    use kube::core::response::{StatusCause, StatusDetails};

    use super::*;

    fn api(code: u16, message: &str) -> WriteError {
        kube::Error::Api(Status::failure(message, "X").with_code(code).boxed()).into()
    }

    #[test]
    fn a_denial_is_a_refusal_that_says_field_and_reason() {
        for code in [400, 403, 422] {
            let error = api(code, r#"admission webhook "servers.berth.dev" denied the request: status.claim: no"#);
            assert!(matches!(&error, WriteError::Refused { message } if message == "status.claim: no"), "{error:?}");
            assert!(error.is_terminal());
        }
    }

    #[test]
    fn a_failed_test_or_a_vanished_server_is_stale() {
        let failed = "testing value /metadata/uid failed: test failed";
        for (code, message) in [(422, failed), (404, "not found"), (409, "conflict"), (410, "gone")] {
            assert!(matches!(api(code, message), WriteError::Stale { .. }), "{code}");
        }
    }

    #[test]
    fn what_the_schema_refuses_is_a_refusal() {
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
        let error = WriteError::from(kube::Error::Api(status.boxed()));
        assert!(matches!(error, WriteError::Refused { .. }), "{error:?}");
    }

    #[test]
    fn trouble_that_passes_is_unavailable_and_missing_rights_are_an_error() {
        let webhook_down = r#"Internal error occurred: failed calling webhook "servers.berth.dev": connection refused"#;
        for (code, message) in [(429, "slow down"), (500, webhook_down), (503, "no"), (504, "timeout")] {
            let error = api(code, message);
            assert!(matches!(error, WriteError::Unavailable { .. }) && !error.is_terminal(), "{code}");
        }
        let timeout = kube::Error::Service(CallTimeout(std::time::Duration::from_secs(10)).into());
        assert!(matches!(WriteError::from(timeout), WriteError::Unavailable { .. }));
        let forbidden = api(403, "servers.berth.dev is forbidden: User cannot patch");
        assert!(matches!(forbidden, WriteError::Api(_)) && !forbidden.is_terminal());
    }
}
