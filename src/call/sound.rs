//! Sounds of a call: those that the daemon made at its start, and what became of one that was fetched.
//! Whoever asked for one that cannot be had plays a default in its place.

use super::ladder::Lane;
use super::tool::HoldMusic;
use super::{Act, Call};
use crate::ground::Now;
use crate::media::plan::{MediaCommand, Sound};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The daemon's own sounds; `None`: silence.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Sounds {
    /// Music for who waits on hold. Repeats.
    pub hold: Option<Arc<Sound>>,
    /// What a caller hears while a target rings. Repeats.
    pub ringback: Option<Arc<Sound>>,
    /// Played once to a caller whose agent was lost.
    pub lost: Option<Arc<Sound>>,
}

/// Why a sound could not be had from its URL. The words hold no part of the URL.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SoundFault {
    /// No http or https URL that may be asked.
    BadUrl,
    /// It leads to a private address.
    PrivateAddress,
    Unreachable,
    /// What came ended before its end.
    BrokenOff,
    TimedOut,
    /// It leads elsewhere, too often or to where it may not.
    Redirected,
    /// An answer that is not 200.
    Status(u16),
    TooLong,
    /// What came cannot be played, and why.
    Unplayable(String),
}

impl fmt::Display for SoundFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SoundFault::BadUrl => f.write_str("the sound's URL is none of the web"),
            SoundFault::PrivateAddress => f.write_str(
                "the sound's URL leads to a private address: see fallback.allowed_private",
            ),
            SoundFault::Unreachable => f.write_str("the sound's server cannot be reached"),
            SoundFault::BrokenOff => f.write_str("the sound broke off while it came"),
            SoundFault::Redirected => f.write_str(
                "the sound's URL is redirected too often, to no URL of the web, or from https to http",
            ),
            SoundFault::TimedOut => f.write_str("the sound did not come in time"),
            SoundFault::Status(status) => write!(f, "the sound's server answered {status}"),
            SoundFault::TooLong => f.write_str("the sound is longer than 5 MB"),
            SoundFault::Unplayable(why) => write!(f, "the sound cannot be played: {why}"),
        }
    }
}

/// How long hold music may take to come; the daemon's own plays when it does not.
const MUSIC: Duration = Duration::from_secs(4);

/// What of its music a call waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Music {
    #[default]
    Off,
    /// It is fetched.
    Awaited,
    On,
}

impl Call {
    /// From now on our own place in the scene sounds of this; the scene says who hears it. Music of a
    /// URL begins when it came.
    pub(super) fn play_music(&mut self, music: &HoldMusic, out: &mut Vec<Act>) {
        let sound = match music {
            HoldMusic::Default => self.settings.hands.sounds.hold.clone(),
            HoldMusic::None => None,
            HoldMusic::Url(url) => {
                self.music = Music::Awaited;
                out.push(Act::FetchSound { url: url.clone(), budget: MUSIC });
                return;
            }
        };
        self.music = Music::On;
        out.push(Act::Media(MediaCommand::Play { sound }));
    }

    /// Nobody waits any more.
    pub(super) fn stop_music(&mut self, out: &mut Vec<Act>) {
        self.music = Music::Off;
        out.push(Act::Media(MediaCommand::Play { sound: None }));
    }

    /// Music came, or did not: then there is that of the daemon.
    pub fn on_sound_fetched(
        &mut self,
        now: Now,
        fetched: Result<Arc<Sound>, SoundFault>,
        out: &mut Vec<Act>,
    ) {
        if self.music != Music::Awaited || self.is_ending() {
            return;
        }
        self.music = Music::On;
        let sound = match fetched {
            Ok(sound) => Some(sound),
            Err(fault) => {
                self.note(now, Lane::Media, format!("{fault}; the default music plays"));
                self.cdr.sound_faults.push(fault.to_string());
                self.settings.hands.sounds.hold.clone()
            }
        };
        out.push(Act::Media(MediaCommand::Play { sound }));
    }
}
