//! Carries out traffic tasks on load balancers.
