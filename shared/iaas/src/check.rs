//! The last answer of a provider's check, available without waiting for the provider.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{sync::watch, time::Instant};

use crate::{error::Result, provider::Provider};

/// How long a success counts: a provider seldom becomes unusable, and its calls show that anyway.
const SUCCESS_VALID: Duration = Duration::from_mins(1);
/// How long a failure counts: Servers wait for its end.
const FAILURE_VALID: Duration = Duration::from_secs(5);

/// Checks a provider in the background and keeps the last answer. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct ProviderCheck(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: Mutex<CheckState>,
    answers: watch::Sender<Option<Result<()>>>,
}

#[derive(Debug, Default)]
struct CheckState {
    /// When the last check began; none if the next use has to check again.
    started_at: Option<Instant>,
    under_way: bool,
}

impl Default for ProviderCheck {
    fn default() -> Self {
        Self(Arc::new(Inner { state: Mutex::default(), answers: watch::Sender::default() }))
    }
}

impl ProviderCheck {
    /// The last answer; none before the first. If it is outdated, a new check begins, and `on_answer` gets its answer.
    pub(crate) fn last_answer(
        &self,
        provider: &Arc<dyn Provider>,
        on_answer: impl FnOnce(&Result<()>) + Send + 'static,
    ) -> Option<Result<()>> {
        let last = self.0.answers.borrow().clone();
        if self.begin(last.as_ref()) {
            let (this, provider) = (self.clone(), provider.clone());
            tokio::spawn(async move {
                let answer = provider.check().await;
                this.0.answers.send_replace(Some(answer.clone()));
                this.0.state.lock().under_way = false;
                on_answer(&answer);
            });
        }
        last
    }

    /// Waits for the first answer.
    pub(crate) async fn first_answer(&self) -> Option<Result<()>> {
        let mut answers = self.0.answers.subscribe();
        answers.wait_for(Option::is_some).await.ok().and_then(|answer| answer.clone())
    }

    /// Makes the next [`Self::last_answer`] begin a new check.
    pub(crate) fn invalidate(&self) {
        self.0.state.lock().started_at = None;
    }

    fn begin(&self, last: Option<&Result<()>>) -> bool {
        let valid = if last.is_some_and(Result::is_ok) { SUCCESS_VALID } else { FAILURE_VALID };
        let mut state = self.0.state.lock();
        if state.under_way || state.started_at.is_some_and(|at| at.elapsed() < valid) {
            return false;
        }
        *state = CheckState { started_at: Some(Instant::now()), under_way: true };
        true
    }
}
