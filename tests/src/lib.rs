//! Fixtures of the whole-system tests.
