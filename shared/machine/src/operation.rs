//! How an operation gets its parameters to the machine and its answer back.
//!
//! Parameters are sent through standard input, as shell assignments in single quotes, and the script, whose text is constant,
//! after them. So no value is ever part of a command line, where other users of the machine could read it, no value can be
//! taken for shell syntax, and no SSH server's limit on the length of a command matters.
//!
//! A script ends with its client, and only one script at a time changes a machine: see `scripts/common.sh`.
//!
//! A script writes nothing to standard output but lines `fact NAME WORD...`, and exits with one of the statuses that
//! `scripts/common.sh` names.

use std::{fmt::Write as _, time::Duration};

use crate::{
    error::{EarlierRelease, MachineError, Result},
    hidden::Hidden,
    limits::LOCK_SECONDS,
    machine::{Machine, Output, last_part},
    shell::quote,
    validate,
};

const COMMON: &str = include_str!("scripts/common.sh");

/// Statuses that a script exits with on purpose. The scripts use the same numbers.
pub(crate) mod exit_status {
    pub(crate) const CONFLICT: u32 = 73;
    pub(crate) const BUSY: u32 = 75;
    pub(crate) const MISSING_TOOL: u32 = 81;
    pub(crate) const DOWNLOAD: u32 = 82;
    pub(crate) const DIGEST: u32 = 83;
    pub(crate) const UNPACK: u32 = 84;
    pub(crate) const HOOK: u32 = 85;
    pub(crate) const NO_VERSION: u32 = 86;
    pub(crate) const MANAGER: u32 = 87;
    pub(crate) const UNSUITABLE: u32 = 88;
    pub(crate) const CHECK: u32 = 89;
    pub(crate) const START: u32 = 90;
    pub(crate) const CANNOT_RUN: u32 = 91;
}

/// One operation: a constant script and its parameters.
pub(crate) struct MachineOperation {
    script: &'static str,
    parameters: String,
    hidden: Hidden,
}

impl MachineOperation {
    /// The complete script, made of the common part and `parts`.
    pub(crate) fn script(parts: &[&str]) -> String {
        let mut text = COMMON.to_owned();
        for part in parts {
            text.push_str(part);
        }
        text
    }

    /// An operation that concerns neither packages nor the application.
    pub(crate) fn new(script: &'static str) -> Self {
        Self { script, parameters: "LOCK='none'\n".to_owned(), hidden: Hidden::default() }
    }

    /// An operation that changes the machine, whose folder `root` is Berth's: it waits until nothing else changes it.
    pub(crate) fn changing(script: &'static str, root: &str) -> Result<Self> {
        Self::locked(script, "exclusive", root)
    }

    /// An operation that reads what others change: it waits until nothing changes the machine.
    pub(crate) fn reading(script: &'static str, root: &str) -> Result<Self> {
        Self::locked(script, "shared", root)
    }

    fn locked(script: &'static str, lock: &str, root: &str) -> Result<Self> {
        validate::path("root", root)?;
        let empty = Self { script, parameters: String::new(), hidden: Hidden::default() };
        empty.set("LOCK", lock)?.set("ROOT", root)
    }

    /// Keeps these values out of errors, whatever the script and what it runs print.
    pub(crate) fn hide<'a>(mut self, values: impl Iterator<Item = &'a str>) -> Self {
        self.hidden = Hidden::new(values);
        self
    }

    /// Sets the shell variable `name` for the script.
    pub(crate) fn set(mut self, name: &'static str, value: &str) -> Result<Self> {
        self.assign(name, value)?;
        Ok(self)
    }

    /// Sets the shell variable `<prefix>_<number>_<field>`, for one of several things of the same kind.
    pub(crate) fn set_numbered(&mut self, prefix: &str, number: usize, field: &str, value: &str) -> Result<()> {
        self.assign(&format!("{prefix}_{number}_{field}"), value)
    }

    fn assign(&mut self, name: &str, value: &str) -> Result<()> {
        if value.contains('\0') {
            return Err(MachineError::invalid(name.to_lowercase(), "must not contain a NUL character"));
        }
        // Writing into a String cannot fail.
        let _ = writeln!(self.parameters, "{name}={}", quote(value));
        Ok(())
    }

    /// Runs the script and returns its answer. Error messages name `subject`: the artifact's URL or the package manager.
    pub(crate) async fn run(self, machine: &dyn Machine, subject: &str, timeout: Duration) -> Result<ScriptAnswer> {
        let mut parameters = self.parameters;
        // At least half of the time remains for the work itself.
        let wait = (timeout.as_secs() / 2).clamp(1, LOCK_SECONDS);
        let _ = writeln!(parameters, "LOCK_SECONDS='{wait}'");
        let output = machine.exec(self.script, Some(parameters.into()), timeout).await?;
        if output.success() { ScriptAnswer::parse(&output) } else { Err(failure(output, subject, &self.hidden)) }
    }
}

fn failure(mut output: Output, subject: &str, hidden: &Hidden) -> MachineError {
    // Before it is cut, because the half of a value would not be recognised.
    output.stderr = hidden.remove_from(&String::from_utf8_lossy(&output.stderr)).into();
    let reason = output.stderr_tail();
    let answer = ScriptAnswer::parse(&output).unwrap_or_default();
    let url = subject.to_owned();
    let fact = |name| answer.one(name).unwrap_or_default().to_owned();
    match output.status {
        exit_status::CONFLICT => MachineError::Conflict(reason),
        exit_status::BUSY => MachineError::Busy(reason),
        exit_status::MISSING_TOOL => MachineError::MissingTool(reason),
        exit_status::DOWNLOAD => MachineError::Download { url, reason },
        exit_status::DIGEST => MachineError::DigestMismatch { url, expected: fact("expected"), actual: fact("actual") },
        exit_status::UNPACK => MachineError::Unpack { url, reason },
        exit_status::HOOK if answer.all("problem").next().is_some() => {
            MachineError::FailedHook { problem: fact("problem"), printed: printed(&answer, hidden) }
        }
        exit_status::HOOK => MachineError::Hook { what: fact("hook"), reason },
        exit_status::CANNOT_RUN => MachineError::CannotRun(reason),
        exit_status::NO_VERSION => MachineError::NoSuchVersion { package: fact("package"), reason },
        exit_status::MANAGER => MachineError::PackageManager { name: url, reason },
        exit_status::UNSUITABLE => MachineError::Unsuitable(reason),
        exit_status::START => failed_start(&answer, hidden),
        exit_status::CHECK => MachineError::Hook { what: "check".to_owned(), reason },
        status => MachineError::Command { status, signal: output.signal, stderr: reason },
    }
}

fn failed_start(answer: &ScriptAnswer, hidden: &Hidden) -> MachineError {
    let fact = |name| answer.all(name).next().map(str::to_owned);
    let before = match (fact("back"), fact("lost")) {
        (Some(revision), _) => EarlierRelease::Runs(revision),
        (None, Some(revision)) => EarlierRelease::Failed(revision),
        (None, None) => EarlierRelease::None,
    };
    MachineError::FailedStart { problem: fact("problem").unwrap_or_default(), before, printed: printed(answer, hidden) }
}

/// The last lines that something on the machine has printed, which may be any bytes.
fn printed(answer: &ScriptAnswer, hidden: &Hidden) -> String {
    let printed = answer.all("printed").next().and_then(|hex| hex::decode(hex).ok()).unwrap_or_default();
    last_part(&hidden.remove_from(&String::from_utf8_lossy(&printed)))
}

/// The facts that a script reported, as pairs of name and value.
#[derive(Debug, Default)]
pub(crate) struct ScriptAnswer(Vec<(String, String)>);

impl ScriptAnswer {
    fn parse(output: &Output) -> Result<Self> {
        if output.truncated {
            return Err(MachineError::Answer("it is longer than Berth reads".to_owned()));
        }
        let text = std::str::from_utf8(&output.stdout)
            .map_err(|error| MachineError::Answer(format!("it is not UTF-8: {error}")))?;
        text.lines().map(Self::parse_line).collect::<Result<_>>().map(Self)
    }

    fn parse_line(line: &str) -> Result<(String, String)> {
        let fact =
            line.strip_prefix("fact ").ok_or_else(|| MachineError::Answer(format!("unexpected line {line:?}")))?;
        let (name, value) = fact.split_once(' ').unwrap_or((fact, ""));
        Ok((name.to_owned(), value.to_owned()))
    }

    /// All values of a fact, in the order reported.
    pub(crate) fn all<'a, 'n>(&'a self, name: &'n str) -> impl Iterator<Item = &'a str> + use<'a, 'n> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The value of a fact that must be reported exactly once.
    pub(crate) fn one(&self, name: &str) -> Result<&str> {
        let mut values = self.all(name);
        match (values.next(), values.next()) {
            (Some(value), None) => Ok(value),
            (None, _) => Err(MachineError::Answer(format!("{name:?} is missing"))),
            (Some(_), Some(_)) => Err(MachineError::Answer(format!("{name:?} is there more than once"))),
        }
    }

    /// The value of a fact that is `yes` or `no`.
    pub(crate) fn yes(&self, name: &str) -> Result<bool> {
        match self.one(name)? {
            "yes" => Ok(true),
            "no" => Ok(false),
            other => Err(MachineError::Answer(format!("{name:?} is {other:?}, not yes or no"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_with_a_stray_line_or_a_repeated_fact_is_refused() {
        let parse = |text: &str| ScriptAnswer::parse(&Output { stdout: text.into(), ..Output::default() });
        assert!(matches!(parse("fact a 1\nWelcome!\n"), Err(MachineError::Answer(text)) if text.contains("Welcome!")));
        let answer = parse("fact a 1\nfact a 2\nfact b yes\nfact c maybe\n").unwrap();
        assert!(matches!(answer.one("a"), Err(MachineError::Answer(_))));
        assert!(answer.yes("b").unwrap());
        assert!(matches!(answer.yes("c"), Err(MachineError::Answer(_))));
        assert!(matches!(answer.one("d"), Err(MachineError::Answer(_))));
    }
}
