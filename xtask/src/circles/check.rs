//! Reads the crates of the workspace and reports their circles.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use anyhow::{Result, bail};

use super::{
    graph::{Circle, CircleStep, ImportGraph},
    module_tree::ModuleTree,
    resolve, workspace,
};

/// Prints how many files and imports were read, and fails with every circle.
pub(crate) fn check(root: &Path) -> Result<()> {
    let crate_roots = workspace::crate_roots(root)?;
    let (graph, files) = read(&crate_roots)?;
    let circles = graph.circles();
    println!("circles: {} files, {} imports between them, {} circles", files.len(), graph.imports(), circles.len());
    if circles.is_empty() {
        return Ok(());
    }
    let circles: Vec<_> = circles.iter().map(|circle| describe(circle, root)).collect();
    bail!(
        "files import each other in a circle; move what they share into a file that imports none of them\n\n{}",
        circles.join("\n")
    );
}

/// The imports between the files of these crates, and all of their files.
pub(super) fn read(crate_roots: &[PathBuf]) -> Result<(ImportGraph, BTreeSet<PathBuf>)> {
    let (mut graph, mut files) = (ImportGraph::default(), BTreeSet::new());
    for crate_root in crate_roots {
        let tree = ModuleTree::read(crate_root)?;
        for (file, definer, name) in resolve::imports(&tree) {
            graph.add(file, definer, name);
        }
        files.extend(tree.modules.into_iter().map(|module| module.file));
    }
    Ok((graph, files))
}

fn describe(circle: &Circle, root: &Path) -> String {
    let relative = |file: &Path| file.strip_prefix(root).unwrap_or(file).display().to_string();
    let mut lines: Vec<_> = circle.steps.iter().map(|step| describe_step(step, relative)).collect();
    if !circle.other_files.is_empty() {
        let files: Vec<_> = circle.other_files.iter().map(|file| relative(file)).collect();
        lines.push(format!("  in longer circles with these: {}\n", files.join(", ")));
    }
    lines.concat()
}

fn describe_step(step: &CircleStep, relative: impl Fn(&Path) -> String) -> String {
    let names: Vec<_> = step.names.iter().map(String::as_str).collect();
    format!("  {} imports from {}: {}\n", relative(&step.file), relative(&step.definer), names.join(", "))
}
