//! Probes the health of machines and applications, and carries out monitoring tasks.

fn main() {}
