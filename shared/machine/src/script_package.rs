//! Packages with commands of their own: `check` says whether the package is installed, `install` and `remove` change that.
//!
//! The installed version and its remove command are stored on the machine in `<root>/managed/script/<name>/`, so that a
//! package can be removed after its declaration is gone. The commands get `$BERTH_PACKAGE_NAME` and
//! `$BERTH_PACKAGE_VERSION`.

use std::{sync::LazyLock, time::Duration};

use crate::{
    change::{MachineChange, Removal},
    error::Result,
    machine::Machine,
    operation::MachineOperation,
    validate,
};

const COMMON: &str = include_str!("scripts/packages_common.sh");

pub(crate) static INSTALL: LazyLock<String> =
    LazyLock::new(|| MachineOperation::script(&[COMMON, include_str!("scripts/script_install.sh")]));
pub(crate) static REMOVE: LazyLock<String> =
    LazyLock::new(|| MachineOperation::script(&[COMMON, include_str!("scripts/script_remove.sh")]));

/// A package with commands of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScriptPackage {
    /// Name, a file name.
    pub name: String,
    /// Version, `$BERTH_PACKAGE_VERSION` of the commands.
    pub version: String,
    /// Shell command that succeeds if and only if the package is installed in its version.
    pub check: String,
    /// Shell command that installs it.
    pub install: String,
    /// Shell command that removes it.
    pub remove: Option<String>,
}

impl ScriptPackage {
    pub(crate) fn validate(&self) -> Result<()> {
        validate::file_name("package name", &self.name)?;
        validate::version("package version", &self.version)
    }
}

/// Runs the package's install command unless its check succeeds. The check must succeed afterwards.
pub async fn install(
    machine: &dyn Machine,
    root: &str,
    package: &ScriptPackage,
    timeout: Duration,
) -> Result<MachineChange> {
    package.validate()?;
    let answer = MachineOperation::changing(&INSTALL, root)?
        .set("NAME", &package.name)?
        .set("VERSION", &package.version)?
        .set("CHECK", &package.check)?
        .set("INSTALL", &package.install)?
        .set("REMOVE", package.remove.as_deref().unwrap_or_default())?
        .run(machine, "", timeout)
        .await?;
    MachineChange::read(&answer)
}

/// Runs the remove command that the package was installed with, if Berth installed it.
pub async fn remove(machine: &dyn Machine, root: &str, name: &str, timeout: Duration) -> Result<Removal> {
    validate::file_name("package name", name)?;
    let operation = MachineOperation::changing(&REMOVE, root)?.set("NAME", name)?;
    Removal::read(&operation.run(machine, "", timeout).await?)
}
