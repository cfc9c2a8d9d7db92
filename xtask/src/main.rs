//! Chores of the repository: generated files and checks.

fn main() {}
