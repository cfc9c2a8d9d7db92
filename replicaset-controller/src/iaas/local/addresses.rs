//! Loopback addresses: one machine each, without a race between processes that share the folder.

use std::{
    fs,
    io::ErrorKind,
    net::{Ipv4Addr, TcpListener},
    path::Path,
};

use sha2::{Digest as _, Sha256};

use super::{Error, Result, store::io};

/// Hosts of one /16 that are given out: 127.x.y.z with z from 1 to 254.
const HOSTS: u32 = 256 * 254;
/// Addresses that are tried before the folder counts as full.
const TRIES: u32 = 4096;

/// An address for this UID: the one that it has, else a free one. Where the search begins follows from the folder and
/// the UID, so that several folders on one computer seldom meet.
pub(super) fn allocate(dir: &Path, uid: &str, port: u16) -> Result<String> {
    if let Some(address) = taken_by(dir, uid)? {
        return Ok(address);
    }
    let draft = dir.join(format!(".{uid}.new"));
    fs::write(&draft, uid).map_err(io("cannot write", &draft))?;
    let found = candidates(dir, uid)
        .find_map(|address| take(&draft, &dir.join(address.to_string()), address, port).transpose());
    fs::remove_file(&draft).map_err(io("cannot remove", &draft))?;
    found.unwrap_or_else(|| Err(Error::Quota(format!("no loopback address is free for port {port}"))))
}

/// Takes the address if nobody of this folder has it, and nobody else uses it either. In this order, so that looking
/// never gets in the way of a machine that is just starting.
fn take(draft: &Path, path: &Path, address: Ipv4Addr, port: u16) -> Result<Option<String>> {
    match fs::hard_link(draft, path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(None),
        linked => linked.map_err(io("cannot take", path))?,
    }
    let address = address.to_string();
    if is_free(&address, port) {
        return Ok(Some(address));
    }
    fs::remove_file(path).map_err(io("cannot remove", path))?;
    Ok(None)
}

/// Gives back what this UID has.
pub(super) fn release(dir: &Path, uid: &str) -> Result<()> {
    while let Some(address) = taken_by(dir, uid)? {
        let path = dir.join(address);
        fs::remove_file(&path).map_err(io("cannot remove", &path))?;
    }
    Ok(())
}

/// Whether nobody listens there at this moment.
pub(super) fn is_free(address: &str, port: u16) -> bool {
    TcpListener::bind((address, port)).is_ok()
}

fn taken_by(dir: &Path, uid: &str) -> Result<Option<String>> {
    let entries = fs::read_dir(dir).map_err(io("cannot read", dir))?;
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    // A file that vanishes in between was somebody else's.
    Ok(names
        .filter(|name| !name.starts_with('.'))
        .find(|name| fs::read_to_string(dir.join(name)).is_ok_and(|owner| owner == uid)))
}

fn candidates(dir: &Path, uid: &str) -> impl Iterator<Item = Ipv4Addr> {
    // 127.0.0.0/12 is left to others, such as resolvers and test servers.
    let net = 16 + u8::try_from(number(dir.as_os_str().as_encoded_bytes()) % 224).unwrap_or(0);
    let first = number(uid.as_bytes()) % HOSTS;
    (0..TRIES).map(move |n| {
        let host = (first + n) % HOSTS;
        let (y, z) = (host / 254, host % 254 + 1);
        Ipv4Addr::new(127, net, u8::try_from(y).unwrap_or(0), u8::try_from(z).unwrap_or(1))
    })
}

fn number(bytes: &[u8]) -> u32 {
    let hash = Sha256::digest(bytes);
    hash.iter().take(4).fold(0, |n, byte| n << 8 | u32::from(*byte))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn processes_that_allocate_at_once_never_get_one_address_twice() {
        let dir = tempfile::tempdir().unwrap();
        let addresses: Vec<String> = std::thread::scope(|scope| {
            let dir = dir.path();
            let threads: Vec<_> = (0..8)
                .map(|t| {
                    scope.spawn(move || {
                        (0..16).map(|n| allocate(dir, &format!("{t}-{n}"), 2222).unwrap()).collect::<Vec<_>>()
                    })
                })
                .collect();
            threads.into_iter().flat_map(|t| t.join().unwrap()).collect()
        });
        assert_eq!(addresses.iter().collect::<BTreeSet<_>>().len(), 128);
        assert!(addresses.iter().all(|a| a.parse::<Ipv4Addr>().unwrap().is_loopback()));
    }

    #[test]
    fn an_address_is_kept_until_it_is_released() {
        let dir = tempfile::tempdir().unwrap();
        let first = allocate(dir.path(), "u", 2222).unwrap();
        assert_eq!(allocate(dir.path(), "u", 2222).unwrap(), first);
        release(dir.path(), "u").unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        release(dir.path(), "u").unwrap();
    }

    #[test]
    fn an_address_on_which_somebody_listens_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let wanted = candidates(dir.path(), "u").next().unwrap();
        let listener = TcpListener::bind((wanted, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_ne!(allocate(dir.path(), "u", port).unwrap(), wanted.to_string());
    }
}
