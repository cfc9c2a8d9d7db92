//! What may happen to connections to machines, and to scripts on them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Dice;

/// How scripts go, and how often connections to machines fail.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MachineFaults {
    /// The longest that a script takes that is not slow.
    pub script_time: Duration,
    /// Share of scripts that take minutes.
    pub slow_scripts: f64,
    /// Share of scripts that their watchdog has to kill.
    pub stubborn_scripts: f64,
    /// Share of connections that are refused, or not answered.
    pub refused_connections: f64,
    /// Share of scripts that are done, and whose output is lost.
    pub lost_outputs: f64,
    /// Share of connections that break while a script runs.
    pub broken_connections: f64,
    /// Share of clients whose end a machine does not see before TCP gives up.
    pub silent_ends: f64,
}

impl MachineFaults {
    pub(crate) fn draw(dice: &Dice) -> Self {
        let rate = |most: f64| if dice.chance(0.5) { most * dice.pick(&[0.1, 0.3, 1.0]) } else { 0.0 };
        Self {
            script_time: Duration::from_millis(dice.pick(&[100, 2_000, 10_000, 30_000])),
            slow_scripts: rate(0.3),
            stubborn_scripts: rate(1.0),
            refused_connections: rate(0.3),
            lost_outputs: rate(0.2),
            broken_connections: rate(0.3),
            silent_ends: rate(1.0),
        }
    }
}
