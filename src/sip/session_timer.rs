//! Session timers (RFC 4028) as a leaf machine: what our requests ask for, what our answers say, when to
//! refresh, and when the peer has gone without a word. It writes no message and asks no clock; the user
//! agent sends the refresh and tells the end.
//!
//! | who refreshes | at half of the interval | min(32 s, a third) before its end |
//! |---|---|---|
//! | we | Refresh, and again when it failed | Expired |
//! | the peer | nothing | Expired |
//!
//! Each 2xx to an INVITE or UPDATE, of either side, sets everything anew; one without Session-Expires
//! stops it (§7.2). The words `uac` and `uas` are those of that one request.

use super::msg::{Headers, Name, Params};
use crate::ground::Instant;
use std::time::Duration;

/// The shortest interval that anyone may ask for, in seconds (§4).
pub const MIN_SE_S: u32 = 90;

/// What a request of ours asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Asked {
    interval_s: u32,
    min_se_s: u32,
    /// Left open in the first request (§7.1).
    refresher: Option<Refresher>,
}

/// Who refreshes, seen from one request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refresher {
    /// Who sent the request.
    Uac,
    /// Who answered it.
    Uas,
}

/// What is due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TimerEffect {
    /// Send a refresh, and say how it went.
    Refresh,
    /// The session is not refreshed: it is to be ended. Said once.
    Expired,
}

/// The session timer of one dialog.
#[derive(Clone, Debug)]
pub struct SessionTimer {
    /// What we ask for on our own account, in seconds; 0: nothing.
    wish_s: u32,
    min_se_s: u32,
    running: Option<Running>,
}

#[derive(Clone, Copy, Debug)]
struct Running {
    interval_s: u32,
    we_refresh: bool,
    /// `None` while a refresh is under way, and for the peer's.
    refresh_at: Option<Instant>,
    end: Instant,
}

impl Asked {
    /// What a first INVITE of ours asks for; `None` when nothing is wished.
    pub fn first(wish: Duration) -> Option<Asked> {
        let interval_s = seconds_of(wish);
        (interval_s > 0).then_some(Asked { interval_s, min_se_s: MIN_SE_S, refresher: None })
    }

    /// A 422 came (§7.3): asks for what it allows. False when it says nothing new.
    pub fn raise(&mut self, response: &Headers) -> bool {
        let Some(min_se_s) = response.get(Name::MinSe).and_then(read_seconds) else { return false };
        if min_se_s <= self.min_se_s && self.interval_s >= min_se_s {
            return false;
        }
        self.min_se_s = self.min_se_s.max(min_se_s);
        self.interval_s = self.interval_s.max(min_se_s);
        true
    }

    /// The headers of the request. Min-SE only where it is not what everyone assumes (§7.1).
    pub fn headers(&self) -> Vec<(&'static str, String)> {
        let refresher = self.refresher.map(Refresher::param).unwrap_or_default();
        let mut headers = vec![("Session-Expires", format!("{}{refresher}", self.interval_s))];
        if self.min_se_s > MIN_SE_S {
            headers.push(("Min-SE", self.min_se_s.to_string()));
        }
        headers
    }
}

impl Refresher {
    fn param(self) -> &'static str {
        match self {
            Refresher::Uac => ";refresher=uac",
            Refresher::Uas => ";refresher=uas",
        }
    }
}

impl SessionTimer {
    /// A timer that does not run yet. `wish` is the interval that we ask for where the peer can do it;
    /// zero: only what the peer asks for.
    pub fn new(wish: Duration) -> SessionTimer {
        SessionTimer { wish_s: seconds_of(wish), min_se_s: MIN_SE_S, running: None }
    }

    /// What a request of ours in the dialog asks for: the same again, by the same side (§7.4).
    pub fn asks(&self) -> Option<Asked> {
        let (interval_s, refresher) = match &self.running {
            Some(running) => {
                let ours = if running.we_refresh { Refresher::Uac } else { Refresher::Uas };
                (running.interval_s, Some(ours))
            }
            None if self.wish_s > 0 => (self.wish_s, None),
            None => return None,
        };
        let interval_s = interval_s.max(self.min_se_s);
        Some(Asked { interval_s, min_se_s: self.min_se_s, refresher })
    }

    /// What our 2xx to the peer's request says; from here on it holds.
    pub fn answer(&mut self, now: Instant, request: &Headers) -> Vec<(&'static str, String)> {
        let peer_can = can_time(request);
        let asked = request.get(Name::SessionExpires).and_then(read_session_expires);
        let (interval_s, refresher) = match asked {
            Some((interval_s, refresher)) if peer_can => {
                (interval_s, refresher.unwrap_or(Refresher::Uas))
            }
            // A proxy asks, on behalf of a peer that cannot refresh (§9).
            Some((interval_s, _)) => (interval_s, Refresher::Uas),
            None if peer_can && self.wish_s > 0 => {
                let min_se_s = request.get(Name::MinSe).and_then(read_seconds).unwrap_or_default();
                (self.wish_s.max(min_se_s), Refresher::Uas)
            }
            None => {
                self.running = None;
                return Vec::new();
            }
        };
        let interval_s = interval_s.max(MIN_SE_S);
        self.start(now, interval_s, refresher == Refresher::Uas);
        let value = format!("{interval_s}{}", refresher.param());
        let mut headers = vec![("Session-Expires", value)];
        if refresher == Refresher::Uac {
            headers.push(("Require", "timer".into()));
        }
        headers
    }

    /// A 2xx to our INVITE or UPDATE came.
    pub fn answered(&mut self, now: Instant, response: &Headers) {
        match response.get(Name::SessionExpires).and_then(read_session_expires) {
            Some((interval_s, refresher)) => {
                // Without the word, which is not allowed, it is the side that asked.
                let we_refresh = refresher != Some(Refresher::Uas);
                self.start(now, interval_s.max(MIN_SE_S), we_refresh);
            }
            None => self.running = None,
        }
    }

    /// A refresh was refused for another reason than that the call is gone: another one before the end.
    pub fn refresh_failed(&mut self, now: Instant) {
        let Some(running) = &mut self.running else { return };
        let left = running.end.since(now);
        running.refresh_at = running.we_refresh.then(|| now + (left / 2).max(RETRY_MIN));
    }

    /// The refresh cannot go out now: in a moment.
    pub fn postpone(&mut self, now: Instant) {
        if let Some(running) = &mut self.running {
            running.refresh_at = Some(now + POSTPONED);
        }
    }

    /// A 422 raised what our requests must ask for.
    pub fn note_raised(&mut self, asked: &Asked) {
        self.min_se_s = self.min_se_s.max(asked.min_se_s);
    }

    pub fn handle_timeout(&mut self, now: Instant, out: &mut Vec<TimerEffect>) {
        let Some(running) = &mut self.running else { return };
        if running.end <= now {
            self.running = None;
            out.push(TimerEffect::Expired);
        } else if running.refresh_at.is_some_and(|at| at <= now) {
            running.refresh_at = None;
            out.push(TimerEffect::Refresh);
        }
    }

    pub fn next_deadline(&self) -> Option<Instant> {
        let running = self.running.as_ref()?;
        Some(running.refresh_at.map_or(running.end, |at| at.min(running.end)))
    }

    /// The interval and whether we refresh, while it runs.
    pub fn running(&self) -> Option<(Duration, bool)> {
        let running = self.running.as_ref()?;
        Some((Duration::from_secs(running.interval_s.into()), running.we_refresh))
    }

    fn start(&mut self, now: Instant, interval_s: u32, we_refresh: bool) {
        let interval = Duration::from_secs(interval_s.into());
        let margin = MARGIN_MAX.min(interval / 3);
        let refresh_at = we_refresh.then(|| now + interval / 2);
        let end = now + (interval - margin);
        self.running = Some(Running { interval_s, we_refresh, refresh_at, end });
    }
}

/// The smallest interval that we take, when the request asks for less (§9: 422). A peer that does not
/// know timers would not understand that: its proxy gets the smallest interval.
pub fn too_small(request: &Headers) -> Option<u32> {
    let (interval_s, _) = read_session_expires(request.get(Name::SessionExpires)?)?;
    (can_time(request) && interval_s < MIN_SE_S).then_some(MIN_SE_S)
}

fn can_time(headers: &Headers) -> bool {
    headers.has_option(Name::Supported, "timer") || headers.has_option(Name::Require, "timer")
}

/// `delta-seconds *(;name=value)`.
fn read_session_expires(value: &str) -> Option<(u32, Option<Refresher>)> {
    let (seconds, params) = value.split_at(value.find(';').unwrap_or(value.len()));
    let refresher = match Params::new(params).named("refresher").flatten() {
        Some(side) if side.eq_ignore_ascii_case("uac") => Some(Refresher::Uac),
        Some(side) if side.eq_ignore_ascii_case("uas") => Some(Refresher::Uas),
        _ => None,
    };
    Some((read_seconds(seconds)?, refresher))
}

/// Seconds of a Min-SE or Session-Expires, a day at most.
fn read_seconds(value: &str) -> Option<u32> {
    let digits = value.split(';').next()?.trim();
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.parse().map_or(INTERVAL_MAX_S, |s: u32| s.min(INTERVAL_MAX_S)))
}

/// Of a wish: nothing, or at least what everyone takes.
fn seconds_of(wish: Duration) -> u32 {
    let seconds = u32::try_from(wish.as_secs()).unwrap_or(u32::MAX);
    if seconds == 0 { 0 } else { seconds.clamp(MIN_SE_S, INTERVAL_MAX_S) }
}

/// How long before the end of the interval the BYE goes out, at most (§10).
const MARGIN_MAX: Duration = Duration::from_secs(32);
/// Between a refused refresh and the next one, at least.
const RETRY_MIN: Duration = Duration::from_secs(5);
/// How long a refresh waits for other requests in the dialog.
const POSTPONED: Duration = Duration::from_secs(2);
/// A day: no call needs a longer one.
const INTERVAL_MAX_S: u32 = 86_400;

#[cfg(test)]
mod tests {
    use super::super::testing::parse_request;
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    fn message(lines: &str) -> super::super::msg::Request {
        parse_request(&format!(
            "UPDATE sip:u@h SIP/2.0\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\nFrom: <sip:a@h>;tag=1\n\
             To: <sip:u@h>\nCall-ID: c\nCSeq: 5 UPDATE\n{lines}Content-Length: 0\n\n"
        ))
    }

    fn shown(headers: &[(&str, String)]) -> String {
        headers.iter().map(|(name, value)| format!("{name}: {value}")).collect::<Vec<_>>().join(" ")
    }

    /// What a timer does when nobody acts on it, with the seconds.
    fn life(timer: &mut SessionTimer) -> Vec<(u64, TimerEffect)> {
        let mut told = Vec::new();
        while let Some(deadline) = timer.next_deadline() {
            let mut out = Vec::new();
            timer.handle_timeout(deadline, &mut out);
            let seconds = deadline.since(Instant::ZERO).as_secs();
            told.extend(out.into_iter().map(|effect| (seconds, effect)));
        }
        told
    }

    #[test]
    fn our_answer_keeps_what_the_peer_asked_for() {
        let cases = [
            // request, wish, answer, who refreshes
            (
                "k: timer\nx: 1800;refresher=uac\n",
                0,
                "Session-Expires: 1800;refresher=uac Require: timer",
                Some(false),
            ),
            (
                "k: timer\nSession-Expires: 600; refresher=UAS\n",
                0,
                "Session-Expires: 600;refresher=uas",
                Some(true),
            ),
            (
                "k: timer\nSession-Expires: 600\n",
                1800,
                "Session-Expires: 600;refresher=uas",
                Some(true),
            ),
            (
                "Require: timer\nSession-Expires: 3600\n",
                0,
                "Session-Expires: 3600;refresher=uas",
                Some(true),
            ),
            (
                "Session-Expires: 600;refresher=uac\n",
                0,
                "Session-Expires: 600;refresher=uas",
                Some(true),
            ),
            ("Session-Expires: 30\n", 0, "Session-Expires: 90;refresher=uas", Some(true)),
            ("k: timer\n", 1800, "Session-Expires: 1800;refresher=uas", Some(true)),
            ("k: timer\nMin-SE: 2000\n", 1800, "Session-Expires: 2000;refresher=uas", Some(true)),
            ("k: timer\n", 0, "", None),
            ("", 1800, "", None),
            ("k: timer\nSession-Expires: soon\n", 0, "", None),
            (
                "k: timer\nSession-Expires: 99999999999\n",
                0,
                "Session-Expires: 86400;refresher=uas",
                Some(true),
            ),
        ];
        for (lines, wish, expected, we_refresh) in cases {
            let mut timer = SessionTimer::new(Duration::from_secs(wish));
            let headers = timer.answer(at(0), &message(lines));
            assert_eq!(shown(&headers), expected, "{lines}");
            assert_eq!(timer.running().map(|(_, ours)| ours), we_refresh, "{lines}");
        }
    }

    #[test]
    fn too_small_an_interval_is_refused_where_that_is_understood() {
        let cases = [
            ("k: timer\nSession-Expires: 89\n", Some(90)),
            ("k: timer\nSession-Expires: 90\n", None),
            ("Session-Expires: 89\n", None),
            ("k: timer\n", None),
        ];
        for (lines, expected) in cases {
            assert_eq!(too_small(&message(lines)), expected, "{lines}");
        }
    }

    #[test]
    fn who_refreshes_does_so_at_half_and_gives_up_32_s_before_the_end() {
        let mut ours = SessionTimer::new(Duration::ZERO);
        ours.answered(at(0), &message("Session-Expires: 1800;refresher=uac\n"));
        let expected = [(900, TimerEffect::Refresh), (1_768, TimerEffect::Expired)];
        assert_eq!(life(&mut ours), expected);
        let mut theirs = SessionTimer::new(Duration::ZERO);
        theirs.answered(at(0), &message("Session-Expires: 1800;refresher=uas\n"));
        assert_eq!(life(&mut theirs), [(1_768, TimerEffect::Expired)]);
        let mut short = SessionTimer::new(Duration::ZERO);
        short.answered(at(0), &message("Session-Expires: 90\n"));
        assert_eq!(life(&mut short), [(45, TimerEffect::Refresh), (60, TimerEffect::Expired)]);
    }

    #[test]
    fn a_failed_refresh_is_tried_again_before_the_end() {
        let mut timer = SessionTimer::new(Duration::ZERO);
        timer.answered(at(0), &message("Session-Expires: 300;refresher=uac\n"));
        let mut refreshes = Vec::new();
        while let Some(deadline) = timer.next_deadline() {
            let mut out = Vec::new();
            timer.handle_timeout(deadline, &mut out);
            let seconds = deadline.since(Instant::ZERO).as_secs();
            refreshes.push(seconds);
            timer.refresh_failed(deadline);
        }
        assert_eq!(refreshes, [150, 209, 238, 253, 260, 265, 268]);
    }

    #[test]
    fn requests_of_ours_keep_the_side_and_obey_a_422() {
        let mut timer = SessionTimer::new(Duration::from_secs(1_800));
        let mut asked = timer.asks().expect("a wish");
        assert_eq!(shown(&asked.headers()), "Session-Expires: 1800");
        assert!(!asked.raise(&message("")) && !asked.raise(&message("Min-SE: 90\n")));
        assert!(asked.raise(&message("Min-SE: 2000\n")));
        assert_eq!(shown(&asked.headers()), "Session-Expires: 2000 Min-SE: 2000");
        assert!(!asked.raise(&message("Min-SE: 2000\n")), "nothing new");
        timer.note_raised(&asked);
        timer.answered(at(0), &message("Session-Expires: 2000;refresher=uas\n"));
        let asked = timer.asks().expect("it runs");
        assert_eq!(shown(&asked.headers()), "Session-Expires: 2000;refresher=uas Min-SE: 2000");
        timer.answered(at(0), &message(""));
        assert_eq!((timer.next_deadline(), timer.running()), (None, None), "it was turned off");
        assert_eq!(SessionTimer::new(Duration::ZERO).asks(), None);
        assert_eq!(Asked::first(Duration::ZERO), None);
        let short = Asked::first(Duration::from_secs(9)).expect("a wish");
        assert_eq!(shown(&short.headers()), "Session-Expires: 90");
    }
}
