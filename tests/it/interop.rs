//! Calls from software that nobody here wrote, against the built program: SIPp 3.6 (signalling, UDP
//! and TCP; it has no TLS), baresip 1.0 (real media in each codec that both sides have, over UDP, TCP
//! and TLS) and Kamailio 5.6 (the registrar that we register with, and a proxy on the way), all as
//! Debian ships them. Where SIPp is transferred, the test is its ear and its voice; codecs that neither
//! phone has SIPp plays from a capture. Required where
//! `CI` is true, skipped elsewhere when the program is missing. Each test has a daemon of its own on
//! free loopback ports.

mod agents;
mod baresip;
mod bridged;
mod callee;
mod ear;
mod kamailio;
mod phone;
mod recorded;
mod referred;
mod rig;
mod sipp;
