//! One reader's queue of changes: at most one entry for each object.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError, Weak},
    task::{Poll, Waker},
};

use futures::{Stream, stream};
use kube::runtime::reflector::ObjectRef;

use super::{Cached, Change};

struct Queue<K: Cached> {
    order: VecDeque<ObjectRef<K>>,
    changes: HashMap<ObjectRef<K>, Change<K>>,
    waker: Option<Waker>,
    closed: bool,
}

impl<K: Cached> Queue<K> {
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

/// The writing end of a reader's queue.
pub(super) struct Feed<K: Cached>(Weak<Mutex<Queue<K>>>);

impl<K: Cached> Feed<K> {
    /// A queue that holds these changes already.
    pub(super) fn new(first: Vec<Change<K>>) -> (Self, impl Stream<Item = Change<K>> + Send + use<K>) {
        let mut queue = Queue { order: VecDeque::new(), changes: HashMap::new(), waker: None, closed: false };
        for change in first {
            queue.push(ObjectRef::from_obj(&**change.object()), change);
        }
        let queue = Arc::new(Mutex::new(queue));
        let feed = Self(Arc::downgrade(&queue));
        let stream = stream::poll_fn(move |cx| {
            let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
            match queue.pop() {
                Some(change) => Poll::Ready(Some(change)),
                None if queue.closed => Poll::Ready(None),
                None => {
                    queue.waker = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        });
        (feed, stream)
    }

    /// Appends a change; false when the reader is gone.
    pub(super) fn push(&self, key: &ObjectRef<K>, change: &Change<K>) -> bool {
        self.with(|queue| queue.push(key.clone(), change.clone()))
    }

    fn with(&self, f: impl FnOnce(&mut Queue<K>)) -> bool {
        let Some(queue) = self.0.upgrade() else { return false };
        let waker = {
            let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
            f(&mut queue);
            queue.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        true
    }
}

impl<K: Cached> Drop for Feed<K> {
    fn drop(&mut self) {
        self.with(|queue| queue.closed = true);
    }
}
