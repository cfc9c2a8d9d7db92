//! Packages of package managers, on Debian machines with repositories of their own.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on says where")]

mod apt;
mod debian;
mod dnf;
