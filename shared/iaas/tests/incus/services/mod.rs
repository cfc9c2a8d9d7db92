//! Applications on machines that systemd runs: Debian, in containers of Incus.

mod ends;
mod machine;
mod starts;
mod unit;
