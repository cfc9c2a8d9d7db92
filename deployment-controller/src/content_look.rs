//! Looks at the ConfigMaps, Secrets and DeployClasses of applications.

use std::{collections::HashMap, time::Duration};

use berth_core::{
    api::{App, VMDeployment},
    digest,
};
use berth_runtime::ApiError;
use kube::Client;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{
    content::{ContentKey, SeenContent},
    external::DeploySystem,
    references,
};

/// What was seen is true for so long: while many Servers of a VMDeployment change, it is reconciled several times a second.
const MEMORY: Duration = Duration::from_secs(5);

/// Looks at content, and remembers for a moment what was seen. Contents themselves are not remembered.
pub(crate) struct ContentLook {
    client: Client,
    key: ContentKey,
    /// By the UID of the VMDeployment and a digest of the application.
    seen: Mutex<HashMap<(String, String), Seen>>,
}

struct Seen {
    at: Instant,
    content: SeenContent,
}

impl ContentLook {
    /// Reads from this API server.
    pub(crate) fn new(client: Client, key: ContentKey) -> Self {
        Self { client, key, seen: Mutex::default() }
    }

    /// What the ConfigMaps and Secrets contain that this application of the VMDeployment refers to, or why its DeployClass cannot be used.
    /// `wanted`: the VMDeployment with the application that is wanted.
    pub(crate) async fn look(&self, wanted: &VMDeployment, app: &App) -> Result<SeenContent, ApiError> {
        if !app.has_references() && app.deploy_class().is_none() {
            return Ok(SeenContent::Nothing);
        }
        let app = app.as_declared();
        let key = (wanted.metadata.uid.clone().unwrap_or_default(), digest::short(&app));
        if let Some(content) = self.remembered(&key).filter(|content| is_recorded(wanted, &app, content)) {
            return Ok(content);
        }
        let content = match app.deploy_class() {
            Some(class) => match DeploySystem::of_class(&self.client, class, wanted.namespace()).await? {
                // Such an application refers to nothing else.
                Ok(_) => return Ok(SeenContent::Nothing),
                Err(unusable) => SeenContent::Missing(unusable.into()),
            },
            None => match references::resolve(&self.client, wanted.namespace(), &app).await? {
                Ok(values) => SeenContent::Digest(self.key.digest(&values).into()),
                Err(missing) => SeenContent::Missing(missing.into()),
            },
        };
        self.seen.lock().insert(key, Seen { at: Instant::now(), content: content.clone() });
        Ok(content)
    }

    fn remembered(&self, key: &(String, String)) -> Option<SeenContent> {
        let mut seen = self.seen.lock();
        seen.retain(|_, seen| seen.at.elapsed() < MEMORY);
        seen.get(key).map(|seen| seen.content.clone())
    }
}

/// Whether this is not news about the wanted application. Nothing is done about news on the word of a memory, because another copy of this
/// controller may have looked since.
fn is_recorded(wanted: &VMDeployment, app: &App, content: &SeenContent) -> bool {
    let SeenContent::Digest(content) = content else { return true };
    if *app != wanted.spec.app.as_declared() {
        return true;
    }
    let revision = Some(app.effective_revision());
    let seen = App { content_digest: app.has_content().then(|| content.to_string()), revision, ..app.clone() };
    let progress = wanted.status.as_ref().and_then(|status| status.rollout.as_ref());
    progress.is_some_and(|progress| progress.digest == digest::short(&seen))
}
