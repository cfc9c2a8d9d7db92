//! What went wrong: where HAProxy was asked, what it was asked, and what came back.

use std::{fmt, io, time::Duration};

/// The result of a call.
pub type Result<T> = std::result::Result<T, HaproxyError>;

/// How many characters of an answer an error message shows.
const EXCERPT: usize = 200;

/// A call that failed. Its text says where HAProxy was asked, what it was asked, and what came back.
#[derive(Debug, thiserror::Error)]
#[error("HAProxy at {address}, asked `{command}`: {problem}")]
pub struct HaproxyError {
    /// Where HAProxy was asked.
    pub address: String,
    /// The command, as it was sent. `connect` stands for the connection itself.
    pub command: String,
    /// What went wrong.
    pub problem: Problem,
}

impl HaproxyError {
    /// Why HAProxy refused the command, when it did.
    #[must_use]
    pub fn refusal(&self) -> Option<RefusalKind> {
        match &self.problem {
            Problem::Refused { kind, .. } => Some(*kind),
            _ => None,
        }
    }

    /// Whether nobody knows if HAProxy carried out the command: it was sent, and no complete answer came back.
    #[must_use]
    pub fn is_uncertain(&self) -> bool {
        self.command != CONNECT
            && matches!(
                self.problem,
                Problem::TimedOut { .. } | Problem::CutOff { .. } | Problem::Broken(_) | Problem::TooLong { .. }
            )
    }
}

/// The command of an error that happened before any command was sent.
pub(crate) const CONNECT: &str = "connect";

/// What went wrong with a call.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// No connection could be made: nothing listens there, or its certificate is not trusted.
    #[error("cannot connect: {0}")]
    Unreachable(#[source] io::Error),
    /// No complete answer came in time.
    #[error("no complete answer within {after:?}; so far came: {received}")]
    TimedOut {
        /// The time limit.
        after: Duration,
        /// The end of what came, or `nothing`.
        received: String,
    },
    /// HAProxy closed the connection before the answer was complete.
    #[error("the connection was closed before the answer was complete; so far came: {received}")]
    CutOff {
        /// The end of what came, or `nothing`.
        received: String,
    },
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(#[source] io::Error),
    /// The answer is longer than any that HAProxy gives.
    #[error("the answer is longer than {limit} bytes")]
    TooLong {
        /// The limit in bytes.
        limit: usize,
    },
    /// The answer is not one that HAProxy gives to this command.
    #[error("the answer is not {expected}: {answer}")]
    Garbled {
        /// What the answer should be.
        expected: String,
        /// The beginning of the answer.
        answer: String,
    },
    /// HAProxy refused the command, or answered with words that this client does not know.
    #[error("HAProxy answered: {answer}")]
    Refused {
        /// Which refusal it is.
        kind: RefusalKind,
        /// HAProxy's own words.
        answer: String,
    },
    /// The command was not sent.
    #[error("not sent: {0}")]
    NotSent(String),
}

/// The refusals that HAProxy is known to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalKind {
    /// HAProxy has no backend of this name.
    NoSuchBackend,
    /// The backend has no server of this name.
    NoSuchServer,
    /// The master has no worker with this process id: it has ended.
    NoSuchWorker,
    /// The backend already has a server of this name.
    AlreadyExists,
    /// The server still has requests or idle connections, so it cannot be deleted yet.
    HasConnections,
    /// A server can be deleted only while it is in maintenance.
    NotInMaintenance,
    /// Something in the configuration refers to the server, so it can never be deleted at run time.
    InUseByConfiguration,
    /// The backend's balancing is static (`source`, `static-rr` ... without `hash-type consistent`): servers cannot be added,
    /// and weights can only be 0 % or 100 %.
    StaticBalancing,
    /// The server was added without `check`.
    NoHealthCheck,
    /// The worker is leaving after a reload: it only finishes its requests.
    WorkerIsLeaving,
    /// The socket's `level` does not allow the command; it must be `admin`.
    PermissionDenied,
    /// This HAProxy does not know the command.
    UnknownCommand,
    /// None of the above: read the answer.
    Unknown,
}

/// The refusals, by how their text begins. The texts are those of HAProxy 2.6 to 3.4.
const REFUSALS: [(&str, RefusalKind); 18] = [
    ("No such backend", RefusalKind::NoSuchBackend),
    ("No such proxy", RefusalKind::NoSuchBackend),
    ("Can't find backend", RefusalKind::NoSuchBackend),
    ("No such server", RefusalKind::NoSuchServer),
    ("Can't find the target PID", RefusalKind::NoSuchWorker),
    ("Can't connect to the target CLI", RefusalKind::NoSuchWorker),
    ("Already exists a server with the same name", RefusalKind::AlreadyExists),
    ("Server still has connections", RefusalKind::HasConnections),
    ("Only servers in maintenance mode can be deleted", RefusalKind::NotInMaintenance),
    ("This server cannot be removed at runtime", RefusalKind::InUseByConfiguration),
    ("Backend must use a dynamic load balancing", RefusalKind::StaticBalancing),
    ("Backend does not support dynamic servers", RefusalKind::StaticBalancing),
    ("Backend is using a static LB algorithm", RefusalKind::StaticBalancing),
    ("Health check was not configured", RefusalKind::NoHealthCheck),
    ("Proxy is disabled", RefusalKind::WorkerIsLeaving),
    ("Permission denied", RefusalKind::PermissionDenied),
    ("Unknown command", RefusalKind::UnknownCommand),
    ("This command is restricted to", RefusalKind::UnknownCommand),
];

impl RefusalKind {
    /// The refusal with this text. An `add server` puts the server's name in front: `'server web/a' : Already exists ...`.
    pub(crate) fn of(answer: &str) -> Self {
        let known = |text: &str| REFUSALS.iter().find(|(begin, _)| text.starts_with(begin)).map(|(_, kind)| *kind);
        let behind_name = || answer.split_once("' : ").and_then(|(_, text)| known(text));
        known(answer).or_else(behind_name).unwrap_or(Self::Unknown)
    }

    /// The refusal with this text, unless the text is none of the known ones.
    pub(crate) fn known(answer: &str) -> Option<Self> {
        Some(Self::of(answer)).filter(|kind| *kind != Self::Unknown)
    }
}

impl Problem {
    pub(crate) fn refused(answer: &str) -> Self {
        Self::Refused { kind: RefusalKind::of(answer), answer: excerpt(answer) }
    }

    pub(crate) fn garbled(expected: impl fmt::Display, answer: &str) -> Self {
        Self::Garbled { expected: expected.to_string(), answer: excerpt(answer) }
    }
}

/// The beginning of a text, on one line and without control characters.
pub(crate) fn excerpt(text: &str) -> String {
    let text = text.trim();
    if text.is_empty() {
        return "nothing".to_owned();
    }
    let mut short: String =
        text.chars().take(EXCERPT).map(|c| if c == '\n' { ' ' } else { c }).flat_map(visible).collect();
    if text.chars().count() > EXCERPT {
        short.push_str(" ...");
    }
    short
}

/// The end of what came, for an answer that is not complete.
pub(crate) fn tail(received: &[u8]) -> String {
    let text = String::from_utf8_lossy(received);
    let from = text.char_indices().rev().nth(EXCERPT - 1).map_or(0, |(at, _)| at);
    excerpt(text.get(from..).unwrap_or_default())
}

fn visible(c: char) -> impl Iterator<Item = char> {
    let escaped = if c.is_control() { Some(c.escape_default()) } else { None };
    let plain = if c.is_control() { None } else { Some(c) };
    escaped.into_iter().flatten().chain(plain)
}

#[cfg(test)]
mod tests {
    use super::{Problem, RefusalKind, excerpt};

    #[test]
    fn known_refusals_have_a_kind_and_others_keep_their_words() {
        assert_eq!(RefusalKind::of("No such backend."), RefusalKind::NoSuchBackend);
        assert_eq!(
            RefusalKind::of("'server web/a' : Already exists a server with the same name in backend."),
            RefusalKind::AlreadyExists
        );
        assert_eq!(RefusalKind::of("weight of server c is not within 0 and 256 (300).."), RefusalKind::Unknown);
        let Problem::Refused { kind, answer } =
            Problem::refused("'cookie' option is not accepted for dynamic server\n")
        else {
            panic!("a refusal")
        };
        assert_eq!(
            (kind, answer.as_str()),
            (RefusalKind::Unknown, "'cookie' option is not accepted for dynamic server")
        );
    }

    #[test]
    fn excerpts_are_short_and_printable() {
        assert_eq!(excerpt(" \n"), "nothing");
        assert_eq!(excerpt("a\nb\u{1b}[31m"), "a b\\u{1b}[31m");
        assert_eq!(excerpt(&"é".repeat(500)).chars().count(), 204);
    }
}
