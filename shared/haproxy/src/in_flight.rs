//! Requests in flight, over all workers.

use std::collections::HashMap;

use crate::{
    change::ServerId,
    error::Problem,
    stat::{InFlight, each_stat},
};

/// What is in flight at each server, summed over workers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InFlightTable {
    /// The process ids of the workers that were asked.
    pub workers: Vec<u32>,
    /// Whether these are all workers. At a worker's own socket, workers that left with a reload cannot be asked, and a server
    /// with nothing in flight may still have requests there.
    pub complete: bool,
    servers: HashMap<ServerId, InFlight>,
}

impl InFlightTable {
    /// What is in flight at one server. Nothing, when no worker has such a server.
    #[must_use]
    pub fn of(&self, server: &ServerId) -> InFlight {
        self.servers.get(server).copied().unwrap_or_default()
    }

    /// Adds what one worker's answer to `show stat` says.
    pub(crate) fn add(&mut self, pid: u32, stats: &str) -> Result<(), Problem> {
        each_stat(stats, |backend, server, stat| {
            if stat.in_flight.total() > 0 {
                *self.servers.entry(ServerId::new(backend, server)).or_default() += stat.in_flight;
            }
        })?;
        self.workers.push(pid);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::InFlightTable;
    use crate::change::ServerId;

    #[test]
    fn workers_are_summed() {
        let mut table = InFlightTable::default();
        let stats = include_str!("../tests/answers/show_stat.txt");
        table.add(1, stats).unwrap();
        table.add(2, stats).unwrap();
        assert_eq!(table.workers, [1, 2]);
        assert_eq!(table.of(&ServerId::new("web", "draining")).total(), 2);
        assert_eq!(table.of(&ServerId::new("web", "idle")).total(), 0);
        assert_eq!(table.of(&ServerId::new("web", "unknown")).total(), 0);
    }
}
