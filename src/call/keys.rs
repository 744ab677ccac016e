//! Keys that the caller presses, on their way to the agent: by RTP (RFC 4733 events or tones, which the
//! media plane hears) and by INFO (`application/dtmf-relay`, `application/dtmf`). A key that comes both
//! ways is one key. Keys in quick succession are told together, as Ultravox does for its own telephone
//! media (`dtmfHandling`). Between bridged legs keys are passed on. Which keys they were stands in no
//! ladder, log or record: they may be a PIN.

use super::deed::{Deed, KeySender};
use super::ladder::Lane;
use super::{Act, Call};
use crate::ground::{Instant, LegId, Now};
use crate::media::plan::{Key, MediaCommand};
use crate::sip::ua::SessionId;
use crate::ultravox::data_message::ClientMessage;
use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

/// Keys that are told in one message; more begin the next one.
const KEYS_MAX: usize = 64;
/// The same key by another way within this time is the same press. A PBX that sends both does so at
/// once, or the one at the press and the other at the release.
const TWICE: Duration = Duration::from_secs(1);
/// Presses that are remembered for it.
const REMEMBERED_MAX: usize = 32;
/// How long a key counts as pressed when its INFO does not say.
const INFO_DURATION: Duration = Duration::from_millis(160);

/// A key counts as pressed for so long at most, whatever its INFO says.
const DURATION_MAX: Duration = Duration::from_secs(2);
/// The pause after a key that is passed on.
const PASSED_GAP: Duration = Duration::from_millis(60);
/// Keys on their way over a bridge; more are dropped.
const PASSING_MAX: u32 = 32;

/// The way that a key came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyWay {
    /// In RTP: an event, or tones.
    Media,
    Info,
}

/// How a key came, for metrics and the record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyPath {
    /// As a telephone-event (RFC 4733).
    Event,
    /// By INFO.
    Info,
    /// As tones in the audio.
    Tones,
}

impl KeyPath {
    pub fn label(self) -> &'static str {
        match self {
            KeyPath::Event => "rfc4733",
            KeyPath::Info => "info",
            KeyPath::Tones => "inband",
        }
    }
}

/// Keys that wait to be told, and presses that the other way may bring again. Keys never print.
#[derive(Default)]
pub struct Keys {
    waiting: String,
    due: Option<Instant>,
    pressed: VecDeque<Press>,
    /// On their way to the other leg of a bridge.
    passing: u32,
}

#[derive(Clone, Copy)]
struct Press {
    leg: LegId,
    way: KeyWay,
    key: char,
    at: Instant,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({} waiting)", self.waiting.len())
    }
}

impl Keys {
    /// When the waiting keys are to be told.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }

    /// Takes a press that lasted for `duration` until now; false when it came the other way before.
    fn take(&mut self, press: Press, duration: Duration) -> bool {
        let longest = TWICE + duration.min(DURATION_MAX);
        while self.pressed.front().is_some_and(|one| press.at.since(one.at) > longest) {
            self.pressed.pop_front();
        }
        let twin =
            |one: &Press| one.leg == press.leg && one.way != press.way && one.key == press.key;
        if let Some(place) = self.pressed.iter().position(twin) {
            self.pressed.remove(place);
            return false;
        }
        if self.pressed.len() >= REMEMBERED_MAX {
            self.pressed.pop_front();
        }
        self.pressed.push_back(press);
        true
    }

    fn add(&mut self, key: char, due: Instant) {
        self.waiting.push(key);
        self.due = Some(due);
    }

    /// The waiting keys, once.
    fn drain(&mut self) -> String {
        self.due = None;
        std::mem::take(&mut self.waiting)
    }
}

/// What an INFO brings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Info {
    Key {
        key: char,
        duration: Duration,
    },
    /// Nothing to act on: no body, or a hook flash.
    Nothing,
}

/// What is wrong with an INFO.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InfoFault {
    /// 415; [`INFO_TYPES`] are read.
    OtherType,
    /// 400.
    Malformed,
}

/// The bodies of an INFO that are read, for `Accept` (RFC 3261 §21.4.13).
pub const INFO_TYPES: &str = "application/dtmf-relay, application/dtmf";

/// Reads the body of an INFO. Its type is as the header says, parameters included.
///
/// # Errors
/// [`InfoFault`].
pub fn read_info(content_type: Option<&str>, body: &[u8]) -> Result<Info, InfoFault> {
    if body.is_empty() {
        return Ok(Info::Nothing);
    }
    let media_type = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    let text = std::str::from_utf8(body).map_err(|_| InfoFault::Malformed);
    if media_type.eq_ignore_ascii_case("application/dtmf-relay") {
        read_relay(text?)
    } else if media_type.eq_ignore_ascii_case("application/dtmf") {
        read_signal(text?.trim_end_matches(['\r', '\n']), INFO_DURATION)
    } else {
        Err(InfoFault::OtherType)
    }
}

/// `Signal=5` and `Duration=160`, one to a line. Other lines are passed over.
fn read_relay(text: &str) -> Result<Info, InfoFault> {
    let (mut signal, mut duration) = (None, INFO_DURATION);
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once('=').ok_or(InfoFault::Malformed)?;
        let (name, value) = (name.trim(), value.trim());
        if name.eq_ignore_ascii_case("signal") && signal.replace(value).is_some() {
            return Err(InfoFault::Malformed);
        }
        if name.eq_ignore_ascii_case("duration") {
            let ms: u16 = value.parse().map_err(|_| InfoFault::Malformed)?;
            duration = Duration::from_millis(ms.into());
        }
    }
    read_signal(signal.ok_or(InfoFault::Malformed)?, duration)
}

/// A key, or the number of its event (RFC 4733 §3.2: 10 is `*`, 16 the hook flash).
fn read_signal(signal: &str, duration: Duration) -> Result<Info, InfoFault> {
    let key = match signal {
        "10" => '*',
        "11" => '#',
        "12" | "a" => 'A',
        "13" | "b" => 'B',
        "14" | "c" => 'C',
        "15" | "d" => 'D',
        "16" | "!" => return Ok(Info::Nothing),
        _ => {
            let mut characters = signal.chars();
            match (characters.next(), characters.next()) {
                (Some(key @ ('0'..='9' | '*' | '#' | 'A'..='D')), None) => key,
                _ => return Err(InfoFault::Malformed),
            }
        }
    };
    Ok(Info::Key { key, duration })
}

impl Call {
    /// A key by INFO, in the dialog of one of the legs.
    pub fn on_info_key(
        &mut self,
        now: Now,
        session: SessionId,
        key: char,
        duration: Duration,
        out: &mut Vec<Act>,
    ) {
        if let Some(leg) = self.leg(session).map(|leg| leg.id) {
            self.on_key(now, leg, (KeyWay::Info, key), duration, out);
        }
    }

    /// A key of a leg: the other leg's when both are bridged. Else only the first leg's are the agent's
    /// to hear, and only while it speaks with it; those that come while it is lost wait for the next.
    pub fn on_key(
        &mut self,
        now: Now,
        leg: LegId,
        (way, key): (KeyWay, char),
        duration: Duration,
        out: &mut Vec<Act>,
    ) {
        if self.is_ending() {
            return;
        }
        let bridged = self.bridged_with(leg);
        let press = Press { leg, way, key, at: now.at };
        if (leg != self.first.id && bridged.is_none()) || !self.keys.take(press, duration) {
            return;
        }
        let path = self.key_path(press);
        self.count_key(path, out);
        let words = match path {
            KeyPath::Event => "telephone-event",
            KeyPath::Info => "INFO with a key",
            KeyPath::Tones => "tones of a key",
        };
        self.note(now, Lane::Media, format!("{words}, {} ms", duration.as_millis()));
        if let Some(other) = bridged {
            // Tones pass in the audio by themselves.
            if path != KeyPath::Tones {
                self.pass_key(now, press, other, duration, out);
            }
            return;
        }
        let is_heard = self.is_answered() && self.transfer.is_none();
        if self.settings.hands.keys.ignore || !is_heard {
            return;
        }
        let is_full = self.keys.waiting.len() + 1 >= KEYS_MAX;
        match self.agent_joined {
            Some(_) => {
                self.keys.add(key, now.at + self.settings.hands.keys.pause);
                if is_full {
                    self.tell_keys(now, out);
                }
            }
            None if is_full => self.note(now, Lane::Media, "dropped: too many keys wait"),
            None => self.keys.waiting.push(key),
        }
    }

    /// The leg that hears this one over the bridge.
    fn bridged_with(&self, leg: LegId) -> Option<LegId> {
        let is_bridged =
            self.transfer.as_ref().is_some_and(|transfer| transfer.machine.is_bridged());
        let second = self.second_id().filter(|_| is_bridged)?;
        match leg == self.first.id {
            true => Some(second),
            false => (leg == second).then_some(self.first.id),
        }
    }

    /// How this key came: a leg that agreed to telephone-events is heard by no tones.
    fn key_path(&mut self, press: Press) -> KeyPath {
        let plan = self.leg_named(press.leg).and_then(|leg| leg.plan.as_ref());
        let has_events = plan.is_some_and(|plan| plan.telephone_event.is_some());
        match press.way {
            KeyWay::Info => KeyPath::Info,
            KeyWay::Media if has_events => KeyPath::Event,
            KeyWay::Media => KeyPath::Tones,
        }
    }

    fn count_key(&mut self, path: KeyPath, out: &mut Vec<Act>) {
        let keys = &mut self.cdr.keys;
        *match path {
            KeyPath::Event => &mut keys.rfc4733,
            KeyPath::Info => &mut keys.info,
            KeyPath::Tones => &mut keys.inband,
        } += 1;
        out.push(Act::Tell(Deed::KeyReceived(path)));
    }

    /// Presses a key of one bridged leg towards the other.
    fn pass_key(
        &mut self,
        now: Now,
        press: Press,
        other: LegId,
        duration: Duration,
        out: &mut Vec<Act>,
    ) {
        if self.keys.passing >= PASSING_MAX {
            return self.note(now, Lane::Media, "dropped: too many keys wait");
        }
        self.keys.passing += 1;
        self.cdr.keys.passed_on += 1;
        out.push(Act::Tell(Deed::KeysSent { sender: KeySender::Bridge, count: 1 }));
        self.note(now, Lane::Media, "the key is passed on");
        let (keys, tone) = (vec![Key(press.key)], duration.min(DURATION_MAX));
        let command = MediaCommand::SendKeys { leg: other, keys, tone, gap: PASSED_GAP };
        out.push(Act::Media(command));
    }

    /// A key that was passed on has been pressed.
    pub(super) fn on_key_passed(&mut self) {
        self.keys.passing = self.keys.passing.saturating_sub(1);
    }

    /// A transfer begins: keys that wait are the present agent's still. Without one they are nobody's.
    pub(super) fn settle_keys(&mut self, now: Now, out: &mut Vec<Act>) {
        match self.agent_joined {
            Some(_) if !self.keys.waiting.is_empty() => self.tell_keys(now, out),
            _ => drop(self.keys.drain()),
        }
    }

    /// There is an agent again: it hears of the keys that waited for it.
    pub(super) fn release_keys(&mut self, now: Now) {
        if !self.keys.waiting.is_empty() {
            self.keys.due = Some(now.at + self.settings.hands.keys.pause);
        }
    }

    /// The pause after the last key is over: the agent hears of them.
    pub(super) fn on_keys_due(&mut self, now: Now, out: &mut Vec<Act>) {
        if self.keys.due.take_if(|due| *due <= now.at).is_some() && self.agent_joined.is_some() {
            self.tell_keys(now, out);
        }
    }

    fn tell_keys(&mut self, now: Now, out: &mut Vec<Act>) {
        let keys = self.keys.drain();
        let settings = &self.settings.hands.keys;
        let text = settings.text.replace("{digits}", &keys);
        let message = ClientMessage::UserText { text, urgency: settings.urgency };
        self.note(now, Lane::Agent, format!("{} keys  edge → Ultravox", keys.len()));
        self.tell_agent(self.agent, &message, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(10_000 + ms)
    }

    fn key(key: char, ms: u64) -> Result<Info, InfoFault> {
        Ok(Info::Key { key, duration: Duration::from_millis(ms) })
    }

    #[test]
    fn an_info_is_read_strictly() {
        let relay = Some("application/dtmf-relay");
        let dtmf = Some("Application/DTMF; charset=utf-8");
        for (content_type, body, expected) in [
            (relay, "Signal=5\r\nDuration=200\r\n", key('5', 200)),
            (relay, "signal = *\nduration = 90", key('*', 90)),
            (relay, "Signal=#", key('#', 160)),
            (relay, "Signal=10\r\nDuration=100\r\n", key('*', 100)),
            (relay, "Signal=11", key('#', 160)),
            (relay, "Signal=D", key('D', 160)),
            (relay, "Signal=16\r\n", Ok(Info::Nothing)),
            (relay, "Signal=5\r\nSignal=6\r\n", Err(InfoFault::Malformed)),
            (relay, "Signal=\r\n", Err(InfoFault::Malformed)),
            (relay, "Signal=55\r\n", Err(InfoFault::Malformed)),
            (relay, "Signal=5\r\nDuration=-1\r\n", Err(InfoFault::Malformed)),
            (relay, "Duration=100\r\n", Err(InfoFault::Malformed)),
            (relay, "5", Err(InfoFault::Malformed)),
            (relay, "\u{661}", Err(InfoFault::Malformed)),
            (dtmf, "7", key('7', 160)),
            (dtmf, "7\r\n", key('7', 160)),
            (dtmf, "77", Err(InfoFault::Malformed)),
            (dtmf, " ", Err(InfoFault::Malformed)),
            (Some("application/media_control+xml"), "<x/>", Err(InfoFault::OtherType)),
            (None, "5", Err(InfoFault::OtherType)),
            (None, "", Ok(Info::Nothing)),
            (Some("text/plain"), "", Ok(Info::Nothing)),
        ] {
            assert_eq!(
                read_info(content_type, body.as_bytes()),
                expected,
                "{content_type:?} {body:?}"
            );
        }
        assert_eq!(read_info(dtmf, &[0xff]), Err(InfoFault::Malformed));
    }

    /// `m` by media, `i` by INFO, with the key and its time; the keys that are taken.
    fn taken(presses: &str) -> String {
        let mut keys = Keys::default();
        let mut taken = String::new();
        for press in presses.split_whitespace() {
            let mut characters = press.chars();
            let way = if characters.next() == Some('m') { KeyWay::Media } else { KeyWay::Info };
            let key = characters.next().expect("a key");
            let ms = characters.as_str().parse().expect("a time");
            let press = Press { leg: LegId::CALLER, way, key, at: at(ms) };
            if keys.take(press, Duration::from_millis(100)) {
                taken.push(key);
            }
        }
        taken
    }

    #[test]
    fn a_key_that_comes_both_ways_is_one_key() {
        for (presses, expected) in [
            ("m10 i110", "1"),
            ("i10 m1900", "1"),
            ("m10 i11100", "1"),
            ("m10 i11101", "11"),
            ("m10 m1100", "11"),
            ("m10 i10 m1200 i1200", "11"),
            ("m10 m1150 i120 i1170", "11"),
            ("m10 i20 m2100 i1110", "12"),
            ("i10 i1300 i1600", "111"),
        ] {
            assert_eq!(taken(presses), expected, "{presses}");
        }
    }

    #[test]
    fn a_peer_does_not_say_for_how_long_keys_are_twins() {
        for (ms, taken) in [(3_000, false), (3_001, true)] {
            let mut keys = Keys::default();
            let press = |way, at| Press { leg: LegId::CALLER, way, key: '1', at };
            assert!(keys.take(press(KeyWay::Media, at(0)), Duration::ZERO));
            let longest = Duration::from_millis(u16::MAX.into());
            assert_eq!(keys.take(press(KeyWay::Info, at(ms)), longest), taken, "{ms}");
            assert!(keys.take(Press { leg: LegId(1), ..press(KeyWay::Info, at(ms)) }, longest));
        }
    }

    #[test]
    fn what_is_remembered_is_bounded_and_prints_no_key() {
        let mut keys = Keys::default();
        for ms in 0..200 {
            let way = KeyWay::Media;
            keys.take(Press { leg: LegId::CALLER, way, key: '7', at: at(ms) }, Duration::ZERO);
            keys.add('7', at(ms + 750));
        }
        assert_eq!((keys.pressed.len(), keys.poll_timeout()), (REMEMBERED_MAX, Some(at(949))));
        assert_eq!(format!("{keys:?}"), "Keys(200 waiting)");
        assert_eq!((keys.drain().len(), keys.poll_timeout()), (200, None));
    }
}
