//! The map of voxedge.

pub mod ground;

pub mod codec;
pub mod rtp;
pub mod sdp;
pub mod sip;
pub mod ultravox;

pub mod media;

pub mod account;
pub mod admission;
pub mod billing;
pub mod context;
pub mod routing;

pub mod call;
pub mod refusal;
pub mod switchboard;

pub mod shell;
pub mod standin;

pub mod cli;
