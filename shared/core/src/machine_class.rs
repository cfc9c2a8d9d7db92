//! What a MachineClass allows: which Servers may get machines of it, and how many.

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::{
    CLASS_FINALIZER,
    api::{Machine, MachineClass, Server},
};

/// Seconds that a Server has to exist before its rank among the Servers of a class with `maxMachines` is final: all that have
/// rank before it are known by then.
const RANK_FINAL_AFTER_SECONDS: i64 = 3;

/// Why a class gives no machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassRefusal {
    /// Reason of a condition: `ClassDeleted`, `NamespaceNotAllowed`, `ImageNotAllowed` or `FlavorNotAllowed`.
    pub reason: &'static str,
    /// What is not allowed, by which field, and what to do.
    pub message: String,
}

impl MachineClass {
    /// Whether machines may have been made of it, so that its place must not change.
    #[must_use]
    pub fn is_in_use(&self) -> bool {
        self.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == CLASS_FINALIZER)
    }

    /// Whether its deletion was requested.
    #[must_use]
    pub fn is_being_deleted(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }

    /// Why a Server of this namespace must not get this machine; none if it may.
    #[must_use]
    pub fn refusal(&self, namespace: &str, machine: &Machine) -> Option<ClassRefusal> {
        let (class, spec) = (self.name(), &self.spec);
        if self.is_being_deleted() {
            let message = format!(
                "MachineClass {class} is being deleted: no more machines are created of it; those that exist can still be \
                 retired. Declare another class (spec.template.spec.machine.className)"
            );
            return Some(ClassRefusal { reason: "ClassDeleted", message });
        }
        let is_listed = |list: &Vec<String>, value: &str| list.iter().any(|allowed| allowed == value);
        if let Some(allowed) = spec.allowed_namespaces.as_ref().filter(|allowed| !is_listed(allowed, namespace)) {
            let message = format!(
                "MachineClass {class} gives no machines to namespace {namespace}; its spec.allowedNamespaces has {}: \
                 declare another class, or have the namespace added",
                listed(allowed)
            );
            return Some(ClassRefusal { reason: "NamespaceNotAllowed", message });
        }
        let refuse = |reason, field: &str, plural, allowed: &Vec<String>, own: Option<&String>, named: &str| {
            let own = own.map(|own| format!(", and its own is {own}")).unwrap_or_default();
            let message = format!(
                "MachineClass {class} does not allow spec.machine.{field} {named}; its spec.{plural} has {}{own}: \
                 declare one of these, or none, or have it added",
                listed(allowed)
            );
            ClassRefusal { reason, message }
        };
        let is_other = |named: &&String, own: &Option<String>, allowed: &Vec<String>| {
            own.as_ref() != Some(*named) && !is_listed(allowed, named)
        };
        if let (Some(allowed), Some(image)) = (&spec.allowed_images, &machine.image)
            && is_other(&image, &spec.image, allowed)
        {
            return Some(refuse("ImageNotAllowed", "image", "allowedImages", allowed, spec.image.as_ref(), image));
        }
        if let (Some(allowed), Some(flavor)) = (&spec.allowed_flavors, &machine.flavor)
            && is_other(&flavor, &spec.flavor, allowed)
        {
            return Some(refuse("FlavorNotAllowed", "flavor", "allowedFlavors", allowed, spec.flavor.as_ref(), flavor));
        }
        None
    }

    /// The most machines of it that there may be.
    #[must_use]
    pub fn max_machines(&self) -> Option<usize> {
        self.spec.max_machines.map(|max| usize::try_from(max).unwrap_or(0))
    }

    /// Whether the Server counts against `maxMachines`: it has a machine of this class, or may get one.
    #[must_use]
    pub fn counts(&self, server: &Server) -> bool {
        server.spec.machine.class_name == self.name() && !server.is_done()
    }
}

/// Whether a class with `maxMachines` has a machine for a Server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MachineRoom {
    /// It may get one.
    Free,
    /// Not known before this time.
    KnownAt(Timestamp),
    /// As many older Servers have, or may get, all machines that there may be.
    Full,
}

/// Whether the Server may get a machine of a class that allows `max`, by its rank among the Servers that count.
///
/// The oldest Servers come first. A Server's rank only improves once no older one can turn up any more, and so it never happens
/// that more than `max` are told `Free`, whoever asks and when: unless an API server stores a Server later than
/// `RANK_FINAL_AFTER_SECONDS` after the time that it writes into it, or clocks differ by more than that.
pub fn machine_room<'a>(
    server: &Server,
    counting: impl Iterator<Item = &'a Server>,
    max: usize,
    now: Timestamp,
) -> MachineRoom {
    let own = age(server);
    let older = counting.filter(|other| other.uid() != server.uid() && age(other) < own).count();
    let known_at = own.0.and_then(|at| at.checked_add(SignedDuration::from_secs(RANK_FINAL_AFTER_SECONDS)).ok());
    match known_at.filter(|at| *at > now) {
        _ if older >= max => MachineRoom::Full,
        Some(at) => MachineRoom::KnownAt(at),
        None => MachineRoom::Free,
    }
}

/// Older Servers are less; of two of the same second, one of them.
fn age(server: &Server) -> (Option<Timestamp>, &str) {
    (server.metadata.creation_timestamp.as_ref().map(|at| at.0), server.uid())
}

/// Names for a message, not all of them if there are many.
fn listed(names: &[String]) -> String {
    const NAMES: usize = 10;
    match names {
        [] => "none".to_owned(),
        few if few.len() <= NAMES => few.join(", "),
        many => format!("{} and {} more", many[..NAMES].join(", "), many.len() - NAMES),
    }
}
