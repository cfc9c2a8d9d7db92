//! Tries one source of the programs after the other.

use std::{env, path::Path};

use anyhow::{Context, bail};

use super::{
    assets::Assets,
    build,
    cache::CacheEntry,
    download,
    settings::{ETCD_VERSION, KUBERNETES_VERSION, Settings},
};
use crate::error::{ControlPlaneError, Result};

/// Gets the programs from the first of these sources that has them: the named folder, the cache, the official releases
/// (checksums verified), a build from the Go modules. Downloaded and built programs stay in the cache. Of parallel callers,
/// one does the work and the others wait.
///
/// # Errors
/// [`ControlPlaneError::Acquire`] with one line for each source.
pub async fn acquire(settings: &Settings) -> Result<Assets> {
    let mut reasons = Vec::new();
    let named = settings.assets.as_deref().map(Assets::in_folder);
    match &named {
        None => reasons.push("KUBEBUILDER_ASSETS: not set".to_owned()),
        Some(named) if named.missing().is_empty() => return Ok(named.clone()),
        Some(named) => {
            let dir = named.etcd.parent().unwrap_or(Path::new("")).display();
            let reason = format!("KUBEBUILDER_ASSETS: {dir} has no {}", named.missing().join(", no "));
            (settings.progress)(&format!("{reason}; trying the other sources for these"));
            reasons.push(reason);
        }
    }
    let found = match cached_or_fetched(settings, &mut reasons).await {
        Ok(found) => found,
        Err(error) => {
            reasons.push(format!("{error:#}"));
            return Err(ControlPlaneError::Acquire { reasons });
        }
    };
    Ok(match named {
        Some(named) => named.or(found),
        None => found,
    })
}

async fn cached_or_fetched(settings: &Settings, reasons: &mut Vec<String>) -> anyhow::Result<Assets> {
    let (os, arch) = platform()?;
    let key = format!("kubernetes-{KUBERNETES_VERSION}-etcd-{ETCD_VERSION}-{os}-{arch}");
    let entry = CacheEntry::new(&settings.cache, &key);
    if let Some(found) = entry.complete() {
        return Ok(found);
    }
    reasons.push(format!("cache: nothing at {}", entry.dir().display()));
    let lock = entry.lock(&settings.progress).await.with_context(|| format!("cache {}", settings.cache.display()))?;
    if let Some(found) = entry.complete() {
        return Ok(found); // filled by the caller that held the lock before
    }
    let folder = lock.new_folder()?;
    match download::download(settings, os, arch, folder.path()).await {
        Ok(()) => return lock.publish(folder),
        Err(error) => reasons.push(format!("official release: {error:#}")),
    }
    let folder = lock.new_folder()?;
    (settings.progress)(&format!("no release is available ({}); building", reasons.last().map_or("", |r| r)));
    build::build(settings, folder.path()).await.context("build from the Go modules")?;
    lock.publish(folder)
}

/// Operating system and architecture, as Go names them.
fn platform() -> anyhow::Result<(&'static str, &'static str)> {
    let arch = match env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => bail!("platform: {other} is not supported; set KUBEBUILDER_ASSETS to a folder with the programs"),
    };
    if env::consts::OS != "linux" {
        bail!("platform: only Linux is supported, this is {}", env::consts::OS);
    }
    Ok((env::consts::OS, arch))
}
