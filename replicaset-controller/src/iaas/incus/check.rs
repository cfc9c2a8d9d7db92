//! Whether machines can be had: does Incus answer, does it trust us, is there what the class names.

use serde::Deserialize;
use serde_json::Value;

use super::{Error, IncusProvider, Result, fault::Fault, image_reference};

/// Extensions of the API that are used. All are in Incus 6.0.
const EXTENSIONS: [&str; 3] = ["container_last_used_at", "instance_file_head", "projects"];

/// What a server says about itself.
#[derive(Debug, Deserialize)]
struct About {
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
        let about: About = self.client.get(&[], &[]).await.map_err(|fault| fault.while_doing("ask who it is"))?;
        let endpoint = self.client.endpoint();
        if about.auth != "trusted" {
            return Err(Error::Credentials(format!(
                "{endpoint} does not trust the client certificate in the Secret (tls.crt): add it there with `incus config \
                 trust add-certificate`"
            )));
        }
        let missing: Vec<_> = EXTENSIONS
            .iter()
            .filter(|wanted| !about.api_extensions.iter().any(|has| has == *wanted))
            .copied()
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        let missing = missing.join(", ");
        Err(Error::Configuration(format!("{endpoint} is too old: Incus 6.0 or newer is needed (it lacks {missing})")))
    }

    async fn check_exists(&self, path: &[&str], missing: &str) -> Result<()> {
        let found: std::result::Result<Value, Fault> = self.client.get(path, &[]).await;
        match found {
            Ok(_) => Ok(()),
            Err(Fault::Refused { code: 404, message }) => {
                Err(Error::Configuration(format!("{missing} (Incus: {message})")))
            }
            Err(fault) => Err(fault.while_doing(&format!("look for {}", path.join("/")))),
        }
    }
}
