//! The check of the provider: Incus answers, trusts the client certificate, and has what the class names.

use serde::Deserialize;
use serde_json::Value;

use super::{fault::IncusFault, image::image_reference, provider::IncusProvider};
use crate::error::{ProviderError, Result};

/// The API extensions that the provider uses. Incus 6.0 has all of them.
const EXTENSIONS: [&str; 3] = ["container_last_used_at", "instance_file_head", "projects"];

/// The server's description of itself.
#[derive(Debug, Deserialize)]
struct ServerInfo {
    auth: String,
    #[serde(default)]
    api_extensions: Vec<String>,
}

impl IncusProvider {
    pub(super) async fn check_all(&self) -> Result<()> {
        self.check_server().await?;
        let project = self.client.project();
        self.check_exists(&["projects", project], &format!("spec.parameters.project: there is no project {project:?}"))
            .await?;
        for profile in &self.parameters.profiles {
            let missing = format!("spec.parameters.profiles: there is no profile {profile:?} in project {project:?}");
            self.check_exists(&["profiles", profile], &missing).await?;
        }
        let Some(image) = self.image.as_deref().filter(|_| self.parameters.image_server.is_none()) else {
            return Ok(());
        };
        let missing = format!("spec.image: there is no image {image:?} in project {project:?}");
        match image_reference(image) {
            ("alias", alias) => self.check_exists(&["images", "aliases", alias], &missing).await,
            (_, fingerprint) => self.check_exists(&["images", fingerprint], &missing).await,
        }
    }

    async fn check_server(&self) -> Result<()> {
        let server: ServerInfo =
            self.client.get(&[], &[]).await.map_err(|fault| fault.while_doing("read the server's description"))?;
        let endpoint = self.client.endpoint();
        if server.auth != "trusted" {
            return Err(ProviderError::Credentials(format!(
                "{endpoint} does not trust the client certificate in the Secret (tls.crt): add it there with `incus config \
                 trust add-certificate`"
            )));
        }
        let missing: Vec<_> = EXTENSIONS
            .iter()
            .filter(|wanted| !server.api_extensions.iter().any(|has| has == *wanted))
            .copied()
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        let missing = missing.join(", ");
        Err(ProviderError::Configuration(format!(
            "{endpoint} is too old: Incus 6.0 or newer is needed (it lacks {missing})"
        )))
    }

    async fn check_exists(&self, path: &[&str], missing: &str) -> Result<()> {
        let found: std::result::Result<Value, IncusFault> = self.client.get(path, &[]).await;
        match found {
            Ok(_) => Ok(()),
            Err(IncusFault::Refused { code: 404, message }) => {
                Err(ProviderError::Configuration(format!("{missing} (Incus: {message})")))
            }
            Err(fault) => Err(fault.while_doing(&format!("look up {}", path.join("/")))),
        }
    }
}
