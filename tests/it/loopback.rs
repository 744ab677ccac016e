//! The real daemon over real sockets: the torture sets, mutations, races, leaks, rules, faults of
//! the agent service, the fallback handler, and extended reports.

mod calls;
mod faults;
mod hands;
mod mutations;
mod reports;
mod rules;
mod spray;
mod torture;
mod webhook;
