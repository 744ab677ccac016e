//! A referral (RFC 3515, 4488, 5589, 6665): the texts of REFER and its notifications, and
//! [`Referring`], the machine of one REFER of ours, from the request to the one outcome that counts.
//! It sends nothing and knows no dialog: the user agent hands in what came and tells what it says.
//!
//! ```text
//! Asked ─ 2xx, or a NOTIFY before it ─▶ Accepted ─ final sipfrag ───────────▶ Over
//!   │                                       ├─ terminated without a final ──▶ Over
//!   └─ 300 and above, Refer-Sub: false ─▶   └─ patience, the peer's BYE ────▶ Over
//! ```
//!
//! Over means that the outcome was told. Notifications may still come and are answered; a success
//! after the patience was over is told once more, since the parties have each other then.

use super::msg::{NameAddr, Scheme, Uri, is_token};
use super::replaces::Replaces;
use super::status::reason_phrase;
use crate::ground::Instant;
use bytes::Bytes;
use std::fmt::{self, Write};
use std::time::Duration;

/// The content type of a notification of ours.
pub const SIPFRAG: &str = "message/sipfrag;version=2.0";

/// A REFER that the call layer asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Referral {
    /// The whole value of Refer-To, in angle brackets: see [`refer_to`].
    pub refer_to: String,
    /// The whole value of Referred-By (RFC 3892).
    pub referred_by: Option<String>,
    /// Further headers. Line breaks in them fail the referral.
    pub headers: Vec<(String, String)>,
    /// How long the outcome is waited for after the peer took the REFER. The answer to the REFER
    /// itself is waited for as for any request, 64 × T1.
    pub patience: Duration,
}

/// How a referral ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReferOutcome {
    /// The peer reached the target: a 2xx sipfrag, or a 2xx to a REFER of which it notifies nobody
    /// (`Refer-Sub: false`).
    Succeeded { code: u16 },
    /// A final answer of 300 and above to the REFER; 408 when none came, 503 when no flow carried it,
    /// 400 when it cannot be written.
    Refused { code: u16, reason: String },
    /// The peer tried, and the target answered with 300 and above.
    Failed { code: u16, reason: String },
    /// The peer took the REFER and never told the end: silence, nothing but provisionals, or a
    /// subscription that ended without a final answer.
    TimedOut,
    /// The peer ended the call first. `accepted` when it had taken the REFER before: then this is how
    /// some carriers tell success. The end of the session is told next.
    PeerLeft { accepted: bool },
}

/// What one step of a referral tells.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReferEffect {
    Progress { code: u16, reason: String },
    Done(ReferOutcome),
}

/// A notification of the peer, as far as a referral reads it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Notification {
    /// Status code and reason phrase of the sipfrag; `None` when the body is none.
    pub fragment: Option<(u16, String)>,
    /// `Subscription-State: terminated`.
    pub is_last: bool,
}

/// One REFER of ours and the subscription that it began.
#[derive(Clone, Debug)]
pub struct Referring {
    phase: Phase,
    patience: Duration,
    deadline: Option<Instant>,
    /// CSeq numbers that the REFER had, one for each answer to a challenge: `id` names one of them.
    numbers: Vec<u32>,
    /// Those of earlier REFERs in the dialog whose subscription the peer has not ended: what comes
    /// late of them says nothing of this one.
    former: Vec<u32>,
    /// The peer notifies no more.
    terminated: bool,
    /// It was given up as timed out, and a success may still come.
    may_succeed_late: bool,
}

/// Whose a notification is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Subscription {
    /// That of the referral at hand.
    Present,
    /// That of an earlier one: it is answered and means nothing.
    Former,
    /// None that is known: 481.
    Unknown,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Asked,
    Accepted,
    Over,
}

impl Referring {
    pub fn new(patience: Duration) -> Referring {
        Referring {
            phase: Phase::Asked,
            patience,
            deadline: None,
            numbers: Vec::new(),
            former: Vec::new(),
            terminated: false,
            may_succeed_late: false,
        }
    }

    /// The same, in a dialog that had a referral before.
    pub fn after(previous: Option<Referring>, patience: Duration) -> Referring {
        let mut referring = Referring::new(patience);
        if let Some(previous) = previous {
            let own = previous.numbers.iter().filter(|_| !previous.terminated);
            referring.former = own.chain(&previous.former).copied().take(NUMBERS_MAX).collect();
        }
        referring
    }

    /// The REFER goes out with this CSeq number.
    pub fn sent(&mut self, cseq: u32) {
        if self.numbers.len() < NUMBERS_MAX {
            self.numbers.push(cseq);
        }
    }

    /// The final answer to the REFER. `refer_sub` is its Refer-Sub header (RFC 4488 §4).
    pub fn handle_answer(
        &mut self,
        now: Instant,
        (code, reason): (u16, &str),
        refer_sub: Option<bool>,
        out: &mut Vec<ReferEffect>,
    ) {
        let reason = reason.to_owned();
        match (self.phase, code) {
            (Phase::Over, ..300) => {}
            (_, 300..) => {
                self.terminated = true;
                self.finish(ReferOutcome::Refused { code, reason }, out);
            }
            (Phase::Asked | Phase::Accepted, _) if refer_sub == Some(false) => {
                self.terminated = true;
                self.finish(ReferOutcome::Succeeded { code }, out);
            }
            (Phase::Asked | Phase::Accepted, _) => {
                self.accept(now);
                out.push(ReferEffect::Progress { code, reason });
            }
        }
    }

    /// A notification of this subscription. It may come before the answer to the REFER, which then
    /// is accepted (RFC 6665 §4.1.2.4).
    pub fn handle_notify(
        &mut self,
        now: Instant,
        notification: Notification,
        out: &mut Vec<ReferEffect>,
    ) {
        self.terminated |= notification.is_last;
        if self.phase == Phase::Over {
            return self.hear_late(notification.fragment, out);
        }
        self.accept(now);
        match notification.fragment {
            Some((code @ 200..300, _)) => self.finish(ReferOutcome::Succeeded { code }, out),
            Some((code @ 300.., reason)) => {
                self.finish(ReferOutcome::Failed { code, reason }, out);
            }
            Some((code, reason)) => out.push(ReferEffect::Progress { code, reason }),
            None => {}
        }
        if notification.is_last {
            self.finish(ReferOutcome::TimedOut, out);
        }
    }

    /// News of a referral that was given up: that it succeeded after all is told, once.
    fn hear_late(&mut self, fragment: Option<(u16, String)>, out: &mut Vec<ReferEffect>) {
        let Some((code @ 200.., _)) = fragment else { return };
        if std::mem::take(&mut self.may_succeed_late) && code < 300 {
            out.push(ReferEffect::Done(ReferOutcome::Succeeded { code }));
        }
    }

    /// The peer's BYE came.
    pub fn handle_peer_left(&mut self, out: &mut Vec<ReferEffect>) {
        let accepted = self.phase == Phase::Accepted;
        self.finish(ReferOutcome::PeerLeft { accepted }, out);
    }

    pub fn handle_timeout(&mut self, now: Instant, out: &mut Vec<ReferEffect>) {
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            self.finish(ReferOutcome::TimedOut, out);
        }
    }

    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// True until the outcome was told: no other REFER is sent in the dialog.
    pub fn is_open(&self) -> bool {
        self.phase != Phase::Over
    }

    /// Whose a notification with this `id` is. The first REFER of a dialog needs none (RFC 3515
    /// §2.4.6), so one without belongs to an earlier referral as long as the peer has not taken the
    /// present one.
    pub fn subscription(&self, id: Option<u32>) -> Subscription {
        let is_present = match id {
            Some(id) => self.numbers.contains(&id),
            None => self.former.is_empty() || self.phase != Phase::Asked,
        };
        let is_former = id.map_or(!self.former.is_empty(), |id| self.former.contains(&id));
        match (is_present && !self.terminated, is_former) {
            (true, _) => Subscription::Present,
            (false, true) => Subscription::Former,
            (false, false) => Subscription::Unknown,
        }
    }

    /// The peer notifies no more of an earlier referral.
    pub fn end_former(&mut self, id: Option<u32>) {
        self.former.retain(|number| id.is_some_and(|id| id != *number));
    }

    fn accept(&mut self, now: Instant) {
        if self.phase == Phase::Asked {
            self.phase = Phase::Accepted;
            self.deadline = Some(now + self.patience);
        }
    }

    fn finish(&mut self, outcome: ReferOutcome, out: &mut Vec<ReferEffect>) {
        if self.phase != Phase::Over {
            self.phase = Phase::Over;
            self.deadline = None;
            self.may_succeed_late = outcome == ReferOutcome::TimedOut;
            out.push(ReferEffect::Done(outcome));
        }
    }
}

/// Why no Refer-To can be made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BadReferTo {
    /// Not a SIP, SIPS or tel URI.
    NotAUri,
    /// Not a header name.
    BadName(String),
    /// A URI that is no SIP URI takes no headers.
    NoHeadersHere,
}

impl fmt::Display for BadReferTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadReferTo::NotAUri => f.write_str("the target is not a sip, sips or tel URI"),
            BadReferTo::BadName(name) => write!(f, "not a header name: {}", name.escape_debug()),
            BadReferTo::NoHeadersHere => f.write_str("a tel URI carries no headers"),
        }
    }
}

impl std::error::Error for BadReferTo {}

/// The value of Refer-To: `uri` in angle brackets with `headers` for the peer's INVITE, each escaped
/// (RFC 3261 §19.1.1). What stands in them is safe, whatever it is.
///
/// # Errors
/// [`BadReferTo`], which says what to change.
pub fn refer_to(uri: &str, headers: &[(String, String)]) -> Result<String, BadReferTo> {
    let parsed = Uri::parse(uri).map_err(|_| BadReferTo::NotAUri)?;
    match parsed.scheme() {
        Scheme::Sip | Scheme::Sips => {}
        Scheme::Tel if headers.is_empty() => {}
        Scheme::Tel => return Err(BadReferTo::NoHeadersHere),
        Scheme::Other => return Err(BadReferTo::NotAUri),
    }
    let mut value = format!("<{uri}");
    let mut mark = if parsed.has_headers() { '&' } else { '?' };
    for (name, content) in headers {
        if !is_token(name) {
            return Err(BadReferTo::BadName(name.clone()));
        }
        value.push(mark);
        push_escaped(&mut value, name);
        value.push('=');
        push_escaped(&mut value, content);
        mark = '&';
    }
    value.push('>');
    Ok(value)
}

/// Every byte but unreserved ones as `%XX`.
fn push_escaped(out: &mut String, text: &str) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.!~*'()".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

/// Where a REFER of the peer points.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReferTarget {
    /// The URI without its headers.
    pub uri: String,
    /// The dialog that is to be taken over there.
    pub replaces: Option<Replaces>,
    /// The other headers of the URI, decoded. They may hold anything, line breaks included.
    pub headers: Vec<(String, String)>,
}

impl ReferTarget {
    /// Reads a Refer-To value. `None` when it names nothing that can be called: another method than
    /// INVITE, no URI, or a Replaces that cannot be read.
    pub fn parse(value: &str) -> Option<ReferTarget> {
        let address = NameAddr::parse(value).ok()?;
        let uri = address.uri();
        if uri.scheme() == Scheme::Other {
            return None;
        }
        let method = uri.param("method").flatten();
        if method.is_some_and(|method| method != "INVITE") {
            return None;
        }
        let text = match uri.has_headers() {
            true => uri.as_str().rsplit_once('?').map_or(uri.as_str(), |(before, _)| before),
            false => uri.as_str(),
        };
        let (mut replaces, mut headers) = (None, Vec::new());
        for (name, value) in uri.headers() {
            if name.eq_ignore_ascii_case("Replaces") {
                replaces = Some(Replaces::parse(&value).ok()?);
            } else {
                headers.push((name.into_owned(), value.into_owned()));
            }
        }
        Some(ReferTarget { uri: text.to_owned(), replaces, headers })
    }
}

/// The body of a notification: a status line (RFC 3515 §2.4.5).
pub fn sipfrag(code: u16) -> Bytes {
    Bytes::from(format!("SIP/2.0 {code} {}\r\n", reason_phrase(code)))
}

/// The status code and reason phrase of a sipfrag. Some peers leave the line end out, some send a
/// whole response.
pub fn read_sipfrag(body: &[u8]) -> Option<(u16, String)> {
    let line = body.split(|byte| *byte == b'\n').find(|line| !line.trim_ascii().is_empty())?;
    let line = String::from_utf8_lossy(line.trim_ascii()).into_owned();
    let (version, rest) = line.split_once(' ')?;
    if !version.eq_ignore_ascii_case("SIP/2.0") {
        return None;
    }
    let (code, reason) = rest.trim_start().split_once(' ').unwrap_or((rest.trim_start(), ""));
    let code = (code.len() == 3).then(|| code.parse().ok()).flatten()?;
    let reason = reason.chars().filter(|c| !c.is_control()).take(REASON_CHARS_MAX).collect();
    (100..700).contains(&code).then_some((code, reason))
}

/// CSeq numbers of one REFER: more challenges than this are not answered.
const NUMBERS_MAX: usize = 8;
/// What is kept of a reason phrase.
const REASON_CHARS_MAX: usize = 120;

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    fn at(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    /// One input of a table row: `202`, `202 no-sub`, `frag 180`, `frag 200 last`, `last`, `empty`,
    /// `bye`, `wait 30`.
    fn play(script: &str) -> String {
        let mut referring = Referring::new(PATIENCE);
        referring.sent(5);
        let (mut now, mut told) = (at(0), Vec::new());
        for step in script.split(", ") {
            let mut out = Vec::new();
            let words: Vec<&str> = step.split(' ').collect();
            match words.as_slice() {
                ["frag", code, rest @ ..] => {
                    let fragment = read_sipfrag(&sipfrag(code.parse().expect("a code")));
                    let is_last = rest == ["last"];
                    let notification = Notification { fragment, is_last };
                    referring.handle_notify(now, notification, &mut out);
                }
                [word @ ("last" | "empty")] => {
                    let is_last = *word == "last";
                    let notification = Notification { fragment: None, is_last };
                    referring.handle_notify(now, notification, &mut out);
                }
                ["bye"] => referring.handle_peer_left(&mut out),
                ["wait", seconds] => {
                    now += Duration::from_secs(seconds.parse().expect("seconds"));
                    referring.handle_timeout(now, &mut out);
                }
                [code, rest @ ..] => {
                    let refer_sub = (rest == ["no-sub"]).then_some(false);
                    let answer = (code.parse().expect("a code"), "Said");
                    referring.handle_answer(now, answer, refer_sub, &mut out);
                }
                [] => {}
            }
            told.extend(out.into_iter().map(|effect| match effect {
                ReferEffect::Progress { code, .. } => code.to_string(),
                ReferEffect::Done(outcome) => format!("{outcome:?}"),
            }));
        }
        assert_eq!(referring.next_deadline().is_some(), told.last().is_some_and(|t| t.len() == 3));
        told.join(" ")
    }

    #[test]
    fn every_peer_comes_to_one_outcome() {
        let cases = [
            ("202, frag 100, frag 180, frag 200 last", "202 100 180 Succeeded { code: 200 }"),
            ("200, frag 200, last", "200 Succeeded { code: 200 }"),
            ("frag 100, 202, frag 200 last", "100 202 Succeeded { code: 200 }"),
            ("frag 200 last, 202", "Succeeded { code: 200 }"),
            ("202, frag 486 last", "202 Failed { code: 486, reason: \"Busy Here\" }"),
            ("202, frag 302 last", "202 Failed { code: 302, reason: \"Moved Temporarily\" }"),
            ("202, frag 200 last, frag 486 last", "202 Succeeded { code: 200 }"),
            ("603", "Refused { code: 603, reason: \"Said\" }"),
            ("405", "Refused { code: 405, reason: \"Said\" }"),
            ("frag 100, 403", "100 Refused { code: 403, reason: \"Said\" }"),
            ("202 no-sub", "Succeeded { code: 202 }"),
            ("202, wait 29", "202"),
            ("202, wait 30", "202 TimedOut"),
            ("202, frag 100, wait 30", "202 100 TimedOut"),
            ("202, wait 20, frag 180, wait 10", "202 180 TimedOut"),
            ("202, last", "202 TimedOut"),
            ("202, frag 100 last", "202 100 TimedOut"),
            ("202, empty, frag 200", "202 Succeeded { code: 200 }"),
            ("202, bye", "202 PeerLeft { accepted: true }"),
            ("frag 100, bye", "100 PeerLeft { accepted: true }"),
            ("bye", "PeerLeft { accepted: false }"),
            ("bye, 202, frag 200 last, wait 99", "PeerLeft { accepted: false }"),
            ("202, wait 30, frag 200 last", "202 TimedOut Succeeded { code: 200 }"),
            ("202, wait 30, frag 180, frag 200, frag 200", "202 TimedOut Succeeded { code: 200 }"),
            ("202, wait 30, frag 486, frag 200", "202 TimedOut"),
        ];
        for (script, expected) in cases {
            assert_eq!(play(script), expected, "{script}");
        }
    }

    #[test]
    fn notifications_are_known_by_their_id() {
        let mut referring = Referring::new(PATIENCE);
        referring.sent(5);
        referring.sent(6);
        let whose = |r: &Referring| [None, Some(5), Some(6), Some(7)].map(|id| r.subscription(id));
        use Subscription::{Former, Present, Unknown};
        assert_eq!(whose(&referring), [Present, Present, Present, Unknown]);
        let mut second = Referring::after(Some(referring.clone()), PATIENCE);
        second.sent(7);
        assert_eq!(whose(&second), [Former, Former, Former, Present]);
        second.handle_answer(at(0), (202, ""), None, &mut Vec::new());
        assert_eq!(whose(&second), [Present, Former, Former, Present]);
        second.end_former(Some(5));
        assert_eq!(whose(&second), [Present, Unknown, Former, Present]);
        second.end_former(None);
        assert_eq!(whose(&second), [Present, Unknown, Unknown, Present]);
        let last = Notification { fragment: Some((200, "OK".into())), is_last: true };
        referring.handle_notify(at(0), last, &mut Vec::new());
        assert_eq!(whose(&referring), [Unknown; 4], "nothing follows the last one");
        assert!(!referring.is_open());
        let third = Referring::after(Some(referring), PATIENCE);
        assert_eq!(whose(&third), [Present, Unknown, Unknown, Unknown]);
    }

    #[test]
    fn headers_in_a_refer_to_are_escaped_and_read_back() {
        let replaces = "a;b=c@h&d?;to-tag=1;from-tag=2";
        let headers = [
            ("Replaces".to_owned(), "x@192.0.2.1;to-tag=a%;from-tag=b".to_owned()),
            ("X-Note".to_owned(), format!("ü\r\n>{replaces}")),
        ];
        let value = refer_to("sip:bob@192.0.2.9:5070;transport=tcp", &headers).expect("good");
        let expected = "<sip:bob@192.0.2.9:5070;transport=tcp\
                        ?Replaces=x%40192.0.2.1%3Bto-tag%3Da%25%3Bfrom-tag%3Db\
                        &X-Note=%C3%BC%0D%0A%3Ea%3Bb%3Dc%40h%26d%3F%3Bto-tag%3D1%3Bfrom-tag%3D2>";
        assert_eq!(value, expected);
        let read = ReferTarget::parse(&value).expect("readable");
        assert_eq!(read.uri, "sip:bob@192.0.2.9:5070;transport=tcp");
        assert_eq!(read.replaces.map(|replaces| replaces.to_tag), Some("a%".into()));
        assert_eq!(read.headers, [headers[1].clone()]);
        assert_eq!(
            refer_to("sip:a@b?X=1", &[("Y".into(), "2".into())]).as_deref(),
            Ok("<sip:a@b?X=1&Y=2>")
        );
        assert_eq!(refer_to("tel:+15550100", &[]).as_deref(), Ok("<tel:+15550100>"));
        for (uri, headers) in [
            ("bob", vec![]),
            ("<sip:a@b>", vec![]),
            ("http://a", vec![]),
            ("sip:a@b>\r\nEvil: x", vec![]),
            ("tel:1", vec![("X".to_owned(), "y".to_owned())]),
            ("sip:a@b", vec![("X Y".to_owned(), "y".to_owned())]),
        ] {
            assert!(refer_to(uri, &headers).is_err(), "{uri}");
        }
    }

    #[test]
    fn what_cannot_be_called_is_no_target() {
        for value in [
            "bob",
            "<http://a>",
            "<sip:a@b;method=SUBSCRIBE>",
            "<sip:a@b?Replaces=x>",
            "sip:a@b?Replaces=x",
        ] {
            assert_eq!(ReferTarget::parse(value), None, "{value}");
        }
        let plain = ReferTarget::parse("\"B\" <sip:a@b;method=INVITE>;x=y").expect("good");
        assert_eq!((plain.uri.as_str(), plain.replaces), ("sip:a@b;method=INVITE", None));
    }

    #[test]
    fn fragments_of_many_peers_are_read() {
        type Row<'a> = (&'a [u8], Option<(u16, &'a str)>);
        let cases: [Row<'_>; 9] = [
            (b"SIP/2.0 200 OK\r\n", Some((200, "OK"))),
            (b"SIP/2.0 200", Some((200, ""))),
            (b"\r\nsip/2.0  180 Ringing\nTo: <sip:a@b>\r\n", Some((180, "Ringing"))),
            (b"SIP/2.0 486 Busy\x00Here", Some((486, "BusyHere"))),
            (b"SIP/2.0 099 No", None),
            (b"SIP/2.0 700 No", None),
            (b"SIP/2.0 20 No", None),
            (b"INVITE sip:a@b SIP/2.0", None),
            (b"", None),
        ];
        for (body, expected) in cases {
            let expected = expected.map(|(code, reason)| (code, reason.to_owned()));
            assert_eq!(read_sipfrag(body), expected, "{}", String::from_utf8_lossy(body));
        }
        assert_eq!(read_sipfrag(&sipfrag(503)), Some((503, "Service Unavailable".into())));
    }
}
