//! What a provider's check said last, without waiting for it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::{
    sync::watch,
    time::{Duration, Instant},
};

use super::{Provider, Result};

/// How long a good answer counts.
const GOOD: Duration = Duration::from_mins(1);
/// How long a bad one does.
const BAD: Duration = Duration::from_secs(5);

/// The last answer of a provider's check. Clones are the same.
#[derive(Clone, Debug)]
pub(super) struct Checked(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    answers: watch::Sender<Option<Result<()>>>,
}

#[derive(Debug, Default)]
struct State {
    asked: Option<Instant>,
    under_way: bool,
}

impl Default for Checked {
    fn default() -> Self {
        Self(Arc::new(Inner { state: Mutex::default(), answers: watch::Sender::default() }))
    }
}

impl Checked {
    /// The last answer; none before the first. Asks again when it is old, and tells `then` the answer.
    pub(super) fn look(
        &self,
        provider: &Arc<dyn Provider>,
        then: impl FnOnce(&Result<()>) + Send + 'static,
    ) -> Option<Result<()>> {
        let last = self.0.answers.borrow().clone();
        if self.begin(last.as_ref()) {
            let (this, provider) = (self.clone(), provider.clone());
            tokio::spawn(async move {
                let answer = provider.check().await;
                this.0.answers.send_replace(Some(answer.clone()));
                this.lock().under_way = false;
                then(&answer);
            });
        }
        last
    }

    /// Waits for the first answer.
    pub(super) async fn answer(&self) -> Option<Result<()>> {
        let mut answers = self.0.answers.subscribe();
        answers.wait_for(Option::is_some).await.ok().and_then(|answer| answer.clone())
    }

    /// The next look asks again: something speaks against the last answer.
    pub(super) fn doubt(&self) {
        self.lock().asked = None;
    }

    fn begin(&self, last: Option<&Result<()>>) -> bool {
        let limit = if last.is_some_and(Result::is_ok) { GOOD } else { BAD };
        let mut state = self.lock();
        if state.under_way || state.asked.is_some_and(|at| at.elapsed() < limit) {
            return false;
        }
        *state = State { asked: Some(Instant::now()), under_way: true };
        true
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
