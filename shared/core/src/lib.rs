//! The API types of Berth and the pure life cycle of a Server: no I/O, no clock.
