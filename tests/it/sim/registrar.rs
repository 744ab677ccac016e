//! A registrar, written apart from the product: digest with MD5 and `qop=auth`, one nonce for each
//! challenge, bindings by contact. It keeps what it was sent, and no clock.

use md5::{Digest, Md5};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// What it says to a REGISTER with good credentials.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mood {
    Good,
    /// Nothing at all.
    Down,
    Says(u16),
}

/// One binding.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bound {
    pub call_id: String,
    pub cseq: u32,
    pub expires_s: u32,
}

pub struct Registrar {
    pub address: SocketAddr,
    pub user: &'static str,
    pub password: &'static str,
    pub mood: Mood,
    /// The longest binding.
    pub expires_s: u32,
    /// By contact URI.
    pub bindings: BTreeMap<String, Bound>,
    /// Challenges made, and credentials refused.
    pub challenges: u32,
    pub wrong: u32,
}

impl Registrar {
    pub fn new(address: &str, user: &'static str, password: &'static str) -> Registrar {
        Registrar {
            address: address.parse().expect("an address"),
            user,
            password,
            mood: Mood::Good,
            expires_s: 300,
            bindings: BTreeMap::new(),
            challenges: 0,
            wrong: 0,
        }
    }

    /// The answer to a REGISTER, if any.
    pub fn answer(&mut self, register: &str) -> Option<String> {
        let head = |name: &str| {
            let lines = register.lines().filter_map(|line| line.split_once(": "));
            lines.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, v)| v)
        };
        let reply = |status: &str, more: &str| {
            let copied = ["Via", "From", "Call-ID", "CSeq"].map(|name| {
                format!("{name}: {}\r\n", head(name).unwrap_or_else(|| panic!("no {name}")))
            });
            let to = head("To").expect("a To");
            format!(
                "SIP/2.0 {status}\r\n{}To: {to};tag=reg\r\n{more}Content-Length: 0\r\n\r\n",
                copied.concat()
            )
        };
        match self.mood {
            Mood::Down => return None,
            Mood::Says(code) => return Some(reply(&format!("{code} Said"), "")),
            Mood::Good => {}
        }
        let authorization = head("Authorization");
        if !authorization.is_some_and(|value| self.is_good(value)) {
            self.wrong += u32::from(authorization.is_some());
            self.challenges += 1;
            let challenge = format!(
                "WWW-Authenticate: Digest realm=\"pbx\", nonce=\"n{}\", algorithm=MD5, qop=\"auth\"\r\n",
                self.challenges
            );
            return Some(reply("401 Unauthorized", &challenge));
        }
        let contact = head("Contact").expect("a contact");
        let (uri, params) = contact.trim_start_matches('<').split_once('>').expect("<…>");
        let expires = params.split(";expires=").nth(1).or(head("Expires")).expect("a time");
        let expires_s = expires.parse::<u32>().expect("seconds").min(self.expires_s);
        if expires_s == 0 {
            self.bindings.remove(uri);
        } else {
            let cseq = head("CSeq").and_then(|value| value.split(' ').next()?.parse().ok());
            let call_id = head("Call-ID").expect("a Call-ID").to_owned();
            let bound = Bound { call_id, cseq: cseq.expect("a number"), expires_s };
            self.bindings.insert(uri.to_owned(), bound);
        }
        let listed = self
            .bindings
            .iter()
            .map(|(uri, bound)| format!("Contact: <{uri}>;expires={}\r\n", bound.expires_s));
        Some(reply("200 OK", &listed.collect::<String>()))
    }

    /// RFC 2617 §3.2.2, for a nonce that was given out last or before.
    fn is_good(&self, authorization: &str) -> bool {
        let part = |name: &str| {
            let (_, rest) = authorization.split_once(&format!("{name}="))?;
            Some(rest.split(',').next()?.trim_matches('"'))
        };
        let part = |name: &str| part(name).unwrap_or_else(|| panic!("no {name}: {authorization}"));
        let hash = |text: String| {
            Md5::digest(text).iter().map(|byte| format!("{byte:02x}")).collect::<String>()
        };
        let secret = hash(format!("{}:pbx:{}", self.user, self.password));
        let asked = hash(format!("REGISTER:{}", part("uri")));
        let (nonce, count, cnonce) = (part("nonce"), part("nc"), part("cnonce"));
        part("username") == self.user
            && part("response") == hash(format!("{secret}:{nonce}:{count}:{cnonce}:auth:{asked}"))
    }
}
