//! Brings a release to a machine ahead of its deployment, while the application there serves.
//!
//! It is downloaded, verified and unpacked in `<root>/apps/<name>/staging`, where the deployment finds it. Nothing outside of that
//! folder is changed, and it has a lock of its own. So it needs no Server's lock, waits for nobody who changes the machine, and lets nobody
//! wait. The folder holds at most one release: another one takes its place, and a deployment that changes what runs deletes it.

use std::{sync::LazyLock, time::Duration};

use berth_core::api::ArtifactFormat;

use crate::{
    app::{FETCH, STAGED},
    authorization::Authorization,
    change::MachineChange,
    error::Result,
    limits::download_seconds,
    machine::Machine,
    operation::MachineOperation,
    validate,
};

pub(crate) static STAGE: LazyLock<String> =
    LazyLock::new(|| MachineOperation::script(&[FETCH, STAGED, include_str!("scripts/app_stage.sh")]));

/// What has to be known of a release to bring it to a machine. The fields are those of [`crate::app::AppRelease`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StagedRelease {
    /// Name of the application.
    pub name: String,
    /// Name of this version.
    pub revision: String,
    /// URL of the artifact.
    pub url: String,
    /// SHA-256 of the artifact.
    pub sha256: String,
    /// What the artifact is.
    pub format: Option<ArtifactFormat>,
    /// The credentials for the artifact, if it needs any.
    pub authorization: Option<Authorization>,
}

/// Brings the release to the machine under `root`. No change: it is there, because it was brought or deployed before.
pub async fn stage_app(
    machine: &dyn Machine,
    root: &str,
    release: &StagedRelease,
    timeout: Duration,
) -> Result<MachineChange> {
    validate::file_name("app name", &release.name)?;
    validate::file_name("app revision", &release.revision)?;
    validate::url("app url", &release.url)?;
    validate::sha256("app sha256", &release.sha256)?;
    let answer = MachineOperation::changing(&STAGE, &format!("{root}/apps/{}/staging", release.name))?
        .set("NAME", &release.name)?
        .set("REVISION", &release.revision)?
        .set("URL", &release.url)?
        .set("SHA256", &release.sha256)?
        .set("AUTHORIZATION", release.authorization.as_ref().map_or("", Authorization::value))?
        .set("FORMAT", release.format.map_or("", ArtifactFormat::name))?
        .set("FETCH_SECONDS", &download_seconds(timeout))?
        .hide(release.authorization.iter().map(Authorization::secret))
        .run(machine, &release.url, timeout)
        .await?;
    MachineChange::read(&answer)
}
