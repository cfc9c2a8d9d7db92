//! Packages with commands of their own: `check` says whether one is installed, `install` and `remove` do what they say.
//!
//! What was installed, and how it is removed, is kept on the machine in `<root>/managed/script/<name>/`: a package can be
//! removed after its declaration is gone. Commands find `$BERTH_PACKAGE_NAME` and `$BERTH_PACKAGE_VERSION`.

use std::{sync::LazyLock, time::Duration};

use crate::{
    Machine, Result,
    archive::Change,
    managed::{Removal, removal},
    script::Step,
    validate,
};

const COMMON: &str = include_str!("scripts/packages.sh");

pub(crate) static INSTALL: LazyLock<String> =
    LazyLock::new(|| Step::text(&[COMMON, include_str!("scripts/script_install.sh")]));
pub(crate) static REMOVE: LazyLock<String> =
    LazyLock::new(|| Step::text(&[COMMON, include_str!("scripts/script_remove.sh")]));

const LOCK_SECONDS: &str = "10";

/// A package with commands of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScriptPackage {
    /// Name, a file name.
    pub name: String,
    /// Version, `$BERTH_PACKAGE_VERSION` of the commands.
    pub version: String,
    /// Succeeds if and only if the package is installed in its version.
    pub check: String,
    /// Installs it.
    pub install: String,
    /// Removes it.
    pub remove: Option<String>,
}

impl ScriptPackage {
    pub(crate) fn check(&self) -> Result<()> {
        validate::file_name("package name", &self.name)?;
        validate::version("package version", &self.version)
    }
}

/// Runs the package's install command unless its check succeeds; the check must succeed afterwards.
pub async fn install(machine: &dyn Machine, root: &str, package: &ScriptPackage, timeout: Duration) -> Result<Change> {
    validate::path("root", root)?;
    package.check()?;
    let facts = Step::new(&INSTALL)
        .set("ROOT", root)?
        .set("NAME", &package.name)?
        .set("VERSION", &package.version)?
        .set("CHECK", &package.check)?
        .set("INSTALL", &package.install)?
        .set("REMOVE", package.remove.as_deref().unwrap_or_default())?
        .set("LOCK_SECONDS", LOCK_SECONDS)?
        .run(machine, "", timeout)
        .await?;
    facts.yes("changed").map(Change::from_yes)
}

/// Runs the remove command that the package was installed with, if Berth installed it.
pub async fn remove(machine: &dyn Machine, root: &str, name: &str, timeout: Duration) -> Result<Removal> {
    validate::path("root", root)?;
    validate::file_name("package name", name)?;
    let step = Step::new(&REMOVE).set("ROOT", root)?.set("NAME", name)?.set("LOCK_SECONDS", LOCK_SECONDS)?;
    removal(&step.run(machine, "", timeout).await?)
}
