//! Where to find machines, so that nobody has to look at all of them.

use std::collections::{BTreeMap, BTreeSet};

/// Account and UID of the Server of a machine.
pub(super) type Key = (String, String);

/// The machines by their address and by their Server.
#[derive(Debug, Default)]
pub(super) struct Index {
    at: BTreeMap<u32, Key>,
    /// How many machines each Server has.
    counts: BTreeMap<String, usize>,
    /// The Servers that have more than one machine.
    several: BTreeSet<String>,
}

impl Index {
    /// Notes a new machine.
    pub(super) fn add(&mut self, key: &Key, address: u32) {
        self.at.insert(address, key.clone());
        let count = self.counts.entry(key.1.clone()).or_default();
        *count += 1;
        if *count > 1 {
            self.several.insert(key.1.clone());
        }
    }

    /// Forgets a machine.
    pub(super) fn remove(&mut self, key: &Key, address: u32) {
        self.at.remove(&address);
        let Some(count) = self.counts.get_mut(&key.1) else { return };
        *count -= 1;
        if *count < 2 {
            self.several.remove(&key.1);
        }
        if *count == 0 {
            self.counts.remove(&key.1);
        }
    }

    /// The machine with this address.
    pub(super) fn at(&self, address: u32) -> Option<&Key> {
        self.at.get(&address)
    }

    /// Whether the Server with this UID has a machine.
    pub(super) fn has(&self, uid: &str) -> bool {
        self.counts.contains_key(uid)
    }

    /// The first Server that has more than one machine.
    pub(super) fn first_with_several(&self) -> Option<&str> {
        self.several.first().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_found_by_its_address_and_its_server() {
        let (one, other) = (("a".to_owned(), "uid".to_owned()), ("b".to_owned(), "uid".to_owned()));
        let mut index = Index::default();
        index.add(&one, 1);
        assert_eq!((index.at(1), index.has("uid"), index.first_with_several()), (Some(&one), true, None));
        index.add(&other, 2);
        assert_eq!(index.first_with_several(), Some("uid"));
        index.remove(&one, 1);
        assert_eq!((index.at(1), index.at(2), index.first_with_several()), (None, Some(&other), None));
        index.remove(&other, 2);
        assert!(!index.has("uid"));
    }
}
