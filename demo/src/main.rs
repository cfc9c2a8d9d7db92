//! The demonstration: a whole Berth on this machine, from nothing to Ready.

fn main() {}
