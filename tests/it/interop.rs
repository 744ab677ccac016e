//! Calls from software that nobody here wrote, against the built program: SIPp 3.6 (signalling, UDP
//! and TCP; it has no TLS) and baresip 1.0 (real media in each codec that both sides have, over UDP,
//! TCP and TLS), both as Debian ships them. Required where `CI` is true, skipped elsewhere when the
//! program is missing. Each test has a daemon of its own on free loopback ports.

mod baresip;
mod rig;
mod sipp;
