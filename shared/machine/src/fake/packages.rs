//! Packages on a machine in memory: as the scripts of [`inventory`](crate::inventory), [`apt`](crate::apt) and
//! [`dnf`](crate::dnf).

use std::{collections::BTreeMap, fmt::Write as _};

use super::{FakePackage, State, yes};
use crate::archive::InstalledPackage;

impl State {
    pub(super) fn install(&mut self, kind: &str, wanted: &str) -> bool {
        let mut changed = false;
        for line in wanted.lines() {
            let [name, version, hold] = line.split(' ').collect::<Vec<_>>()[..] else { continue };
            let key = (kind.to_owned(), name.to_owned());
            let known = self.managed.get(&key);
            let mark = known.and_then(|p| p.mark).or(Some(known.is_none_or(|p| p.version.is_none())));
            let package = FakePackage { version: Some(version.to_owned()), held: hold == "hold", mark };
            changed |= known.is_none_or(|p| (&p.version, p.held) != (&package.version, package.held));
            self.managed.insert(key, package);
        }
        changed
    }

    pub(super) fn remove(&mut self, kind: &str, name: String) -> String {
        let key = (kind.to_owned(), name);
        match self.managed.get(&key).and_then(|p| p.mark) {
            None => "fact removed no\n".to_owned(),
            Some(true) => {
                self.managed.remove(&key);
                self.changes += 1;
                "fact removed yes\n".to_owned()
            }
            Some(false) => {
                if let Some(package) = self.managed.get_mut(&key) {
                    (package.held, package.mark) = (false, None);
                }
                "fact kept it was there before Berth\nfact removed no\n".to_owned()
            }
        }
    }

    /// As `scripts/inventory.sh`. The links and remove commands of archives and scripts are as they were installed.
    pub(super) fn inventory(&self, parameters: &BTreeMap<String, String>) -> String {
        let get = |name: &str| parameters.get(name).map_or("", String::as_str);
        let numbered = |count: &str, prefix: &str, field: &str| -> Vec<String> {
            let count = get(count).parse().unwrap_or(0);
            (0..count).map(|n| get(&format!("{prefix}_{n}_{field}")).to_owned()).collect()
        };
        let mut text = format!("fact boot fake-{}\n", self.boot);
        // Writing into a String cannot fail.
        for package in self.packages.values() {
            let _ = writeln!(text, "fact archive {} {} {}", package.name, package.version, package.sha256);
        }
        let markers = numbered("ARCHIVES", "ARCHIVE", "MARKER");
        for (name, marker) in numbered("ARCHIVES", "ARCHIVE", "NAME").iter().zip(markers) {
            let stands =
                |p: &InstalledPackage| format!("name={}\nversion={}\nsha256={}\n", p.name, p.version, p.sha256);
            if self.packages.get(name).is_some_and(|p| marker.starts_with(&stands(p))) {
                let _ = writeln!(text, "fact right {name}");
            }
        }
        for (kind, list) in [("apt", get("APT")), ("dnf", get("DNF"))] {
            for ((_, name), package) in self.managed.iter().filter(|((of, _), _)| of == kind) {
                let declared = list.lines().any(|line| line == name);
                if let Some(version) = package.version.as_ref().filter(|_| declared || package.mark.is_some()) {
                    let hold = if package.held { "hold" } else { "free" };
                    let _ = writeln!(text, "fact {kind} {name} {version} {hold} {}", package.mark.map_or("-", yes));
                }
                if let Some(own) = package.mark {
                    let _ = writeln!(text, "fact mark {kind} {name} {}", yes(own));
                }
            }
        }
        for (name, version) in &self.script_marks {
            let _ = writeln!(text, "fact mark script {name} {version}");
        }
        let versions = numbered("SCRIPTS", "SCRIPT", "VERSION");
        for (name, version) in numbered("SCRIPTS", "SCRIPT", "NAME").iter().zip(versions) {
            if self.scripted.get(name) == Some(&version) {
                let _ = writeln!(text, "fact script {name} {version}");
                if self.script_marks.get(name).is_none_or(|mark| *mark == version) {
                    let _ = writeln!(text, "fact right {name}");
                }
            }
        }
        text
    }
}
