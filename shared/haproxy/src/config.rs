//! The `server` lines of HAProxy's configuration.
//!
//! Servers that were added at run time are gone after a reload or restart; those of the configuration are not. HAProxy's
//! configuration has no way to include a file within a section: a section does not go on in the next file, and a second section of
//! the same name is refused. So [`server_list`] is made to be copied into the configuration by a script, and `etag` lets the
//! script ask whether it has changed.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

use crate::{change::NewServer, error::Problem, word::check_name};

/// A server of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfiguredServer {
    /// The server.
    pub server: NewServer,
    /// Whether it takes traffic from the start. Otherwise it begins in maintenance, until it is enabled at run time.
    pub enabled: bool,
}

/// The servers of one backend as text: a comment that says how many they are, then a line for each, in the order of their names.
/// The same servers always make the same text.
pub fn server_list(backend: &str, servers: &[ConfiguredServer]) -> Result<String, Problem> {
    check_name("backend", backend)?;
    let mut sorted: Vec<_> = servers.iter().collect();
    sorted.sort_by(|a, b| a.server.id.cmp(&b.server.id));
    if let Some(pair) = sorted.windows(2).find(|pair| matches!(pair, [a, b] if a.server.id == b.server.id)) {
        let name = pair.first().map_or("", |server| &server.server.id.name);
        return Err(Problem::NotSent(format!("{name} is listed twice; HAProxy refuses two servers of one name")));
    }
    // Who reads the text can tell from the count that nothing is missing.
    let mut text = format!("# backend {backend}, {} servers\n", sorted.len());
    for ConfiguredServer { server, enabled } in sorted {
        if server.id.backend != backend {
            return Err(Problem::NotSent(format!("{} is not a server of the backend {backend}", server.id)));
        }
        let disabled = if *enabled { "" } else { " disabled" };
        let written = writeln!(text, "    server {} {}{disabled}", server.id.name, server.arguments()?);
        written.map_err(|error| Problem::NotSent(error.to_string()))?;
    }
    Ok(text)
}

/// The entity tag of a text, for HTTP's `ETag` and `If-None-Match`, with its quotes.
#[must_use]
pub fn etag(text: &str) -> String {
    format!("\"{}\"", hex::encode(Sha256::digest(text)))
}

#[cfg(test)]
mod tests {
    use super::{ConfiguredServer, etag, server_list};
    use crate::change::{CheckOptions, NewServer, ServerId};

    fn server(name: &str, enabled: bool) -> ConfiguredServer {
        let server = NewServer {
            id: ServerId::new("web", name),
            address: "10.0.0.1".parse().unwrap(),
            port: 80,
            weight: 5,
            check: Some(CheckOptions { fall: Some(2), ..CheckOptions::default() }),
            options: vec!["maxconn".to_owned(), "9".to_owned()],
        };
        ConfiguredServer { server, enabled }
    }

    #[test]
    fn the_list_is_sorted_and_says_its_length() {
        let text = server_list("web", &[server("b", false), server("a", true)]).unwrap();
        assert_eq!(
            text,
            "# backend web, 2 servers\n    server a 10.0.0.1:80 weight 5 check fall 2 maxconn 9\n    \
             server b 10.0.0.1:80 weight 5 check fall 2 maxconn 9 disabled\n"
        );
        assert_eq!(text, server_list("web", &[server("a", true), server("b", false)]).unwrap());
        assert_eq!(server_list("web", &[]).unwrap(), "# backend web, 0 servers\n");
        assert_ne!(etag(&text), etag(&server_list("web", &[]).unwrap()));
        assert_eq!(etag("").len(), 66);
    }

    #[test]
    fn a_list_that_haproxy_would_refuse_is_not_made() {
        let twice = server_list("web", &[server("a", true), server("a", false)]).unwrap_err();
        assert!(twice.to_string().contains("a is listed twice"), "{twice}");
        assert!(server_list("api", &[server("a", true)]).unwrap_err().to_string().contains("web/a is not a server of"));
        let mut bad = server("a", true);
        bad.server.options = vec!["x\nbackend evil".to_owned()];
        assert!(server_list("web", &[bad]).is_err());
    }
}
