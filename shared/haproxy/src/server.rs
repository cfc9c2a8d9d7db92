//! What a worker says about its servers: the join of `show servers state` and `show stat`.

use std::collections::HashMap;

use crate::{
    change::{AdminState, ServerId},
    error::Problem,
    stat::{InFlight, Stat, each_stat},
    table::{Column, Columns},
};

/// Whether a server can take traffic, in HAProxy's view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operational {
    /// It takes none: its checks failed, or it is in maintenance.
    Down,
    /// It has just come up and gets less than its share (`slowstart`).
    Starting,
    /// It takes traffic, as far as its administrative state allows.
    Up,
    /// Its check asks for no new sessions (`http-check disable-on-404`).
    Stopping,
}

/// What HAProxy's health check of a server says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckState {
    /// No check is configured: HAProxy sends traffic whether the server answers or not.
    NotConfigured,
    /// A check is configured and switched off, as it is on a server that was added at run time until `enable health`.
    Disabled,
    /// The check is on, but the server is in maintenance, so it does not run.
    Paused,
    /// The check is on, and has no result yet. HAProxy takes the server for up meanwhile.
    Waiting,
    /// The last check passed.
    Passed,
    /// The last check failed.
    Failed,
}

/// A server of a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerState {
    /// Its backend and its name.
    pub id: ServerId,
    /// Its IP address. A server that was added with a host name has none, and gets no traffic.
    pub address: Option<String>,
    /// Its port.
    pub port: u16,
    /// The weight that is used now.
    pub weight: u16,
    /// The weight it was added or configured with; `set weight 100%` goes back to it.
    pub initial_weight: u16,
    /// Its administrative state.
    pub admin: AdminState,
    /// Whether it is in maintenance because a server it tracks is, or because its name cannot be resolved. Then `ready` does not
    /// bring it back.
    pub maintenance_is_inherited: bool,
    /// Whether it can take traffic.
    pub operational: Operational,
    /// Its health check.
    pub check: CheckState,
    /// HAProxy's own word for all this, for messages: `UP`, `UP 1/2`, `DOWN`, `DRAIN`, `MAINT`, `no check` ...
    pub status: String,
    /// Requests and TCP sessions in flight at this worker.
    pub in_flight: InFlight,
    /// Connections to the server that wait for the next request. No request is in flight on them, but HAProxy 2.6 deletes no
    /// server that has some. Maintenance closes them.
    pub idle_connections: u64,
}

/// The bits of `srv_admin_state`.
mod admin {
    pub(super) const FORCED_MAINT: u32 = 0x01;
    pub(super) const INHERITED_MAINT: u32 = 0x02;
    pub(super) const DRAIN: u32 = 0x08 | 0x10;
    pub(super) const UNRESOLVED: u32 = 0x20;
}

/// The bits of `srv_check_state`.
mod check {
    pub(super) const CONFIGURED: u32 = 0x02;
    pub(super) const ENABLED: u32 = 0x04;
    pub(super) const PAUSED: u32 = 0x08;
}

/// Joins the answers to `show servers state` and to `show stat` (servers only). The two are asked one after the other: a server
/// that was added or deleted in between is in only one of them, and is left out.
pub(crate) fn parse_servers(states: &str, counts: &str) -> Result<Vec<ServerState>, Problem> {
    let mut counters = HashMap::new();
    each_stat(counts, |backend, server, stat| {
        counters.insert((backend.to_string(), server.to_string()), stat);
    })?;
    let expected = "a list of servers";
    let mut lines = states.lines();
    if lines.next() != Some("1") {
        return Err(Problem::garbled("a list of servers of version 1", states));
    }
    let names = Columns::new(expected, lines.next().unwrap_or_default(), ' ')?;
    let columns = StateColumns::new(&names)?;
    let mut servers = Vec::new();
    for line in lines.filter(|line| !line.is_empty()) {
        let row: Vec<&str> = line.split(' ').collect();
        if row.len() != names.len() {
            return Err(Problem::garbled(format!("a row with {} values", names.len()), line));
        }
        let id = ServerId::new(columns.backend.text(&row)?, columns.server.text(&row)?);
        if let Some(stat) = counters.remove(&(id.backend.clone(), id.name.clone())) {
            servers.push(columns.server_state(id, &row, stat)?);
        }
    }
    Ok(servers)
}

/// The columns of `show servers state`.
struct StateColumns {
    backend: Column,
    server: Column,
    address: Column,
    port: Column,
    operational: Column,
    admin: Column,
    weight: Column,
    initial_weight: Column,
    check_state: Column,
    check_result: Column,
}

impl StateColumns {
    fn new(columns: &Columns<'_>) -> Result<Self, Problem> {
        Ok(Self {
            backend: columns.column("be_name")?,
            server: columns.column("srv_name")?,
            address: columns.column("srv_addr")?,
            port: columns.column("srv_port")?,
            operational: columns.column("srv_op_state")?,
            admin: columns.column("srv_admin_state")?,
            weight: columns.column("srv_uweight")?,
            initial_weight: columns.column("srv_iweight")?,
            check_state: columns.column("srv_check_state")?,
            check_result: columns.column("srv_check_result")?,
        })
    }

    fn server_state(&self, id: ServerId, row: &[&str], stat: Stat) -> Result<ServerState, Problem> {
        let address = self.address.text(row)?;
        let admin: u32 = self.admin.number(row)?;
        Ok(ServerState {
            id,
            address: (address != "-").then(|| address.to_owned()),
            port: self.port.number(row)?,
            weight: self.weight.number(row)?,
            initial_weight: self.initial_weight.number(row)?,
            admin: if admin & (admin::FORCED_MAINT | admin::INHERITED_MAINT | admin::UNRESOLVED) != 0 {
                AdminState::Maint
            } else if admin & admin::DRAIN != 0 {
                AdminState::Drain
            } else {
                AdminState::Ready
            },
            maintenance_is_inherited: admin & (admin::INHERITED_MAINT | admin::UNRESOLVED) != 0,
            operational: operational(self.operational.number(row)?, row)?,
            check: check_state(self.check_state.number(row)?, self.check_result.number(row)?),
            status: stat.status,
            in_flight: stat.in_flight,
            idle_connections: stat.idle_connections,
        })
    }
}

fn operational(number: u32, row: &[&str]) -> Result<Operational, Problem> {
    match number {
        0 => Ok(Operational::Down),
        1 => Ok(Operational::Starting),
        2 => Ok(Operational::Up),
        3 => Ok(Operational::Stopping),
        _ => Err(Problem::garbled("a row with an operational state from 0 to 3", &row.join(" "))),
    }
}

/// `result` is 0 for none, 1 for none that counts, 2 for failed, 3 for passed, 4 for passed without new sessions.
fn check_state(state: u32, result: u32) -> CheckState {
    if state & check::CONFIGURED == 0 {
        CheckState::NotConfigured
    } else if state & check::ENABLED == 0 {
        CheckState::Disabled
    } else if state & check::PAUSED != 0 {
        CheckState::Paused
    } else {
        match result {
            2 => CheckState::Failed,
            3 | 4 => CheckState::Passed,
            _ => CheckState::Waiting,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{CheckState, Operational, ServerState, check_state, parse_servers};
    use crate::change::AdminState;

    const STATES: &str = include_str!("../tests/answers/show_servers_state.txt");
    const STATS: &str = include_str!("../tests/answers/show_stat.txt");

    fn server(name: &str) -> ServerState {
        let servers = parse_servers(STATES, STATS).unwrap();
        servers.into_iter().find(|server| server.id.name == name).unwrap_or_else(|| panic!("no server {name}"))
    }

    #[test]
    fn the_states_that_a_real_haproxy_shows_are_read() {
        let ready = server("static");
        assert_eq!(
            (ready.admin, ready.operational, ready.check),
            (AdminState::Ready, Operational::Up, CheckState::NotConfigured)
        );
        assert_eq!(
            (ready.address.as_deref(), ready.port, ready.weight, ready.initial_weight),
            (Some("127.0.0.1"), 18101, 20, 10)
        );
        assert_eq!(ready.status, "no check");
        let draining = server("draining");
        assert_eq!((draining.admin, draining.in_flight.sessions), (AdminState::Drain, 1));
        let down = server("down");
        assert_eq!(
            (down.admin, down.operational, down.check),
            (AdminState::Ready, Operational::Down, CheckState::Failed)
        );
        assert_eq!(down.status, "DOWN");
        let disabled = server("disabled");
        assert_eq!((disabled.admin, disabled.check), (AdminState::Maint, CheckState::Paused));
        assert!(!disabled.maintenance_is_inherited);
        let added = server("added");
        assert_eq!((added.admin, added.check), (AdminState::Maint, CheckState::Disabled));
        assert_eq!(server("passed").check, CheckState::Passed);
        let tracking = server("tracking");
        assert!(tracking.maintenance_is_inherited && tracking.admin == AdminState::Maint);
        assert_eq!(tracking.status, "MAINT (via web/disabled)");
        let named = server("named");
        assert_eq!((named.address, named.port), (None, 80));
        assert_eq!(server("six").address.as_deref(), Some("::1"));
        assert!(server("idle").idle_connections > 0);
        assert_eq!(server("idle").in_flight.total(), 0);
    }

    #[test]
    fn a_server_in_only_one_of_the_answers_is_left_out() {
        let head = STATS.lines().next().unwrap();
        assert_eq!(parse_servers(STATES, head).unwrap(), []);
    }

    #[test]
    fn garbled_answers_say_what_was_expected() {
        let error = parse_servers("hello", STATS).unwrap_err().to_string();
        assert!(error.contains("not a list of servers of version 1: hello"), "{error}");
        let error = parse_servers(STATES, "# pxname,svname,type,scur\n").unwrap_err().to_string();
        assert!(error.contains("a column `status`"), "{error}");
        let cut = &STATES[..STATES.trim_end().rfind(" - ").unwrap()];
        let error = parse_servers(cut, STATS).unwrap_err().to_string();
        assert!(error.contains("a row with 25 values"), "{error}");
    }

    #[test]
    fn a_check_without_result_is_waiting() {
        assert_eq!(check_state(0x06, 0), CheckState::Waiting);
        assert_eq!(check_state(0x07, 1), CheckState::Waiting);
        assert_eq!(check_state(0x06, 4), CheckState::Passed);
    }
}
