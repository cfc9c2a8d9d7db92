//! The client: what it asks, of which worker, and what it makes of the answers.

use std::{collections::HashSet, time::Duration};

use crate::{
    address::{Address, Socket},
    capabilities::Capabilities,
    change::{ServerChange, ServerId},
    connection::Connection,
    error::{HaproxyError, Problem, RefusalKind, Result},
    in_flight::InFlightTable,
    process::{ProcessInfo, Worker, Workers},
    server::{ServerState, parse_servers},
    stat::InFlight,
    word::check_name,
};

/// How often workers are counted again because a reload made new ones meanwhile.
const ROUNDS: usize = 5;

/// A HAProxy, reached by one of its sockets.
#[derive(Debug, Clone)]
pub struct Haproxy {
    address: Address,
    socket: Socket,
    time_limit: Duration,
}

/// The servers of one worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyState {
    /// The worker that said so.
    pub process: ProcessInfo,
    /// Its servers, in the order of the configuration and then of their addition.
    pub servers: Vec<ServerState>,
}

/// An open connection, and the worker that its commands are for.
struct Session<'a> {
    connection: Connection<'a>,
    /// What stands in front of a command, so that the master passes it on: `@!PID `.
    prefix: String,
}

impl Session<'_> {
    async fn ask(&mut self, command: &str) -> Result<String> {
        self.connection.ask(&format!("{}{command}", self.prefix)).await
    }

    fn failed(&self, command: &str) -> impl Fn(Problem) -> HaproxyError + '_ {
        let command = format!("{}{command}", self.prefix);
        move |problem| self.connection.error(&command, problem)
    }

    /// Asks for something to be shown, and turns a known refusal into an error.
    async fn show(&mut self, command: &str) -> Result<String> {
        let answer = self.ask(command).await?;
        match RefusalKind::known(&answer) {
            Some(_) => Err(self.failed(command)(Problem::refused(&answer))),
            None => Ok(answer),
        }
    }

    async fn info(&mut self) -> Result<ProcessInfo> {
        let answer = self.show("show info").await?;
        ProcessInfo::parse(&answer).map_err(self.failed("show info"))
    }
}

impl Haproxy {
    /// A client. Nothing is sent yet. `time_limit` is for connecting, and again for each single answer.
    #[must_use]
    pub const fn new(address: Address, socket: Socket, time_limit: Duration) -> Self {
        Self { address, socket, time_limit }
    }

    /// Where HAProxy is asked.
    #[must_use]
    pub const fn address(&self) -> &Address {
        &self.address
    }

    /// Whether workers that left with a reload can be asked too.
    #[must_use]
    pub fn sees_old_workers(&self) -> bool {
        self.socket == Socket::Master
    }

    /// The workers: the current one, and those that are leaving.
    pub async fn workers(&self) -> Result<Workers> {
        let mut session = self.open().await?;
        self.workers_of(&mut session).await
    }

    /// What the current worker says about itself.
    pub async fn info(&self) -> Result<ProcessInfo> {
        self.current().await?.info().await
    }

    /// What the current worker can do over this socket.
    pub async fn capabilities(&self) -> Result<Capabilities> {
        let mut session = self.current().await?;
        // `help` lists all commands, also those that the level does not allow.
        let help = session.ask("help").await?;
        let level = session.show("show cli level").await?;
        Capabilities::parse(&help, &level).map_err(session.failed("help"))
    }

    /// The current worker and its servers: those of one backend, or all.
    pub async fn state(&self, backend: Option<&str>) -> Result<ProxyState> {
        let (list_servers, count_sessions) = match backend {
            Some(backend) => (self.named(backend, "show servers state")?, show_stat(backend)),
            None => ("show servers state".to_owned(), show_stat("-1")),
        };
        let mut session = self.current().await?;
        let process = session.info().await?;
        let state = session.show(&list_servers).await?;
        let stat = session.show(&count_sessions).await?;
        let servers = parse_servers(&state, &stat).map_err(session.failed(&list_servers))?;
        Ok(ProxyState { process, servers })
    }

    /// The servers of one backend, at the current worker.
    pub async fn servers(&self, backend: &str) -> Result<Vec<ServerState>> {
        Ok(self.state(Some(backend)).await?.servers)
    }

    /// What is in flight at the servers of one backend, or of all, summed over all workers. A backend that only the current worker
    /// has is no error, nor is a worker that ends meanwhile.
    pub async fn in_flight(&self, backend: Option<&str>) -> Result<InFlightTable> {
        let command = match backend {
            Some(backend) => {
                self.named(backend, "show stat")?;
                show_stat(backend)
            }
            None => show_stat("-1"),
        };
        let mut table = InFlightTable::default();
        let mut seen = HashSet::new();
        let mut session = self.open().await?;
        for _ in 0..ROUNDS {
            let workers = self.workers_of(&mut session).await?;
            table.complete = workers.complete;
            let unseen: Vec<_> = workers.iter().filter(|worker| seen.insert(worker.pid)).collect();
            if unseen.is_empty() || !workers.complete && !table.workers.is_empty() {
                return Ok(table);
            }
            for worker in unseen {
                let required = worker == workers.current;
                self.count(&mut session, worker, &command, required, &mut table).await?;
            }
        }
        // Reloads follow each other faster than they can be counted.
        table.complete = false;
        Ok(table)
    }

    /// What is in flight at one server, summed over all workers that can be asked.
    pub async fn sessions_in_flight(&self, server: &ServerId) -> Result<InFlight> {
        Ok(self.in_flight(Some(&server.backend)).await?.of(server))
    }

    /// Makes changes at the current worker, one after the other over one connection, and returns the outcome of each.
    ///
    /// After a change that failed, later changes of the same server are not sent; those of other servers are. When the connection
    /// breaks, [`HaproxyError::is_uncertain`] is true of the change that was under way, and the rest is not sent.
    pub async fn apply(&self, changes: &[ServerChange]) -> Result<Vec<Result<()>>> {
        let mut session = self.current().await?;
        let mut failed = HashSet::new();
        let mut outcomes = Vec::with_capacity(changes.len());
        for change in changes {
            let outcome = if failed.contains(change.server()) {
                let why = "an earlier change of the same server failed".to_owned();
                Err(session.failed(&change.to_string())(Problem::NotSent(why)))
            } else {
                carry_out(&mut session, change).await
            };
            if outcome.is_err() {
                failed.insert(change.server());
            }
            outcomes.push(outcome);
        }
        Ok(outcomes)
    }

    /// Makes one change at the current worker.
    pub async fn change(&self, change: ServerChange) -> Result<()> {
        self.apply(&[change]).await?.into_iter().collect()
    }

    /// A command about a backend, when its name can stand in one.
    fn named(&self, backend: &str, command: &str) -> Result<String> {
        let error = |problem| HaproxyError { address: self.address.to_string(), command: command.to_owned(), problem };
        check_name("backend", backend).map_err(error)?;
        Ok(format!("{command} {backend}"))
    }

    async fn open(&self) -> Result<Session<'_>> {
        let connection = Connection::open(&self.address, self.socket, self.time_limit).await?;
        Ok(Session { connection, prefix: String::new() })
    }

    /// A connection whose commands go to the current worker.
    async fn current(&self) -> Result<Session<'_>> {
        let mut session = self.open().await?;
        if self.socket == Socket::Master {
            let workers = self.workers_of(&mut session).await?;
            session.prefix = to_worker(workers.current);
        }
        Ok(session)
    }

    async fn workers_of(&self, session: &mut Session<'_>) -> Result<Workers> {
        session.prefix.clear();
        match self.socket {
            Socket::Worker => {
                let current = Worker { pid: session.info().await?.id.pid, reloads: 0 };
                Ok(Workers { current, old: Vec::new(), complete: false })
            }
            Socket::Master => {
                let answer = session.show("show proc").await?;
                Workers::parse(&answer).map_err(session.failed("show proc"))
            }
        }
    }

    /// Adds what is in flight at one worker. The worker may have ended, or may not know the backend, unless it is `required` to.
    async fn count<'a>(
        &'a self,
        session: &mut Session<'a>,
        worker: Worker,
        command: &str,
        required: bool,
        table: &mut InFlightTable,
    ) -> Result<()> {
        if session.connection.is_broken() {
            *session = self.open().await?;
        }
        if self.socket == Socket::Master {
            session.prefix = to_worker(worker);
        }
        match session.show(command).await {
            Ok(stats) => table.add(worker.pid, &stats).map_err(session.failed(command)),
            // The master closes the connection after it has said so; the next question opens another.
            Err(error) if error.refusal() == Some(RefusalKind::NoSuchWorker) => {
                *session = self.open().await?;
                Ok(())
            }
            Err(error) if !required && error.refusal() == Some(RefusalKind::NoSuchBackend) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// What is sent for the statistics of a proxy's servers: 4 is the type `server`, -1 stands for all.
fn show_stat(backend: &str) -> String {
    format!("show stat {backend} 4 -1")
}

fn to_worker(worker: Worker) -> String {
    format!("@!{} ", worker.pid)
}

async fn carry_out(session: &mut Session<'_>, change: &ServerChange) -> Result<()> {
    let commands = change.commands().map_err(session.failed(&change.to_string()))?;
    for command in commands {
        let answer = session.ask(&command.text).await?;
        if let Some(warnings) = command.success.judge(&answer).map_err(session.failed(&command.text))? {
            tracing::warn!(server = %change.server(), command = command.text, warnings, "HAProxy warned");
        }
    }
    Ok(())
}
