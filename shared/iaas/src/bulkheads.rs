//! The bulkheads of all MachineClasses.

use std::{collections::HashMap, sync::Arc};

use berth_core::api::{Server, TaskKind};
use futures::{
    Stream, StreamExt as _,
    channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded},
    stream,
};
use kube::runtime::reflector::ObjectRef;
use parking_lot::Mutex;

use crate::bulkhead::Bulkhead;

/// What the work behind a bulkhead waits for. Each class has one bulkhead for each, so that installations on machines
/// that run go on while the provider hangs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum BulkheadKind {
    /// Calls of the provider.
    Provider,
    /// Commands on the machines.
    Machines,
}

impl BulkheadKind {
    /// What a task of this kind waits for.
    pub(crate) fn of(task: TaskKind) -> Self {
        if task == TaskKind::InstallPackages { Self::Machines } else { Self::Provider }
    }
}

/// One bulkhead for each class and kind of work, made when it is first used.
pub(crate) struct Bulkheads {
    /// Slots of each bulkhead.
    slots: usize,
    by_class: Mutex<HashMap<(String, BulkheadKind), Arc<Bulkhead>>>,
    sender: UnboundedSender<ObjectRef<Server>>,
    receiver: Mutex<Option<UnboundedReceiver<ObjectRef<Server>>>>,
}

impl Bulkheads {
    pub(crate) fn new(slots: usize) -> Self {
        let (sender, receiver) = unbounded();
        Self { slots, by_class: Mutex::default(), sender, receiver: Mutex::new(Some(receiver)) }
    }

    pub(crate) fn get(&self, class: &str, kind: BulkheadKind) -> Arc<Bulkhead> {
        let new = || Bulkhead::new(self.slots, self.sender.clone());
        self.by_class.lock().entry((class.to_owned(), kind)).or_insert_with(new).clone()
    }

    /// Notifies every Server that waits for a slot of the class, or for the class to be usable.
    pub(crate) fn notify_all(&self, class: &str) {
        let bulkheads = self.by_class.lock();
        for (_, bulkhead) in bulkheads.iter().filter(|((name, _), _)| name == class) {
            bulkhead.notify_all();
        }
    }

    /// The notified Servers. Only the first caller gets them.
    pub(crate) fn notifications(&self) -> impl Stream<Item = ObjectRef<Server>> + Send + use<> {
        stream::iter(self.receiver.lock().take()).flatten()
    }
}
