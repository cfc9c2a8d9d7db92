//! Writes the generated files, or compares them with the existing ones.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use crate::{crds, metrics, reference};

/// Writes all generated files, or with `check` fails when one of them differs.
pub(crate) fn generate(root: &Path, check: bool) -> Result<()> {
    let mut files = crds::files(root)?;
    files.push((root.join("docs/api.md"), reference::render(&crds::all())));
    files.push((root.join("docs/metrics.md"), metrics::render(root)?));
    let differing: Vec<_> =
        files.into_iter().filter(|(path, text)| !fs::read_to_string(path).is_ok_and(|now| now == *text)).collect();
    if check && !differing.is_empty() {
        let names: Vec<_> = differing.iter().map(|(path, _)| path.display().to_string()).collect();
        bail!("these files differ from the sources; run `cargo xtask generate`: {}", names.join(", "));
    }
    differing.iter().try_for_each(write)
}

fn write((path, text): &(PathBuf, String)) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    }
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}
