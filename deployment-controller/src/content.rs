//! When another content of ConfigMaps and Secrets is another application.
//!
//! The content that an application refers to is part of what it is, as a digest (`contentDigest`). The digest is made with a key that
//! nobody but Berth has, so that a short password cannot be guessed from it.

use std::{fmt, sync::Arc, time::Duration};

use berth_core::{
    api::{App, Server, VMDeployment, VMDeploymentStatus, VMReplicaSet},
    digest,
};
use berth_runtime::WAIT_SECONDS;
use hmac::{Hmac, KeyInit as _, Mac as _};
use k8s_openapi::jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use crate::{baseline, count::RolloutCount, references::AppValues, replica_set::newest_app, steps};

/// The content while some of it is missing: nothing is known to have been deployed.
pub(crate) const UNKNOWN: &str = "unknown";

/// Bytes of the digest: enough that two contents of one application never have the same.
const DIGEST_BYTES: usize = 10;

/// How often the ConfigMaps and Secrets of an application are looked at, and how often missing ones are looked for: nothing watches
/// them, because that needs the right to list them.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_secs(WAIT_SECONDS.unsigned_abs() as u64);

/// The key of the digests.
#[derive(Clone)]
pub struct ContentKey([u8; 32]);

impl fmt::Debug for ContentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ContentKey")
    }
}

impl ContentKey {
    /// The key that follows from a secret which all copies of the controller share, and from which the secret does not follow.
    #[must_use]
    pub fn derived_from(secret: &[u8]) -> Self {
        Self(Sha256::new().chain_update(b"digests of content\0").chain_update(secret).finalize().into())
    }

    /// The digest of the content of an application's variables and files.
    pub(crate) fn digest(&self, values: &AppValues) -> String {
        // A key of this length is always accepted.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.0) else { return String::new() };
        let mut add = |bytes: &[u8]| {
            mac.update(&(bytes.len() as u64).to_be_bytes());
            mac.update(bytes);
        };
        for (name, value) in values.env.iter().chain(&values.secrets.0) {
            [b"env", name.as_bytes(), value.as_bytes()].into_iter().for_each(&mut add);
        }
        let mut files: Vec<_> = values.files.iter().collect();
        files.sort_by_key(|file| &file.path);
        for file in files {
            [b"file", file.path.as_bytes(), file.content.as_slice()].into_iter().for_each(&mut add);
        }
        hex::encode(&mac.finalize().into_bytes()[..DIGEST_BYTES])
    }
}

/// What was seen of the content of an application.
#[derive(Clone, Debug, Default)]
pub(crate) enum SeenContent {
    /// It refers to nothing.
    #[default]
    Nothing,
    /// Digest of what there is.
    Digest(Arc<str>),
    /// What is missing.
    Missing(Arc<str>),
}

impl SeenContent {
    /// The digest, or what is missing.
    pub(crate) fn found(&self) -> Result<&str, &str> {
        match self {
            Self::Nothing => Ok(""),
            Self::Digest(digest) => Ok(digest),
            Self::Missing(missing) => Err(missing),
        }
    }

    fn is_nothing(&self) -> bool {
        matches!(self, Self::Nothing)
    }
}

/// What the ConfigMaps and Secrets contain that the wanted application and the stable one refer to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Contents {
    /// Content of the wanted application.
    newest: Option<String>,
    /// Content of the stable one, if that is another one.
    stable: Option<String>,
    /// What was seen of the wanted one.
    seen: SeenContent,
    /// What was seen of the stable one, if that is another one.
    seen_of_stable: SeenContent,
}

impl Contents {
    /// The contents of what the VMDeployment wants. `seen`, `seen_of_stable`: what was seen of the wanted application, and of the
    /// stable one if that is another one.
    pub(crate) fn new(
        wanted: &VMDeployment,
        set: Option<&VMReplicaSet>,
        servers: &[&Server],
        seen: SeenContent,
        seen_of_stable: SeenContent,
    ) -> Self {
        let newest = content_of(&wanted.spec.app, wanted.status.as_ref(), set, servers, seen.found());
        let stable = another_stable_app(wanted);
        let stable = stable.and_then(|stable| content_of_stable(stable, set, seen_of_stable.found()));
        Self { newest, stable, seen, seen_of_stable }
    }

    /// The content of the wanted application.
    pub(crate) fn newest(&self) -> Option<String> {
        self.newest.clone()
    }

    /// The VMDeployment with these contents.
    pub(crate) fn of(&self, wanted: &VMDeployment) -> Box<VMDeployment> {
        with_content(wanted, self.newest.clone(), self.stable.clone())
    }

    /// What is missing of the application that Servers are to get, while there are such Servers: it holds the roll-out.
    pub(crate) fn missing(&self, deployment: &VMDeployment, servers: &[&Server], now: Timestamp) -> Option<&str> {
        self.next_look()?;
        let count = RolloutCount::of(deployment, servers, now);
        let (seen, left) = if steps::aborted(deployment, &count.newest).is_some() {
            (&self.seen_of_stable, count.updated())
        } else {
            (&self.seen, count.left)
        };
        // A restart of a baseline needs what the stable one refers to.
        let progress = steps::recorded(deployment, &count.newest);
        let is_restarting = progress.is_some_and(|known| baseline::step(&deployment.spec.rollout, known).is_some());
        let of_stable = || self.seen_of_stable.found().err().filter(|_| is_restarting);
        seen.found().err().or_else(of_stable).filter(|_| left > 0)
    }

    /// Whether the VMDeployment as it is now wants, and goes back to, the applications that these contents are of. `known`: as it was
    /// when they were looked at. What its roll-out is about must have been written, so that two copies of this controller do not
    /// follow two contents.
    pub(crate) fn are_of(&self, known: &VMDeployment, now: &VMDeployment) -> bool {
        let newest = newest_app(now);
        if self.next_look().is_none() {
            return !now.spec.app.has_references();
        }
        let stable = |of: &VMDeployment| of.status.as_ref().and_then(|status| status.stable_app.clone());
        let is_aborted = |of: &VMDeployment| steps::aborted(of, &newest).is_some();
        known.spec.app == now.spec.app
            && stable(known) == stable(now)
            && is_aborted(known) == is_aborted(now)
            && steps::recorded(now, &newest).is_some()
    }

    /// When they have to be looked at again.
    pub(crate) fn next_look(&self) -> Option<Duration> {
        let has_references = !self.seen.is_nothing() || !self.seen_of_stable.is_nothing();
        has_references.then_some(LOOK_INTERVAL)
    }
}

/// The content of an application of the VMDeployment: `found` is the digest of what is there, or says what is missing. Then it is the
/// content that the application had last, so that nothing seems to be another application.
///
/// An application that an older version of Berth has rolled out has no content, and gets none before it is declared differently: an
/// upgrade deploys nothing again.
fn content_of(
    app: &App,
    status: Option<&VMDeploymentStatus>,
    set: Option<&VMReplicaSet>,
    servers: &[&Server],
    found: Result<&str, &str>,
) -> Option<String> {
    if !app.has_content() {
        return None;
    }
    let named = App { revision: Some(app.effective_revision()), ..app.clone() };
    let template = set.and_then(|set| set.spec.template.spec.app.as_ref());
    let apps = servers.iter().filter_map(|server| server.spec.app.as_ref()).chain(template);
    let known: Vec<&App> = apps.filter(|known| named.is_declared_as(known)).collect();
    if !known.is_empty() && known.iter().all(|app| app.content_digest.is_none()) {
        return None;
    }
    if let Ok(found) = found {
        return Some(found.to_owned());
    }
    let had = status.and_then(|status| status.content_digest.clone());
    let with_that = App { content_digest: had.clone(), ..named };
    let progress = status.and_then(|status| status.rollout.as_ref());
    let is_recorded = |app: &&App| progress.is_some_and(|known| known.digest == digest::short(&app.unmarked()));
    let last = [&with_that].into_iter().chain(known.iter().copied()).find(is_recorded);
    let last = last.or(known.first().copied()).map_or(had, |app| app.content_digest.clone());
    Some(last.unwrap_or_else(|| UNKNOWN.to_owned()))
}

/// The VMDeployment with this content of its application, whatever it declares, and with this content of the stable one, if that is
/// another one: what is given back to Servers gets the content that there is now. Boxed, because it lives as long as a reconcile.
fn with_content(deployment: &VMDeployment, newest: Option<String>, stable: Option<String>) -> Box<VMDeployment> {
    let mut deployment = Box::new(deployment.clone());
    deployment.spec.app.content_digest = newest;
    if let Some(app) = another_stable_app(&deployment).map(|app| App { content_digest: stable, ..app.clone() })
        && let Some(status) = &mut deployment.status
    {
        status.stable_app = Some(app);
    }
    deployment
}

/// The content of the stable application, while another one is wanted: `found` is the digest of what is there, or says what is missing.
/// Then new Servers keep the one that they are given.
fn content_of_stable(stable: &App, set: Option<&VMReplicaSet>, found: Result<&str, &str>) -> Option<String> {
    if !stable.has_content() {
        return None;
    }
    let template = set.and_then(|set| set.spec.template.spec.app.as_ref()).filter(|app| app.is_declared_as(stable));
    let had = || template.unwrap_or(stable).content_digest.clone();
    found.ok().map(str::to_owned).or_else(had)
}

/// The stable application, if another one is wanted.
pub(crate) fn another_stable_app(wanted: &VMDeployment) -> Option<&App> {
    let newest = newest_app(wanted);
    wanted.status.as_ref()?.stable_app.as_ref().filter(|stable| !stable.is_declared_as(&newest))
}

#[cfg(test)]
#[path = "content_tests.rs"]
mod tests;
