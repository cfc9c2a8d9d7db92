//! The state of one probe: its target, its period and its results so far. No I/O.

use std::time::Duration;

use crate::{probe::ProbeTarget, verdict::ProbeHistory};

/// Period of the health probe while a proof of health is wanted: roll-outs wait for it. The API has no shorter period.
pub(crate) const URGENT_PERIOD: Duration = Duration::from_secs(1);

/// How the schedule of a probe changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ScheduleChange {
    /// It is due once a period.
    Start {
        period: Duration,
        /// Whether it is due now for the first time, and not at its place in the period.
        at_once: bool,
    },
    /// It is no longer due.
    Stop,
}

/// The state of one probe.
#[derive(Debug, Default)]
pub(crate) struct ProbeState {
    target: Option<ProbeTarget>,
    period: Duration,
    /// Rises with every change of target or period.
    generation: u64,
    /// The results since the target changed.
    pub(crate) history: ProbeHistory,
}

impl ProbeState {
    /// What to probe now, and the generation that tells its results from those of earlier targets.
    pub(crate) fn target(&self) -> Option<(ProbeTarget, u64)> {
        Some((self.target.clone()?, self.generation))
    }

    /// Whether a result of this generation is one of the present target.
    pub(crate) fn is_current(&self, generation: u64) -> bool {
        self.target.is_some() && self.generation == generation
    }

    /// How often it is probed.
    pub(crate) fn period(&self) -> Duration {
        self.period
    }

    /// Within this time it is probed once, and the probe has ended.
    pub(crate) fn round(&self) -> Duration {
        self.period + self.target.as_ref().map_or(Duration::ZERO, |target| target.timeout)
    }

    /// Whether there is nothing to probe.
    pub(crate) fn is_idle(&self) -> bool {
        self.target.is_none()
    }

    /// Probes this target from now on; `reset` drops earlier results even if the target is the same.
    pub(crate) fn retarget(
        &mut self,
        target: Option<ProbeTarget>,
        period: Duration,
        reset: bool,
    ) -> Option<ScheduleChange> {
        if self.target != target {
            self.history = ProbeHistory::default();
        } else if reset {
            self.history.forget_results();
        } else if self.period == period {
            return None;
        }
        let was_idle = self.is_idle();
        self.generation += 1;
        (self.target, self.period) = (target, period);
        match self.is_idle() {
            true if was_idle => None,
            true => Some(ScheduleChange::Stop),
            // Only urgent probes start at once: thousands of others may start together after a restart of this program.
            false => Some(ScheduleChange::Start { period, at_once: period <= URGENT_PERIOD }),
        }
    }
}
