//! What a HAProxy process can do, asked of itself: versions and distributions differ in what they switch on.

use std::collections::BTreeSet;

use crate::error::Problem;

/// The commands that this client uses to change servers, and those that read.
const NEEDED: [&str; 6] =
    ["add server", "del server", "enable health", "set server", "show servers state", "show stat"];

/// What a process can do over this socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// The socket's `level`: `admin`, `operator` or `user`. Only `admin` changes servers.
    pub level: String,
    commands: BTreeSet<String>,
}

impl Capabilities {
    /// From the answers to `help` and `show cli level`.
    pub(crate) fn parse(help: &str, level: &str) -> Result<Self, Problem> {
        let Some((_, list)) = help.split_once('\n').filter(|(head, _)| head.contains("commands are valid")) else {
            return Err(Problem::garbled("the list of commands", help));
        };
        let level = level.trim();
        if !["admin", "operator", "user"].contains(&level) {
            return Err(Problem::garbled("the level `admin`, `operator` or `user`", level));
        }
        // `  add server <bk>/<srv>                   : create a new server`
        let words = |line: &str| {
            let plain = |word: &&str| word.chars().all(|c| c.is_ascii_lowercase() || c == '-');
            line.split_whitespace().take_while(plain).collect::<Vec<_>>().join(" ")
        };
        Ok(Self { level: level.to_owned(), commands: list.lines().map(words).collect() })
    }

    /// Whether the process knows a command, such as `add server`.
    #[must_use]
    pub fn has(&self, command: &str) -> bool {
        self.commands.contains(command)
    }

    /// What keeps this client from managing servers here, in words. `None` when nothing does.
    #[must_use]
    pub fn missing(&self) -> Option<String> {
        if self.level != "admin" {
            return Some(format!("the socket has `level {}`; changes of servers need `level admin`", self.level));
        }
        let missing: Vec<_> = NEEDED.into_iter().filter(|command| !self.has(command)).collect();
        (!missing.is_empty()).then(|| format!("this HAProxy does not know: {}", missing.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::Capabilities;

    #[test]
    fn what_a_real_haproxy_lists_is_enough() {
        let help = include_str!("../tests/answers/help.txt");
        let capabilities = Capabilities::parse(help, "admin\n").unwrap();
        assert!(capabilities.has("add server") && capabilities.has("show stat"));
        assert_eq!(capabilities.missing(), None);
        let level = Capabilities::parse(help, "operator").unwrap().missing().unwrap();
        assert!(level.contains("`level operator`"), "{level}");
        let old: String = help.split_inclusive('\n').filter(|line| !line.contains("del server")).collect();
        let missing = Capabilities::parse(&old, "admin").unwrap().missing().unwrap();
        assert_eq!(missing, "this HAProxy does not know: del server");
        assert!(Capabilities::parse("hello", "admin").is_err());
        assert!(Capabilities::parse(help, "root").is_err());
    }
}
