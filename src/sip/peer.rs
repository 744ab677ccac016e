//! What the peer of a dialog says that it can do: its Allow and Supported (RFC 3261 §20.5, §20.37),
//! from the last message that had them. What it does not say is not known, never refused.

use super::msg::{Headers, Method, Name};

/// The abilities of a peer. A method is `None` until an Allow came.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PeerAbilities {
    pub refer: Option<bool>,
    pub update: Option<bool>,
    pub info: Option<bool>,
    /// It can take over a dialog (RFC 3891).
    pub replaces: bool,
    /// Session timers (RFC 4028).
    pub timer: bool,
    /// Reliable provisional answers (RFC 3262).
    pub reliable: bool,
    /// A REFER without a subscription (RFC 4488).
    pub no_refer_sub: bool,
}

impl PeerAbilities {
    /// Reads a message of the peer. A header that it lacks leaves what was known.
    pub fn note(&mut self, headers: &Headers) {
        if headers.get(Name::Allow).is_some() {
            let allows = |method: &Method| {
                Some(headers.values(Name::Allow).any(|allowed| allowed == method.as_str()))
            };
            self.refer = allows(&Method::Refer);
            self.update = allows(&Method::Update);
            self.info = allows(&Method::Info);
        }
        if headers.get(Name::Supported).is_some() || headers.get(Name::Require).is_some() {
            let has = |tag| {
                headers.has_option(Name::Supported, tag) || headers.has_option(Name::Require, tag)
            };
            self.replaces = has("replaces");
            self.timer = has("timer");
            self.reliable = has("100rel");
            self.no_refer_sub = has("norefersub");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::parse_request;
    use super::*;

    #[test]
    fn the_last_word_counts_and_silence_says_nothing() {
        let mut peer = PeerAbilities::default();
        let message = |lines: &str| {
            parse_request(&format!(
                "INFO sip:u@h SIP/2.0\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\nFrom: <sip:a@h>;tag=1\n\
                 To: <sip:u@h>\nCall-ID: c\nCSeq: 5 INFO\n{lines}Content-Length: 0\n\n"
            ))
        };
        peer.note(&message(""));
        assert_eq!(peer, PeerAbilities::default());
        peer.note(&message("Allow: INVITE, REFER\nAllow: UPDATE\nk: Replaces, timer\n"));
        let expected = PeerAbilities {
            refer: Some(true),
            update: Some(true),
            info: Some(false),
            replaces: true,
            timer: true,
            ..PeerAbilities::default()
        };
        assert_eq!(peer, expected);
        peer.note(&message(""));
        assert_eq!(peer, expected);
        peer.note(&message("Allow: refer\nSupported:\nRequire: 100rel\n"));
        assert_eq!((peer.refer, peer.update), (Some(false), Some(false)), "case matters");
        assert!(peer.reliable && !peer.replaces);
    }
}
