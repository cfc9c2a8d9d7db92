//! The failure domain of a Server: the MachineClass and the zone of its machine, and when too many of one are unreachable.

use std::collections::BTreeMap;

use berth_core::api::Server;

/// The label of a Server, and of a MachineClass for its Servers, that names the zone: Kubernetes' own.
pub const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// So many unreachable Servers of a failure domain never hold by their share alone: in a small one, each is a large share. It is
/// the number that Kubernetes allows per zone.
pub(super) const ALWAYS_ALLOWED: usize = 2;

/// Where machines fail together: those of one class in one zone. Servers without the label are in one zone without a name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FailureDomain {
    /// Name of the MachineClass.
    pub class: String,
    /// Name of the zone; empty for Servers that say none.
    pub zone: String,
}

impl FailureDomain {
    /// The failure domain of this Server.
    #[must_use]
    pub fn of(server: &Server) -> Self {
        let zone = server.metadata.labels.as_ref().and_then(|labels| labels.get(ZONE_LABEL)).cloned();
        Self { class: server.spec.machine.class_name.clone(), zone: zone.unwrap_or_default() }
    }
}

impl std::fmt::Display for FailureDomain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "class {}", self.class)?;
        if self.zone.is_empty() { Ok(()) } else { write!(f, " in zone {}", self.zone) }
    }
}

/// The Servers of a failure domain that count for the brake across sets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DomainCounts {
    /// Active Servers that have a machine.
    pub active: usize,
    /// Those of them that are unreachable.
    pub unreachable: usize,
}

impl DomainCounts {
    /// Whether no Server of this failure domain is rebooted or given up: more than `percent` are unreachable, and more than two;
    /// or all of them are, and more than one.
    #[must_use]
    pub fn is_braked(self, percent: usize) -> bool {
        let Self { active, unreachable } = self;
        let is_partial = unreachable > (active * percent / 100).max(ALWAYS_ALLOWED);
        let is_full = unreachable > 1 && unreachable >= active;
        is_partial || is_full
    }
}

/// The failure domains of a set's Servers, with what was counted over all sets.
pub type FailureDomains = BTreeMap<FailureDomain, DomainCounts>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_dead_machine_never_brakes_and_all_of_several_always_do() {
        for (active, unreachable, braked) in [
            (0, 0, false),
            (1, 0, false),
            (1, 1, false),
            (2, 1, false),
            (2, 2, true),
            (3, 2, false),
            (3, 3, true),
            (5, 2, false),
            (5, 3, true),
            (20, 1, false),
            (20, 8, false),
            (20, 9, true),
            (20, 20, true),
        ] {
            assert_eq!(DomainCounts { active, unreachable }.is_braked(40), braked, "{unreachable} of {active}");
        }
        let all = |percent| DomainCounts { active: 20, unreachable: 20 }.is_braked(percent);
        assert!(all(100) && all(1), "no share allows all of them");
        assert!(!DomainCounts { active: 20, unreachable: 19 }.is_braked(100));
    }
}
