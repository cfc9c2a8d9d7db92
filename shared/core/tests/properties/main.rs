//! Properties of every Server, whatever is declared and whatever happens to it.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod any;
mod complete;
mod documents;
mod fleet;
mod left_over;
mod lives;
mod machine_classes;
mod malformed;
mod mutations;
