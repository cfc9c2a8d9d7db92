//! Credentials: the Secrets that MachineClasses name.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex as Lock, PoisonError},
    time::Duration,
};

use berth_core::api::Credentials;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use tokio::{sync::Mutex, time::Instant};

use super::{Error, Result, SecretData};

/// How long a Secret counts as read: a changed one is seen after this at the latest.
const KEPT: Duration = Duration::from_secs(30);
/// How long a Secret that cannot be read is not asked for again.
const ABSENT: Duration = Duration::from_secs(5);

type Entry = Arc<Mutex<Option<(Instant, Result<Arc<SecretData>>)>>>;

/// Reads Secrets by name (with the verb `get` alone) and keeps them for a short while. Clones share what is kept.
#[derive(Clone)]
pub struct Secrets {
    client: Client,
    kept: Arc<Lock<HashMap<(String, String), Entry>>>,
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
    /// [`Error::Credentials`] when there is none or it may not be read, [`Error::Retryable`] when the API server does not
    /// say.
    pub async fn get(&self, of: &Credentials) -> Result<Arc<SecretData>> {
        let entry = self.entry(of);
        // Who comes while it is being read waits for that: many Servers of one class cost one call.
        let mut kept = entry.lock().await;
        if let Some((read, result)) = &*kept {
            let limit = if result.is_ok() { KEPT } else { ABSENT };
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
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default().clone()
    }

    async fn read(&self, of: &Credentials) -> Result<Arc<SecretData>> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &of.namespace);
        match api.get(&of.name).await {
            Ok(secret) => Ok(Arc::new(secret.data.into_iter().flatten().map(|(key, value)| (key, value.0)).collect())),
            Err(error) => Err(explain(of, &error)),
        }
    }
}

fn explain(of: &Credentials, error: &kube::Error) -> Error {
    let secret = format!("spec.credentials: the Secret {}/{}", of.namespace, of.name);
    match error {
        kube::Error::Api(status) if status.code == 404 => Error::Credentials(format!("{secret} does not exist")),
        kube::Error::Api(status) if status.code == 403 => Error::Credentials(format!(
            "{secret} may not be read by replicaset-controller: keep it in the namespace berth-credentials, or bind a Role \
             with `get` on it to the ServiceAccount replicaset-controller"
        )),
        error => Error::Retryable(format!("{secret} cannot be read now: {error}")),
    }
}
