//! The SIP of one call of the caller's, by the product's own message layer.

use crate::voice::Voice;
use bytes::Bytes;
use std::net::SocketAddr;
use voxedge::sip::msg::{Builder, Framing, Message, Method};
use voxedge::sip::status::StatusLine;

/// The agent that is called; the far end has every agent.
const AGENT: &str = "agent_00000000-0000-4000-8000-0000000000e0";

/// Our side of a dialog.
pub struct Dialog {
    index: usize,
    server: SocketAddr,
    local: SocketAddr,
    rtp_port: u16,
    voice: Voice,
    tag: String,
    contact: String,
}

/// What a message from the daemon means.
pub enum Heard {
    Answered {
        tag: String,
        contact: String,
        media: SocketAddr,
    },
    Refused {
        status: u16,
        tag: String,
    },
    /// Our BYE was answered.
    Left,
    /// The daemon's BYE, with our answer.
    Ended {
        answer: Bytes,
        reason: String,
    },
}

impl Dialog {
    pub fn new(
        index: usize,
        server: SocketAddr,
        local: SocketAddr,
        rtp_port: u16,
        voice: Voice,
    ) -> Dialog {
        let (tag, contact) = (String::new(), String::new());
        Dialog { index, server, local, rtp_port, voice, tag, contact }
    }

    pub fn established(&mut self, tag: String, contact: String) {
        (self.tag, self.contact) = (tag, contact);
    }

    pub fn invite(&self) -> Bytes {
        let (ip, port, index) = (self.local.ip(), self.rtp_port, self.index);
        let (number, encoding) = (self.voice.payload_type(), self.voice.encoding());
        let offer = format!(
            "v=0\r\no=load {index} 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\n\
             m=audio {port} RTP/AVP {number} 101\r\na=rtpmap:{number} {encoding}\r\n\
             a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-15\r\na=ptime:20\r\na=sendrecv\r\n"
        );
        let builder = self.request(&Method::Invite, &self.uri(), (1, "invite"), "");
        finish(builder.body("application/sdp", offer.as_bytes()))
    }

    pub fn ack(&self) -> Bytes {
        finish(self.request(&Method::Ack, &self.contact, (1, "ack"), &self.tag))
    }

    /// Within the transaction of the INVITE (RFC 3261 §17.1.1.3).
    pub fn ack_refusal(&self, tag: &str) -> Bytes {
        finish(self.request(&Method::Ack, &self.uri(), (1, "invite"), tag))
    }

    pub fn bye(&self) -> Bytes {
        finish(self.request(&Method::Bye, &self.contact, (2, "bye"), &self.tag))
    }

    fn uri(&self) -> String {
        format!("sip:{AGENT}@{}", self.server)
    }

    fn request(
        &self,
        method: &Method,
        uri: &str,
        (cseq, branch): (u32, &str),
        to_tag: &str,
    ) -> Builder {
        let Dialog { index, local, server, .. } = self;
        let tag = if to_tag.is_empty() { String::new() } else { format!(";tag={to_tag}") };
        // Ports tell runs apart: a daemon may remember transactions of the one before.
        let port = local.port();
        Builder::request(method, uri)
            .header(
                "Via",
                &format!("SIP/2.0/UDP {local};branch=z9hG4bK{branch}-{port}-{index};rport"),
            )
            .header("Max-Forwards", "70")
            .header("From", &format!("<sip:load@{}>;tag=l{port}-{index}", local.ip()))
            .header("To", &format!("<sip:{AGENT}@{}>{tag}", server.ip()))
            .header("Call-ID", &format!("{index}-{port}@load"))
            .header("CSeq", &format!("{cseq} {}", method.as_str()))
            .header("Contact", &format!("<sip:load@{local}>"))
            .header("User-Agent", "voxedge-load")
    }
}

fn finish(builder: Builder) -> Bytes {
    builder.finish().expect("the kit's own headers hold no line ends")
}

impl Heard {
    /// The call's index and what the message means; `None` for provisional answers and what is not
    /// ours.
    pub fn of(datagram: &[u8], server: SocketAddr) -> Option<(usize, Heard)> {
        let message = Message::parse(Bytes::copy_from_slice(datagram), Framing::Datagram).ok()?;
        let index = message.headers().call_id().split('-').next()?.parse().ok()?;
        let heard = match message {
            Message::Request(request) if request.method() == &Method::Bye => {
                let ok = StatusLine { code: 200, reason: "OK".into() };
                let reason = request.get_named("Reason").unwrap_or("no reason given").to_owned();
                let answer = finish(Builder::response(&request, &ok, server));
                Heard::Ended { answer, reason }
            }
            Message::Request(_) => return None,
            Message::Response(response) => {
                let tag = response.to().tag().unwrap_or_default().to_owned();
                let method = response.cseq().method.clone();
                match (method, response.code()) {
                    (_, 100..200) => return None,
                    (Method::Bye, _) => Heard::Left,
                    (Method::Invite, 200..300) => {
                        let contact = response.contact()?.uri().as_str().to_owned();
                        let media = media_of(&String::from_utf8_lossy(response.body()))?;
                        Heard::Answered { tag, contact, media }
                    }
                    (Method::Invite, status) => Heard::Refused { status, tag },
                    _ => return None,
                }
            }
        };
        Some((index, heard))
    }
}

/// Where the daemon wants our audio.
fn media_of(description: &str) -> Option<SocketAddr> {
    let line = |start| description.lines().find_map(|line| line.strip_prefix(start));
    let ip = line("c=IN IP4 ")?.trim().parse().ok()?;
    let port = line("m=audio ")?.split(' ').next()?.parse().ok()?;
    Some(SocketAddr::new(ip, port))
}
