//! The real daemon over real sockets: the torture sets, mutations, races, leaks, rules and faults of
//! the agent service.

mod calls;
mod faults;
mod mutations;
mod rules;
mod torture;
