//! Packages on a machine in memory: what the scripts of [`inventory`](crate::inventory), [`archive`](crate::archive),
//! [`apt`](crate::apt), [`dnf`](crate::dnf) and [`script_package`](crate::script_package) do.

use std::fmt::Write as _;

use super::{
    parameters::FakeParameters,
    state::{FakeArchive, FakePackage, FakeState, yes},
};

impl FakeState {
    pub(super) fn install_archive(&mut self, parameters: &FakeParameters) -> String {
        let (version, sha256) = (parameters.get("VERSION").to_owned(), parameters.get("SHA256").to_owned());
        let package = Box::new(FakeArchive { version, sha256 });
        let changed = self.archives.insert(parameters.get("NAME").to_owned(), package.clone()) != Some(package);
        self.changed(changed)
    }

    pub(super) fn remove_archive(&mut self, parameters: &FakeParameters) -> String {
        let changed = self.archives.remove(parameters.get("NAME")).is_some();
        self.changed(changed)
    }

    pub(super) fn install_managed(&mut self, kind: &str, parameters: &FakeParameters) -> String {
        let mut changed = false;
        for line in parameters.get("PACKAGES").lines() {
            let [name, version, hold] = line.split(' ').collect::<Vec<_>>()[..] else { continue };
            let key = (kind.to_owned(), name.to_owned());
            let known = self.managed.get(&key);
            let mark = known.and_then(|p| p.mark).or(Some(known.is_none_or(|p| p.version.is_none())));
            let package = FakePackage { version: Some(version.to_owned()), held: hold == "hold", mark };
            changed |= known.is_none_or(|p| (&p.version, p.held) != (&package.version, package.held));
            self.managed.insert(key, package);
        }
        self.changed(changed)
    }

    /// What an installation does first: it marks what it is going to install, and frees what it is going to change.
    pub(super) fn mark_managed(&mut self, kind: &str, parameters: &FakeParameters) {
        for line in parameters.get("PACKAGES").lines() {
            let [name, version, _] = line.split(' ').collect::<Vec<_>>()[..] else { continue };
            let new = FakePackage { version: None, held: false, mark: None };
            let package = self.managed.entry((kind.to_owned(), name.to_owned())).or_insert(new);
            package.mark = package.mark.or(Some(package.version.is_none()));
            package.held &= package.version.as_deref() == Some(version);
        }
    }

    pub(super) fn remove_managed(&mut self, kind: &str, parameters: &FakeParameters) -> String {
        let key = (kind.to_owned(), parameters.get("NAME").to_owned());
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
                "fact kept Berth did not install it\nfact removed no\n".to_owned()
            }
        }
    }

    pub(super) fn install_script(&mut self, parameters: &FakeParameters) -> String {
        let (name, version) = (parameters.get("NAME").to_owned(), parameters.get("VERSION").to_owned());
        let changed = self.script_packages.insert(name.clone(), version.clone()).as_ref() != Some(&version);
        if changed || self.script_marks.contains_key(&name) {
            self.script_marks.insert(name, version);
        }
        self.changed(changed)
    }

    pub(super) fn remove_script(&mut self, parameters: &FakeParameters) -> String {
        let name = parameters.get("NAME");
        let marked = self.script_marks.remove(name).is_some();
        if marked {
            self.script_packages.remove(name);
            self.changes += 1;
        }
        format!("fact removed {}\n", yes(marked))
    }

    /// As `scripts/inventory.sh`, except that the links and remove commands of archives and script packages always count as
    /// declared. The results of `writeln!` are ignored, because writing into a String cannot fail.
    pub(super) fn inventory(&self, parameters: &FakeParameters) -> String {
        let mut text = format!("fact boot fake-{}\n", self.boot);
        self.add_archives(&mut text, parameters);
        self.add_managed(&mut text, "apt", parameters.get("APT"));
        self.add_managed(&mut text, "dnf", parameters.get("DNF"));
        self.add_scripts(&mut text, parameters);
        text
    }

    fn add_archives(&self, text: &mut String, parameters: &FakeParameters) {
        for (name, package) in &self.archives {
            let _ = writeln!(text, "fact archive {name} {} {}", package.version, package.sha256);
        }
        let names = parameters.numbered("ARCHIVES", "ARCHIVE", "NAME");
        for (name, marker) in names.into_iter().zip(parameters.numbered("ARCHIVES", "ARCHIVE", "MARKER")) {
            let installed = |p: &FakeArchive| format!("name={name}\nversion={}\nsha256={}\n", p.version, p.sha256);
            if self.archives.get(name).is_some_and(|package| marker.starts_with(&installed(package))) {
                let _ = writeln!(text, "fact right {name}");
            }
        }
    }

    fn add_managed(&self, text: &mut String, kind: &str, declared: &str) {
        for ((_, name), package) in self.managed.iter().filter(|((of, _), _)| of == kind) {
            let is_declared = declared.lines().any(|line| line == name);
            if let Some(version) = package.version.as_ref().filter(|_| is_declared || package.mark.is_some()) {
                let hold = if package.held { "hold" } else { "free" };
                let _ = writeln!(text, "fact {kind} {name} {version} {hold} {}", package.mark.map_or("-", yes));
            }
            if let Some(own) = package.mark {
                let _ = writeln!(text, "fact mark {kind} {name} {}", yes(own));
            }
        }
    }

    fn add_scripts(&self, text: &mut String, parameters: &FakeParameters) {
        for (name, version) in &self.script_marks {
            let _ = writeln!(text, "fact mark script {name} {version}");
        }
        let names = parameters.numbered("SCRIPTS", "SCRIPT", "NAME");
        for (name, version) in names.into_iter().zip(parameters.numbered("SCRIPTS", "SCRIPT", "VERSION")) {
            if self.script_packages.get(name).map(String::as_str) == Some(version) {
                let _ = writeln!(text, "fact script {name} {version}");
                if self.script_marks.get(name).is_none_or(|mark| mark == version) {
                    let _ = writeln!(text, "fact right {name}");
                }
            }
        }
    }
}
