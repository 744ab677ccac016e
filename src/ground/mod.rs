//! Floor 0: what every machine stands on. Time as a value, chance from one source, the ordered
//! index of deadlines, ports, identifiers, the limits table and secrets that do not print.
//! Nothing here does I/O or asks a clock.

pub mod entropy;
pub mod ids;
pub mod limits;
pub mod ports;
pub mod secret;
pub mod time;
pub mod timers;

pub use entropy::Entropy;
pub use ids::{CallKey, Flow, FlowId, JobId, LegId, StreamId, Transport};
pub use secret::Secret;
pub use time::{Instant, Now, WallTime};
pub use timers::{SlotTimers, TimerIndex};
