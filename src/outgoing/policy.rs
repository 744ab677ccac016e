//! Who may be called (security S14: toll fraud). Nobody, unless the configuration names the host.
//! Within a named host numbers may be narrowed by prefixes, and denied ones always win.
//!
//! A target is taken apart, checked, and written anew from the parts that were checked, so that
//! nothing reaches the wire that was not looked at: escapes are decoded, separators of numbers
//! dropped, `00` and `011` read as `+`; passwords, parameters but `transport` and `user`, and
//! embedded headers are refused. What cannot be read in one way only is refused too.

use crate::account::range::CidrRange;
use crate::ground::Instant;
use crate::sip::msg::{Host, Scheme, Uri};
use std::collections::VecDeque;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

/// Longest user part that is dialled, in bytes.
const USER_BYTES_MAX: usize = 64;
const MINUTE: Duration = Duration::from_secs(60);

/// `[outgoing]` of the configuration. The default allows no call at all.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OutgoingPolicy {
    pub hosts: Vec<HostRule>,
    /// What a user must begin with; empty: anything. With `+`, numbers in their international form.
    pub allowed_prefixes: Vec<String>,
    /// What a number must not begin with, in any of its forms.
    pub denied_prefixes: Vec<String>,
    /// Calls that may begin in any 60 s.
    pub calls_per_minute: u32,
    /// Outgoing calls at once.
    pub calls_max: usize,
    /// A call is ended after this long.
    pub length_max: Duration,
    /// Ringing longer than this is no answer.
    pub ring_timeout: Duration,
    /// 3xx answers that are followed for one call.
    pub redirects_max: u8,
}

impl Default for OutgoingPolicy {
    fn default() -> OutgoingPolicy {
        OutgoingPolicy {
            hosts: Vec::new(),
            allowed_prefixes: Vec::new(),
            denied_prefixes: Vec::new(),
            calls_per_minute: 60,
            calls_max: 50,
            length_max: Duration::from_secs(3_600),
            ring_timeout: Duration::from_secs(60),
            redirects_max: 3,
        }
    }
}

/// One host that may be called.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostRule {
    pub host: HostPattern,
    /// `None`: no port in the URI, 5060 or 5061.
    pub port: Option<u16>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HostPattern {
    /// In lower case, without a final dot.
    Name(String),
    /// Every name below this one: `*.example.com`.
    Below(String),
    Range(CidrRange),
    Address(IpAddr),
}

impl HostRule {
    /// Reads `trunk.example.com`, `*.example.com`, `203.0.113.5`, `203.0.113.0/24`, `[2001:db8::1]`,
    /// each with `:port` when only that port is meant (not after a range).
    ///
    /// # Errors
    /// What is wrong, in words for whoever wrote it.
    pub fn parse(text: &str) -> Result<HostRule, String> {
        let text = text.trim();
        if text.contains('/') {
            let range = CidrRange::parse(text).map_err(|fault| fault.problem)?;
            return Ok(HostRule { host: HostPattern::Range(range), port: None });
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(HostRule { host: HostPattern::Address(address.to_canonical()), port: None });
        }
        let (below, rest) = match text.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let probe = format!("sip:{rest}");
        let wrong = || format!("\"{text}\" is no host");
        let uri = Uri::parse(&probe).map_err(|_| wrong())?;
        if uri.user().is_some() || !uri.params_text().is_empty() || uri.has_headers() {
            return Err(wrong());
        }
        let host = match (uri.host(), below) {
            (Host::Address(address), false) => HostPattern::Address(address),
            (Host::Name(name), false) => HostPattern::Name(plain_name(name)),
            (Host::Name(name), true) if name.contains('.') => HostPattern::Below(plain_name(name)),
            _ => return Err(wrong()),
        };
        Ok(HostRule { host, port: uri.port() })
    }

    /// Whether it is the host of this URI.
    pub fn names(&self, uri: &str) -> bool {
        Uri::parse(uri).is_ok_and(|uri| self.admits(&uri.host(), uri.port()))
    }

    /// Whether it is this address, or a range that holds it. A name holds none.
    pub fn holds(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        match &self.host {
            HostPattern::Address(own) => *own == peer,
            HostPattern::Range(range) => range.contains(peer),
            HostPattern::Name(_) | HostPattern::Below(_) => false,
        }
    }

    fn admits(&self, host: &Host<'_>, port: Option<u16>) -> bool {
        let fits = match (&self.host, host) {
            (HostPattern::Name(own), Host::Name(name)) => *own == plain_name(name),
            (HostPattern::Below(own), Host::Name(name)) => {
                let name = plain_name(name);
                name.strip_suffix(own.as_str()).is_some_and(|rest| {
                    rest.len() > 1 && rest.ends_with('.') && !rest.starts_with('.')
                })
            }
            (HostPattern::Range(range), Host::Address(address)) => range.contains(*address),
            (HostPattern::Address(own), Host::Address(address)) => own == address,
            _ => false,
        };
        fits && match self.port {
            Some(own) => port == Some(own),
            None => matches!(port, None | Some(5060 | 5061)),
        }
    }
}

/// Somebody who may be called: what was checked, and nothing else.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Callee {
    /// The Request-URI, written anew.
    pub uri: String,
    /// Host and port, for whom credentials are.
    pub place: String,
    /// The user: a number without separators, or a name.
    pub user: String,
}

/// Only TLS leads to this [`Callee::uri`].
pub fn needs_tls(uri: &str) -> bool {
    uri.starts_with("sips:") || uri.ends_with(";transport=tls")
}

/// Why somebody is not called.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Unwanted {
    /// Not a sip or sips URI that is read in one way only.
    Unreadable(&'static str),
    /// No rule names the host.
    Host,
    /// The user begins with nothing that is allowed.
    NotAllowed,
    /// The number begins with something that is denied.
    Denied,
}

impl fmt::Display for Unwanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unwanted::Unreadable(why) => write!(f, "the target cannot be called: {why}"),
            Unwanted::Host => {
                f.write_str("the target's host, at this port, is not in outgoing.allowed_hosts")
            }
            Unwanted::NotAllowed => {
                f.write_str("the target begins with none of outgoing.allowed_prefixes")
            }
            Unwanted::Denied => {
                f.write_str("the target begins with one of outgoing.denied_prefixes")
            }
        }
    }
}

impl OutgoingPolicy {
    /// Whether `target` may be called, and what it is called by. `redirected` drops the headers that
    /// a Contact may carry; in a request they are refused.
    ///
    /// # Errors
    /// [`Unwanted`].
    pub fn admit(&self, target: &str, redirected: bool) -> Result<Callee, Unwanted> {
        let unreadable = |why| Err(Unwanted::Unreadable(why));
        let Ok(uri) = Uri::parse(target) else { return unreadable("it is no SIP URI") };
        if !matches!(uri.scheme(), Scheme::Sip | Scheme::Sips) {
            return unreadable("it must begin with sip: or sips:");
        }
        if uri.password().is_some() {
            return unreadable("it holds a password");
        }
        if uri.has_headers() && !redirected {
            return unreadable("it holds headers");
        }
        let transport = read_params(&uri)?;
        if uri.scheme() == Scheme::Sips && transport == Some("udp") {
            return unreadable("sips is never sent over UDP");
        }
        let (host, port) = (uri.host(), uri.port());
        if matches!(host, Host::Absent) || port == Some(0) {
            return unreadable("it has no host");
        }
        if !self.hosts.iter().any(|rule| rule.admits(&host, port)) {
            return Err(Unwanted::Host);
        }
        let Some(user) = read_user(&uri) else {
            return unreadable("its user is missing, too long, or has unusual characters");
        };
        self.admit_user(&user)?;
        let host = match host {
            Host::Name(name) => plain_name(name),
            other => other.to_string(),
        };
        let place = port.map_or_else(|| host.clone(), |port| format!("{host}:{port}"));
        let scheme = if uri.scheme() == Scheme::Sips { "sips" } else { "sip" };
        let transport = transport.map(|word| format!(";transport={word}")).unwrap_or_default();
        let written = user.replace('#', "%23");
        Ok(Callee { uri: format!("{scheme}:{written}@{place}{transport}"), place, user })
    }

    fn admit_user(&self, user: &str) -> Result<(), Unwanted> {
        let international = international(user);
        let digits = international.trim_start_matches('+');
        let raw = user.trim_start_matches('+');
        let denied = self.denied_prefixes.iter().map(|prefix| prefix.trim_start_matches('+'));
        for prefix in denied.filter(|prefix| !prefix.is_empty()) {
            if digits.starts_with(prefix) || raw.starts_with(prefix) {
                return Err(Unwanted::Denied);
            }
        }
        let allows = |prefix: &String| match prefix.starts_with('+') {
            true => international.starts_with(prefix),
            false => user.starts_with(prefix),
        };
        if !self.allowed_prefixes.is_empty() && !self.allowed_prefixes.iter().any(allows) {
            return Err(Unwanted::NotAllowed);
        }
        Ok(())
    }
}

/// `transport` alone may stand there, and `user=phone`, which says nothing new.
fn read_params<'a>(uri: &Uri<'a>) -> Result<Option<&'static str>, Unwanted> {
    let unreadable = Err(Unwanted::Unreadable("it holds parameters other than transport"));
    let mut transport = None;
    for param in uri.params_text().split(';').filter(|param| !param.is_empty()) {
        let (name, value) = param.split_once('=').unwrap_or((param, ""));
        let known = ["udp", "tcp", "tls"].into_iter().find(|w| w.eq_ignore_ascii_case(value));
        match (name.to_ascii_lowercase().as_str(), known) {
            ("transport", Some(word)) if transport.is_none() => transport = Some(word),
            ("user", _) if value.eq_ignore_ascii_case("phone") => {}
            ("lr", _) if value.is_empty() => {}
            _ => return unreadable,
        }
    }
    Ok(transport)
}

/// The user, decoded once: a number without its visual separators, or a name. `None` for anything
/// that another reader may take for something else.
fn read_user(uri: &Uri<'_>) -> Option<String> {
    let user = uri.user_decoded();
    let plain = |c: char| c.is_ascii_alphanumeric() || "+-_.!~*'()#".contains(c);
    if user.is_empty() || user.len() > USER_BYTES_MAX || !user.chars().all(plain) {
        return None;
    }
    let number: String = user.chars().filter(|c| !"-.()".contains(*c)).collect();
    let body = number.strip_prefix('+').unwrap_or(&number);
    let is_number =
        !body.is_empty() && body.chars().all(|c| c.is_ascii_digit() || "*#".contains(c));
    // A plus that begins no number is a riddle.
    match (is_number, user.contains('+')) {
        (true, _) => Some(number),
        (false, true) => None,
        (false, false) => Some(user.into_owned()),
    }
}

/// The number as `+…` when it begins with `+`, `00` or `011`; else as it is.
fn international(user: &str) -> String {
    for start in ["00", "011"] {
        if let Some(rest) = user.strip_prefix(start)
            && rest.starts_with(|c: char| c.is_ascii_digit() && c != '0')
        {
            return format!("+{rest}");
        }
    }
    user.to_owned()
}

fn plain_name(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

/// How many calls may begin: a window of 60 s, and calls at once.
#[derive(Debug, Default)]
pub struct Limiter {
    begun: VecDeque<Instant>,
}

impl Limiter {
    /// Takes one place when there is one now, with `live` outgoing calls up already.
    ///
    /// # Errors
    /// The time after which it is worth to ask again.
    pub fn take(
        &mut self,
        now: Instant,
        policy: &OutgoingPolicy,
        live: usize,
    ) -> Result<(), Duration> {
        while self.begun.front().is_some_and(|begun| now.since(*begun) >= MINUTE) {
            self.begun.pop_front();
        }
        if self.begun.len() >= policy.calls_per_minute as usize {
            let oldest = self.begun.front().map_or(Duration::ZERO, |begun| now.since(*begun));
            return Err(MINUTE.saturating_sub(oldest).max(Duration::from_secs(1)));
        }
        if live >= policy.calls_max {
            return Err(Duration::from_secs(5));
        }
        self.begun.push_back(now);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ground::Entropy;

    fn policy(hosts: &[&str], allowed: &[&str], denied: &[&str]) -> OutgoingPolicy {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        OutgoingPolicy {
            hosts: hosts.iter().map(|host| HostRule::parse(host).expect("a host")).collect(),
            allowed_prefixes: owned(allowed),
            denied_prefixes: owned(denied),
            ..OutgoingPolicy::default()
        }
    }

    fn shown(policy: &OutgoingPolicy, target: &str) -> String {
        match policy.admit(target, false) {
            Ok(callee) => callee.uri,
            Err(Unwanted::Unreadable(_)) => "unreadable".into(),
            Err(other) => format!("{other:?}"),
        }
    }

    #[test]
    fn nobody_is_called_by_default() {
        let nobody = OutgoingPolicy::default();
        assert_eq!(shown(&nobody, "sip:+15550001@trunk.example.com"), "Host");
        assert_eq!(shown(&nobody, "sip:a@127.0.0.1"), "Host");
    }

    #[test]
    fn targets_are_read_checked_and_written_anew() {
        let policy = policy(
            &[
                "Trunk.example.com",
                "*.pbx.example",
                "198.51.100.0/24",
                "[2001:db8::5]",
                "lab.example:5070",
            ],
            &["+1", "+49", "2", "sales"],
            &["+1900", "+4990"],
        );
        let cases = [
            ("sip:+15550001@trunk.example.com", "sip:+15550001@trunk.example.com"),
            ("sip:+1-555.00(01)@TRUNK.example.com.", "sip:+15550001@trunk.example.com"),
            ("sip:%2b1%35550001@trunk.example.com;user=phone", "sip:+15550001@trunk.example.com"),
            ("sips:+15550001@a.pbx.example:5061", "sips:+15550001@a.pbx.example:5061"),
            ("sip:2001@198.51.100.9;transport=TCP", "sip:2001@198.51.100.9;transport=tcp"),
            ("sip:0049301@trunk.example.com", "sip:0049301@trunk.example.com"),
            ("sip:01149301@trunk.example.com", "sip:01149301@trunk.example.com"),
            ("sip:sales@[2001:db8:0::5]", "sip:sales@[2001:db8::5]"),
            ("sip:2*1#@lab.example:5070", "sip:2*1%23@lab.example:5070"),
            ("sip:2001@lab.example", "Host"),
            ("sip:2001@trunk.example.com:22", "Host"),
            ("sip:2001@pbx.example", "Host"),
            ("sip:2001@.pbx.example", "unreadable"),
            ("sip:2001@eviltrunk.example.com", "Host"),
            ("sip:2001@trunk.example.com.evil.example", "Host"),
            ("sip:2001@198.51.101.9", "Host"),
            ("sip:2001@[::ffff:198.51.100.9]", "sip:2001@198.51.100.9"),
            ("sip:+441@trunk.example.com", "NotAllowed"),
            ("sip:00441@trunk.example.com", "NotAllowed"),
            ("sip:+19005550@trunk.example.com", "Denied"),
            ("sip:0019005550@trunk.example.com", "Denied"),
            ("sip:01119005550@trunk.example.com", "Denied"),
            ("sip:19005550@trunk.example.com", "Denied"),
            ("sip:%2B1%39005550@trunk.example.com", "Denied"),
            ("sip:+1(900)5550@trunk.example.com", "Denied"),
            ("sip:+1555@trunk.example.com;maddr=203.0.113.9", "unreadable"),
            ("sip:+1555@trunk.example.com?Route=%3csip:evil%3e", "unreadable"),
            ("sip:+1555:secret@trunk.example.com", "unreadable"),
            ("sip:+1555;ext=900@trunk.example.com", "unreadable"),
            ("sip:+1555%40evil@trunk.example.com", "unreadable"),
            ("sip:2001@198.51.100.9@evil.example", "unreadable"),
            ("sip:trunk.example.com", "unreadable"),
            ("tel:+15550001", "unreadable"),
            ("+15550001", "unreadable"),
            ("sips:2001@198.51.100.9;transport=udp", "unreadable"),
            ("sip:2001@198.51.100.9;transport=ws", "unreadable"),
            ("sip:2001@198.51.100.9;transport=tcp;transport=udp", "unreadable"),
            ("sip:2\u{ff10}01@198.51.100.9", "unreadable"),
            ("sip:2001%00@198.51.100.9", "unreadable"),
            ("sip:+1+900@trunk.example.com", "unreadable"),
            ("sip:2001@%74runk.example.com", "unreadable"),
        ];
        for (target, expected) in cases {
            assert_eq!(shown(&policy, target), expected, "{target}");
        }
        let moved = policy.admit("sip:2001@198.51.100.9?Replaces=x", true);
        assert_eq!(moved.map(|callee| callee.uri), Ok("sip:2001@198.51.100.9".into()));
    }

    #[test]
    fn hosts_that_are_none_are_told() {
        for text in ["", "a@b", "h;lr", "*.", "*.com", "1.2.3.4/33", "h:0x5", "sip:h"] {
            assert!(HostRule::parse(text).is_err(), "{text}");
        }
    }

    /// What somebody who wants a forbidden number would write: every way to say one target, from
    /// its parts. The oracle knows the parts; the policy sees the text alone.
    struct Forger(Entropy);

    impl Forger {
        fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
            from[self.0.below(from.len() as u64) as usize]
        }

        /// Escapes, separators and case, as RFC 3261 and RFC 3966 allow them.
        fn disguised(&mut self, user: &str) -> String {
            let mut text = String::new();
            for c in user.chars() {
                match self.0.below(6) {
                    0 => text.push_str(&format!("%{:02x}", c as u32)),
                    1 => text.push_str(&format!("%{:02X}", c as u32)),
                    _ => text.push(c),
                }
                if self.0.below(5) == 0 && c.is_ascii_digit() {
                    text.push_str(self.pick(&["-", ".", "(", ")", "%2d", "%2E", "%28"]));
                }
            }
            text
        }

        fn cased(&mut self, text: &str) -> String {
            let flip = |c: char, up: bool| if up { c.to_ascii_uppercase() } else { c };
            text.chars().map(|c| flip(c, self.0.below(2) == 0)).collect()
        }
    }

    #[test]
    fn no_disguise_of_a_forbidden_target_is_called() {
        let policy =
            policy(&["trunk.example.com", "203.0.113.5"], &["+1", "+49", "7"], &["+1900", "881"]);
        let allowed_hosts = ["trunk.example.com", "203.0.113.5"];
        let (mut called, mut refused) = (0, 0);
        for seed in 0..40_000 {
            let mut forger = Forger(Entropy::from_number(seed));
            let start = forger.pick(&["+", "00", "011", ""]);
            let number = forger.pick(&[
                "15550001", "19005550", "4930123", "8815550", "441234", "7001", "900", "1",
            ]);
            let host = forger.pick(&[
                "trunk.example.com",
                "203.0.113.5",
                "evil.example",
                "trunk.example.com.evil.example",
                "eviltrunk.example.com",
                "203.0.113.50",
                "3405803781",
                "0xcb.0.113.5",
                "[::ffff:203.0.113.5]",
                "[::203.0.113.5]",
                "localhost",
                "127.0.0.1",
                "trunk.example.co",
            ]);
            let tail = forger.pick(&[
                "",
                "",
                "",
                "",
                ".",
                ":5060",
                ":5061",
                ":22",
                ";transport=udp",
                ";transport=TLS",
                ";maddr=198.51.100.66",
                ";user=phone",
                "?Route=%3Csip:evil.example%3E",
                ";lr",
                ";phone-context=+1900",
                "@evil.example",
                "%00",
                "%40evil.example",
            ]);
            let middle =
                forger.pick(&["", "", "", ":pw", ";ext=1", "%40evil.example", "@evil.example"]);
            let (user, shown_host) =
                (forger.disguised(&format!("{start}{number}")), forger.cased(host));
            let scheme = forger.pick(&["sip", "SIP", "sips", "SiP", "tel", "http", " sip"]);
            let target = format!("{scheme}:{user}{middle}@{shown_host}{tail}");
            let Ok(callee) = policy.admit(&target, false) else {
                refused += 1;
                continue;
            };
            called += 1;
            let real_host = if host == "[::ffff:203.0.113.5]" { "203.0.113.5" } else { host };
            assert!(allowed_hosts.contains(&real_host), "seed {seed}: {target} is {callee:?}");
            let full = format!("{start}{number}");
            let digits = match start {
                "+" | "00" | "011" => number,
                _ => full.as_str(),
            };
            let wanted = match start {
                "" => number.starts_with('7'),
                _ => number.starts_with('1') || number.starts_with("49"),
            };
            assert!(wanted, "seed {seed}: {target} is {callee:?}");
            for denied in ["1900", "881"] {
                assert!(!digits.starts_with(denied), "seed {seed}: {target} is {callee:?}");
            }
            // What is sent is read as what was checked, and by a second look the same.
            let again = policy.admit(&callee.uri, false);
            assert_eq!(again.as_ref(), Ok(&callee), "seed {seed}: {target}");
            let sent = Uri::parse(&callee.uri).expect("it is a URI");
            assert_eq!(sent.user_decoded(), full, "seed {seed}: {target}");
            assert!(
                sent.password().is_none() && !sent.has_headers() && sent.param("maddr").is_none()
            );
        }
        assert!(called > 300 && refused > 30_000, "{called} called, {refused} refused");
    }

    #[test]
    fn calls_are_counted_in_a_window_and_at_once() {
        let at = |s| Instant::ZERO + Duration::from_secs(s);
        let policy =
            OutgoingPolicy { calls_per_minute: 2, calls_max: 3, ..OutgoingPolicy::default() };
        let mut limiter = Limiter::default();
        assert_eq!(limiter.take(at(0), &policy, 0), Ok(()));
        assert_eq!(limiter.take(at(10), &policy, 3), Err(Duration::from_secs(5)), "three are up");
        assert_eq!(limiter.take(at(10), &policy, 2), Ok(()));
        assert_eq!(limiter.take(at(20), &policy, 0), Err(Duration::from_secs(40)));
        assert_eq!(limiter.take(at(59), &policy, 0), Err(Duration::from_secs(1)));
        assert_eq!(limiter.take(at(60), &policy, 0), Ok(()));
        assert_eq!(limiter.take(at(61), &policy, 0), Err(Duration::from_secs(9)));
    }
}
