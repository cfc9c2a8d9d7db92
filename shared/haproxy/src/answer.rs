//! The answers that mean success. Whatever else HAProxy says is a refusal.

use crate::error::{Problem, RefusalKind};

/// What HAProxy says when a command succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Success {
    /// Nothing.
    Silent,
    /// Nothing, or that the server has no check.
    SilentOrNoCheck,
    /// That the server was added, perhaps behind warnings.
    Added,
    /// That the server was deleted.
    Deleted,
    /// Which of address and port changed.
    AddressSet,
}

/// How `set server addr` begins when it succeeded, for each half.
const ADDRESS_SET: [&str; 4] =
    ["IP changed from '", "no need to change the addr", "port changed from '", "no need to change the port"];

impl Success {
    /// Judges an answer. A success may bring warnings.
    pub(crate) fn judge(self, answer: &str) -> Result<Option<String>, Problem> {
        let text = answer.trim();
        let succeeded = match self {
            Self::Silent => text.is_empty(),
            Self::SilentOrNoCheck => text.is_empty() || RefusalKind::of(text) == RefusalKind::NoHealthCheck,
            Self::Deleted => text == "Server deleted.",
            Self::Added => match text.rsplit_once('\n').unwrap_or(("", text)) {
                (warnings, last) if is_added(last) => {
                    return Ok(Some(warnings.trim().to_owned()).filter(|warnings| !warnings.is_empty()));
                }
                _ => false,
            },
            Self::AddressSet => is_address_set(text),
        };
        if succeeded { Ok(None) } else { Err(Problem::refused(text)) }
    }
}

fn is_added(line: &str) -> bool {
    line == "New server registered." || line.ends_with("' : New server registered.")
}

/// Like `IP changed from '10.0.0.1' to '10.0.0.2', no need to change the port by 'stats socket command'`. An error in the second
/// half stands behind a success in the first.
fn is_address_set(text: &str) -> bool {
    if text == "nothing changed" {
        // HAProxy 3.0 and newer.
        return true;
    }
    let Some((halves, _)) = text.rsplit_once(" by '") else { return false };
    halves.split(", ").all(|half| ADDRESS_SET.iter().any(|begin| half.starts_with(begin)))
}

#[cfg(test)]
mod tests {
    use super::Success;
    use crate::error::{Problem, RefusalKind};

    fn refusal(success: Success, answer: &str) -> RefusalKind {
        match success.judge(answer).unwrap_err() {
            Problem::Refused { kind, .. } => kind,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn only_the_known_words_are_a_success() {
        assert_eq!(Success::Silent.judge("\n").unwrap(), None);
        assert_eq!(refusal(Success::Silent, "Done."), RefusalKind::Unknown);
        assert_eq!(Success::Added.judge("New server registered.\n").unwrap(), None);
        assert_eq!(Success::Added.judge("'server web/a' : New server registered.").unwrap(), None);
        assert_eq!(
            Success::Added
                .judge("System might be unstable, consider to execute a reload\nNew server registered.")
                .unwrap(),
            Some("System might be unstable, consider to execute a reload".to_owned())
        );
        assert_eq!(refusal(Success::Added, ""), RefusalKind::Unknown);
        assert_eq!(Success::Deleted.judge("Server deleted.").unwrap(), None);
        assert_eq!(
            refusal(Success::Deleted, "Server still has connections attached to it, cannot remove it."),
            RefusalKind::HasConnections
        );
        let without = "Health check was not configured on this server, cannot enable.\n";
        assert_eq!(Success::SilentOrNoCheck.judge(without).unwrap(), None);
        assert_eq!(refusal(Success::SilentOrNoCheck, "No such server."), RefusalKind::NoSuchServer);
    }

    #[test]
    fn an_address_is_set_when_both_halves_say_so() {
        for good in [
            "no need to change the addr, port changed from '18103' to '18104' by 'stats socket command'",
            "IP changed from '127.0.0.1' to '127.0.0.2', no need to change the port by 'stats socket command'",
            "IP changed from '127.0.0.1' to '127.0.0.2', port changed from '1' to '2' by 'stats socket command'",
            "nothing changed",
        ] {
            assert_eq!(Success::AddressSet.judge(good).unwrap(), None, "{good}");
        }
        for bad in [
            "",
            "Invalid addr 'foo' by 'stats socket command'",
            "IP changed from '127.0.0.1' to '127.0.0.2', problem converting port 'x' to an int by 'stats socket command'",
        ] {
            assert_eq!(refusal(Success::AddressSet, bad), RefusalKind::Unknown, "{bad}");
        }
    }
}
