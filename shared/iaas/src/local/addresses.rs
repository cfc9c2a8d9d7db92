//! Loopback addresses: each belongs to one machine, also when several processes share the folder.

use std::{
    fs,
    io::ErrorKind,
    net::{Ipv4Addr, TcpListener},
    path::Path,
};

use sha2::{Digest as _, Sha256};

use super::file_error::during;
use crate::error::{ProviderError, Result};

/// Addresses of one /16 that are used: 127.x.y.z with z from 1 to 254.
const HOSTS: u32 = 256 * 254;
/// Addresses that are tried before all count as taken: the search stays short, and so many machines fit no host.
const MOST_CANDIDATES: u32 = 4096;

/// The address of this UID, or a free one that it gets. The folder and the UID determine where the search begins, so that
/// several folders on one host seldom try the same addresses.
pub(super) fn allocate(dir: &Path, uid: &str, port: u16) -> Result<String> {
    if let Some(address) = address_of(dir, uid)? {
        return Ok(address);
    }
    let draft = dir.join(format!(".{uid}.new"));
    fs::write(&draft, uid).map_err(during("cannot write", &draft))?;
    let found = candidates(dir, uid)
        .find_map(|address| take(&draft, &dir.join(address.to_string()), address, port).transpose());
    fs::remove_file(&draft).map_err(during("cannot remove", &draft))?;
    found.unwrap_or_else(|| Err(ProviderError::Quota(format!("no loopback address is free for port {port}"))))
}

/// Takes the address if no UID of this folder has it and no other program uses it. In this order, because the second check
/// listens on the address for a moment, which could disturb a machine that is just starting.
fn take(draft: &Path, path: &Path, address: Ipv4Addr, port: u16) -> Result<Option<String>> {
    match fs::hard_link(draft, path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(None),
        linked => linked.map_err(during("cannot take", path))?,
    }
    let address = address.to_string();
    if is_free(&address, port) {
        return Ok(Some(address));
    }
    fs::remove_file(path).map_err(during("cannot remove", path))?;
    Ok(None)
}

/// Gives up the address of this UID.
pub(super) fn release(dir: &Path, uid: &str) -> Result<()> {
    while let Some(address) = address_of(dir, uid)? {
        let path = dir.join(address);
        fs::remove_file(&path).map_err(during("cannot remove", &path))?;
    }
    Ok(())
}

/// Whether no program listens on the port of the address at the moment.
pub(super) fn is_free(address: &str, port: u16) -> bool {
    TcpListener::bind((address, port)).is_ok()
}

fn address_of(dir: &Path, uid: &str) -> Result<Option<String>> {
    let entries = fs::read_dir(dir).map_err(during("cannot read", dir))?;
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    // A file that vanishes in between belonged to another UID.
    Ok(names
        .filter(|name| !name.starts_with('.'))
        .find(|name| fs::read_to_string(dir.join(name)).is_ok_and(|owner| owner == uid)))
}

fn candidates(dir: &Path, uid: &str) -> impl Iterator<Item = Ipv4Addr> {
    // 127.0.0.0/12 is left to other programs, such as resolvers and test servers.
    let net = 16 + u8::try_from(number(dir.as_os_str().as_encoded_bytes()) % 224).unwrap_or(0);
    let first = number(uid.as_bytes()) % HOSTS;
    (0..MOST_CANDIDATES).map(move |n| {
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
    fn concurrent_allocations_never_get_the_same_address() {
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
    fn an_address_that_another_program_uses_is_skipped() {
        let dir = tempfile::tempdir().unwrap();
        let wanted = candidates(dir.path(), "u").next().unwrap();
        let listener = TcpListener::bind((wanted, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_ne!(allocate(dir.path(), "u", port).unwrap(), wanted.to_string());
    }
}
