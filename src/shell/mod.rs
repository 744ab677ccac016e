//! Floor 5: the thin shell around the machines. Here are the sockets, TLS, HTTP, files, threads and
//! tasks, the only clock and the only source of true chance. The shell decides nothing about calls.

pub mod account;
pub mod admin;
pub mod agent;
pub mod clock;
pub mod config;
pub mod connect;
pub mod daemon;
pub mod entropy;
pub mod flow;
pub mod log;
pub mod media;
pub mod resolver;
pub mod signalling;
pub mod sounds;
pub mod sources;
pub mod store;
pub mod supervise;
pub mod tls;
pub mod webhook;
