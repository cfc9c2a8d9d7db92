//! The credentials for an artifact.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::error::{MachineError, Result};

/// What a machine sends with the request for an artifact: the value of the HTTP header `Authorization`. It is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Authorization(String);

impl fmt::Debug for Authorization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authorization")
    }
}

impl Authorization {
    /// For a token. An error says what is wrong with it, and has nothing of it.
    pub fn bearer(token: &str) -> Result<Self> {
        // What a header can have, and needs no escape in a configuration of curl.
        if token.is_empty() || !token.chars().all(|c| c.is_ascii_graphic() && !"\"\\".contains(c)) {
            let reason = "it must be visible ASCII characters without spaces, quotes and backslashes";
            return Err(MachineError::invalid("token", reason));
        }
        Ok(Self(format!("Bearer {token}")))
    }

    /// For a user with a password.
    #[must_use]
    pub fn basic(user: &str, password: &str) -> Self {
        Self(format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
    }

    /// The value of the header.
    pub(crate) fn value(&self) -> &str {
        &self.0
    }

    /// The secret part of it.
    pub(crate) fn secret(&self) -> &str {
        self.0.split_once(' ').map_or(&self.0, |(_, secret)| secret)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_become_a_header_and_are_not_printed() {
        assert_eq!(Authorization::basic("ann", "p:ä").value(), "Basic YW5uOnA6w6Q=");
        let bearer = Authorization::bearer("a.b-c_d~+/=").unwrap();
        assert_eq!((bearer.value(), bearer.secret()), ("Bearer a.b-c_d~+/=", "a.b-c_d~+/="));
        assert!(!format!("{bearer:?}").contains("a.b"));
        for bad in ["", "a b", "a\nb", "a\"b", "a\\b", "ä"] {
            let error = Authorization::bearer(bad).unwrap_err().to_string();
            assert!(error.starts_with("token: it must be") && (bad.len() < 2 || !error.contains(bad)), "{error}");
        }
    }
}
