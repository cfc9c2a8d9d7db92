//! What a judge sees: a change of an object, or of a machine.

use std::time::Duration;

use berth_iaas::simulated::{SimulatedMachines, Simulation};
use berth_machine::fake::FakeState;
use serde_json::Value;

use super::view::{Place, View, is_berth};
use crate::SimClock;

/// A change of an object, as a judge sees it.
pub(crate) struct Scene<'a> {
    /// Plural name of the object's kind.
    pub(crate) plural: &'a str,
    /// Where the object is.
    pub(crate) place: &'a Place,
    pub(crate) before: Option<&'a Value>,
    pub(crate) after: Option<&'a Value>,
    /// The user who made the change; empty for the API server itself.
    pub(crate) author: &'a str,
    /// What there was before the change.
    pub(crate) view: &'a View,
    pub(crate) simulation: &'a Simulation,
    pub(crate) machines: &'a SimulatedMachines,
    /// The time of the world.
    pub(crate) clock: &'a SimClock,
}

/// A change of a machine by a script.
pub(crate) struct Work<'a> {
    /// The Server that the machine belongs to, as the copy of the program knows it.
    pub(crate) place: &'a Place,
    pub(crate) uid: &'a str,
    /// The copy that sent the script, as it claims locks.
    pub(crate) holder: &'a str,
    /// When the script was sent.
    pub(crate) sent: Duration,
    pub(crate) before: &'a FakeState,
    pub(crate) after: &'a FakeState,
    pub(crate) view: &'a View,
    pub(crate) clock: &'a SimClock,
}

impl Work<'_> {
    /// When the task of which it is a part was begun; none if the Server is not locked. A script may outlive its task. What the lock
    /// says of that is by the clock of a copy of the webhook, which may be a minute ahead or behind.
    pub(super) fn begun(&self, server: &Value) -> Option<Duration> {
        server["status"]["lock"].is_object().then(|| self.view.begun_at(self.place))?.map(|at| at.min(self.sent))
    }
}

/// What a script does on a machine.
pub(crate) struct Deed<'a> {
    /// The Server that the machine belongs to, as namespace/name.
    pub(crate) server: &'a str,
    pub(crate) uid: &'a str,
    /// The copy that sent the script, as it claims locks.
    pub(crate) holder: &'a str,
    /// How long ago the script was sent.
    pub(crate) age: Duration,
    /// Whether its client is gone, and it may go on for a while without the lock.
    pub(crate) ends: bool,
    pub(crate) before: &'a FakeState,
    pub(crate) after: &'a FakeState,
}

/// Whether a copy of one of Berth's programs made the change.
pub(super) fn by_berth(scene: &Scene<'_>) -> bool {
    is_berth(scene.author)
}
