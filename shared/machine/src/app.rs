//! The application's code: unpacked into releases, switched by one link, run as a service.
//!
//! Layout on the machine: `<root>/apps/<name>/releases/<revision>` and the link `<root>/apps/<name>/current`. The
//! service is a systemd unit where systemd runs the machine, else a small supervisor in `<root>/services/<name>`.
//! `<root>/apps/<name>/proven` lists the releases that ran well. `<root>/apps/<name>/staging` is for [`crate::staging`].

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
    sync::LazyLock,
    time::Duration,
};

use berth_core::api::{ArtifactFormat, Hook, Hooks};

use crate::{
    app_file::set_files,
    change::MachineChange,
    error::{MachineError, Result},
    limits::download_seconds,
    machine::Machine,
    operation::{MachineOperation, ScriptAnswer},
    shell::quote,
    validate,
};
pub use crate::{
    app_file::{AppFile, MAX_FILE_BYTES},
    authorization::Authorization,
};

pub(crate) const FETCH: &str = include_str!("scripts/fetch.sh");
const SERVICE: &str = include_str!("scripts/service.sh");
const STATUS: &str = include_str!("scripts/app_status.sh");
pub(crate) const STAGED: &str = include_str!("scripts/app_staged.sh");

pub(crate) static DEPLOY: LazyLock<String> = LazyLock::new(|| {
    MachineOperation::script(&[
        FETCH,
        SERVICE,
        STATUS,
        include_str!("scripts/app_checks.sh"),
        include_str!("scripts/app_files.sh"),
        include_str!("scripts/app_start.sh"),
        include_str!("scripts/app_hooks.sh"),
        include_str!("scripts/app_others.sh"),
        include_str!("scripts/app_back.sh"),
        STAGED,
        include_str!("scripts/app_deploy.sh"),
    ])
});

pub(crate) static READ: LazyLock<String> =
    LazyLock::new(|| MachineOperation::script(&[FETCH, SERVICE, STATUS, include_str!("scripts/app_read.sh")]));

/// One revision of an application: its code, and how the machine runs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppRelease {
    /// Name, a file name; also names the service.
    pub name: String,
    /// Name of this version, a file name.
    pub revision: String,
    /// Digest of all that makes the running application differ, as the caller defines it. It is kept on the machine with what
    /// was started, and so says later whether the application that runs is still the one that was deployed.
    pub digest: String,
    /// URL of the artifact with the code.
    pub url: String,
    /// SHA-256 of the artifact, 64 hexadecimal digits in lower case.
    pub sha256: String,
    /// What the artifact is; without it, an archive whose format its content says.
    pub format: Option<ArtifactFormat>,
    /// The credentials for the artifact, if it needs any.
    pub authorization: Option<Authorization>,
    /// The application's own environment. `PORT` is set from `port`, and Berth sets names that begin with `BERTH_`.
    pub env: BTreeMap<String, String>,
    /// Variables that only the application may see. They are in a file of their own, which only its user may read.
    pub secrets: SecretEnv,
    /// Files with content from elsewhere.
    pub files: Vec<AppFile>,
    /// Program (relative to the release, such as `./run`, or found by `PATH`) and its arguments.
    pub command: Vec<String>,
    /// The TCP port that it listens on, passed to it as `PORT`.
    pub port: u16,
    /// The user who runs it, and its hooks; without it, the user of the login.
    pub user: Option<String>,
    /// Commands around its start and end.
    pub hooks: Hooks,
    /// How many seconds it may take to end before it is killed.
    pub stop_seconds: u32,
    /// How many earlier releases stay on the machine: first those that ran well there. The last one that did always stays.
    pub keep_releases: u32,
    /// The revision that is known to have run well, if it is still the current one: the machine notes it before anything is
    /// changed.
    pub proven: Option<String>,
    /// The restart that it is started for, passed to it as `BERTH_RESTART`. Another one starts it anew.
    pub restart: Option<String>,
}

/// Environment variables with secret values. Their values are never printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SecretEnv(pub BTreeMap<String, String>);

impl fmt::Debug for SecretEnv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// The application on a machine, as read back from it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AppStatus {
    /// The current release; `None` when nothing is deployed.
    pub revision: Option<String>,
    /// The digest that the running service was started with ([`AppRelease::digest`]); `None` when the last deployment was not
    /// completed, or when somebody else has changed since then what is started.
    pub digest: Option<String>,
    /// SHA-256 of the archive that the current release came from.
    pub sha256: Option<String>,
    /// Whether the program runs.
    pub running: bool,
    /// Its process id.
    pub pid: Option<u32>,
}

impl AppStatus {
    fn read(answer: &ScriptAnswer) -> Result<Self> {
        let pid = |pid: &str| {
            pid.parse().map_err(|_| MachineError::Answer(format!("the process id {pid:?} is not a number")))
        };
        Ok(Self {
            revision: answer.all("revision").next().map(str::to_owned),
            digest: answer.all("digest").next().map(str::to_owned),
            sha256: answer.all("sha256").next().map(str::to_owned),
            running: answer.yes("running")?,
            pid: answer.all("pid").next().map(pid).transpose()?,
        })
    }
}

impl AppRelease {
    fn validate(&self) -> Result<()> {
        validate::file_name("app name", &self.name)?;
        validate::file_name("app revision", &self.revision)?;
        validate::url("app url", &self.url)?;
        validate::sha256("app sha256", &self.sha256)?;
        validate::file_name("app digest", &self.digest)?;
        self.proven.iter().try_for_each(|revision| validate::file_name("app proven", revision))?;
        self.user.iter().try_for_each(|user| validate::user("app user", user))?;
        if self.command.first().is_none_or(String::is_empty) {
            return Err(MachineError::invalid("app command", "must name the program to start"));
        }
        self.env.keys().chain(self.secrets.0.keys()).try_for_each(|name| validate::variable("app env", name))
    }

    /// What no message may contain.
    fn secret_texts(&self) -> impl Iterator<Item = &str> {
        let files = self.files.iter().filter(|file| file.secret);
        let texts = files.filter_map(|file| std::str::from_utf8(&file.content).ok());
        texts
            .chain(self.secrets.0.values().map(String::as_str))
            .chain(self.authorization.iter().map(Authorization::secret))
    }

    fn environment(&self) -> String {
        let restart = self.restart.iter().map(|id| ("BERTH_RESTART".to_owned(), id.clone())).collect();
        format!("export PORT={}\n{}{}", self.port, exports(&self.env), exports(&restart))
    }

    /// The file in the release that the command starts; empty if that cannot be told.
    fn program(&self) -> &str {
        let first = match &self.command[..] {
            [shell, flag, command] if shell == "/bin/sh" && flag == "-c" => {
                let mut words = command.split_ascii_whitespace();
                words.find(|word| *word != "exec").unwrap_or_default()
            }
            [first, ..] => first.as_str(),
            [] => "",
        };
        let name = first.strip_prefix("./").unwrap_or_default();
        if validate::path("app command", name).is_ok() { name } else { "" }
    }

    fn command_line(&self) -> String {
        self.command.iter().map(|word| quote(word)).collect::<Vec<_>>().join(" ")
    }
}

/// Lines of a shell script that export these variables.
fn exports(variables: &BTreeMap<String, String>) -> String {
    variables.iter().fold(String::new(), |mut lines, (name, value)| {
        // Writing into a String cannot fail.
        let _ = writeln!(lines, "export {name}={}", quote(value));
        lines
    })
}

/// Puts the release on the machine under `root`, makes it the current one, and (re)starts its service if anything differed.
/// Returns what is true afterwards. Whether the application is healthy is for a health check to say.
///
/// A release that does not keep running for two seconds is an error, and the one before runs again, with everything that it was
/// started with.
pub async fn deploy_app(
    machine: &dyn Machine,
    root: &str,
    app: &AppRelease,
    timeout: Duration,
) -> Result<(MachineChange, AppStatus)> {
    app.validate()?;
    let operation = MachineOperation::changing(&DEPLOY, root)?;
    let operation = set_hook(operation, ["PRE_STOP", "PRE_STOP_SECONDS"], app.hooks.pre_stop.as_ref())?;
    let operation = set_hook(operation, ["PRE_START", "PRE_START_SECONDS"], app.hooks.pre_start.as_ref())?;
    let operation = set_hook(operation, ["POST_START", "POST_START_SECONDS"], app.hooks.post_start.as_ref())?;
    let answer = set_files(operation, &app.files)?
        .set("NAME", &app.name)?
        .set("REVISION", &app.revision)?
        .set("DIGEST", &app.digest)?
        .set("URL", &app.url)?
        .set("SHA256", &app.sha256)?
        .set("AUTHORIZATION", app.authorization.as_ref().map_or("", Authorization::value))?
        .set("FORMAT", app.format.map_or("", ArtifactFormat::name))?
        .set("ENVIRONMENT", &app.environment())?
        .set("SECRETS", exports(&app.secrets.0).trim_end())?
        .set("COMMAND", &app.command_line())?
        .set("PROGRAM", app.program())?
        .set("USER_NAME", app.user.as_deref().unwrap_or_default())?
        .set("STOP_SECONDS", &app.stop_seconds.to_string())?
        .set("KEEP", &app.keep_releases.to_string())?
        .set("PROVEN", app.proven.as_deref().unwrap_or_default())?
        .set("FETCH_SECONDS", &download_seconds(timeout))?
        .hide(app.secret_texts())
        .run(machine, &app.url, timeout)
        .await?;
    Ok((MachineChange::read(&answer)?, AppStatus::read(&answer)?))
}

fn set_hook(operation: MachineOperation, names: [&'static str; 2], hook: Option<&Hook>) -> Result<MachineOperation> {
    let command = hook.map_or_else(String::new, |hook| format!("/bin/sh -c {}", quote(&hook.command)));
    let seconds = hook.map_or(0, |hook| hook.timeout_seconds.max(1));
    operation.set(names[0], &command)?.set(names[1], &seconds.to_string())
}

/// Reads what is deployed and whether it runs. Changes nothing.
pub async fn read_app(machine: &dyn Machine, root: &str, name: &str, timeout: Duration) -> Result<AppStatus> {
    validate::file_name("app name", name)?;
    let answer = MachineOperation::reading(&READ, root)?.set("NAME", name)?.run(machine, "", timeout).await?;
    AppStatus::read(&answer)
}
