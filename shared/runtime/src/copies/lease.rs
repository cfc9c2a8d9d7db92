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
            notes: lease.metadata.annotations.clone().unwrap_or_default(),
        })
    }
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
            acquire_time: Some(MicroTime(now)),
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
