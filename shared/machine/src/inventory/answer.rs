//! Reads the answer of the inventory's script.

use super::{Declared, Found, Kind};
use crate::{Error, Result, managed, script::Facts};

/// What the facts say, by name and kind. A package that is there in several versions is the declared one, if it is among
/// them.
pub(super) fn packages(facts: &Facts, declared: &[Declared]) -> Result<Vec<Found>> {
    let wanted = |kind, name: &str| declared.iter().find(|d| d.kind() == kind && d.name() == name);
    let mut found = Vec::new();
    for (fact, kind) in [("apt", Kind::Apt), ("dnf", Kind::Dnf)] {
        for line in facts.all(fact) {
            found.push(managed(line, kind, |name| wanted(kind, name))?);
        }
    }
    let rights: Vec<&str> = facts.all("right").collect();
    for line in facts.all("archive") {
        let [name, version, sha256] = words(line)?;
        let right = wanted(Kind::Archive, name).is_some() && rights.contains(&name);
        let sha256 = Some(sha256.to_owned());
        found.push(Found { sha256, right, ..marked(Kind::Archive, name, Some(version)) });
    }
    for line in facts.all("script") {
        let [name, version] = words(line)?;
        found.push(Found {
            marked: false,
            own: false,
            right: rights.contains(&name),
            ..marked(Kind::Script, name, Some(version))
        });
    }
    for line in facts.all("mark") {
        add_mark(&mut found, line, |name| wanted(Kind::Script, name))?;
    }
    found.sort_by(|a, b| (&a.name, a.kind, !a.right).cmp(&(&b.name, b.kind, !b.right)));
    found.dedup_by(|a, b| (&a.name, a.kind) == (&b.name, b.kind));
    Ok(found)
}

fn managed<'a>(line: &str, kind: Kind, wanted: impl Fn(&str) -> Option<&'a Declared>) -> Result<Found> {
    let (name, version, held, own) = managed::parse(line)?;
    let right = match wanted(name) {
        Some(Declared::Apt(d) | Declared::Dnf(d)) => d.version == version && d.hold == held && own.is_some(),
        _ => false,
    };
    let (is_marked, own) = (own.is_some(), own == Some(true));
    Ok(Found { marked: is_marked, own, right, ..marked(kind, name, Some(version)) })
}

fn marked(kind: Kind, name: &str, version: Option<&str>) -> Found {
    let version = version.map(str::to_owned);
    Found { kind, name: name.to_owned(), version, sha256: None, marked: true, own: true, right: false }
}

/// Puts a mark beside what it belongs to, or on its own when that is not there.
fn add_mark<'a>(found: &mut Vec<Found>, line: &str, wanted: impl Fn(&str) -> Option<&'a Declared>) -> Result<()> {
    let [kind, name, value] = words(line)?;
    let (kind, own, version) = match kind {
        "apt" => (Kind::Apt, value == "yes", None),
        "dnf" => (Kind::Dnf, value == "yes", None),
        // The check of a declared version has the last word.
        "script" if wanted(name).is_some_and(|d| d.version() == value) => (Kind::Script, true, None),
        "script" => (Kind::Script, true, Some(value)),
        _ => return Err(Error::Answer(format!("{line:?} is no package's mark"))),
    };
    match found.iter_mut().find(|f| f.kind == kind && f.name == name) {
        Some(there) => (there.marked, there.own) = (true, own),
        None => found.push(Found { own, ..marked(kind, name, version) }),
    }
    Ok(())
}

fn words<const N: usize>(line: &str) -> Result<[&str; N]> {
    let words: Vec<&str> = line.split(' ').collect();
    words.try_into().map_err(|_| Error::Answer(format!("{line:?} is not {N} words about a package")))
}
