//! The counters of servers, from `show stat`.

use std::{
    borrow::Cow,
    ops::{Add, AddAssign},
};

use crate::{
    error::Problem,
    table::{Columns, csv_rows},
};

/// The type of a server's row.
const SERVER: &str = "2";

/// What a server still has to finish. A client's or a server's idle keep-alive connection is not in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct InFlight {
    /// Requests (TCP sessions where the backend's mode is `tcp`) that HAProxy has given to the server.
    pub sessions: u64,
    /// Requests that wait in the server's own queue, because it has reached its `maxconn`.
    pub queued: u64,
}

impl InFlight {
    /// All of them.
    #[must_use]
    pub fn total(self) -> u64 {
        self.sessions.saturating_add(self.queued)
    }
}

impl Add for InFlight {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            sessions: self.sessions.saturating_add(other.sessions),
            queued: self.queued.saturating_add(other.queued),
        }
    }
}

impl AddAssign for InFlight {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

/// What `show stat` adds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) status: String,
    pub(crate) in_flight: InFlight,
    pub(crate) idle_connections: u64,
}

/// Calls `found` with the backend, the name and the counters of each server in an answer to `show stat`.
pub(crate) fn each_stat(answer: &str, mut found: impl FnMut(Cow<'_, str>, Cow<'_, str>, Stat)) -> Result<(), Problem> {
    let (head, rows) = answer.split_once('\n').unwrap_or((answer, ""));
    let columns = Columns::new("statistics", head, ',')?;
    let [backend, server, kind, status] = ["pxname", "svname", "type", "status"].map(|name| columns.column(name));
    let (backend, server, kind, status) = (backend?, server?, kind?, status?);
    let (sessions, queued) = (columns.column("scur")?, columns.column("qcur")?);
    // Older versions of HAProxy do not count idle connections here.
    let idle = columns.column("srv_icur").ok();
    for row in csv_rows(rows) {
        let row = row?;
        if kind.text(&row)? != SERVER {
            continue;
        }
        let stat = Stat {
            status: status.text(&row)?.to_owned(),
            in_flight: InFlight { sessions: sessions.number(&row)?, queued: queued.number(&row)? },
            // Empty for a server that pools no connections.
            idle_connections: idle.map(|idle| idle.text(&row)).transpose()?.and_then(|n| n.parse().ok()).unwrap_or(0),
        };
        found(Cow::Borrowed(backend.text(&row)?), Cow::Borrowed(server.text(&row)?), stat);
    }
    Ok(())
}
