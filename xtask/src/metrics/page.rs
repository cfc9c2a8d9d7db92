//! Renders `docs/metrics.md`.

use std::{collections::BTreeSet, fmt::Write, path::Path};

use anyhow::{Context, Result, ensure};

use super::{
    metric::{Metric, MetricLabel},
    registrations,
};
use crate::circles::crate_roots;

/// The introduction of the page.
const HEAD: &str = "\
# Metrics

Generated from the places where the programs register their metrics, by `cargo xtask generate`; do not edit.

Every program serves its metrics at `/metrics` in the text format of OpenMetrics. A metric with labels appears with its first
value. A histogram is exposed as `_bucket`, `_sum` and `_count`. All durations are in seconds.

Labels have the same meaning everywhere: `controller` is one reconcile loop of a program, `kind` a kind of Kubernetes object (of
probes: what is probed), `task` the kind of a task, `class` a MachineClass, `result` how something ended, and `reason` why.
";

/// The sections, and the crates whose metrics each of them lists.
const SECTIONS: &[(&str, &[&str])] = &[
    ("All programs", &["shared/runtime"]),
    ("webhook", &["webhook"]),
    ("replicaset-controller", &["replicaset-controller", "shared/iaas"]),
    ("deployment-controller", &["deployment-controller"]),
    ("lb-controller", &["lb-controller"]),
    ("monitor-controller", &["monitor-controller"]),
];

/// The whole page.
pub(crate) fn render(root: &Path) -> Result<String> {
    let mut page = HEAD.to_owned();
    let mut unlisted = registering_crates(root)?;
    for (title, crates) in SECTIONS {
        let mut metrics = Vec::new();
        for folder in *crates {
            unlisted.remove(*folder);
            let lib = root.join(folder).join("src/lib.rs");
            metrics.extend(registrations::metrics(&lib).with_context(|| format!("metrics of {folder}"))?);
        }
        push_section(&mut page, title, metrics);
    }
    ensure!(unlisted.is_empty(), "xtask/src/metrics/page.rs names no section for the metrics of {unlisted:?}");
    Ok(page)
}

/// The folders of all crates that register metrics.
fn registering_crates(root: &Path) -> Result<BTreeSet<String>> {
    let mut folders = BTreeSet::new();
    for crate_root in crate_roots(root)? {
        let folder = crate_root.strip_prefix(root).ok().and_then(|file| file.parent()?.parent());
        if let Some(folder) = folder
            && !registrations::metrics(&crate_root)?.is_empty()
        {
            folders.insert(folder.display().to_string());
        }
    }
    Ok(folders)
}

pub(super) fn push_section(page: &mut String, title: &str, mut metrics: Vec<Metric>) {
    metrics.sort_by(|a, b| a.name.cmp(&b.name));
    let _ = write!(page, "\n## {title}\n\n| metric | type | labels | meaning |\n| --- | --- | --- | --- |\n");
    for Metric { name, type_, labels, help } in metrics {
        let labels = labels.iter().map(label).collect::<Vec<_>>().join(", ");
        let _ = writeln!(page, "| `berth_{name}` | {} | {labels} | {help} |", type_.as_str());
    }
}

fn label(label: &MetricLabel) -> String {
    match label.values.trim_end_matches('.') {
        "" => format!("`{}`", label.name),
        values => format!("`{}` ({values})", label.name),
    }
}
