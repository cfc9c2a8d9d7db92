//! How far failover is with one unreachable Server.

use berth_core::api::{Failover, Server};
use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// With this annotation and the value [`DISABLED`], failover leaves a Server alone.
const ANNOTATION: &str = "berth.dev/failover";
/// See [`ANNOTATION`].
const DISABLED: &str = "disabled";

/// How far failover is with an unreachable Server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// It may come back until then.
    Waiting(Timestamp),
    /// Its machine has to be rebooted.
    Reboot,
    /// A reboot was requested; it may come back until then.
    Rebooted(Timestamp),
    /// Its turn has come to be given up.
    Due,
}

impl Stage {
    /// The stage of a Server. No wait begins before `from`, which is when the brake was last released.
    pub(super) fn of(policy: &Failover, server: &Server, from: Timestamp, now: Timestamp) -> Self {
        let unreachable_since = since(server);
        let waited = later(unreachable_since.max(from), policy.wait_seconds);
        if now < waited {
            return Self::Waiting(waited);
        }
        let Some(reboot) = &policy.reboot else { return Self::Due };
        let requested = server.spec.reboot.as_ref().and_then(|request| request.at.as_ref()).map(|at| at.0);
        match requested {
            Some(at) if at >= unreachable_since => {
                let until = later(at.max(from), policy.wait_seconds);
                if now < until { Self::Rebooted(until) } else { Self::Due }
            }
            // It is unreachable again so soon after a reboot that another one would not help either.
            Some(at) if now < later(at, reboot.cooldown_seconds) => Self::Due,
            _ => Self::Reboot,
        }
    }

    /// Whether the Server's turn has come.
    pub(super) fn is_turn(self) -> bool {
        matches!(self, Self::Reboot | Self::Due)
    }

    /// When the wait of this stage ends.
    pub(super) fn ends_at(self) -> Option<Timestamp> {
        match self {
            Self::Waiting(at) | Self::Rebooted(at) => Some(at),
            Self::Reboot | Self::Due => None,
        }
    }
}

/// When the Server entered its state.
pub(super) fn since(server: &Server) -> Timestamp {
    server.state_since().unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Whether a person keeps failover off this Server.
pub(super) fn is_opted_out(server: &Server) -> bool {
    server.annotation(ANNOTATION) == Some(DISABLED)
}

/// One id for each time that a Server becomes unreachable, so that a request made twice is one.
pub(super) fn reboot_id(server: &Server) -> String {
    format!("lost-{}", since(server).as_second())
}

/// So many seconds later.
pub(super) fn later(at: Timestamp, seconds: i32) -> Timestamp {
    at.checked_add(SignedDuration::from_secs(i64::from(seconds))).unwrap_or(Timestamp::MAX)
}
