//! A machine in memory, for the tests of those who use machines.
//!
//! It understands the steps of this crate and nothing else, keeps what they do in [`State`], and fails on demand. Its
//! downloads always work and have the declared digest, unless a fault says otherwise.

mod packages;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt as _};

use crate::{
    Error, Machine, Output, Phase, Result, app,
    app::AppStatus,
    apt,
    archive::{self, InstalledPackage},
    dnf, inventory, ping,
    script::status,
    scripted,
};

const ADDRESS: &str = "fake:22";

/// What goes wrong with the next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The machine cannot be reached; nothing happens on it.
    Unreachable,
    /// The machine hangs; nothing happens on it. Reported at once, without waiting for the time limit.
    Hang,
    /// The step is done, but the connection breaks before its answer arrives.
    LoseAnswer,
    /// The artifact has this digest instead of the declared one.
    WrongDigest(String),
    /// The package manager does not know the version that is to be installed next.
    NoSuchVersion(String),
    /// The step fails with this message and leaves everything as it was.
    Fail(String),
}

/// What is true on the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Installed packages by name; boxed, because a map has room for eleven from the first one on.
    pub packages: BTreeMap<String, Box<InstalledPackage>>,
    /// Packages of the package manager, by kind (`apt` or `dnf`) and name. Every version can be installed.
    pub managed: BTreeMap<(String, String), FakePackage>,
    /// What the checks of script packages find installed: versions by name.
    pub scripted: BTreeMap<String, String>,
    /// The marks of script packages: the version that Berth installed last, by name.
    pub script_marks: BTreeMap<String, String>,
    /// Deployed applications by name.
    pub apps: BTreeMap<String, AppStatus>,
    /// The current boot.
    pub boot: u32,
    /// How many steps changed something.
    pub changes: u32,
}

/// A package of the package manager.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FakePackage {
    /// Its version; nothing when only Berth's mark is left.
    pub version: Option<String>,
    /// Whether it is held at its version.
    pub held: bool,
    /// Berth's mark: whether Berth installed it.
    pub mark: Option<bool>,
}

/// A machine in memory. Clones are the same machine.
#[derive(Clone, Debug, Default)]
pub struct FakeMachine(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    state: State,
    next: VecDeque<Fault>,
    always: Option<Fault>,
    calls: u32,
}

impl FakeMachine {
    /// A fresh machine.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What is true on the machine now.
    #[must_use]
    pub fn state(&self) -> State {
        self.lock().state.clone()
    }

    /// Changes what is true on the machine behind everybody's back.
    pub fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock().state);
    }

    /// Lets the next step meet `fault`; faults queue up.
    pub fn fail_next(&self, fault: Fault) {
        self.lock().next.push_back(fault);
    }

    /// Lets every step meet `fault`, until `None` ends that. Queued faults come first.
    pub fn fail_always(&self, fault: Option<Fault>) {
        self.lock().always = fault;
    }

    /// How many scripts were run, or tried to be.
    #[must_use]
    pub fn calls(&self) -> u32 {
        self.lock().calls
    }

    /// Reboots the machine: its applications run again under other process ids.
    pub fn reboot(&self) {
        let state = &mut self.lock().state;
        state.boot += 1;
        for pid in state.apps.values_mut().filter_map(|app| app.pid.as_mut()) {
            *pid += 1000;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Machine for FakeMachine {
    fn exec<'a>(&'a self, script: &'a str, stdin: Option<Bytes>, limit: Duration) -> BoxFuture<'a, Result<Output>> {
        async move { self.lock().exec(script, &stdin.unwrap_or_default(), limit) }.boxed()
    }
}

impl Inner {
    fn exec(&mut self, script: &str, stdin: &[u8], limit: Duration) -> Result<Output> {
        let parameters = parameters(&String::from_utf8_lossy(stdin))?;
        let address = || ADDRESS.to_owned();
        self.calls += 1;
        match self.fault(script, &parameters) {
            None => Ok(self.state.step(script, &parameters)),
            Some(Fault::Unreachable) => {
                Err(Error::Unreachable { address: address(), reason: "connection refused".to_owned() })
            }
            Some(Fault::Hang) => Err(Error::Timeout { address: address(), phase: Phase::Handshake, after: limit }),
            Some(Fault::LoseAnswer) => {
                self.state.step(script, &parameters);
                Err(Error::ConnectionLost { address: address(), reason: "connection reset".to_owned() })
            }
            Some(Fault::WrongDigest(actual)) => {
                let expected = parameters.get("SHA256").map_or("", String::as_str);
                Ok(answer(status::DIGEST, &format!("fact expected {expected}\nfact actual {actual}\n"), "wrong digest"))
            }
            Some(Fault::NoSuchVersion(reason)) => {
                let wanted = parameters.get("PACKAGES").and_then(|p| p.lines().next()).unwrap_or_default();
                let package = wanted.rsplit_once(' ').map_or(wanted, |(package, _)| package);
                Ok(answer(status::NO_VERSION, &format!("fact package {package}\n"), &reason))
            }
            Some(Fault::Fail(message)) => Ok(answer(1, "", &message)),
        }
    }

    /// The fault that this step meets. Those about an installation wait for one.
    fn fault(&mut self, script: &str, parameters: &BTreeMap<String, String>) -> Option<Fault> {
        let fits = match self.next.front() {
            Some(Fault::WrongDigest(_)) => parameters.contains_key("SHA256"),
            Some(Fault::NoSuchVersion(_)) => [apt::INSTALL.as_str(), dnf::INSTALL.as_str()].contains(&script),
            _ => true,
        };
        fits.then(|| self.next.pop_front()).flatten().or_else(|| self.always.clone())
    }
}

fn yes(yes: bool) -> &'static str {
    if yes { "yes" } else { "no" }
}

fn answer(status: u32, stdout: &str, stderr: &str) -> Output {
    Output { status, stdout: stdout.into(), stderr: stderr.into(), ..Output::default() }
}

/// Reads the assignments that a step gets, as a shell would.
fn parameters(stdin: &str) -> Result<BTreeMap<String, String>> {
    let mut parameters = BTreeMap::new();
    let mut rest = stdin;
    while !rest.is_empty() {
        let parsed = rest.split_once("='").and_then(|(name, quoted)| {
            let end = quoted.match_indices('\'').map(|(at, _)| at).find(|at| quoted[at + 1..].starts_with('\n'))?;
            Some((name, &quoted[..end], &quoted[end + 2..]))
        });
        let (name, value, next) = parsed.ok_or_else(|| Error::Answer(format!("no assignment: {rest:?}")))?;
        parameters.insert(name.to_owned(), value.replace(r"'\''", "'"));
        rest = next;
    }
    Ok(parameters)
}

impl State {
    fn step(&mut self, script: &str, parameters: &BTreeMap<String, String>) -> Output {
        let get = |name: &str| parameters.get(name).cloned().unwrap_or_default();
        let name = get("NAME");
        let facts = if script == ping::SCRIPT.as_str() {
            format!("fact boot fake-{}\n", self.boot)
        } else if script == archive::INSTALL.as_str() {
            let package =
                Box::new(InstalledPackage { name: name.clone(), version: get("VERSION"), sha256: get("SHA256") });
            let changed = self.packages.insert(name, package.clone()) != Some(package);
            self.changed(changed)
        } else if script == archive::LIST.as_str() {
            let line = |p: &InstalledPackage| format!("fact package {} {} {}\n", p.name, p.version, p.sha256);
            self.packages.values().map(|package| line(package)).collect()
        } else if script == archive::REMOVE.as_str() {
            let changed = self.packages.remove(&name).is_some();
            self.changed(changed)
        } else if script == inventory::READ.as_str() {
            self.inventory(parameters)
        } else if script == apt::INSTALL.as_str() || script == dnf::INSTALL.as_str() {
            let kind = if script == apt::INSTALL.as_str() { "apt" } else { "dnf" };
            let changed = self.install(kind, &get("PACKAGES"));
            self.changed(changed)
        } else if script == apt::REMOVE.as_str() || script == dnf::REMOVE.as_str() {
            let kind = if script == apt::REMOVE.as_str() { "apt" } else { "dnf" };
            self.remove(kind, name)
        } else if script == scripted::INSTALL.as_str() {
            let changed = self.scripted.insert(name.clone(), get("VERSION")) != Some(get("VERSION"));
            if changed || self.script_marks.contains_key(&name) {
                self.script_marks.insert(name, get("VERSION"));
            }
            self.changed(changed)
        } else if script == scripted::REMOVE.as_str() {
            let marked = self.script_marks.remove(&name).is_some();
            if marked {
                self.scripted.remove(&name);
                self.changes += 1;
            }
            format!("fact removed {}\n", yes(marked))
        } else if script == app::DEPLOY.as_str() {
            let changed = self.deploy(&name, get("REVISION"), get("SHA256"));
            self.changed(changed) + &self.report(&name)
        } else if script == app::READ.as_str() {
            self.report(&name)
        } else if script == app::STOP.as_str() {
            if let Some(app) = self.apps.get_mut(&name) {
                (app.running, app.pid) = (false, None);
            }
            self.report(&name)
        } else if script == app::REMOVE.as_str() {
            let changed = self.apps.remove(&name).is_some();
            self.changed(changed)
        } else {
            return answer(127, "", "the fake machine understands only the steps of berth-machine");
        };
        answer(0, &facts, "")
    }

    fn changed(&mut self, changed: bool) -> String {
        self.changes += u32::from(changed);
        format!("fact changed {}\n", yes(changed))
    }

    fn deploy(&mut self, name: &str, revision: String, sha256: String) -> bool {
        let app = self.apps.entry(name.to_owned()).or_default();
        let (revision, sha256) = (Some(revision), Some(sha256));
        if app.running && (&app.revision, &app.sha256) == (&revision, &sha256) {
            return false;
        }
        *app = AppStatus { revision, sha256, running: true, pid: Some(100 + self.changes) };
        true
    }

    fn report(&self, name: &str) -> String {
        let app = self.apps.get(name).cloned().unwrap_or_default();
        let fact = |name: &str, value: Option<String>| value.map_or(String::new(), |v| format!("fact {name} {v}\n"));
        let running = if app.running { "yes" } else { "no" };
        fact("revision", app.revision)
            + &fact("sha256", app.sha256)
            + &fact("running", Some(running.to_owned()))
            + &fact("pid", app.pid.map(|pid| pid.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        app::App,
        archive::{ArchivePackage, Change},
    };

    const LIMIT: Duration = Duration::from_secs(1);

    fn package() -> ArchivePackage {
        ArchivePackage {
            name: "tool".into(),
            version: "1".into(),
            url: "http://127.0.0.1/a".into(),
            sha256: "a".repeat(64),
            destination: None,
            install: Some("it's\n''".into()),
            remove: None,
        }
    }

    #[tokio::test]
    async fn the_steps_do_on_a_fake_what_they_do_on_a_machine() {
        let machine = FakeMachine::new();
        let package = package();
        let install = || archive::install_package(&machine, "opt/berth", &package, LIMIT);
        assert_eq!(install().await.unwrap(), Change::Done);
        assert_eq!(install().await.unwrap(), Change::None);
        let listed = archive::list_packages(&machine, "opt/berth", LIMIT).await.unwrap();
        assert_eq!((listed.len(), listed[0].sha256.as_str()), (1, "a".repeat(64).as_str()));
        let app = App {
            name: "web".into(),
            revision: "v1".into(),
            url: "http://127.0.0.1/a".into(),
            sha256: "b".repeat(64),
            env: BTreeMap::from([("A".into(), "it's".into())]),
            command: vec!["./run".into()],
            port: 80,
            keep_releases: 1,
        };
        let (change, status) = app::deploy_app(&machine, "opt/berth", &app, LIMIT).await.unwrap();
        assert_eq!((change, status.revision.as_deref(), status.running), (Change::Done, Some("v1"), true));
        assert_eq!(app::deploy_app(&machine, "opt/berth", &app, LIMIT).await.unwrap(), (Change::None, status));
        assert!(!app::stop_app(&machine, "opt/berth", "web", LIMIT).await.unwrap().running);
        assert_eq!(app::remove_app(&machine, "opt/berth", "web", LIMIT).await.unwrap(), Change::Done);
    }

    #[tokio::test]
    async fn faults_come_in_order_and_a_lost_answer_leaves_the_work_done() {
        let machine = FakeMachine::new();
        for fault in [Fault::Unreachable, Fault::WrongDigest("c".repeat(64)), Fault::LoseAnswer] {
            machine.fail_next(fault);
        }
        let package = package();
        let install = || archive::install_package(&machine, "opt/berth", &package, LIMIT);
        assert!(install().await.unwrap_err().is_unreachable());
        assert!(
            matches!(install().await.unwrap_err(), Error::DigestMismatch { actual, .. } if actual == "c".repeat(64))
        );
        assert!(machine.state().packages.is_empty());
        assert!(matches!(install().await.unwrap_err(), Error::ConnectionLost { .. }));
        assert_eq!(install().await.unwrap(), Change::None);
    }
}
