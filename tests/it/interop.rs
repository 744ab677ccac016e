//! Calls from software that nobody here wrote, against the built program: SIPp 3.6 (signalling, UDP
//! and TCP; it has no TLS), baresip 1.0 (real media in each codec that both sides have, over UDP, TCP
//! and TLS) and Kamailio 5.6 (the registrar that we register with), all as Debian ships them. Required where `CI` is true, skipped elsewhere when the
//! program is missing. Each test has a daemon of its own on free loopback ports.

mod baresip;
mod callee;
mod kamailio;
mod rig;
mod sipp;
