//! Keeps the mark of the followed history in a ConfigMap.

use std::collections::BTreeMap;

use berth_runtime::{ApiError, Context};
use k8s_openapi::{
    api::core::v1::ConfigMap,
    jiff::{SignedDuration, Timestamp},
};
use kube::{Api, api::PostParams};
use parking_lot::Mutex;

use super::history::{Gap, History};

/// Name of the ConfigMap, in the namespace of the controllers.
const NAME: &str = "replicaset-controller-orphans";
const FOLLOWED_UNTIL: &str = "followedUntil";
const GAPS: &str = "gaps";

/// Reads and advances the mark.
pub(super) struct Mark {
    api: Api<ConfigMap>,
    /// The mark that this process wrote last.
    wrote: Mutex<Option<Timestamp>>,
}

impl Mark {
    pub(super) fn new(ctx: &Context) -> Self {
        Self { api: Api::namespaced(ctx.client.clone(), &ctx.identities.namespace), wrote: Mutex::default() }
    }

    /// Advances the mark to now, and returns the history.
    ///
    /// # Errors
    /// When it cannot be read or written, or another copy of the controller has just written it.
    pub(super) async fn advance(&self, longest: SignedDuration, now: Timestamp) -> Result<History, ApiError> {
        let action = || format!("keep the ConfigMap {NAME}");
        let stored = self.api.get_opt(NAME).await.map_err(ApiError::doing(action()))?;
        let wrote = *self.wrote.lock();
        let history = match stored.as_ref().and_then(decode) {
            Some(history) => history.advance(wrote, longest, now),
            None => History::begin(now),
        };
        let mut map = stored.unwrap_or_else(|| ConfigMap {
            metadata: kube::core::ObjectMeta { name: Some(NAME.to_owned()), ..Default::default() },
            ..ConfigMap::default()
        });
        map.data = Some(encode(&history));
        // With the resourceVersion of what was read, so that no other mark is overwritten.
        let done = match map.metadata.resource_version {
            Some(_) => self.api.replace(NAME, &PostParams::default(), &map).await,
            None => self.api.create(&PostParams::default(), &map).await,
        };
        done.map_err(ApiError::doing(action()))?;
        *self.wrote.lock() = Some(history.followed_until);
        Ok(history)
    }

    /// Whether the stored history is still this one. If not, another copy of the controller has advanced it, or etcd was restored:
    /// then what was listed since may belong to another history.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) async fn is_still(&self, history: &History) -> Result<bool, ApiError> {
        let stored = self.api.get_opt(NAME).await.map_err(ApiError::doing(format!("read the ConfigMap {NAME}")))?;
        Ok(stored.as_ref().and_then(decode).as_ref() == Some(history))
    }
}

fn encode(history: &History) -> BTreeMap<String, String> {
    let gaps = serde_json::to_string(&history.gaps).unwrap_or_default();
    BTreeMap::from([(FOLLOWED_UNTIL.to_owned(), history.followed_until.to_string()), (GAPS.to_owned(), gaps)])
}

/// None if a person has made it unreadable: then nothing is known about what happened before.
fn decode(map: &ConfigMap) -> Option<History> {
    let data = map.data.as_ref()?;
    let gaps: Vec<Gap> = serde_json::from_str(data.get(GAPS)?).ok()?;
    Some(History { followed_until: data.get(FOLLOWED_UNTIL)?.parse().ok()?, gaps })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stored_history_is_read_back() {
        let history = History::begin("2026-01-01T00:00:00Z".parse().unwrap());
        let stored = |data| ConfigMap { data: Some(data), ..ConfigMap::default() };
        assert_eq!(decode(&stored(encode(&history))), Some(history));
        assert_eq!(decode(&stored(BTreeMap::new())), None);
    }
}
