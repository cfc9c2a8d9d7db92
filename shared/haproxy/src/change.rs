//! Changes of servers, the commands that make them, and the answers that mean success.

use std::{fmt, net::IpAddr, time::Duration};

use crate::{
    answer::Success,
    error::Problem,
    word::{check_name, check_option},
};

/// The highest weight of a server.
pub(crate) const MAX_WEIGHT: u16 = 256;

/// A server: the backend it is in, and its name there.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerId {
    /// The name of the backend, or of the `listen` section.
    pub backend: String,
    /// The name of the server.
    pub name: String,
}

impl ServerId {
    /// A server of a backend.
    #[must_use]
    pub fn new(backend: impl Into<String>, name: impl Into<String>) -> Self {
        Self { backend: backend.into(), name: name.into() }
    }

    pub(crate) fn check(&self) -> Result<(), Problem> {
        check_name("backend", &self.backend)?;
        check_name("server", &self.name)
    }
}

impl fmt::Display for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.backend, self.name)
    }
}

/// What the administrator wants of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AdminState {
    /// It takes traffic, as far as its checks allow.
    Ready,
    /// It takes no new traffic, except from clients that are bound to it. Its checks go on.
    Drain,
    /// It takes no traffic, and its checks stop. Requests in flight go on.
    Maint,
}

impl AdminState {
    /// HAProxy's word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Drain => "drain",
            Self::Maint => "maint",
        }
    }
}

/// HAProxy's own health check of a server. What is `None` has HAProxy's default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckOptions {
    /// The time between two checks (`inter`, by default 2 s). HAProxy counts in milliseconds.
    pub interval: Option<Duration>,
    /// How many checks must pass until the server is up (`rise`, by default 2).
    pub rise: Option<u32>,
    /// How many checks must fail until the server is down (`fall`, by default 3).
    pub fall: Option<u32>,
    /// The port that is checked, when it is not the server's own.
    pub port: Option<u16>,
}

/// A server to add. The same values make the same server at run time and in the configuration (see [`crate::config`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewServer {
    /// Its backend and its name.
    pub id: ServerId,
    /// Its IP address. A host name would be accepted at run time and never be resolved.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// Its weight, 0 to 256.
    pub weight: u16,
    /// Its health check.
    pub check: Option<CheckOptions>,
    /// Further words of the `server` line, one keyword or value each, such as `maxconn` and `100`. The backend's
    /// `default-server` does not apply to servers added at run time, and they keep no idle connections unless `pool-max-conn`
    /// says so.
    pub options: Vec<String>,
}

impl NewServer {
    /// The words behind the name of the server.
    pub(crate) fn arguments(&self) -> Result<String, Problem> {
        self.id.check()?;
        check_weight(self.weight)?;
        let mut words = vec![socket_address(self.address, self.port), format!("weight {}", self.weight)];
        if let Some(check) = &self.check {
            words.push("check".to_owned());
            words.extend(check.interval.map(|interval| format!("inter {}ms", interval.as_millis().max(1))));
            words.extend(check.rise.map(|rise| format!("rise {}", rise.max(1))));
            words.extend(check.fall.map(|fall| format!("fall {}", fall.max(1))));
            words.extend(check.port.map(|port| format!("port {port}")));
        }
        for option in &self.options {
            check_option(option)?;
            words.push(option.clone());
        }
        Ok(words.join(" "))
    }
}

fn socket_address(address: IpAddr, port: u16) -> String {
    match address {
        IpAddr::V4(address) => format!("{address}:{port}"),
        IpAddr::V6(address) => format!("[{address}]:{port}"),
    }
}

fn check_weight(weight: u16) -> Result<(), Problem> {
    if weight <= MAX_WEIGHT {
        return Ok(());
    }
    Err(Problem::NotSent(format!("{weight} cannot be the weight of a server: the highest is {MAX_WEIGHT}")))
}

/// A change of one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerChange {
    /// Adds a server. It begins in maintenance, with its check switched off: [`Self::Enable`] ends both.
    Add(NewServer),
    /// Switches the server's check on, if it has one, and sets it to ready.
    Enable(ServerId),
    /// Sets the weight, 0 to 256.
    SetWeight(ServerId, u16),
    /// Sets the administrative state.
    SetState(ServerId, AdminState),
    /// Sets the address and the port. Requests in flight stay where they are. HAProxy 3 shows the new ones a moment later.
    SetAddress(ServerId, IpAddr, u16),
    /// Deletes the server. It must be in maintenance, with nothing in flight and no idle connection. What always works is to drain
    /// it, to wait until nothing is in flight, then maintenance, and then this: entering maintenance closes the connections that
    /// are idle at that moment, but not that of a request which ends later.
    Delete(ServerId),
}

/// A command, and what answer means success.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Command {
    pub(crate) text: String,
    pub(crate) success: Success,
}

impl ServerChange {
    /// The server that is changed.
    #[must_use]
    pub const fn server(&self) -> &ServerId {
        match self {
            Self::Add(server) => &server.id,
            Self::Enable(id)
            | Self::SetWeight(id, _)
            | Self::SetState(id, _)
            | Self::SetAddress(id, ..)
            | Self::Delete(id) => id,
        }
    }

    /// The commands that make the change, in their order.
    pub(crate) fn commands(&self) -> Result<Vec<Command>, Problem> {
        let id = self.server();
        id.check()?;
        let one = |text: String, success| vec![Command { text, success }];
        let state = |state: AdminState| format!("set server {id} state {}", state.as_str());
        Ok(match self {
            Self::Add(server) => one(format!("add server {id} {}", server.arguments()?), Success::Added),
            Self::Enable(_) => vec![
                Command { text: format!("enable health {id}"), success: Success::SilentOrNoCheck },
                Command { text: state(AdminState::Ready), success: Success::Silent },
            ],
            Self::SetWeight(_, weight) => {
                check_weight(*weight)?;
                one(format!("set server {id} weight {weight}"), Success::Silent)
            }
            Self::SetState(_, wanted) => one(state(*wanted), Success::Silent),
            Self::SetAddress(_, address, port) => {
                one(format!("set server {id} addr {address} port {port}"), Success::AddressSet)
            }
            Self::Delete(_) => one(format!("del server {id}"), Success::Deleted),
        })
    }
}

impl fmt::Display for ServerChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Add(server) => write!(f, "add {}", server.id),
            Self::Enable(id) => write!(f, "enable {id}"),
            Self::SetWeight(id, weight) => write!(f, "set the weight of {id} to {weight}"),
            Self::SetState(id, state) => write!(f, "set {id} to {}", state.as_str()),
            Self::SetAddress(id, address, port) => {
                write!(f, "set the address of {id} to {}", socket_address(*address, *port))
            }
            Self::Delete(id) => write!(f, "delete {id}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{AdminState, CheckOptions, NewServer, ServerChange, ServerId};

    fn texts(change: &ServerChange) -> Vec<String> {
        change.commands().unwrap().into_iter().map(|command| command.text).collect()
    }

    #[test]
    fn changes_become_commands() {
        let id = ServerId::new("web", "a");
        let server = NewServer {
            id: id.clone(),
            address: "::1".parse().unwrap(),
            port: 8080,
            weight: 10,
            check: Some(CheckOptions {
                interval: Some(Duration::from_millis(300)),
                rise: Some(3),
                ..CheckOptions::default()
            }),
            options: vec!["maxconn".to_owned(), "100".to_owned()],
        };
        assert_eq!(
            texts(&ServerChange::Add(server)),
            ["add server web/a [::1]:8080 weight 10 check inter 300ms rise 3 maxconn 100"]
        );
        assert_eq!(texts(&ServerChange::Enable(id.clone())), ["enable health web/a", "set server web/a state ready"]);
        assert_eq!(texts(&ServerChange::SetWeight(id.clone(), 256)), ["set server web/a weight 256"]);
        assert_eq!(texts(&ServerChange::SetState(id.clone(), AdminState::Drain)), ["set server web/a state drain"]);
        assert_eq!(
            texts(&ServerChange::SetAddress(id.clone(), "10.0.0.1".parse().unwrap(), 80)),
            ["set server web/a addr 10.0.0.1 port 80"]
        );
        assert_eq!(texts(&ServerChange::Delete(id)), ["del server web/a"]);
    }

    #[test]
    fn a_change_that_cannot_be_said_is_not_sent() {
        let error = ServerChange::SetWeight(ServerId::new("web", "a"), 257).commands().unwrap_err();
        assert_eq!(error.to_string(), "not sent: 257 cannot be the weight of a server: the highest is 256");
        assert!(ServerChange::Delete(ServerId::new("web", "a; del server web/b")).commands().is_err());
    }
}
