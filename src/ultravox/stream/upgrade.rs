//! The opening handshake of the agent stream (RFC 6455 §4.1, §4.2.2): the request, and the answer
//! as it arrives in pieces. Only a 101 that proves it read our key opens the stream. The one door
//! to SHA-1, which the handshake uses as a proof of understanding, not for secrecy.

use super::url::StreamUrl;
use crate::ground::Entropy;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};
use std::fmt;

/// Largest answer head.
const HEAD_BYTES_MAX: usize = 8 * 1024;
/// The fixed text of RFC 6455 §1.3.
const ACCEPT_SALT: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// An upgrade whose request was made and whose answer is awaited.
#[derive(Debug)]
pub struct Upgrade {
    accept: String,
    head: Vec<u8>,
}

/// Why no stream opened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum UpgradeFault {
    /// Answered with this status instead of 101.
    Refused(u16),
    /// No HTTP, or a 101 that is no acceptance of our request.
    BadHandshake(&'static str),
}

impl fmt::Display for UpgradeFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UpgradeFault::Refused(code) => write!(f, "the upgrade was answered with {code}"),
            UpgradeFault::BadHandshake(what) => f.write_str(what),
        }
    }
}

impl Upgrade {
    /// Makes the request for `url` with a fresh key; the bytes go to the wire at once.
    pub fn request(url: &StreamUrl, entropy: &mut Entropy) -> (Upgrade, Vec<u8>) {
        let mut nonce = [0; 16];
        entropy.fill(&mut nonce);
        let key = STANDARD.encode(nonce);
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\nUser-Agent: voxedge/{}\r\n\r\n",
            url.target().reveal(),
            url.host_header(),
            env!("CARGO_PKG_VERSION"),
        );
        (Upgrade { accept: accept_of(&key), head: Vec::new() }, request.into_bytes())
    }

    /// Takes the next bytes of the answer. `Some(used)` when the stream is open: what follows the
    /// first `used` bytes of `bytes` is frames. `None` when the head is not whole yet.
    ///
    /// # Errors
    /// [`UpgradeFault`]; the connection is of no more use then.
    pub fn handle(&mut self, bytes: &[u8]) -> Result<Option<usize>, UpgradeFault> {
        for (index, byte) in bytes.iter().enumerate() {
            self.head.push(*byte);
            if self.head.ends_with(b"\r\n\r\n") {
                match judge(&self.head, &self.accept)? {
                    Verdict::Open => return Ok(Some(index + 1)),
                    Verdict::Interim => self.head.clear(),
                }
            } else if self.head.len() >= HEAD_BYTES_MAX {
                return Err(UpgradeFault::BadHandshake("the answer's head is too large"));
            }
        }
        Ok(None)
    }
}

/// `Sec-WebSocket-Accept` for a key (RFC 6455 §4.2.2 step 5.4).
fn accept_of(key: &str) -> String {
    let mut hash = Sha1::new();
    hash.update(key.as_bytes());
    hash.update(ACCEPT_SALT.as_bytes());
    STANDARD.encode(hash.finalize())
}

enum Verdict {
    Open,
    /// 100, 102, 103: the real answer follows (RFC 9110 §15.2).
    Interim,
}

fn judge(head: &[u8], accept: &str) -> Result<Verdict, UpgradeFault> {
    let bad = |what| Err(UpgradeFault::BadHandshake(what));
    let Ok(text) = std::str::from_utf8(head) else { return bad("the answer is no text") };
    let mut lines = text.split("\r\n");
    match status_of(lines.next().unwrap_or_default()) {
        None => return bad("the answer is not HTTP/1.1"),
        Some(101) => {}
        Some(100..=199) => return Ok(Verdict::Interim),
        Some(code) => return Err(UpgradeFault::Refused(code)),
    }
    let (mut upgrade, mut connection, mut accepted) = (false, false, None);
    for line in lines.filter(|line| !line.is_empty()) {
        let Some((name, value)) = line.split_once(':') else { return bad("a header has no colon") };
        let value = value.trim_matches([' ', '\t']);
        let names = |wanted: &str| name.eq_ignore_ascii_case(wanted);
        if names("upgrade") {
            upgrade |= has_token(value, "websocket");
        } else if names("connection") {
            connection |= has_token(value, "upgrade");
        } else if names("sec-websocket-accept") && accepted.replace(value == accept).is_some() {
            return bad("Sec-WebSocket-Accept came twice");
        } else if names("sec-websocket-extensions") && !value.is_empty() {
            return bad("an extension was chosen that was not offered");
        } else if names("sec-websocket-protocol") {
            return bad("a sub-protocol was chosen that was not offered");
        }
    }
    match (upgrade, connection, accepted) {
        (false, ..) => bad("the 101 names no upgrade to websocket"),
        (_, false, _) => bad("the 101 has no Connection: Upgrade"),
        (.., None) => bad("the 101 has no Sec-WebSocket-Accept"),
        (.., Some(false)) => bad("Sec-WebSocket-Accept does not fit our key"),
        (true, true, Some(true)) => Ok(Verdict::Open),
    }
}

/// The code of an HTTP/1.1 status line.
fn status_of(line: &str) -> Option<u16> {
    let rest = line.strip_prefix("HTTP/1.1 ")?;
    let (code, reason) = rest.split_at_checked(3)?;
    let valid = code.bytes().all(|byte| byte.is_ascii_digit())
        && (reason.is_empty() || reason.starts_with(' '));
    code.parse().ok().filter(|code| valid && *code >= 100)
}

fn has_token(value: &str, wanted: &str) -> bool {
    value.split(',').any(|token| token.trim_matches([' ', '\t']).eq_ignore_ascii_case(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "HTTP/1.1 101 Switching Protocols\r\nupgrade: WebSocket\r\n\
                        Connection: keep-alive, Upgrade\r\nSec-WebSocket-Accept: KEY\r\n\r\n";

    fn upgrade() -> Upgrade {
        let url = StreamUrl::parse("wss://voice.ultravox.ai/calls/7/x?a=b").expect("a URL");
        Upgrade::request(&url, &mut Entropy::from_number(1)).0
    }

    /// The outcome of `answer`, in which `KEY` stands for the right acceptance, fed in one piece
    /// and byte by byte alike.
    fn outcome(answer: &str) -> Result<Option<usize>, UpgradeFault> {
        let answer = answer.replace("KEY", &upgrade().accept);
        let whole = upgrade().handle(answer.as_bytes());
        let mut single = upgrade();
        let mut last = Ok(None);
        for (index, byte) in answer.bytes().enumerate() {
            last = single.handle(&[byte]).map(|used| used.map(|one| index + one));
            if last != Ok(None) {
                break;
            }
        }
        assert_eq!(whole, last, "{answer}");
        whole
    }

    #[test]
    fn the_request_is_what_the_rfc_asks_for() {
        let url = StreamUrl::parse("wss://voice.ultravox.ai:444/calls/7/x?a=b").expect("a URL");
        let (upgrade, request) = Upgrade::request(&url, &mut Entropy::from_number(1));
        let text = String::from_utf8(request).expect("ASCII");
        let key = text.split("Key: ").nth(1).and_then(|rest| rest.split("\r\n").next());
        let key = key.expect("a key line");
        assert_eq!(STANDARD.decode(key).expect("base64").len(), 16);
        assert_eq!(upgrade.accept, accept_of(key));
        assert_eq!(
            text,
            format!(
                "GET /calls/7/x?a=b HTTP/1.1\r\nHost: voice.ultravox.ai:444\r\n\
                 Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: {key}\r\nUser-Agent: voxedge/{}\r\n\r\n",
                env!("CARGO_PKG_VERSION")
            )
        );
    }

    #[test]
    fn the_acceptance_is_the_rfcs_own_example() {
        assert_eq!(accept_of("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn an_acceptance_opens_and_frames_may_follow_at_once() {
        let head = GOOD.replace("KEY", &upgrade().accept).len();
        assert_eq!(outcome(GOOD), Ok(Some(head)));
        assert_eq!(outcome(&format!("{GOOD}\u{1}frames")), Ok(Some(head)));
        assert_eq!(outcome(GOOD.trim_end()), Ok(None));
        let early = "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n";
        assert_eq!(outcome(&format!("{early}{GOOD}")), Ok(Some(early.len() + head)));
    }

    #[test]
    fn anything_else_is_refused_with_its_reason() {
        let bad = |what| Err(UpgradeFault::BadHandshake(what));
        let cases = [
            (GOOD.replace("101", "404"), Err(UpgradeFault::Refused(404))),
            (GOOD.replace("101 Switching Protocols", "503"), Err(UpgradeFault::Refused(503))),
            (GOOD.replace("101", "200"), Err(UpgradeFault::Refused(200))),
            (GOOD.replace("HTTP/1.1", "HTTP/1.0"), bad("the answer is not HTTP/1.1")),
            (GOOD.replace("101 ", "1011 "), bad("the answer is not HTTP/1.1")),
            (GOOD.replace("101", "099"), bad("the answer is not HTTP/1.1")),
            (GOOD.replace("WebSocket\r", "h2c\r"), bad("the 101 names no upgrade to websocket")),
            (GOOD.replace(", Upgrade", ""), bad("the 101 has no Connection: Upgrade")),
            (GOOD.replace("KEY", "KEX="), bad("Sec-WebSocket-Accept does not fit our key")),
            (GOOD.replace("-Accept:", "-Axcept:"), bad("the 101 has no Sec-WebSocket-Accept")),
            (GOOD.replace("upgrade: ", "upgrade "), bad("a header has no colon")),
            (
                GOOD.replace("upgrade:", "Sec-WebSocket-Accept: KEY\r\nupgrade:"),
                bad("Sec-WebSocket-Accept came twice"),
            ),
            (
                GOOD.replace(
                    "upgrade:",
                    "Sec-WebSocket-Extensions: permessage-deflate\r\nupgrade:",
                ),
                bad("an extension was chosen that was not offered"),
            ),
            (
                GOOD.replace("upgrade:", "Sec-WebSocket-Protocol: x\r\nupgrade:"),
                bad("a sub-protocol was chosen that was not offered"),
            ),
            ("x".repeat(HEAD_BYTES_MAX), bad("the answer's head is too large")),
        ];
        for (answer, expected) in cases {
            assert_eq!(outcome(&answer), expected, "{answer}");
        }
        let mut binary = GOOD.as_bytes().to_vec();
        binary[20] = 0xff;
        assert_eq!(upgrade().handle(&binary), bad("the answer is no text"));
    }

    #[test]
    fn no_mutation_of_the_acceptance_opens_the_stream_wrongly() {
        let good = GOOD.replace("KEY", &upgrade().accept).into_bytes();
        let mut entropy = Entropy::from_number(2);
        for _ in 0..5_000 {
            let mut answer = good.clone();
            let at = entropy.below(answer.len() as u64) as usize;
            let byte = entropy.u32() as u8;
            answer[at] = byte;
            let key_end = good.len() - 4;
            let in_key = (key_end - 28..key_end).contains(&at) && byte != good[at];
            let opened = matches!(upgrade().handle(&answer), Ok(Some(_)));
            assert!(!(in_key && opened), "byte {at} = {byte}");
        }
    }
}
