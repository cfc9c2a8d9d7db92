//! What Incus refused, and what that means for the one who asked.

use std::error::Error as StdError;

use super::Error;

/// Words with which Incus 6 says that there is no room. Its answers to these carry no status of their own.
/// From `internal/server/project/permissions.go` and the storage drivers.
const NO_ROOM: [&str; 7] = [
    "reached maximum",
    "no space left",
    "disk quota exceeded",
    "out of space",
    "cannot allocate memory",
    "no available cluster member",
    "not enough",
];
/// Words of a network that fails between Incus and another server, as when it fetches an image.
const NETWORK: [&str; 7] = [
    "unable to connect",
    "connection refused",
    "connection reset",
    "network is unreachable",
    "timeout",
    "no such host",
    "temporary failure",
];
/// Words of a passing state of Incus itself.
const PASSING: [&str; 4] = ["is busy", "database is locked", "already running", "already stopped"];
/// Words with which Incus answers what is declared wrong, in operations with status 500.
const DECLARED: [&str; 15] = [
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
pub(super) enum Fault {
    /// Incus answered with an error.
    Refused {
        /// Its status.
        code: u16,
        /// Its own words.
        message: String,
    },
    /// There was no answer that could be used.
    NoAnswer(Error),
}

impl Fault {
    /// Whether what was asked about is not there.
    pub(super) fn is_missing(&self) -> bool {
        matches!(self, Self::Refused { code: 404, message } if !message.contains("Project not found"))
    }

    /// Whether Incus answered at all: only then is it known that nothing goes on.
    pub(super) fn is_answer(&self) -> bool {
        matches!(self, Self::Refused { .. })
    }

    /// The error for people, with what was being done.
    pub(super) fn while_doing(self, what: &str) -> Error {
        match self {
            Self::Refused { code, message } => classify(code, &message)(format!("Incus: {what}: {message}")),
            Self::NoAnswer(error) => error.at(&format!("Incus: {what}")),
        }
    }
}

fn classify(code: u16, message: &str) -> fn(String) -> Error {
    let lower = message.to_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    match code {
        _ if says(&NO_ROOM) || code == 507 => Error::Quota,
        401 | 403 => Error::Credentials,
        _ if says(&NETWORK) || says(&PASSING) => Error::Retryable,
        400 | 404 | 405 | 413 => Error::Configuration,
        500 if says(&DECLARED) => Error::Configuration,
        _ => Error::Retryable,
    }
}

/// What a failed HTTP call means.
pub(super) fn no_answer(endpoint: &str, error: &reqwest::Error) -> Fault {
    let mut causes = Vec::new();
    let mut next: Option<&(dyn StdError + 'static)> = Some(error);
    let mut permanent = None;
    while let Some(cause) = next {
        causes.push(cause.to_string());
        permanent = permanent.or_else(|| meaning(cause));
        next = deeper(cause);
    }
    let why = if error.is_timeout() { "no answer in time".to_owned() } else { causes.pop().unwrap_or_default() };
    let make = permanent.unwrap_or(Error::Retryable);
    Fault::NoAnswer(make(format!("{endpoint}: {why}")))
}

/// An I/O error hides what it wraps from `source`, which gives the wrapped error's source instead.
fn deeper<'a>(cause: &'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
    match cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
        Some(inner) => Some(inner),
        None => cause.source(),
    }
}

/// What only a change of the declaration helps against.
fn meaning(cause: &(dyn StdError + 'static)) -> Option<fn(String) -> Error> {
    if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
        use rustls::Error::{AlertReceived, General, InvalidCertificate};
        return matches!(tls, InvalidCertificate(_) | AlertReceived(_) | General(_)).then_some(Error::Credentials as _);
    }
    let io = cause.downcast_ref::<std::io::Error>()?;
    (io.kind() == std::io::ErrorKind::PermissionDenied).then_some(Error::Configuration as _)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers of Incus 6.0.4, word for word.
    #[test]
    fn answers_are_told_apart() {
        type Make = fn(String) -> Error;
        let kinds: [(&str, Make); 4] = [
            ("configuration", Error::Configuration),
            ("quota", Error::Quota),
            ("credentials", Error::Credentials),
            ("retryable", Error::Retryable),
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
            let error = Fault::Refused { code, message: message.into() }.while_doing("create i");
            assert_eq!(error, make(format!("Incus: create i: {message}")));
        }
    }

    #[test]
    fn a_missing_project_is_no_missing_machine() {
        let refused = |message: &str| Fault::Refused { code: 404, message: message.into() };
        assert!(refused("Failed to fetch instance \"i\" in project \"default\": Instance not found").is_missing());
        assert!(!refused("Project not found").is_missing());
    }
}
