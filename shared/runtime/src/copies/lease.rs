//! The Lease of a copy.

use std::{collections::BTreeMap, time::Duration};

use berth_core::api::Executor;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::core::ObjectMeta;
use serde_json::{Value, json};

use super::share::hash;

/// Label of the Leases of Berth's copies; its value is the controller.
pub(super) const COPY: &str = "berth.dev/copy";

/// Hexadecimal digits of the random part of a holder.
const RANDOM_DIGITS: usize = 16;

/// The longest time that a Lease may count for without being renewed, whatever it says.
const LONGEST: Duration = Duration::from_mins(5);

/// One copy of a controller, as its Lease shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControllerCopy {
    /// The name of its Lease.
    pub name: String,
    /// Which controller it is a copy of.
    pub executor: Executor,
    /// The process, as `<executor>/<instance>`.
    pub holder: String,
    /// When it began, by its own clock.
    pub since: Option<MicroTime>,
    /// What it says to the other copies: the annotations of its Lease.
    pub notes: BTreeMap<String, String>,
}

impl ControllerCopy {
    /// The copy of this Lease; none if it is no Lease of a copy.
    pub(super) fn of(lease: &Lease) -> Option<Self> {
        let label = lease.metadata.labels.as_ref()?.get(COPY)?;
        Some(Self {
            name: lease.metadata.name.clone()?,
            executor: Executor::CONTROLLERS.into_iter().find(|executor| executor.name() == label)?,
            holder: lease.spec.as_ref()?.holder_identity.clone()?,
            since: lease.spec.as_ref()?.acquire_time.clone(),
            notes: lease.metadata.annotations.clone().unwrap_or_default(),
        })
    }
}

impl ControllerCopy {
    /// Whether this process took the place of the other one: it has the same name (`--instance`, a Pod's name), and began later.
    /// A container is restarted only when its process has ended, so the Lease that it has left counts no longer.
    pub(super) fn replaces(&self, other: &Self) -> bool {
        let name = instance_of(&self.holder);
        name.is_some() && name == instance_of(&other.holder) && self.holder != other.holder && self.since > other.since
    }
}

/// The holder without the random part that each process adds (`CommonArgs::new_instance`); none if it is nothing else.
fn instance_of(holder: &str) -> Option<&str> {
    let (name, random) = holder.rsplit_once('-')?;
    let is_random = random.len() == RANDOM_DIGITS && random.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_random.then_some(name)
}

/// The name of the Lease of this process. It is valid whatever the instance is called, and no other process has it.
pub(super) fn name(executor: Executor, holder: &str) -> String {
    format!("{executor}-{:016x}", hash(&[holder.as_bytes()]))
}

/// The Lease of a copy that begins.
pub(super) fn new(copy: &ControllerCopy, namespace: &str, counts_for: Duration, now: Timestamp) -> Lease {
    let labels = [
        (COPY, copy.executor.name()),
        ("app.kubernetes.io/name", copy.executor.name()),
        ("app.kubernetes.io/part-of", "berth"),
    ];
    Lease {
        metadata: ObjectMeta {
            name: Some(copy.name.clone()),
            namespace: Some(namespace.to_owned()),
            labels: Some(labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into()),
            annotations: Some(copy.notes.clone()),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(copy.holder.clone()),
            lease_duration_seconds: i32::try_from(counts_for.as_secs()).ok(),
            acquire_time: copy.since.clone(),
            renew_time: Some(MicroTime(now)),
            ..LeaseSpec::default()
        }),
    }
}

/// The merge patch that renews a Lease and says these notes; a note without text is removed.
pub(super) fn renewal(notes: &BTreeMap<String, Option<String>>, now: Timestamp) -> Value {
    json!({"metadata": {"annotations": notes}, "spec": {"renewTime": MicroTime(now)}})
}

/// How long the copy counts after its Lease was seen to change.
pub(super) fn counts_for(lease: &Lease) -> Duration {
    let seconds = lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds).unwrap_or(0);
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0)).min(LONGEST)
}
