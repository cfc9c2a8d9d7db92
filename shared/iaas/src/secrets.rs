//! Reads the Secrets that MachineClasses name.

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use berth_core::api::Credentials;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{
    driver::SecretData,
    error::{ProviderError, Result},
};

/// How long a Secret that was read is kept: many Servers share it, and a change is seen soon enough.
const VALID: Duration = Duration::from_secs(30);
/// How long a failure to read a Secret is kept: short, because Servers wait for its end.
const FAILURE_VALID: Duration = Duration::from_secs(5);

/// When the Secret was read, and its data. The lock is held while it is being read.
type Entry = Arc<tokio::sync::Mutex<Option<(Instant, Result<Arc<SecretData>>)>>>;

/// Reads Secrets by name, for which the verb `get` is enough, and keeps them for a short while. Clones share them.
#[derive(Clone)]
pub struct Secrets {
    client: Client,
    kept: Arc<Mutex<HashMap<(String, String), Entry>>>,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secrets").finish_non_exhaustive()
    }
}

impl Secrets {
    /// Reads with this client.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client, kept: Arc::default() }
    }

    /// The data of the Secret that `spec.credentials` of a MachineClass names.
    ///
    /// # Errors
    /// [`ProviderError::Credentials`] when it does not exist or must not be read, [`ProviderError::Retryable`] when the API
    /// server does not answer.
    pub async fn get(&self, of: &Credentials) -> Result<Arc<SecretData>> {
        let entry = self.entry(of);
        // Callers that come while it is being read wait here: many Servers of one class cost one call.
        let mut kept = entry.lock().await;
        if let Some((read, result)) = &*kept {
            let limit = if result.is_ok() { VALID } else { FAILURE_VALID };
            if read.elapsed() < limit {
                return result.clone();
            }
        }
        let result = self.read(of).await;
        *kept = Some((Instant::now(), result.clone()));
        result
    }

    fn entry(&self, of: &Credentials) -> Entry {
        let key = (of.namespace.clone(), of.name.clone());
        self.kept.lock().entry(key).or_default().clone()
    }

    async fn read(&self, of: &Credentials) -> Result<Arc<SecretData>> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &of.namespace);
        match api.get(&of.name).await {
            Ok(secret) => Ok(Arc::new(secret.data.into_iter().flatten().map(|(key, value)| (key, value.0)).collect())),
            Err(error) => Err(explain(of, &error)),
        }
    }
}

fn explain(of: &Credentials, error: &kube::Error) -> ProviderError {
    let secret = format!("spec.credentials: the Secret {}/{}", of.namespace, of.name);
    match error {
        kube::Error::Api(status) if status.code == 404 => {
            ProviderError::Credentials(format!("{secret} does not exist"))
        }
        kube::Error::Api(status) if status.code == 403 => ProviderError::Credentials(format!(
            "{secret} may not be read by replicaset-controller: keep it in the namespace berth-credentials, or bind a Role \
             with `get` on it to the ServiceAccount replicaset-controller"
        )),
        error => ProviderError::Retryable(format!("{secret} cannot be read now: {error}")),
    }
}
