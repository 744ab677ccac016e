//! The service manager's side (systemd, Type=notify): ready, stopping and the watchdog. Where no
//! service manager asked, all of it does nothing.

use sd_notify::NotifyState;
use std::time::Duration;

/// How often the watchdog is fed when nobody asked for one.
const UNWATCHED: Duration = Duration::from_secs(5);

/// Calls are taken.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The drain has begun.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// All parts make progress.
pub fn feed() {
    tell(&[NotifyState::Watchdog]);
}

/// Ticks at half of the time that the service manager allows.
pub fn interval() -> tokio::time::Interval {
    let period = sd_notify::watchdog_enabled().map_or(UNWATCHED, |allowed| allowed / 2);
    tokio::time::interval(period)
}

fn tell(states: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}
