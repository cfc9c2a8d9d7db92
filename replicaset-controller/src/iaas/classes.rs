//! MachineClasses: whether machines of a class can be had, and from whom.

use std::sync::Arc;

use berth_core::api::{MachineClass, MachineClassSpec};
use berth_runtime::Cache;
use kube::{Client, ResourceExt as _};

use super::{
    Error, Providers, Secrets,
    connections::{Connection, Connections},
};

/// Why machines of a class cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ClassProblem {
    /// Reason of a condition: `ClassNotFound`, `UnknownProvider`, `InvalidParameters`, `CredentialsNotFound`,
    /// `CredentialsRejected` or `ProviderUnavailable`.
    pub reason: &'static str,
    /// In words, with the class's name.
    pub message: String,
    /// Whether another look may help, without a change of what is declared or configured.
    pub is_temporary: bool,
}

impl ClassProblem {
    fn new(class: &str, reason: &'static str, error: &Error) -> Self {
        let is_temporary = !error.is_permanent();
        let reason = if is_temporary { "ProviderUnavailable" } else { reason };
        Self { reason, message: format!("MachineClass {class}: {error}"), is_temporary }
    }
}

/// The MachineClasses of this cluster, and the connections to their providers. Clones are the same.
#[derive(Clone)]
pub struct Classes(Arc<Inner>);

struct Inner {
    cache: Cache<MachineClass>,
    providers: Providers,
    secrets: Secrets,
    connections: Connections,
}

impl std::fmt::Debug for Classes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Classes").field(&self.0.providers).finish()
    }
}

impl Classes {
    /// The classes that the cache shows; `client` reads the Secrets.
    #[must_use]
    pub fn new(cache: &Cache<MachineClass>, providers: Providers, client: Client) -> Self {
        let connections = Connections::new(providers.clone());
        Self(Arc::new(Inner { cache: cache.clone(), providers, secrets: Secrets::new(client), connections }))
    }

    /// The class of this name, as it is now.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Arc<MachineClass>> {
        self.0.cache.get(None, name)
    }

    /// The class of this name, and the connection to its provider.
    ///
    /// # Errors
    /// When it is not there, or what it or its Secret says cannot be used.
    pub async fn connection(&self, name: &str) -> Result<(Arc<MachineClass>, Connection), ClassProblem> {
        let Some(class) = self.get(name) else {
            self.0.connections.forget(name);
            let message = format!("there is no MachineClass {name:?}: create it, or declare another class");
            return Err(ClassProblem { reason: "ClassNotFound", message, is_temporary: false });
        };
        let connection = self.connect(&class.name_any(), &class.spec).await?;
        Ok((class, connection))
    }

    async fn connect(&self, name: &str, spec: &MachineClassSpec) -> Result<Connection, ClassProblem> {
        let problem = |reason| move |error: Error| ClassProblem::new(name, reason, &error);
        self.0.providers.get(&spec.provider).map_err(problem("UnknownProvider"))?;
        let credentials = match &spec.credentials {
            Some(of) => Some(self.0.secrets.get(of).await.map_err(problem("CredentialsNotFound"))?),
            None => None,
        };
        self.0.connections.connect(name, spec, credentials.as_deref()).map_err(|error| {
            let reason =
                if matches!(error, Error::Credentials(_)) { "CredentialsRejected" } else { "InvalidParameters" };
            ClassProblem::new(name, reason, &error)
        })
    }

    /// The provider of this name, for machines whose class is gone or names another provider by now.
    ///
    /// # Errors
    /// When there is no such provider, or it needs the class.
    pub fn without_class(&self, class: &str, provider: &str) -> Result<Connection, ClassProblem> {
        let connection = self.0.connections.without_class(provider);
        connection.map_err(|error| ClassProblem::new(class, "UnknownProvider", &error))?.ok_or_else(|| ClassProblem {
            reason: "ClassNotFound",
            message: format!(
                "MachineClass {class}: the machine is of the provider {provider}, which cannot be used without the class: \
                 create the class again as it was"
            ),
            is_temporary: false,
        })
    }

    /// Whether machines of the class can be had.
    ///
    /// # Errors
    /// Says why not.
    pub async fn usable(&self, name: &str) -> Result<(), ClassProblem> {
        self.connection(name).await.map(drop)
    }
}
