//! The demo's phone when it is called: it waits on a UDP port, rings, answers, and then talks and
//! hangs up as the calling one does.

use super::line::Line;
use super::phone::{Phone, PhoneCall, PhoneReport, media_of};
use crate::ground::Entropy;
use crate::sip::msg::{Builder, Framing, Message, Method, Request};
use crate::sip::status::StatusLine;
use bytes::Bytes;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::net::UdpSocket;

/// How long the phone waits to be called, and for the ACK of its answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// For how long it rings.
const RINGS: Duration = Duration::from_millis(300);
/// The largest packet.
const PACKET_BYTES_MAX: usize = 65_536;

/// A phone on loopback that can be called.
pub struct Waiting {
    socket: UdpSocket,
    pub address: SocketAddr,
}

impl Waiting {
    /// Takes a free port.
    ///
    /// # Errors
    /// When there is none.
    pub async fn open() -> io::Result<Waiting> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = socket.local_addr()?;
        Ok(Waiting { socket, address })
    }

    /// Answers the next call and stays in it as `call` says; its `server`, `to_user` and `headers`
    /// mean nothing here. The set-up time is that from the INVITE to its ACK, ringing included.
    ///
    /// # Errors
    /// When a socket fails, nobody calls within 20 s, or the offer lacks the phone's codec.
    pub async fn answer(self, call: PhoneCall) -> io::Result<PhoneReport> {
        let called = tokio::time::timeout(PATIENCE, self.next_invite()).await;
        let timed_out = |words| io::Error::new(io::ErrorKind::TimedOut, words);
        let (invite, caller) = called.map_err(|_| timed_out("nobody called the phone"))??;
        self.socket.connect(caller).await?;
        let mut line = Line::over(self.socket, self.address, caller);
        let mut entropy = Entropy::from_number(call.seed);
        let tag = entropy.token(64);
        let call = PhoneCall { server: caller, ..call };
        let call_id = invite.call_id().to_owned();
        let mut phone = Phone::new(call, self.address, entropy, call_id)?;
        phone.note("← INVITE");
        phone.own = format!("{};tag={tag}", invite.to().as_str());
        phone.remote = invite.from().as_str().to_owned();
        let contact = invite.contact().unwrap_or_else(|| invite.from());
        phone.target = contact.uri().as_str().to_owned();
        let number = phone.wording.payload_type;
        let remote = media_of(invite.body(), number)?;
        line.send(&answer_to(&phone, &invite, caller, &tag, 180)).await?;
        phone.note("180 Ringing →");
        tokio::time::sleep(RINGS).await;
        let ok = answer_to(&phone, &invite, caller, &tag, 200);
        line.send(&ok).await?;
        phone.note("200 OK →");
        if !is_acknowledged(&mut line, &ok).await? {
            return Err(timed_out("the phone's answer was not acknowledged"));
        }
        phone.note("← ACK");
        (phone.report.status, phone.report.reason) = (200, "OK".to_owned());
        phone.report.setup = phone.elapsed();
        phone.talk(&mut line, (remote, number)).await?;
        Ok(phone.report)
    }

    async fn next_invite(&self) -> io::Result<(Request, SocketAddr)> {
        let mut buffer = vec![0; PACKET_BYTES_MAX];
        loop {
            let (length, from) = self.socket.recv_from(&mut buffer).await?;
            let packet = Bytes::copy_from_slice(buffer.get(..length).unwrap_or_default());
            if let Ok(Message::Request(request)) = Message::parse(packet, Framing::Datagram)
                && *request.method() == Method::Invite
            {
                return Ok((request, from));
            }
        }
    }
}

fn answer_to(phone: &Phone, invite: &Request, caller: SocketAddr, tag: &str, code: u16) -> Bytes {
    let mut builder = Builder::response(invite, &StatusLine::of(code), caller)
        .to_tag(tag)
        .header("Contact", &phone.contact());
    if code == 200 {
        builder = builder.body("application/sdp", phone.offer().as_bytes());
    }
    builder.finish().expect("an answer repeats what was read")
}

/// Sends the answer again until its ACK comes (RFC 3261 §13.3.1.4).
async fn is_acknowledged(line: &mut Line, ok: &Bytes) -> io::Result<bool> {
    let end = tokio::time::Instant::now() + PATIENCE;
    let mut wait = Duration::from_millis(500);
    while tokio::time::Instant::now() < end {
        match tokio::time::timeout(wait, line.receive()).await {
            Ok(message) => {
                if let Message::Request(request) = message?
                    && *request.method() == Method::Ack
                {
                    return Ok(true);
                }
            }
            Err(_) => {
                line.send(ok).await?;
                wait = (wait * 2).min(Duration::from_secs(4));
            }
        }
    }
    Ok(false)
}
