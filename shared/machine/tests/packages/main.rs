//! Packages of package managers, on Debian machines with repositories of their own.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a failed precondition should panic where it is")]

mod apt;
mod debian;
mod dnf;
