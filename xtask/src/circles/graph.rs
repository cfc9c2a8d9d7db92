//! The graph of imports between files, and its circles.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    path::{Path, PathBuf},
};

/// For each file the files that it imports from, and the names that it imports.
#[derive(Default)]
pub(super) struct ImportGraph(BTreeMap<PathBuf, BTreeMap<PathBuf, BTreeSet<String>>>);

/// A shortest circle among files that import each other, directly or through others.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Circle {
    /// The imports around the circle.
    pub(super) steps: Vec<CircleStep>,
    /// Further files that are in longer circles with these.
    pub(super) other_files: Vec<PathBuf>,
}

/// One import in a circle.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct CircleStep {
    /// The file that imports.
    pub(super) file: PathBuf,
    /// The file that defines the names.
    pub(super) definer: PathBuf,
    pub(super) names: BTreeSet<String>,
}

impl ImportGraph {
    pub(super) fn add(&mut self, file: PathBuf, definer: PathBuf, name: String) {
        self.0.entry(file).or_default().entry(definer).or_default().insert(name);
    }

    /// How many names files import from each other.
    pub(super) fn imports(&self) -> usize {
        self.0.values().flat_map(BTreeMap::values).map(BTreeSet::len).sum()
    }

    /// One circle for each group of files that import each other.
    pub(super) fn circles(&self) -> Vec<Circle> {
        let mut seen = BTreeSet::new();
        let mut circles = Vec::new();
        for file in self.0.keys() {
            let group = self.group(file);
            if !seen.contains(file.as_path()) && group.len() > 1 {
                seen.extend(group.iter().copied());
                circles.extend(self.circle(&group));
            }
        }
        circles
    }

    /// The files that `file` reaches and that reach it.
    fn group<'a>(&'a self, file: &'a Path) -> Vec<&'a Path> {
        let reached = self.paths_from(file);
        reached.keys().copied().filter(|other| self.paths_from(other).contains_key(file)).collect()
    }

    fn circle(&self, group: &[&Path]) -> Option<Circle> {
        let circles = group.iter().filter_map(|file| self.circle_through(file));
        let files = circles.min_by_key(Vec::len)?;
        let next = files.iter().cycle().skip(1);
        let steps = files.iter().zip(next).map(|(file, definer)| CircleStep {
            file: file.to_path_buf(),
            definer: definer.to_path_buf(),
            names: self.0[*file][*definer].clone(),
        });
        let other_files = group.iter().filter(|file| !files.contains(*file)).map(|file| file.to_path_buf());
        Some(Circle { steps: steps.collect(), other_files: other_files.collect() })
    }

    /// The files of a shortest circle through `file`, which comes first.
    fn circle_through<'a>(&'a self, file: &'a Path) -> Option<Vec<&'a Path>> {
        let before = self.paths_from(file);
        let mut circle = Vec::new();
        let mut at = *before.get(file)?;
        while at != file {
            circle.push(at);
            at = *before.get(at)?;
        }
        circle.push(file);
        circle.reverse();
        Some(circle)
    }

    /// For each file that `start` reaches, the file before it on a shortest path.
    fn paths_from<'a>(&'a self, start: &'a Path) -> BTreeMap<&'a Path, &'a Path> {
        let mut before = BTreeMap::new();
        let mut queue = VecDeque::from([start]);
        while let Some(file) = queue.pop_front() {
            for next in self.0.get(file).into_iter().flat_map(BTreeMap::keys) {
                before.entry(next.as_path()).or_insert_with(|| {
                    queue.push_back(next);
                    file
                });
            }
        }
        before
    }
}
