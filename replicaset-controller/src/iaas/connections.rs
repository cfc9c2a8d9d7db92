//! Connections: one provider per MachineClass, kept until the class or its credentials change.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use berth_core::api::MachineClassSpec;
use sha2::{Digest as _, Sha256};

use super::{
    Limits, Provider, Providers, Result, SecretData,
    checked::Checked,
    metered::{CallMetrics, Metered},
};

/// Identifies what a connection was made from.
type Fingerprint = [u8; 32];

/// A provider for one MachineClass. Clones are the same.
#[derive(Clone)]
pub struct Connection {
    /// The provider; its calls end in time and are counted.
    pub provider: Arc<dyn Provider>,
    /// Of what it was made from.
    fingerprint: Fingerprint,
    /// What its check said last.
    pub(super) checked: Checked,
}

/// Makes connections and keeps one per class.
#[derive(Debug)]
pub(super) struct Connections {
    providers: Providers,
    limits: Limits,
    metrics: CallMetrics,
    kept: Mutex<HashMap<String, Connection>>,
}

impl Connection {
    /// Something speaks against the provider's last check: the next look at the class brings another.
    pub fn doubt(&self) {
        self.checked.doubt();
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

impl Connections {
    pub(super) fn new(providers: Providers, limits: Limits, metrics: CallMetrics) -> Self {
        Self { providers, limits, metrics, kept: Mutex::default() }
    }

    /// The class's connection: the kept one if it was made from the same.
    pub(super) fn connect(
        &self,
        class: &str,
        spec: &MachineClassSpec,
        credentials: Option<&SecretData>,
    ) -> Result<Connection> {
        let driver = self.providers.get(&spec.provider)?;
        let fingerprint = fingerprint(spec, credentials);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(connection) = kept.get(class).filter(|c| c.fingerprint == fingerprint) {
            return Ok(connection.clone());
        }
        let connection = self.connection(&spec.provider, driver.connect(spec, credentials)?, fingerprint);
        kept.insert(class.to_owned(), connection.clone());
        Ok(connection)
    }

    /// A connection to a provider for machines whose class is gone, if the provider has such a thing.
    pub(super) fn without_class(&self, name: &str) -> Result<Option<Connection>> {
        let provider = self.providers.get(name)?.without_class();
        Ok(provider.map(|provider| self.connection(name, provider, Fingerprint::default())))
    }

    fn connection(&self, name: &str, provider: Arc<dyn Provider>, fingerprint: Fingerprint) -> Connection {
        let metered = Metered::new(provider, name, self.limits, self.metrics.clone());
        Connection { provider: Arc::new(metered), fingerprint, checked: Checked::default() }
    }

    /// Forgets the connection of a class that is gone.
    pub(super) fn forget(&self, class: &str) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).remove(class);
    }
}

/// Of everything that a driver looks at; each part with its length, so that none runs into the next.
fn fingerprint(spec: &MachineClassSpec, credentials: Option<&SecretData>) -> Fingerprint {
    let mut hash = Sha256::new();
    let mut part = |bytes: &[u8]| {
        hash.update(bytes.len().to_be_bytes());
        hash.update(bytes);
    };
    // A map of serde_json is sorted, so that equal specs give equal texts.
    part(&serde_json::to_vec(spec).unwrap_or_default());
    for (key, value) in credentials.into_iter().flatten() {
        part(key.as_bytes());
        part(value);
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use serde_json::{Value, json};

    use super::*;
    use crate::iaas::{Driver, Error, local::LocalProvider};

    /// Counts how often it is asked for a provider.
    struct Counting(LocalProvider, AtomicU32);

    impl Driver for Counting {
        fn connect(&self, class: &MachineClassSpec, credentials: Option<&SecretData>) -> Result<Arc<dyn Provider>> {
            self.1.fetch_add(1, Ordering::SeqCst);
            self.0.connect(class, credentials)
        }
    }

    fn connections(name: &str, driver: Arc<dyn Driver>) -> Connections {
        let metrics = CallMetrics::register(&berth_runtime::Metrics::default());
        Connections::new(Providers::default().with(name, driver), Limits::default(), metrics)
    }

    fn class(parameters: &Value) -> MachineClassSpec {
        serde_json::from_value(json!({"provider": "p", "parameters": parameters})).unwrap()
    }

    #[test]
    fn a_connection_is_kept_until_the_class_or_its_credentials_change() {
        let dir = tempfile::tempdir().unwrap();
        let driver = Arc::new(Counting(LocalProvider::new(dir.path(), "m").unwrap(), AtomicU32::new(0)));
        let connections = connections("p", driver.clone());
        let made = || driver.1.load(Ordering::SeqCst);
        let spec = class(&json!({}));
        let secret = |key: &str, value: &str| SecretData::from([(key.to_owned(), value.as_bytes().to_vec())]);
        for (class, credentials, expected) in [
            ("a", None, 1),
            ("a", None, 1),
            ("a", Some(secret("k", "v")), 2),
            ("a", Some(secret("k", "v")), 2),
            ("a", Some(secret("kv", "")), 3),
            ("b", None, 4),
        ] {
            connections.connect(class, &spec, credentials.as_ref()).unwrap();
            assert_eq!(made(), expected);
        }
        connections.forget("b");
        connections.connect("b", &spec, None).unwrap();
        assert_eq!(made(), 5);
    }

    #[test]
    fn what_is_wrong_is_said_with_the_field_and_what_is_allowed() {
        let dir = tempfile::tempdir().unwrap();
        let local = Arc::new(LocalProvider::new(dir.path(), "m").unwrap());
        let connections = connections("p", local);
        let error = connections.connect("a", &class(&json!({"size": 3})), None).unwrap_err();
        assert_eq!(
            error,
            Error::Configuration("spec.parameters.size: the provider p has no parameters; remove it".into())
        );
        let mut unknown = class(&json!({}));
        unknown.provider = "moon".into();
        let error = connections.connect("a", &unknown, None).unwrap_err().to_string();
        assert!(error.contains("\"moon\"") && error.ends_with("configured with: p"), "{error}");
    }
}
