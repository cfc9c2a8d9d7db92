//! The words that may stand in a command. A space, a newline or a `;` inside a name would make two commands of one.

use crate::error::Problem;

/// HAProxy's own rule for the names of backends and servers.
pub(crate) fn check_name(what: &str, name: &str) -> Result<(), Problem> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._:-".contains(c);
    if !name.is_empty() && name.chars().all(allowed) {
        return Ok(());
    }
    Err(Problem::NotSent(format!(
        "{name:?} cannot be the name of a {what}: HAProxy allows letters, digits and any of . _ : -"
    )))
}

/// A keyword or value of a `server` line: visible ASCII without what the runtime API or the configuration read as syntax.
pub(crate) fn check_option(option: &str) -> Result<(), Problem> {
    let allowed = |c: char| c.is_ascii_graphic() && !";\\'\"#<$".contains(c);
    if !option.is_empty() && option.chars().all(allowed) {
        return Ok(());
    }
    Err(Problem::NotSent(format!(
        "{option:?} cannot be an option of a server: give one word each, without spaces, quotes or any of ; \\ # < $"
    )))
}

#[cfg(test)]
mod tests {
    use super::{check_name, check_option};

    #[test]
    fn names_and_options_cannot_carry_a_second_command() {
        for good in ["web", "10.0.0.1:80", "a_b-c.d"] {
            check_name("backend", good).unwrap();
        }
        for bad in ["", "a b", "a;b", "a\nb", "a/b", "ä"] {
            assert!(check_name("backend", bad).is_err(), "{bad:?}");
        }
        for good in ["check", "2s", "str(x)", "send-proxy-v2"] {
            check_option(good).unwrap();
        }
        for bad in ["", "maxconn 3", "x;y", "x\ny", "<<", "\"x\"", "$HOME"] {
            assert!(check_option(bad).is_err(), "{bad:?}");
        }
    }
}
