//! The queue of changes that one reader has not taken yet: at most one per object, so that a slow reader needs little memory.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Weak},
    task::{Poll, Waker},
};

use futures::{Stream, stream};
use kube::runtime::reflector::ObjectRef;
use parking_lot::Mutex;

use super::change::{Cached, Change};

/// The changes that wait.
struct Pending<K: Cached> {
    order: VecDeque<ObjectRef<K>>,
    changes: HashMap<ObjectRef<K>, Change<K>>,
    waker: Option<Waker>,
    closed: bool,
}

impl<K: Cached> Pending<K> {
    fn push(&mut self, key: ObjectRef<K>, change: Change<K>) {
        if self.changes.insert(key.clone(), change).is_none() {
            self.order.push_back(key);
        }
    }

    fn pop(&mut self) -> Option<Change<K>> {
        let key = self.order.pop_front()?;
        self.changes.remove(&key)
    }
}

/// The writing end of a reader's queue. Dropping it ends the reader's stream.
pub(super) struct ChangeQueue<K: Cached>(Weak<Mutex<Pending<K>>>);

impl<K: Cached> ChangeQueue<K> {
    /// A queue that contains these changes, and the stream that reads from it.
    pub(super) fn new(first: Vec<Change<K>>) -> (Self, impl Stream<Item = Change<K>> + Send + use<K>) {
        let mut queue = Pending { order: VecDeque::new(), changes: HashMap::new(), waker: None, closed: false };
        for change in first {
            queue.push(ObjectRef::from_obj(&**change.object()), change);
        }
        let queue = Arc::new(Mutex::new(queue));
        let writer = Self(Arc::downgrade(&queue));
        let stream = stream::poll_fn(move |cx| {
            let mut queue = queue.lock();
            match queue.pop() {
                Some(change) => Poll::Ready(Some(change)),
                None if queue.closed => Poll::Ready(None),
                None => {
                    queue.waker = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        });
        (writer, stream)
    }

    /// Appends a change, or replaces the waiting change of the same object. Returns false if the reader is gone.
    pub(super) fn push(&self, key: &ObjectRef<K>, change: &Change<K>) -> bool {
        self.with(|queue| queue.push(key.clone(), change.clone()))
    }

    fn with(&self, f: impl FnOnce(&mut Pending<K>)) -> bool {
        let Some(queue) = self.0.upgrade() else { return false };
        let waker = {
            let mut queue = queue.lock();
            f(&mut queue);
            queue.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        true
    }
}

impl<K: Cached> Drop for ChangeQueue<K> {
    fn drop(&mut self) {
        self.with(|queue| queue.closed = true);
    }
}
