//! The admission webhook: computes the next state of a Server on every write.

fn main() {}
