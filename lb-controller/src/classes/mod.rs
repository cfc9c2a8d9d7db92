//! Load balancers outside of the cluster: the BalancerClasses.
//!
//! Each class has a [`driver`], which reads and changes processes such as those of an HAProxy. Everything else is the same for
//! all of them: `worker` follows one class, collects changes, decides what a panic floor withholds, makes all processes show what they
//! should, and reads back what they show each second; [`view`] compares the two.
//!
//! # One copy at a time
//!
//! Such load balancers store no version of the Server that was decided on, and cannot compare and swap. So the copy of this program that
//! holds the Lease `lb-controller-classes` carries out all traffic of Servers with such a backend, and the others leave them alone. Two
//! more things guard against a copy that has lost the Lease without knowing it: the name of an entry belongs to one registration (see
//! [`names`]), and after traffic was given the Server is read from the API server again, and traffic taken away if that was decided
//! meanwhile. What remains is a copy that stops for more than five seconds between the look at its Lease and a command, and then
//! goes on: for up to a second, until the copy in charge reads back, a Server that was held gets traffic.

mod balancers;
mod batch;
pub mod driver;
mod drivers;
mod first;
mod floor;
mod in_use;
mod metrics;
mod named;
pub mod names;
mod ramp;
mod shared;
mod split;
mod status;
pub mod view;
mod weights;
mod worker;

pub use balancers::ClassBalancers;
pub use drivers::{Drivers, configured};
pub(crate) use weights::weights;
