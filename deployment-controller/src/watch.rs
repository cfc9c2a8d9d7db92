//! Checks that are looked at again and again: which ones, how often, and how far their promise reaches. Pure.

use berth_core::{
    api::{AnalysisProgress, AnalysisStep, ApproveStep, Background, Check, NoData, Rollout, RolloutStep},
    digest,
};
use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// Checks that are looked at again and again, and what for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Watch<'a> {
    /// They decide whether the roll-out goes on.
    Analysis(&'a AnalysisStep),
    /// A person is shown what they say.
    Evidence(&'a ApproveStep),
    /// They may stop the roll-out, whichever step has its turn.
    Background(&'a Background),
}

impl<'a> Watch<'a> {
    /// What this step looks at; none if it looks at nothing.
    pub(crate) fn of(step: &'a RolloutStep) -> Option<Self> {
        let evidence = step.approve.as_ref().filter(|approve| !approve.evidence.is_empty());
        step.analysis.as_ref().map(Self::Analysis).or_else(|| evidence.map(Self::Evidence))
    }

    /// Names of the checks.
    pub(crate) fn checks(self) -> &'a [String] {
        match self {
            Self::Analysis(step) => &step.checks,
            Self::Evidence(step) => &step.evidence,
            Self::Background(declared) => &declared.checks,
        }
    }

    /// From one look to the next.
    pub(crate) fn interval(self) -> SignedDuration {
        let seconds = match self {
            Self::Analysis(step) => step.interval_seconds,
            Self::Evidence(step) => step.interval_seconds,
            Self::Background(declared) => declared.interval_seconds,
        };
        SignedDuration::from_secs(i64::from(seconds.max(1)))
    }

    /// What it means when a query returns nothing.
    pub(crate) fn no_data(self) -> NoData {
        match self {
            Self::Analysis(step) => step.no_data,
            Self::Evidence(_) | Self::Background(_) => NoData::Inconclusive,
        }
    }

    /// By what `alpha` is divided at the next look. What decides nothing has all of it at each look. Nobody knows how many looks there
    /// will be in the background: the k-th has the part 1/(k(k+1)), and all of them together have no more than the whole.
    pub(crate) fn looks(self, known: &AnalysisProgress) -> u32 {
        match self {
            Self::Analysis(step) => most_looks(step),
            Self::Evidence(_) => 1,
            Self::Background(_) => {
                let next = u32::try_from(known.looks).unwrap_or(0).saturating_add(1);
                next.saturating_mul(next.saturating_add(1))
            }
        }
    }

    /// What `$elapsed` is at this time, in seconds. In the background at least an interval, because steps may be shorter.
    pub(crate) fn elapsed(self, known: &AnalysisProgress, at: Timestamp) -> i64 {
        let least = match self {
            Self::Analysis(_) | Self::Evidence(_) => 1,
            Self::Background(_) => self.interval().as_secs(),
        };
        at.duration_since(known.since.0).as_secs().max(least)
    }

    /// Digest of what is declared, with its checks. When it changes, everything begins anew.
    pub(crate) fn digest(self, rollout: &Rollout) -> String {
        let checks: Vec<_> = self.checks().iter().map(|name| check(rollout, name)).collect();
        match self {
            Self::Analysis(step) => digest::short(&(step, checks)),
            Self::Evidence(step) => digest::short(&(step, checks)),
            Self::Background(declared) => digest::short(&(declared, checks)),
        }
    }

    /// When it is looked again after this record.
    pub(crate) fn next(self, known: &AnalysisProgress) -> Option<Timestamp> {
        let last = known.looked_at.as_ref().unwrap_or(&known.since).0;
        last.checked_add(self.interval()).ok()
    }
}

/// The check of this name.
pub(crate) fn check<'a>(rollout: &'a Rollout, name: &str) -> Option<&'a Check> {
    rollout.checks.iter().find(|check| check.name == name)
}

/// How many looks an analysis makes at most.
pub(crate) fn most_looks(step: &AnalysisStep) -> u32 {
    u32::try_from(step.max_seconds / step.interval_seconds.max(1)).unwrap_or(0).max(1)
}
