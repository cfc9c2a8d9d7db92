//! x
mod edit;
mod endpoint;
mod layout;
