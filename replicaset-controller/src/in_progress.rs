//! Servers that this process works on at the moment.

use std::{collections::HashSet, sync::Arc};

use berth_core::api::Server;
use parking_lot::Mutex;

/// The Servers that one kind of work is in progress on. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct InProgress {
    uids: Arc<Mutex<HashSet<String>>>,
}

/// The work on one Server is in progress for as long as this guard lives.
#[derive(Debug)]
pub(crate) struct InProgressGuard {
    uids: Arc<Mutex<HashSet<String>>>,
    uid: String,
}

impl InProgress {
    /// Begins the work on the Server; none if it is in progress already.
    pub(crate) fn begin(&self, server: &Server) -> Option<InProgressGuard> {
        let uid = server.uid().to_owned();
        self.uids.lock().insert(uid.clone()).then(|| InProgressGuard { uids: self.uids.clone(), uid })
    }

    /// Whether the work on the Server is in progress.
    pub(crate) fn contains(&self, server: &Server) -> bool {
        self.uids.lock().contains(server.uid())
    }
}

impl Drop for InProgressGuard {
    fn drop(&mut self) {
        self.uids.lock().remove(&self.uid);
    }
}
