//! How a Server differs from the template of its set, and for which generation of the set it was created.

use std::collections::BTreeMap;

use crate::api::{GatePoint, Server, UpdateType, VMReplicaSet};

/// Annotation of a Server: the generation of its set that it was created for.
pub const SET_GENERATION_ANNOTATION: &str = "berth.dev/set-generation";

impl Server {
    /// The generation of its set that the Server was created for.
    #[must_use]
    pub fn set_generation(&self) -> Option<i64> {
        self.annotation(SET_GENERATION_ANNOTATION)?.parse().ok()
    }
}

impl VMReplicaSet {
    /// The generation of the set that an Approval must name to settle this gate of the Server. A machine is created for the
    /// declaration that asked for it; everything else is done for the declaration that holds now.
    #[must_use]
    pub fn generation_of_gate(&self, server: &Server, gate: GatePoint) -> Option<i64> {
        match gate {
            GatePoint::CreateMachine => server.set_generation(),
            _ => self.metadata.generation,
        }
    }
}

impl VMReplicaSet {
    /// Whether the Server's environment differs from the template's: everything but the machine, which only another Server can
    /// change, and the application, which deployment-controller rolls out.
    #[must_use]
    pub fn environment_differs(&self, server: &Server) -> bool {
        let (has, wants) = (&server.spec, &self.spec.template.spec);
        has.packages != wants.packages
            || has.prune_packages != wants.prune_packages
            || has.health_check != wants.health_check
            || has.reachability != wants.reachability
            || has.traffic != wants.traffic
            || has.monitoring != wants.monitoring
            || has.gates != wants.gates
            || has.task_attempts != wants.task_attempts
            || self.lacks_metadata(server)
    }

    /// Whether the template declares another machine than the Server has.
    #[must_use]
    pub fn machine_differs(&self, server: &Server) -> bool {
        server.spec.machine != self.spec.template.spec.machine
    }

    /// Whether the Server has what the template declares: environment and machine.
    #[must_use]
    pub fn is_updated(&self, server: &Server) -> bool {
        !self.environment_differs(server) && !self.machine_differs(server)
    }

    /// Whether a roll-out of the template has something to change about the Server.
    #[must_use]
    pub fn is_outdated(&self, server: &Server) -> bool {
        self.environment_differs(server) || self.must_replace(server)
    }

    /// Whether another Server has to take this one's place, because the machine differs and the update strategy allows it.
    #[must_use]
    pub fn must_replace(&self, server: &Server) -> bool {
        self.spec.update_strategy.type_ == UpdateType::Replace && self.machine_differs(server)
    }

    /// Whether the Server gets the template's environment while it stays.
    #[must_use]
    pub fn must_update(&self, server: &Server) -> bool {
        self.environment_differs(server) && !self.must_replace(server)
    }

    /// Whether a label or an annotation of the template is missing. What others have added does not count.
    fn lacks_metadata(&self, server: &Server) -> bool {
        let lacks = |wants: &BTreeMap<String, String>, has: Option<&BTreeMap<String, String>>| {
            wants.iter().any(|(key, value)| has.and_then(|has| has.get(key)) != Some(value))
        };
        let template = &self.spec.template.metadata;
        lacks(&template.labels, server.metadata.labels.as_ref())
            || lacks(&template.annotations, server.metadata.annotations.as_ref())
    }
}
