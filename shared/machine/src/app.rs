//! The application's code: unpacked into releases, switched by one link, run as a service.
//!
//! Layout on the machine: `<root>/apps/<name>/releases/<revision>` and the link `<root>/apps/<name>/current`. The
//! service is a systemd unit where systemd runs the machine, else a small supervisor in `<root>/services/<name>`.

use std::{collections::BTreeMap, fmt::Write as _, sync::LazyLock, time::Duration};

use crate::{
    Error, Machine, Result,
    archive::{Change, LOCK_SECONDS, fetch_seconds},
    script::{Facts, Step, quote},
    validate,
};

const FETCH: &str = include_str!("scripts/fetch.sh");
const SERVICE: &str = include_str!("scripts/service_files.sh");
const STATUS: &str = include_str!("scripts/app_status.sh");

pub(crate) static DEPLOY: LazyLock<String> =
    LazyLock::new(|| Step::text(&[FETCH, SERVICE, STATUS, include_str!("scripts/app_deploy.sh")]));
pub(crate) static READ: LazyLock<String> = LazyLock::new(|| Step::text(&[SERVICE, STATUS, "report\n"]));
pub(crate) static STOP: LazyLock<String> =
    LazyLock::new(|| Step::text(&[FETCH, SERVICE, STATUS, include_str!("scripts/app_stop.sh")]));
pub(crate) static REMOVE: LazyLock<String> =
    LazyLock::new(|| Step::text(&[FETCH, SERVICE, STATUS, include_str!("scripts/app_remove.sh")]));

/// An application and the code it is to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct App {
    /// Name, a file name; also names the service.
    pub name: String,
    /// Name of this code, a file name. Different code must have a different revision.
    pub revision: String,
    /// Where the archive with the code is: a tar file, plain or gzip.
    pub url: String,
    /// SHA-256 of the archive, 64 hexadecimal digits in lower case.
    pub sha256: String,
    /// The application's own environment. `PORT` is set from `port`, and names with `BERTH_` are set by Berth.
    pub env: BTreeMap<String, String>,
    /// Program (relative to the release, such as `./run`, or found by `PATH`) and its arguments.
    pub command: Vec<String>,
    /// The TCP port it listens on; given to it as `PORT`.
    pub port: u16,
    /// How many earlier releases stay on the machine.
    pub keep_releases: u32,
}

/// What is deployed, as read back from a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AppStatus {
    /// The current release; `None` when nothing is deployed.
    pub revision: Option<String>,
    /// SHA-256 of the archive that the current release came from.
    pub sha256: Option<String>,
    /// Whether the program runs.
    pub running: bool,
    /// Its process id.
    pub pid: Option<u32>,
}

impl AppStatus {
    fn read(facts: &Facts) -> Result<Self> {
        let pid = |pid: &str| pid.parse().map_err(|_| Error::Answer(format!("the process id {pid:?} is no number")));
        Ok(Self {
            revision: facts.all("revision").next().map(str::to_owned),
            sha256: facts.all("sha256").next().map(str::to_owned),
            running: facts.yes("running")?,
            pid: facts.all("pid").next().map(pid).transpose()?,
        })
    }
}

impl App {
    fn check(&self) -> Result<()> {
        validate::file_name("app name", &self.name)?;
        validate::file_name("app revision", &self.revision)?;
        validate::url("app url", &self.url)?;
        validate::sha256("app sha256", &self.sha256)?;
        if self.command.first().is_none_or(String::is_empty) {
            return Err(Error::invalid("app command", "must name the program to start"));
        }
        self.env.keys().try_for_each(|name| validate::variable("app env", name))
    }

    fn environment(&self) -> String {
        let mut lines = String::new();
        // Writing into a String cannot fail.
        let _ = writeln!(lines, "export PORT={}", self.port);
        for (name, value) in &self.env {
            let _ = writeln!(lines, "export {name}={}", quote(value));
        }
        lines
    }

    fn command_line(&self) -> String {
        self.command.iter().map(|word| quote(word)).collect::<Vec<_>>().join(" ")
    }
}

/// Brings the app's code onto the machine under `root`, makes it current and (re)starts it where anything differed.
/// Returns what is true afterwards. Whether it is healthy is for a health check to say.
pub async fn deploy_app(
    machine: &dyn Machine,
    root: &str,
    app: &App,
    timeout: Duration,
) -> Result<(Change, AppStatus)> {
    validate::path("root", root)?;
    app.check()?;
    let facts = target(&DEPLOY, root, &app.name)?
        .set("REVISION", &app.revision)?
        .set("URL", &app.url)?
        .set("SHA256", &app.sha256)?
        .set("ENVIRONMENT", &app.environment())?
        .set("COMMAND", &app.command_line())?
        .set("KEEP", &app.keep_releases.to_string())?
        .set("FETCH_SECONDS", &fetch_seconds(timeout))?
        .run(machine, &app.url, timeout)
        .await?;
    Ok((Change::from_yes(facts.yes("changed")?), AppStatus::read(&facts)?))
}

/// Reads what is deployed under `name` and whether it runs.
pub async fn app_status(machine: &dyn Machine, root: &str, name: &str, timeout: Duration) -> Result<AppStatus> {
    AppStatus::read(&target(&READ, root, name)?.run(machine, "", timeout).await?)
}

/// Stops the app until it is deployed again; it stays stopped over a reboot.
pub async fn stop_app(machine: &dyn Machine, root: &str, name: &str, timeout: Duration) -> Result<AppStatus> {
    AppStatus::read(&target(&STOP, root, name)?.run(machine, "", timeout).await?)
}

/// Stops the app and removes its service and releases; one that is not there is no error.
pub async fn remove_app(machine: &dyn Machine, root: &str, name: &str, timeout: Duration) -> Result<Change> {
    let facts = target(&REMOVE, root, name)?.run(machine, "", timeout).await?;
    facts.yes("changed").map(Change::from_yes)
}

fn target(script: &'static str, root: &str, name: &str) -> Result<Step> {
    validate::path("root", root)?;
    validate::file_name("app name", name)?;
    Step::new(script).set("ROOT", root)?.set("NAME", name)?.set("LOCK_SECONDS", LOCK_SECONDS)
}
