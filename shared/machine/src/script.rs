//! How a step gets its parameters to the machine and its facts back.
//!
//! The script's text is constant and goes as the command; parameters go through standard input as shell assignments in
//! single quotes. So no value is ever part of a command line, where other users of the machine could read it, and none
//! can be taken for shell syntax.
//!
//! A step writes nothing to standard output but lines `fact NAME WORD...`, and ends with one of the statuses that
//! `scripts/common.sh` names.

use std::{fmt::Write as _, time::Duration};

use crate::{Error, Machine, Output, Result};

const COMMON: &str = include_str!("scripts/common.sh");

/// Statuses that a step ends with on purpose; the same numbers stand in `scripts/common.sh`.
pub(crate) mod status {
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
}

/// Value in single quotes, safe for every POSIX shell.
pub(crate) fn quote(value: &str) -> String {
    format!("'{}'", value.replace('\'', r"'\''"))
}

/// One step: a constant script and its parameters.
pub(crate) struct Step {
    body: &'static str,
    parameters: String,
}

impl Step {
    /// The whole text that runs on the machine.
    pub(crate) fn text(parts: &[&str]) -> String {
        let mut text = COMMON.to_owned();
        for part in parts {
            text.push_str(part);
        }
        text
    }

    pub(crate) fn new(body: &'static str) -> Self {
        Self { body, parameters: String::new() }
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
            return Err(Error::invalid(name.to_lowercase(), "must not contain a NUL character"));
        }
        // Writing into a String cannot fail.
        let _ = writeln!(self.parameters, "{name}={}", quote(value));
        Ok(())
    }

    /// Runs the step and returns its facts; `subject` is the artifact's URL or the package manager, for messages.
    pub(crate) async fn run(self, machine: &dyn Machine, subject: &str, timeout: Duration) -> Result<Facts> {
        let output = machine.exec(self.body, Some(self.parameters.into()), timeout).await?;
        if output.success() { Facts::parse(&output) } else { Err(failure(output, subject)) }
    }
}

fn failure(output: Output, subject: &str) -> Error {
    let reason = output.stderr_tail();
    let facts = Facts::parse(&output).unwrap_or_default();
    let url = subject.to_owned();
    let fact = |name| facts.one(name).unwrap_or_default().to_owned();
    match output.status {
        status::CONFLICT => Error::Conflict(reason),
        status::BUSY => Error::Busy(reason),
        status::MISSING_TOOL => Error::MissingTool(reason),
        status::DOWNLOAD => Error::Download { url, reason },
        status::DIGEST => Error::DigestMismatch { url, expected: fact("expected"), actual: fact("actual") },
        status::UNPACK => Error::Unpack { url, reason },
        status::HOOK => Error::Hook { what: fact("hook"), reason },
        status::NO_VERSION => Error::NoSuchVersion { package: fact("package"), reason },
        status::MANAGER => Error::PackageManager { name: url, reason },
        status::UNSUITABLE => Error::Unsuitable(reason),
        status::CHECK => Error::Hook { what: "check".to_owned(), reason },
        status => Error::Command { status, signal: output.signal, stderr: reason },
    }
}

/// What a step reported.
#[derive(Debug, Default)]
pub(crate) struct Facts(Vec<(String, String)>);

impl Facts {
    fn parse(output: &Output) -> Result<Self> {
        if output.truncated {
            return Err(Error::Answer("it is longer than Berth keeps".to_owned()));
        }
        let text =
            std::str::from_utf8(&output.stdout).map_err(|error| Error::Answer(format!("it is not UTF-8: {error}")))?;
        text.lines()
            .map(|line| {
                let rest =
                    line.strip_prefix("fact ").ok_or_else(|| Error::Answer(format!("unexpected line {line:?}")))?;
                let (name, value) = rest.split_once(' ').unwrap_or((rest, ""));
                Ok((name.to_owned(), value.to_owned()))
            })
            .collect::<Result<_>>()
            .map(Self)
    }

    /// All values of a fact, in the order reported.
    pub(crate) fn all<'a, 'n>(&'a self, name: &'n str) -> impl Iterator<Item = &'a str> + use<'a, 'n> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The value of a fact that must be there exactly once.
    pub(crate) fn one(&self, name: &str) -> Result<&str> {
        let mut values = self.all(name);
        match (values.next(), values.next()) {
            (Some(value), None) => Ok(value),
            (None, _) => Err(Error::Answer(format!("{name:?} is missing"))),
            (Some(_), Some(_)) => Err(Error::Answer(format!("{name:?} is there more than once"))),
        }
    }

    /// A fact that is `yes` or `no`.
    pub(crate) fn yes(&self, name: &str) -> Result<bool> {
        match self.one(name)? {
            "yes" => Ok(true),
            "no" => Ok(false),
            other => Err(Error::Answer(format!("{name:?} is {other:?}, not yes or no"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_real_shell_reads_back_every_quoted_value() {
        for value in ["", "plain", "it's", "''", "$(id) `id` \\ \"x\" *", "two\nlines\n", "ü — 漢", "-n", "!!"] {
            let script = "eval \"$(cat)\"; printf %s. \"$V\"";
            let mut child = std::process::Command::new("sh")
                .args(["-c", script])
                .stdin(std::process::Stdio::piped())
                .stdout(std::process::Stdio::piped())
                .spawn()
                .unwrap();
            let mut stdin = child.stdin.take().unwrap();
            std::io::Write::write_all(&mut stdin, format!("V={}\n", quote(value)).as_bytes()).unwrap();
            drop(stdin);
            let output = child.wait_with_output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{value}."));
        }
    }

    #[test]
    fn an_answer_with_a_stray_line_or_a_doubled_fact_is_refused() {
        let parse = |text: &str| Facts::parse(&Output { stdout: text.into(), ..Output::default() });
        assert!(matches!(parse("fact a 1\nWelcome!\n"), Err(Error::Answer(text)) if text.contains("Welcome!")));
        let facts = parse("fact a 1\nfact a 2\nfact b yes\nfact c maybe\n").unwrap();
        assert!(matches!(facts.one("a"), Err(Error::Answer(_))));
        assert!(facts.yes("b").unwrap());
        assert!(matches!(facts.yes("c"), Err(Error::Answer(_))));
        assert!(matches!(facts.one("d"), Err(Error::Answer(_))));
    }
}
