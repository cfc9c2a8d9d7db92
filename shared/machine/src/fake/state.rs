//! What is true on a machine in memory, and how the operations change it.

use std::collections::BTreeMap;

use super::parameters::FakeParameters;
use crate::{
    app::{self, AppStatus},
    apt, archive, dnf, inventory,
    machine::Output,
    ping, script_package, settle, staging,
};

/// The exit status of a shell that does not find a command.
const NOT_FOUND: u32 = 127;

/// What is true on a machine in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FakeState {
    /// Installed archives by name. Boxed, because simulations keep thousands of machines and a map's first node has space
    /// for eleven values.
    pub archives: BTreeMap<String, Box<FakeArchive>>,
    /// Packages of the package manager, by kind (`apt` or `dnf`) and name. Every version can be installed.
    pub managed: BTreeMap<(String, String), FakePackage>,
    /// The versions, by name, for which the checks of script packages succeed.
    pub script_packages: BTreeMap<String, String>,
    /// The marks of script packages: the version that Berth installed last, by name.
    pub script_marks: BTreeMap<String, String>,
    /// Deployed applications by name.
    pub apps: BTreeMap<String, AppStatus>,
    /// The SHA-256 of the release that was brought ahead, by application.
    pub staged: BTreeMap<String, String>,
    /// The number of the current boot.
    pub boot: u32,
    /// How many operations changed something.
    pub changes: u32,
}

/// An installed archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FakeArchive {
    /// Version.
    pub version: String,
    /// SHA-256 of the archive that it came from.
    pub sha256: String,
}

/// A package of the package manager.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FakePackage {
    /// Its version; `None` when only Berth's mark is left.
    pub version: Option<String>,
    /// Whether it is held at its version.
    pub held: bool,
    /// Berth's mark: whether Berth installed it; `None` without a mark.
    pub mark: Option<bool>,
}

/// The output of a script that exited with `status`.
pub(super) fn output(status: u32, stdout: &str, stderr: &str) -> Output {
    Output { status, stdout: stdout.into(), stderr: stderr.into(), ..Output::default() }
}

/// The word for a fact that is true or false.
pub(super) fn yes(yes: bool) -> &'static str {
    if yes { "yes" } else { "no" }
}

impl FakeState {
    /// Does what this script does on a real machine.
    pub(super) fn run(&mut self, script: &str, parameters: &FakeParameters) -> Output {
        let answer = if script == ping::SCRIPT.as_str() {
            Some(format!("fact boot fake-{}\n", self.boot))
        } else if script == inventory::READ.as_str() {
            Some(self.inventory(parameters))
        } else if script == app::DEPLOY.as_str() {
            Some(self.deploy(parameters))
        } else if script == staging::STAGE.as_str() {
            Some(self.stage(parameters))
        } else if script == settle::SCRIPT.as_str() {
            Some("fact settled yes\n".to_owned())
        } else if script == app::READ.as_str() {
            Some(self.apps.get(parameters.get("NAME")).map_or_else(|| "fact running no\n".to_owned(), app_facts))
        } else {
            self.change_packages(script, parameters)
        };
        match answer {
            Some(answer) => output(0, &answer, ""),
            None => output(NOT_FOUND, "", "the fake machine understands only the operations of berth-machine"),
        }
    }

    /// Does the first part of what this script does: what is there if it is ended in the middle.
    pub(super) fn half_run(&mut self, script: &str, parameters: &FakeParameters) {
        if script == app::DEPLOY.as_str() {
            // The application is stopped before it is started, and what was started is not known in between.
            let app = self.apps.entry(parameters.get("NAME").to_owned()).or_default();
            *app = AppStatus { digest: None, running: false, pid: None, ..app.clone() };
        } else if script == apt::INSTALL.as_str() {
            self.mark_managed("apt", parameters);
        } else if script == dnf::INSTALL.as_str() {
            self.mark_managed("dnf", parameters);
        }
    }

    fn change_packages(&mut self, script: &str, parameters: &FakeParameters) -> Option<String> {
        if script == archive::INSTALL.as_str() {
            Some(self.install_archive(parameters))
        } else if script == archive::REMOVE.as_str() {
            Some(self.remove_archive(parameters))
        } else if script == apt::INSTALL.as_str() {
            Some(self.install_managed("apt", parameters))
        } else if script == dnf::INSTALL.as_str() {
            Some(self.install_managed("dnf", parameters))
        } else if script == apt::REMOVE.as_str() {
            Some(self.remove_managed("apt", parameters))
        } else if script == dnf::REMOVE.as_str() {
            Some(self.remove_managed("dnf", parameters))
        } else if script == script_package::INSTALL.as_str() {
            Some(self.install_script(parameters))
        } else if script == script_package::REMOVE.as_str() {
            Some(self.remove_script(parameters))
        } else {
            None
        }
    }

    /// The fact `changed`, which is also counted.
    pub(super) fn changed(&mut self, changed: bool) -> String {
        self.changes += u32::from(changed);
        format!("fact changed {}\n", yes(changed))
    }

    /// Changes nothing that other operations look at, and so is no change that counts.
    fn stage(&mut self, parameters: &FakeParameters) -> String {
        let (name, sha256) = (parameters.get("NAME").to_owned(), parameters.get("SHA256").to_owned());
        let is_deployed = self.apps.get(&name).is_some_and(|app| app.sha256.as_ref() == Some(&sha256));
        let changed = !is_deployed && self.staged.insert(name, sha256.clone()) != Some(sha256);
        format!("fact changed {}\n", yes(changed))
    }

    fn deploy(&mut self, parameters: &FakeParameters) -> String {
        let app = self.apps.entry(parameters.get("NAME").to_owned()).or_default();
        let revision = Some(parameters.get("REVISION").to_owned());
        let sha256 = Some(parameters.get("SHA256").to_owned());
        let digest = Some(parameters.get("DIGEST").to_owned());
        let changed = !app.running || (&app.revision, &app.sha256, &app.digest) != (&revision, &sha256, &digest);
        if changed {
            *app = AppStatus { revision, digest, sha256, running: true, pid: Some(100 + self.changes) };
            self.staged.remove(parameters.get("NAME"));
        }
        let status = app_facts(app);
        self.changed(changed) + &status
    }
}

fn app_facts(app: &AppStatus) -> String {
    let fact = |name: &str, value: Option<&str>| value.map_or(String::new(), |v| format!("fact {name} {v}\n"));
    let pid = app.pid.map(|pid| pid.to_string());
    fact("revision", app.revision.as_deref())
        + &fact("sha256", app.sha256.as_deref())
        + &fact("digest", app.digest.as_deref())
        + &fact("running", Some(yes(app.running)))
        + &fact("pid", pid.as_deref())
}
