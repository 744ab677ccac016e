//! The agent service as the shell talks to it: REST here, the media stream in its shard.

pub mod rest;

pub use rest::{AgentService, AgentServiceSettings, SettingsFault};
