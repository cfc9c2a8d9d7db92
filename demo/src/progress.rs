//! Shows the progress of Servers.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{IsTerminal, Write as _, stdout},
};

use berth_core::api::{Server, State, TaskPhase, TrafficPhase};
use k8s_openapi::jiff::Timestamp;
use kube::{ResourceExt, runtime::watcher::Event};

/// So many characters of what a roll-out waits for are shown in a file: what comes after them explains what to do.
const SHOWN: usize = 150;

/// The Servers by name, as the watch shows them.
#[derive(Debug, Default)]
pub(crate) struct Servers {
    known: BTreeMap<String, Server>,
}

impl Servers {
    /// Applies an event of the watch.
    pub(crate) fn observe(&mut self, event: Event<Server>) {
        match event {
            Event::Init => self.known.clear(),
            Event::InitApply(server) | Event::Apply(server) => {
                self.known.insert(server.name_any(), server);
            }
            Event::Delete(server) => {
                self.known.remove(&server.name_any());
            }
            Event::InitDone => {}
        }
    }

    /// The Servers, ordered by name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Server> {
        self.known.values()
    }

    /// Whether there are exactly `replicas` Servers, all Ready and receiving traffic.
    pub(crate) fn all_serve(&self, replicas: usize) -> bool {
        let serving = self.iter().filter(|server| {
            let status = server.status.as_ref();
            let traffic = status.and_then(|status| status.traffic.as_ref());
            status.is_some_and(|status| status.state == Some(State::Ready))
                && traffic.is_some_and(|traffic| traffic.phase == TrafficPhase::Serving)
        });
        self.known.len() == replicas && serving.count() == replicas
    }
}

/// State and present task of a Server, for people.
pub(crate) fn describe(server: &Server) -> (String, String) {
    let Some(status) = &server.status else { return ("(new)".into(), "waits for replicaset-controller".into()) };
    let state = status.state.map_or("(undecided)".into(), |state| state.to_string());
    let first = status.first_task_id.unwrap_or(0);
    let unfinished: Vec<_> = status.tasks.iter().filter(|t| t.id >= first && !t.phase.is_finished()).collect();
    let step = unfinished.iter().map(|task| task.step).min();
    let mut tasks: Vec<_> = unfinished.iter().filter(|task| Some(task.step) == step).collect();
    // Running tasks are more informative than pending ones.
    if tasks.iter().any(|task| task.phase == TaskPhase::Running) {
        tasks.retain(|task| task.phase == TaskPhase::Running);
    }
    let words = tasks.iter().map(|task| match task.message.as_str() {
        "" => task.kind.to_string(),
        message => format!("{} ({message})", task.kind),
    });
    let words: Vec<_> = words.collect();
    let failed = status.tasks.iter().find(|task| task.id >= first && task.phase == TaskPhase::Failed);
    match failed {
        Some(task) => (state, format!("{} failed: {}", task.kind, task.message)),
        None if words.is_empty() && status.state == Some(State::Ready) => {
            let address = status.machine.as_ref().and_then(|machine| machine.address.clone()).unwrap_or_default();
            let traffic = status.traffic.as_ref().map_or(String::new(), |traffic| format!("{:?}", traffic.phase));
            (state, format!("{traffic} at {address}"))
        }
        None => (state, words.join(", ")),
    }
}

fn seconds_since(time: Option<Timestamp>, now: Timestamp) -> i64 {
    time.map_or(0, |time| (now.as_second() - time.as_second()).max(0))
}

fn line(server: &Server, now: Timestamp) -> String {
    let (state, task) = describe(server);
    let age = seconds_since(server.creation_timestamp().map(|time| time.0), now);
    format!("  {:<10} {state:<13} {age:>4} s  {task}", server.name_any())
}

/// Shows the Servers: on a terminal as a block that is redrawn, elsewhere as one line per change.
#[derive(Debug)]
pub(crate) struct Board {
    terminal: bool,
    drawn: usize,
    shown: BTreeMap<String, (String, String)>,
    /// What the roll-out waits for.
    rollout: Option<String>,
}

impl Board {
    pub(crate) fn new() -> Self {
        Self { terminal: stdout().is_terminal(), drawn: 0, shown: BTreeMap::new(), rollout: None }
    }

    /// From now on this is shown of the roll-out, below the Servers.
    pub(crate) fn set_rollout(&mut self, waiting_for: Option<String>) {
        if self.terminal {
            self.rollout = waiting_for;
        } else if let Some(text) = waiting_for.filter(|text| self.rollout.as_ref() != Some(text)) {
            let short: String = text.chars().take(SHOWN).collect();
            let more = if short.len() < text.len() { " ..." } else { "" };
            let _ = writeln!(stdout(), "  web        {short}{more}");
            self.rollout = Some(text);
        }
    }

    /// Leaves what is drawn as it is. What is shown next begins below it, and other text may come between.
    pub(crate) fn leave(&mut self) {
        self.drawn = 0;
    }

    /// Shows the present state.
    pub(crate) fn show(&mut self, servers: &Servers) {
        let text = if self.terminal { self.block(servers, Timestamp::now()) } else { self.changes(servers) };
        // The reader may have closed the pipe; the demonstration continues.
        let _ = stdout().write_all(text.as_bytes()).and_then(|()| stdout().flush());
    }

    /// Shows only changes from now on, one line each.
    pub(crate) fn only_changes(&mut self, servers: &Servers) {
        self.terminal = false;
        self.changes(servers);
    }

    fn block(&mut self, servers: &Servers, now: Timestamp) -> String {
        let mut text = String::new();
        if self.drawn > 0 {
            // Moves up, and clears to the end of the screen.
            let _ = write!(text, "\x1b[{}A\x1b[J", self.drawn);
        }
        self.drawn = 0;
        for server in servers.iter() {
            self.draw(&mut text, &line(server, now));
        }
        if let Some(waiting_for) = self.rollout.clone() {
            self.draw(&mut text, &format!("  web        {waiting_for}"));
        }
        text
    }

    fn draw(&mut self, text: &mut String, line: &str) {
        // A line that wraps would make the count of lines wrong.
        let short: String = line.chars().take(78).collect();
        let _ = writeln!(text, "{short}");
        self.drawn += 1;
    }

    fn changes(&mut self, servers: &Servers) -> String {
        let now = Timestamp::now();
        let mut text = String::new();
        for server in servers.iter() {
            let description = describe(server);
            if self.shown.get(&server.name_any()) != Some(&description) {
                let _ = writeln!(text, "{}", line(server, now));
                self.shown.insert(server.name_any(), description);
            }
        }
        let gone: Vec<_> = self.shown.keys().filter(|name| !servers.known.contains_key(*name)).cloned().collect();
        for name in gone {
            let _ = writeln!(text, "  {name:<10} gone");
            self.shown.remove(&name);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn server(status: &Value) -> Server {
        berth_testing::server(json!({"metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"}, "status": status}))
    }

    fn task(id: i64, kind: &str, step: i32, phase: &str, message: &str) -> Value {
        json!({"id": id, "kind": kind, "step": step, "phase": phase, "message": message})
    }

    #[test]
    fn the_running_tasks_of_the_current_step_are_named_with_their_messages() {
        let tasks = [
            task(1, "DestroyMachine", 0, "Pending", "of an earlier state"),
            task(2, "CreateMachine", 0, "Succeeded", ""),
            task(3, "InstallPackages", 1, "Running", "second attempt"),
            task(4, "RebootMachine", 1, "Pending", ""),
        ];
        let status = json!({"state": "Initializing", "tasks": tasks});
        let mut server = server(&status);
        server.status.as_mut().unwrap().first_task_id = Some(2);
        assert_eq!(describe(&server), ("Initializing".into(), "InstallPackages (second attempt)".into()));
    }

    #[test]
    fn failures_and_traffic_are_shown() {
        let tasks = [task(1, "CreateMachine", 0, "Failed", "no such class")];
        let status = json!({"state": "Initializing", "tasks": tasks});
        assert_eq!(describe(&server(&status)).1, "CreateMachine failed: no such class");
        let machine = json!({"phase": "Running", "address": "127.7.0.1"});
        let status = json!({"state": "Ready", "machine": machine, "traffic": {"phase": "Serving"}});
        let ready = server(&status);
        assert_eq!(describe(&ready).1, "Serving at 127.7.0.1");
        let mut servers = Servers::default();
        servers.observe(Event::Apply(ready.clone()));
        assert!(servers.all_serve(1) && !servers.all_serve(2));
        servers.observe(Event::Apply(server(&json!({"state": "Ready", "traffic": {"phase": "Held"}}))));
        assert!(!servers.all_serve(1), "Ready, but without traffic");
        servers.observe(Event::Delete(ready));
        assert_eq!(servers.iter().count(), 0);
    }

    #[test]
    fn a_terminal_is_redrawn_and_a_file_gets_only_changes() {
        let mut servers = Servers::default();
        servers.observe(Event::Apply(server(&json!({"state": "Ready"}))));
        let mut board = Board { terminal: true, drawn: 0, shown: BTreeMap::new(), rollout: None };
        let now: Timestamp = "2026-01-01T00:00:07Z".parse().unwrap();
        let first = board.block(&servers, now);
        assert!(first.contains("web-0") && first.contains("   7 s") && !first.contains('\x1b'), "{first:?}");
        board.set_rollout(Some("step 1 of 3".into()));
        let second = board.block(&servers, now);
        assert!(second.starts_with("\x1b[1A\x1b[J") && second.ends_with("  web        step 1 of 3\n"), "{second:?}");
        assert!(board.block(&servers, now).starts_with("\x1b[2A\x1b[J"));
        board.leave();
        assert!(!board.block(&servers, now).contains('\x1b'));
        assert_eq!(board.changes(&servers).lines().count(), 1);
        assert_eq!(board.changes(&servers), "");
        servers.observe(Event::Init);
        assert_eq!(board.changes(&servers), "  web-0      gone\n");
    }
}
