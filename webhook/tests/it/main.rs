//! Tests of the webhook from outside: requests in, responses out.
#![cfg(test)]

mod bodies;
mod client_certificates;
mod clocks;
mod hostile;
mod random_writes;
mod requests;
mod router;
mod secret;
mod tls;
