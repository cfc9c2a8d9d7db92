//! Commands around the start and the end of an application.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Commands that Berth runs when it starts or stops the application, each in the folder of the release, with the environment and the
/// user of the application. They do not run when the machine boots, or when the application is restarted after it has ended.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Hooks {
    /// Before the application is stopped to be deployed again. It is the hook that the running application was deployed with. If it
    /// fails, nothing is changed, unless another `preStop` is declared since, or none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pre_stop: Option<Hook>,
    /// Before the application is started. If it fails, the application has failed to start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pre_start: Option<Hook>,
    /// After the application was started and kept running for two seconds. If it fails, the application has failed to start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub post_start: Option<Hook>,
}

/// A command with a time limit.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Hook {
    /// Shell command.
    #[schemars(length(min = 1, max = 4096))]
    pub command: String,
    /// Seconds after which the command is ended with all its processes, and has failed.
    #[serde(default = "timeout_seconds")]
    #[schemars(range(min = 1, max = 300))]
    pub timeout_seconds: i32,
}

fn timeout_seconds() -> i32 {
    30
}

impl Hooks {
    /// Seconds that all hooks may take together.
    #[must_use]
    pub fn total_seconds(&self) -> u64 {
        let hooks = [&self.pre_stop, &self.pre_start, &self.post_start];
        hooks.into_iter().flatten().map(|hook| u64::try_from(hook.timeout_seconds).unwrap_or(0)).sum()
    }
}
