//! An order over failure domains.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// In which order failure domains get a new version. A domain, or zone, is all Servers with the same value of a label; those without the
/// label are one, too.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Spread {
    /// Label of the Servers whose value is their zone.
    #[serde(default = "zone")]
    #[schemars(
        length(min = 1, max = 317),
        regex(pattern = r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$")
    )]
    pub topology_key: String,
    /// How many zones are updated at a time.
    #[serde(default)]
    pub mode: SpreadMode,
    /// For so many seconds all Servers of a zone that have the new version must be well before the next zone is touched.
    #[serde(default)]
    #[schemars(range(min = 0, max = 604_800))]
    pub bake_seconds: i32,
}

fn zone() -> String {
    "topology.kubernetes.io/zone".to_owned()
}

/// How many zones are updated at a time.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum SpreadMode {
    /// The next zone is touched only when those before it are well.
    #[default]
    OneAtATime,
}
