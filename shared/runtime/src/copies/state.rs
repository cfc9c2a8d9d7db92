//! What one copy knows of the others and says to them, shared by its users and the task that keeps its Lease.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::lease::ControllerCopy;

pub(super) struct CopyState {
    /// This copy, without what it says.
    pub(super) own: ControllerCopy,
    pub(super) namespace: String,
    /// What this copy says, and what it no longer says and still has to take back.
    pub(super) notes: Mutex<BTreeMap<String, Option<String>>>,
    /// There is something new to say.
    pub(super) has_news: Notify,
    /// The other copies that count.
    pub(super) others: watch::Sender<Arc<Vec<ControllerCopy>>>,
}

impl CopyState {
    pub(super) fn new(own: ControllerCopy, namespace: String) -> Self {
        let (has_news, others) = (Notify::new(), watch::Sender::new(Arc::default()));
        Self { own, namespace, notes: Mutex::default(), has_news, others }
    }

    /// Takes over which copies count now. Returns the holders that have come and gone.
    pub(super) fn set_others(&self, now: Vec<ControllerCopy>) -> (Vec<String>, Vec<String>) {
        let holders =
            |copies: &[ControllerCopy]| copies.iter().map(|copy| copy.holder.clone()).collect::<BTreeSet<_>>();
        let (before, after) = (holders(&self.others.borrow()), holders(&now));
        self.others.send_if_modified(|others| {
            let is_new = **others != now;
            if is_new {
                *others = Arc::new(now);
            }
            is_new
        });
        (after.difference(&before).cloned().collect(), before.difference(&after).cloned().collect())
    }
}
