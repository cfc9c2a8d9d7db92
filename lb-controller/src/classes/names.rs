//! The names of entries in load balancers. Pure.
//!
//! A name belongs to one registration: a Server, by its UID, at one address. So a command of a copy that is no longer in charge never
//! meets the entry of a later registration, and everybody sees whose an entry is. Entries with other names are left alone.

use berth_core::digest;

use crate::member::ServerRef;

/// What all names begin with.
const PREFIX: &str = "berth";

/// The name of the Server's entry at this address. Every character of it is allowed in names of HAProxy.
#[must_use]
pub fn name_of(server: &ServerRef, address: &str, port: u16) -> String {
    format!("{}{}", prefix_of(server), digest::short(&(address, port)))
}

/// What the names of all entries of the Server begin with.
pub(super) fn prefix_of(server: &ServerRef) -> String {
    let ServerRef { namespace, name, uid } = server;
    format!("{PREFIX}:{namespace}:{name}:{uid}:")
}

/// The Server whose entry has this name; none if it is no name of Berth's.
#[must_use]
pub fn server_of(name: &str) -> Option<ServerRef> {
    let mut parts = name.split(':');
    let (PREFIX, namespace, name, uid, _, None) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?, parts.next()?, parts.next())
    else {
        return None;
    };
    Some(ServerRef { namespace: namespace.to_owned(), name: name.to_owned(), uid: uid.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_whose_it_is_and_changes_with_the_address() {
        let server = ServerRef { namespace: "shop".into(), name: "web-0".into(), uid: "1f-2e".into() };
        let name = name_of(&server, "10.0.0.1", 80);
        assert_eq!(server_of(&name), Some(server.clone()));
        assert_ne!(name, name_of(&server, "10.0.0.2", 80));
        assert_ne!(name, name_of(&server, "10.0.0.1", 81));
        assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.:-".contains(&byte)), "{name}");
        for foreign in ["web1", "berth", "berth:a:b:c", "berth:a:b:c:d:e", "other:a:b:c:d"] {
            assert_eq!(server_of(foreign), None, "{foreign}");
        }
    }
}
