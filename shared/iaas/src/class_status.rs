//! What people are told about a MachineClass: a metric, and an Event when it changes.

use std::collections::HashMap;

use berth_core::api::MachineClass;
use berth_runtime::{Context, EventType, reference};
use kube::ResourceExt as _;
use parking_lot::Mutex;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, gauge::Gauge},
};

use crate::unusable::UnusableClass;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClassLabels {
    class: String,
}

/// Publishes whether classes are usable.
pub(crate) struct ClassStatus {
    ctx: Context,
    /// The reason of the last published problem, by class.
    published: Mutex<HashMap<String, &'static str>>,
    usable: Family<ClassLabels, Gauge>,
}

impl ClassStatus {
    pub(crate) fn new(ctx: &Context) -> Self {
        let usable = Family::default();
        let help = "Whether machines of a MachineClass that is in use can be created (1) or not (0)";
        ctx.metrics.register(|r| r.register("machine_class_usable", help, Family::clone(&usable)));
        Self { ctx: ctx.clone(), published: Mutex::default(), usable }
    }

    /// Sets the metric, and publishes an Event when the class becomes usable, or unusable for another reason than before.
    pub(crate) fn publish(&self, class: &MachineClass, problem: Option<&UnusableClass>) {
        let name = class.name_any();
        self.usable.get_or_create(&ClassLabels { class: name.clone() }).set(i64::from(problem.is_none()));
        let before = self.exchange(&name, problem);
        let about = reference(class);
        match problem {
            Some(problem) if before != Some(problem.reason) => {
                let (reason, message) = (problem.reason, problem.message.clone());
                tracing::warn!(class = name, reason, problem = message, "machines cannot be created");
                self.ctx.events.publish(&about, EventType::Warning, reason, message);
            }
            None if before.is_some() => {
                let message = "machines can be created again";
                tracing::info!(class = name, "{message}");
                self.ctx.events.publish(&about, EventType::Normal, "Usable", message.to_owned());
            }
            _ => {}
        }
    }

    /// Forgets a class that is gone.
    pub(crate) fn forget(&self, class: &str) {
        self.usable.remove(&ClassLabels { class: class.to_owned() });
        self.published.lock().remove(class);
    }

    /// Stores the reason, and returns the one before.
    fn exchange(&self, class: &str, problem: Option<&UnusableClass>) -> Option<&'static str> {
        let mut published = self.published.lock();
        match problem {
            Some(problem) => published.insert(class.to_owned(), problem.reason),
            None => published.remove(class),
        }
    }
}
