//! What the scripts on a machine in memory have in common: its locks, and whether anything goes on at all.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    sync::{Notify, RwLock},
    time::sleep,
};

/// What scripts on a machine in memory share.
#[derive(Debug, Default)]
pub(super) struct Kernel {
    /// `<root>/.lock`.
    pub(super) lock: Arc<RwLock<()>>,
    /// `<root>/apps/<name>/staging/.lock`, of the one application that a machine in memory has.
    pub(super) staging: Arc<RwLock<()>>,
    situation: Mutex<Situation>,
    /// Wakes those that wait in their order, which a watch channel does not.
    changed: Notify,
}

#[derive(Clone, Copy, Debug, Default)]
struct Situation {
    /// How often everything that ran was ended.
    ended: u32,
    /// Whether nothing on the machine goes on.
    is_frozen: bool,
}

impl Kernel {
    /// Ends everything that runs.
    pub(super) fn end_all(&self) {
        self.situation.lock().ended += 1;
        self.changed.notify_waiters();
    }

    pub(super) fn freeze(&self, is_frozen: bool) {
        self.situation.lock().is_frozen = is_frozen;
        self.changed.notify_waiters();
    }

    pub(super) fn is_frozen(&self) -> bool {
        self.situation.lock().is_frozen
    }

    /// How often everything that ran was ended.
    pub(super) fn ended(&self) -> u32 {
        self.situation.lock().ended
    }

    /// Waits until what began when it was ended so often is ended, too.
    pub(super) async fn end_after(&self, ended: u32) {
        self.wait(|situation| situation.ended != ended).await;
    }

    /// Lets this much time pass on the machine.
    pub(super) async fn pass(&self, time: Duration) {
        if !time.is_zero() {
            sleep(time).await;
        }
        self.wait(|situation| !situation.is_frozen).await;
    }

    async fn wait(&self, is_wanted: impl Fn(&Situation) -> bool) {
        loop {
            let changed = self.changed.notified();
            if is_wanted(&self.situation.lock()) {
                return;
            }
            changed.await;
        }
    }
}
