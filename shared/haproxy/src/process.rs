//! HAProxy's processes: the worker that takes requests, and those that left with a reload and finish theirs.

use std::{str::FromStr, time::Duration};

use crate::error::Problem;

/// One start of a worker. A restart and a reload make a new worker, whose id is different.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProcessId {
    /// The process id. In a container it may be the same after a restart.
    pub pid: u32,
    /// When the worker started, in seconds since 1970. HAProxy before 2.5 does not say it: then it is 0.
    pub started: u64,
}

/// What a worker says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessInfo {
    /// Which start of a worker this is. While it stays the same, servers that were added are still there.
    pub id: ProcessId,
    /// HAProxy's version, for messages.
    pub version: String,
    /// How long the worker has been running.
    pub uptime: Duration,
    /// Whether the worker is leaving: it takes no new requests.
    pub leaving: bool,
}

impl ProcessInfo {
    /// From the answer to `show info`.
    pub(crate) fn parse(answer: &str) -> Result<Self, Problem> {
        let expected = "a worker's information";
        let find = |name: &str| {
            let value = answer.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            value.map(str::trim)
        };
        let text = |name: &str| find(name).ok_or_else(|| Problem::garbled(format!("{expected} with `{name}`"), answer));
        let started = match find("Start_time_sec") {
            Some(seconds) => number("Start_time_sec", seconds)?,
            None => 0,
        };
        Ok(Self {
            id: ProcessId { pid: number("Pid", text("Pid")?)?, started },
            version: text("Version")?.to_owned(),
            uptime: Duration::from_secs(number("Uptime_sec", text("Uptime_sec")?)?),
            leaving: text("Stopping")? != "0",
        })
    }
}

fn number<N: FromStr>(name: &str, text: &str) -> Result<N, Problem> {
    text.parse().map_err(|_| Problem::garbled(format!("a number for `{name}`"), text))
}

/// A worker in the master's list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Worker {
    /// Its process id.
    pub pid: u32,
    /// How many reloads the master has had since this worker started. A reload that failed counts too.
    pub reloads: u32,
}

/// HAProxy's workers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workers {
    /// The worker that takes requests.
    pub current: Worker,
    /// The workers that left with a reload and finish their requests. Empty at a worker's own socket, which does not know them.
    pub old: Vec<Worker>,
    /// Whether `old` is all there is. Only the master knows.
    pub complete: bool,
}

impl Workers {
    /// All of them, the current one first.
    pub fn iter(&self) -> impl Iterator<Item = Worker> + '_ {
        std::iter::once(self.current).chain(self.old.iter().copied())
    }

    /// From the master's answer to `show proc`: sections that begin with `#`, and a row for each process.
    pub(crate) fn parse(answer: &str) -> Result<Self, Problem> {
        let mut current = None;
        let mut old = Vec::new();
        let mut section = "";
        if !answer.starts_with("#<PID>") {
            return Err(Problem::garbled("the master's list of processes", answer));
        }
        for line in answer.lines().filter(|line| !line.trim().is_empty()) {
            if line.starts_with('#') {
                section = line.trim();
                continue;
            }
            match section {
                // The master serves nothing while it starts the next worker; then there are only old ones.
                "# workers" => current = Some(worker(line)?),
                "# old workers" => old.push(worker(line)?),
                _ => {}
            }
        }
        let current = current.ok_or_else(|| Problem::garbled("a list of processes with a current worker", answer))?;
        Ok(Self { current, old, complete: true })
    }
}

fn worker(line: &str) -> Result<Worker, Problem> {
    let mut words = line.split_whitespace();
    let (Some(pid), Some("worker"), Some(reloads)) = (words.next(), words.next(), words.next()) else {
        return Err(Problem::garbled("a row `PID worker RELOADS ...`", line));
    };
    Ok(Worker { pid: number("PID", pid)?, reloads: number("reloads", reloads)? })
}

#[cfg(test)]
mod tests {
    use super::{ProcessId, ProcessInfo, Worker, Workers};

    #[test]
    fn the_masters_list_tells_current_from_old_workers() {
        let workers = Workers::parse(include_str!("../tests/answers/show_proc.txt")).unwrap();
        assert_eq!(workers.current, Worker { pid: 30528, reloads: 0 });
        assert_eq!(workers.old, [Worker { pid: 26116, reloads: 1 }]);
        assert_eq!(workers.iter().count(), 2);
        for bad in ["", "Unknown command", "#<PID> <type>\n# workers\n", "#<PID>\n# workers\nx worker 0 0d 2.6\n"] {
            assert!(Workers::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_workers_information_is_read() {
        let text = include_str!("../tests/answers/show_info.txt");
        let info = ProcessInfo::parse(text).unwrap();
        assert_eq!(info.id, ProcessId { pid: 26116, started: 1_795_849_019 });
        assert_eq!(info.version, "2.6.12-1+deb12u4");
        assert_eq!(info.uptime.as_secs(), 205);
        assert!(info.leaving);
        let error = ProcessInfo::parse(&text.replace("Pid: 26116", "Pid: x")).unwrap_err();
        assert_eq!(error.to_string(), "the answer is not a number for `Pid`: x");
        let error = ProcessInfo::parse("Name: nginx\n").unwrap_err();
        assert!(error.to_string().contains("with `Pid`: Name: nginx"), "{error}");
    }
}
