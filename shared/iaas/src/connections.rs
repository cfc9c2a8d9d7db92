//! Connections to providers: one for each MachineClass, kept until the class or its credentials change.

use std::{collections::HashMap, fmt, sync::Arc};

use berth_core::api::MachineClassSpec;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};

use crate::{
    check::ProviderCheck,
    driver::SecretData,
    drivers::Drivers,
    error::Result,
    metered::{CallLimits, CallMetrics, MeteredProvider},
    place::Place,
    provider::Provider,
};

/// Digest of the class and the credentials that a connection was made from.
type Fingerprint = [u8; 32];

/// A provider for one MachineClass. Clones share its check.
#[derive(Clone)]
pub struct ProviderConnection {
    /// The provider. Its calls are limited in time and counted.
    pub provider: Arc<dyn Provider>,
    /// Where the machines of this connection are.
    pub place: Place,
    fingerprint: Fingerprint,
    pub(crate) check: ProviderCheck,
}

impl ProviderConnection {
    /// Makes the next use of the class check the provider again: a call has shown that the last answer may be wrong.
    pub fn recheck(&self) {
        self.check.invalidate();
    }
}

impl fmt::Debug for ProviderConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProviderConnection").finish_non_exhaustive()
    }
}

/// Makes connections and keeps one for each class.
#[derive(Debug)]
pub(crate) struct ProviderConnections {
    drivers: Drivers,
    limits: CallLimits,
    metrics: CallMetrics,
    kept: Mutex<HashMap<String, ProviderConnection>>,
}

impl ProviderConnections {
    pub(crate) fn new(drivers: Drivers, limits: CallLimits, metrics: CallMetrics) -> Self {
        Self { drivers, limits, metrics, kept: Mutex::default() }
    }

    /// The connection of the class: the kept one, unless the class or its credentials have changed.
    pub(crate) fn connect(
        &self,
        class: &str,
        spec: &MachineClassSpec,
        credentials: Option<&SecretData>,
    ) -> Result<ProviderConnection> {
        let driver = self.drivers.get(&spec.provider)?;
        let fingerprint = fingerprint(spec, credentials);
        let mut kept = self.kept.lock();
        if let Some(connection) = kept.get(class).filter(|c| c.fingerprint == fingerprint) {
            return Ok(connection.clone());
        }
        let connection = self.connection(&spec.provider, driver.connect(spec, credentials)?, fingerprint);
        kept.insert(class.to_owned(), connection.clone());
        Ok(connection)
    }

    /// A connection for machines at this place whose class is gone; none if the provider needs the class.
    pub(crate) fn without_class(&self, place: &Place) -> Option<ProviderConnection> {
        let found = self.drivers.get(&place.provider).ok()?.without_class(&place.place)?;
        Some(self.connection(&place.provider, found, Fingerprint::default()))
    }

    fn connection(&self, name: &str, provider: Arc<dyn Provider>, fingerprint: Fingerprint) -> ProviderConnection {
        let place = Place { provider: name.to_owned(), place: provider.place() };
        let metered = MeteredProvider::new(provider, name, self.limits, self.metrics.clone());
        ProviderConnection { provider: Arc::new(metered), place, fingerprint, check: ProviderCheck::default() }
    }

    /// Drops the connection of a class that is gone.
    pub(crate) fn forget(&self, class: &str) {
        self.kept.lock().remove(class);
    }
}

/// Covers everything that a driver reads. The length of each part is hashed with it, so that different parts cannot add
/// up to the same bytes.
fn fingerprint(spec: &MachineClassSpec, credentials: Option<&SecretData>) -> Fingerprint {
    let mut hash = Sha256::new();
    let mut part = |bytes: &[u8]| {
        hash.update(bytes.len().to_be_bytes());
        hash.update(bytes);
    };
    // serde_json sorts the keys of maps, so that equal specs give equal texts.
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

    use futures::future::{self, BoxFuture, FutureExt as _};
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        driver::{Driver, refuse_unknown_parameters},
        error::ProviderError,
        provider::{MachineRequest, ProviderMachine},
    };

    /// Counts how often it is asked for a provider, and takes no parameters.
    #[derive(Default)]
    struct CountingDriver(AtomicU32);

    impl Driver for CountingDriver {
        fn connect(&self, class: &MachineClassSpec, _: Option<&SecretData>) -> Result<Arc<dyn Provider>> {
            self.0.fetch_add(1, Ordering::SeqCst);
            refuse_unknown_parameters(class, &[])?;
            Ok(Arc::new(NoProvider))
        }
    }

    struct NoProvider;

    fn no<T: Send + 'static>() -> BoxFuture<'static, Result<T>> {
        future::ready(Err(ProviderError::Retryable("no provider".into()))).boxed()
    }

    impl Provider for NoProvider {
        fn place(&self) -> String {
            String::new()
        }

        fn check(&self) -> BoxFuture<'_, Result<()>> {
            no()
        }

        fn create<'a>(&'a self, _: &'a MachineRequest) -> BoxFuture<'a, Result<ProviderMachine>> {
            no()
        }

        fn get<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Option<ProviderMachine>>> {
            no()
        }

        fn reboot<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<ProviderMachine>> {
            no()
        }

        fn delete<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<()>> {
            no()
        }

        fn list<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Vec<ProviderMachine>>> {
            no()
        }
    }

    fn connections(driver: Arc<dyn Driver>) -> ProviderConnections {
        let metrics = CallMetrics::register(&berth_runtime::Metrics::default());
        ProviderConnections::new(Drivers::default().with("p", driver), CallLimits::default(), metrics)
    }

    fn class(parameters: &Value) -> MachineClassSpec {
        serde_json::from_value(json!({"provider": "p", "parameters": parameters})).unwrap()
    }

    #[test]
    fn a_connection_is_kept_until_the_class_or_its_credentials_change() {
        let driver = Arc::new(CountingDriver::default());
        let connections = connections(driver.clone());
        let connected = || driver.0.load(Ordering::SeqCst);
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
            assert_eq!(connected(), expected);
        }
        connections.forget("b");
        connections.connect("b", &spec, None).unwrap();
        assert_eq!(connected(), 5);
    }

    #[test]
    fn a_mistake_is_explained_with_the_field_and_what_is_allowed() {
        let connections = connections(Arc::new(CountingDriver::default()));
        let error = connections.connect("a", &class(&json!({"size": 3})), None).unwrap_err();
        assert_eq!(
            error,
            ProviderError::Configuration("spec.parameters.size: the provider p has no parameters; remove it".into())
        );
        let mut unknown = class(&json!({}));
        unknown.provider = "moon".into();
        let error = connections.connect("a", &unknown, None).unwrap_err().to_string();
        assert!(error.contains("\"moon\"") && error.ends_with("configured with: p"), "{error}");
    }
}
