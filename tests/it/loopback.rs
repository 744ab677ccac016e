//! The real daemon over real sockets: the torture sets, mutations, races, leaks, rules, faults of
//! the agent service, and the fallback handler.

mod calls;
mod faults;
mod hands;
mod mutations;
mod rules;
mod spray;
mod torture;
mod webhook;
