//! Why a call of Incus failed, and which error of the provider that is.

use std::error::Error as StdError;

use crate::error::ProviderError;

/// Words in answers of Incus 6 to a request beyond a limit, which have no status code of their own.
/// From `internal/server/project/permissions.go` and the storage drivers.
const QUOTA: [&str; 7] = [
    "reached maximum",
    "no space left",
    "disk quota exceeded",
    "out of space",
    "cannot allocate memory",
    "no available cluster member",
    "not enough",
];
/// Words in answers when the network between Incus and another server fails, as when it downloads an image.
const NETWORK: [&str; 7] = [
    "unable to connect",
    "connection refused",
    "connection reset",
    "network is unreachable",
    "timeout",
    "no such host",
    "temporary failure",
];
/// Words in answers that another attempt may change.
const TEMPORARY: [&str; 4] = ["is busy", "database is locked", "already running", "already stopped"];
/// Words in answers with status 500 that only a change of what is declared helps against.
const CONFIGURATION: [&str; 15] = [
    "image not provided",
    "couldn't be found",
    "could not be found",
    "not found",
    "doesn't exist",
    "does not exist",
    "doesn't match",
    "invalid",
    "unknown configuration",
    "not supported",
    "unsupported",
    "not allowed",
    "forbidden",
    "protected",
    "not operational",
];

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum IncusFault {
    /// Incus answered with an error.
    Refused {
        /// Status code.
        code: u16,
        /// Message of Incus.
        message: String,
    },
    /// There was no usable answer.
    NoAnswer(ProviderError),
}

impl IncusFault {
    /// Whether the resource does not exist. A missing project is a mistake in the class instead.
    pub(super) fn is_missing(&self) -> bool {
        matches!(self, Self::Refused { code: 404, message } if !message.contains("Project not found"))
    }

    /// Whether Incus answered: only then is it certain that the operation does not go on.
    pub(super) fn is_answer(&self) -> bool {
        matches!(self, Self::Refused { .. })
    }

    /// The provider's error, with what the call was to do.
    pub(super) fn while_doing(self, what: &str) -> ProviderError {
        match self {
            Self::Refused { code, message } => classify(code, &message)(format!("Incus: {what}: {message}")),
            Self::NoAnswer(error) => error.at(&format!("Incus: {what}")),
        }
    }
}

fn classify(code: u16, message: &str) -> fn(String) -> ProviderError {
    let lower = message.to_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    match code {
        _ if says(&QUOTA) || code == 507 => ProviderError::Quota,
        401 | 403 => ProviderError::Credentials,
        _ if says(&NETWORK) || says(&TEMPORARY) => ProviderError::Retryable,
        400 | 404 | 405 | 413 => ProviderError::Configuration,
        500 if says(&CONFIGURATION) => ProviderError::Configuration,
        _ => ProviderError::Retryable,
    }
}

/// The fault of an HTTP call that failed.
pub(super) fn no_answer(endpoint: &str, error: &reqwest::Error) -> IncusFault {
    let mut causes = Vec::new();
    let mut next: Option<&(dyn StdError + 'static)> = Some(error);
    let mut permanent = None;
    while let Some(cause) = next {
        causes.push(cause.to_string());
        permanent = permanent.or_else(|| permanent_error(cause));
        next = next_cause(cause);
    }
    let why = if error.is_timeout() { "no answer in time".to_owned() } else { causes.pop().unwrap_or_default() };
    let kind = permanent.unwrap_or(ProviderError::Retryable);
    IncusFault::NoAnswer(kind(format!("{endpoint}: {why}")))
}

/// The next error in the chain. `source` of an I/O error skips the error that it wraps.
fn next_cause<'a>(cause: &'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
    match cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
        Some(inner) => Some(inner),
        None => cause.source(),
    }
}

/// The kind of error, if only a change of the declaration or the credentials helps.
fn permanent_error(cause: &(dyn StdError + 'static)) -> Option<fn(String) -> ProviderError> {
    if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
        use rustls::Error::{AlertReceived, General, InvalidCertificate};
        return matches!(tls, InvalidCertificate(_) | AlertReceived(_) | General(_))
            .then_some(ProviderError::Credentials as _);
    }
    let io = cause.downcast_ref::<std::io::Error>()?;
    (io.kind() == std::io::ErrorKind::PermissionDenied).then_some(ProviderError::Configuration as _)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers of Incus 6.0.4, word for word.
    #[test]
    fn each_answer_of_incus_has_its_kind_of_error() {
        type Make = fn(String) -> ProviderError;
        let kinds: [(&str, Make); 4] = [
            ("configuration", ProviderError::Configuration),
            ("quota", ProviderError::Quota),
            ("credentials", ProviderError::Credentials),
            ("retryable", ProviderError::Retryable),
        ];
        for (kind, code, message) in [
            ("configuration", 500, "Image not provided for instance creation"),
            ("configuration", 500, "Requested profile \"nope\" doesn't exist"),
            ("configuration", 404, "Failed loading project: Project not found"),
            ("configuration", 400, "Provided instance type doesn't exist: bogus-9"),
            ("configuration", 500, "Failed creating instance record: Invalid CPU limit syntax"),
            ("configuration", 500, "Failed creating instance record: Unknown configuration key: no.such"),
            (
                "configuration",
                500,
                "Requested image's type \"container\" doesn't match instance type \"virtual-machine\"",
            ),
            (
                "configuration",
                404,
                "Failed creating instance record: Failed loading storage pool: Storage pool not found",
            ),
            ("configuration", 500, "Failed getting remote image info: The requested image couldn't be found"),
            ("configuration", 500, "Instance is protected"),
            ("quota", 500, "Reached maximum number of instances in project \"lim\""),
            ("quota", 400, "Reached maximum aggregate value \"1GiB\" for \"limits.memory\" in project \"lim\""),
            ("quota", 500, "Failed creating instance from image: write /var: no space left on device"),
            ("credentials", 403, "not authorized"),
            ("retryable", 500, "Failed getting image: Unable to connect to: 127.0.0.1:9 (connection refused)"),
            ("retryable", 500, "The instance is already running"),
            ("retryable", 409, "Conflict"),
            ("retryable", 503, "Service unavailable"),
            ("retryable", 500, "Something new"),
        ] {
            let make = kinds.iter().find(|(name, _)| *name == kind).unwrap().1;
            let error = IncusFault::Refused { code, message: message.into() }.while_doing("create i");
            assert_eq!(error, make(format!("Incus: create i: {message}")));
        }
    }

    #[test]
    fn a_missing_project_is_not_a_missing_machine() {
        let refused = |message: &str| IncusFault::Refused { code: 404, message: message.into() };
        assert!(refused("Failed to fetch instance \"i\" in project \"default\": Instance not found").is_missing());
        assert!(!refused("Project not found").is_missing());
    }
}
