//! A write at which the copy that sends it crashes.

use std::sync::Arc;

use parking_lot::Mutex;

/// The write at which a copy crashes, if there is one. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct CrashPoint(Arc<Mutex<Option<Ahead>>>);

#[derive(Clone, Copy)]
struct Ahead {
    /// How many writes come before it.
    writes: u64,
    takes_effect: bool,
}

impl CrashPoint {
    /// The copy that sends the write after so many others crashes, before that write arrives or when it has taken effect.
    pub(crate) fn set(&self, writes: u64, takes_effect: bool) {
        *self.0.lock() = Some(Ahead { writes, takes_effect });
    }

    /// A copy writes. If it crashes, this says whether the write takes effect.
    pub(crate) fn pass(&self) -> Option<bool> {
        let mut ahead = self.0.lock();
        let point = ahead.as_mut()?;
        if point.writes > 0 {
            point.writes -= 1;
            return None;
        }
        ahead.take().map(|point| point.takes_effect)
    }
}
