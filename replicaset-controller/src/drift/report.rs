//! Reports drift, when the Server's set has made the Server part of its budget.

use std::{sync::Arc, time::Duration};

use berth_core::{api::Server, protocol::StatusWrite};
use berth_runtime::ApiError;
use tokio::time::sleep;

use super::{detector::DriftDetector, schedule::should_check};
use crate::set::drift_repair::DriftReports;

/// Pause after a report that was not written: otherwise the set, which still knows of the drift, asks for it again at once.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(30);

/// What became of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriftReport {
    /// The fact is written: the Server goes through Initializing, which repairs it.
    Written,
    /// Nothing differs any more, or the Server is no longer one that is checked.
    NoDrift,
    /// Nothing is written, because the machine could not be read or the Server changed in the meantime.
    NotWritten,
}

impl DriftDetector {
    /// Reports the Server's drift in the background, unless that is in progress already. Its set is reconciled afterwards.
    pub(super) fn report_in_background(&self, server: &Server) {
        let Some(in_progress) = self.0.in_progress.begin(server) else { return };
        let (this, server) = (self.clone(), Arc::new(server.clone()));
        tokio::spawn(async move {
            if this.0.unless_shutdown(this.report_or_pause(&server)).await.is_some() {
                drop(in_progress);
                this.0.notify_set(&server);
            }
        });
    }

    async fn report_or_pause(&self, server: &Server) {
        match self.report_now(server).await {
            Ok(DriftReport::Written | DriftReport::NoDrift) => return,
            Ok(DriftReport::NotWritten) => {}
            Err(error) => {
                let (server, namespace) = (server.name(), server.namespace());
                tracing::warn!(server, namespace, %error, "drift is not reported");
            }
        }
        sleep(PAUSE_AFTER_FAILURE).await;
    }

    /// Reads the machine again and writes the fact if it still differs; otherwise the drift is forgotten.
    ///
    /// A drift that was reported is forgotten only when the cache shows the write: a set that saw the Server Ready and without
    /// drift would remove it from its ledger before the repair.
    ///
    /// # Errors
    /// When the write fails.
    pub async fn report_now(&self, server: &Server) -> Result<DriftReport, ApiError> {
        let inner = &self.0;
        let Some(current) = inner.current(server).filter(|current| should_check(current)) else {
            inner.drifted.remove(server);
            return Ok(DriftReport::NoDrift);
        };
        let reading = match (inner.read)(current.clone()).await {
            Ok(reading) => reading,
            Err(error) => {
                let (server, namespace) = (current.name(), current.namespace());
                tracing::warn!(server, namespace, error, "drift is not reported: the machine cannot be read");
                return Ok(DriftReport::NotWritten);
            }
        };
        if reading.difference(&current).is_none() {
            inner.drifted.remove(server);
            return Ok(DriftReport::NoDrift);
        }
        // A task may have begun to change the machine since it was read.
        let write = StatusWrite::new(&current).environment(reading.fact(&current)).if_unchanged();
        match inner.ctx.write_status(&current, write).await {
            Ok(after) => {
                inner.servers.catch_up_with(&after).await;
                inner.drifted.remove(server);
                Ok(DriftReport::Written)
            }
            Err(error) if error.is_stale() => Ok(DriftReport::NotWritten),
            Err(error) => Err(error),
        }
    }
}

impl DriftReports for DriftDetector {
    fn is_drifted(&self, server: &Server) -> bool {
        self.difference(server).is_some()
    }

    fn report(&self, server: &Server) {
        self.report_in_background(server);
    }
}
