//! A small softphone of our own, for the demo and the loopback tests: it places one call over UDP,
//! TCP or TLS, or answers one over UDP, speaks what it was given, keeps what it heard, and hangs up.
//! It shares the message layer and the codecs with the daemon, and nothing else: its calls cross
//! real sockets.

use super::ear::Heard;
use super::line::Line;
use crate::codec::{CodecFormat, CodecKind, Decoder, Encoder, EncoderSettings, IlbcMode};
use crate::ground::{Entropy, Instant, Transport};
use crate::rtp::packet::{RtpHeader, RtpPacket};
use crate::shell::clock::Clock;
use crate::sip::msg::{Builder, Message, Method, Response};
use bytes::Bytes;
use std::io;
use std::net::{SocketAddr, UdpSocket as MediaSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How a call is placed.
#[derive(Clone)]
pub struct PhoneCall {
    pub server: SocketAddr,
    pub transport: Transport,
    /// For TLS: trusts the daemon's certificate.
    pub tls: Option<Arc<crate::shell::tls::ClientConfig>>,
    pub to_user: String,
    pub domain: String,
    pub codec: CodecKind,
    /// What is spoken after the answer, at [`sample_rate`] of the codec.
    pub speech: Vec<i16>,
    /// How long the call lasts after the answer.
    pub talk: Duration,
    /// Additional headers of the INVITE.
    pub headers: Vec<(String, String)>,
    /// Distinguishes calls that are placed at once; equal seeds give equal tags.
    pub seed: u64,
}

/// What became of a call.
#[derive(Clone, Debug, Default)]
pub struct PhoneReport {
    /// The final status of the INVITE.
    pub status: u16,
    pub reason: String,
    pub warning: Option<String>,
    pub call_id: String,
    /// When the INVITE left, on the clock of the rungs.
    pub began: Instant,
    /// From the INVITE to its final answer.
    pub setup: Duration,
    /// From the INVITE to the first audible sample, when there was one.
    pub first_sound: Option<Duration>,
    pub sample_rate: u32,
    /// What was heard, on the timeline of what was spoken: index 0 is the first sample spoken.
    pub heard: Vec<i16>,
    pub packets_sent: u64,
    /// How late the machine let the latest packet leave, beyond its place in the schedule of 20 ms.
    pub sent_late: Duration,
    pub packets_received: u64,
    /// Sequence numbers that never came.
    pub packets_lost: u64,
    /// What the phone saw and did, with the time since the INVITE.
    pub rungs: Vec<(Duration, String)>,
    /// The daemon hung up, with this Reason.
    pub far_end_left: Option<String>,
}

/// The rate at which the phone samples for a codec, in hertz.
pub fn sample_rate(codec: CodecKind) -> u32 {
    match codec {
        CodecKind::Pcmu | CodecKind::Pcma | CodecKind::Ilbc => 8_000,
        CodecKind::G722 | CodecKind::G7221 | CodecKind::AmrWb => 16_000,
        CodecKind::Opus => 48_000,
    }
}

/// How the phone's description words its one codec (RFC 8866 §6.6, §6.15).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wording {
    pub payload_type: u8,
    pub rtpmap: &'static str,
    /// Empty for none.
    pub fmtp: &'static str,
    pub packet_ms: u16,
}

impl Wording {
    /// The phone's usual way of using a codec: that of [`format`].
    pub fn of(codec: CodecKind) -> Wording {
        let (payload_type, rtpmap, fmtp) = match codec {
            CodecKind::Pcmu => (0, "PCMU/8000", ""),
            CodecKind::Pcma => (8, "PCMA/8000", ""),
            CodecKind::G722 => (9, "G722/8000", ""),
            CodecKind::Opus => (111, "opus/48000/2", ""),
            CodecKind::Ilbc => (112, "iLBC/8000", "mode=20"),
            CodecKind::G7221 => (113, "G7221/16000", "bitrate=32000"),
            CodecKind::AmrWb => (114, "AMR-WB/16000", ""),
        };
        Wording { payload_type, rtpmap, fmtp, packet_ms: 20 }
    }
}

/// What the parameters of [`Wording::of`] make of the codec.
pub fn format(codec: CodecKind) -> CodecFormat {
    match codec {
        CodecKind::Ilbc => CodecFormat::Ilbc(IlbcMode::Ms20),
        CodecKind::Pcmu
        | CodecKind::Pcma
        | CodecKind::G722
        | CodecKind::Opus
        | CodecKind::G7221
        | CodecKind::AmrWb => CodecFormat::Usual,
    }
}

/// Places the call and waits for its end.
///
/// # Errors
///
/// When a socket fails, or no final answer comes within 40 s.
pub async fn place(call: PhoneCall) -> io::Result<PhoneReport> {
    let wording = Wording::of(call.codec);
    match Dialled::place(call, wording).await? {
        Dialled::Answered(mut up) => {
            up.phone.talk(&mut up.line, (up.remote, wording.payload_type)).await?;
            Ok(up.phone.report)
        }
        Dialled::Refused(report) => Ok(*report),
    }
}

/// A call that was dialled and has its final answer.
pub enum Dialled {
    Answered(Box<Up>),
    Refused(Box<PhoneReport>),
}

/// A call that was answered and acknowledged, whose media is the owner's to send and to read.
pub struct Up {
    phone: Phone,
    line: Line,
    /// Where the daemon wants our audio.
    pub remote: SocketAddr,
}

impl Dialled {
    /// Places the call with the codec in these words.
    ///
    /// # Errors
    ///
    /// When a socket fails, no final answer comes within 40 s, or the answer lacks the codec.
    pub async fn place(call: PhoneCall, wording: Wording) -> io::Result<Dialled> {
        let mut line = Line::open(&call).await?;
        let mut phone = Phone::calling(call, line.local)?;
        phone.wording = wording;
        let answer = phone.dial(&mut line).await?;
        if answer.code() >= 300 {
            phone.report.warning = answer.get_named("Warning").map(|text| text.to_owned());
            line.send(&phone.ack(&answer, false)).await?;
            return Ok(Dialled::Refused(Box::new(phone.report)));
        }
        phone.note("ACK →");
        line.send(&phone.ack(&answer, true)).await?;
        let target = answer.contact().map(|contact| contact.uri().as_str().to_owned());
        phone.target = target.unwrap_or_else(|| phone.uri());
        let remote = media_of(answer.body(), wording.payload_type)?;
        Ok(Dialled::Answered(Box::new(Up { phone, line, remote })))
    }
}

impl Up {
    /// The socket that the daemon sends its audio to; ours is to come from it.
    pub fn media(&self) -> Arc<MediaSocket> {
        Arc::clone(&self.phone.media)
    }

    /// Ends the call: a BYE and, for up to 5 s, its answer.
    ///
    /// # Errors
    ///
    /// When the BYE cannot be sent.
    pub async fn hang_up(mut self) -> io::Result<()> {
        self.phone.hang_up(&mut self.line).await
    }
}

/// A call under way, from either side.
pub(super) struct Phone {
    pub(super) call: PhoneCall,
    pub(super) wording: Wording,
    entropy: Entropy,
    local: SocketAddr,
    media: Arc<MediaSocket>,
    call_id: String,
    /// Our address with our tag, and the far end's, with its tag once that is known.
    pub(super) own: String,
    pub(super) remote: String,
    /// Where requests of ours in the dialog go.
    pub(super) target: String,
    began: Instant,
    pub(super) report: PhoneReport,
}

impl Phone {
    fn calling(call: PhoneCall, local: SocketAddr) -> io::Result<Phone> {
        let mut entropy = Entropy::from_number(call.seed);
        let call_id = format!("{}@phone", entropy.token(64));
        let own = format!("\"Demo phone\" <sip:phone@{}>;tag={}", call.domain, entropy.token(64));
        let remote = format!("<sip:{}@{}>", call.to_user, call.domain);
        let mut phone = Phone::new(call, local, entropy, call_id)?;
        (phone.own, phone.remote) = (own, remote);
        phone.target = phone.uri();
        Ok(phone)
    }

    /// A phone with a media port; each side of a call fills in who talks with whom.
    pub(super) fn new(
        call: PhoneCall,
        local: SocketAddr,
        entropy: Entropy,
        call_id: String,
    ) -> io::Result<Phone> {
        let media = Arc::new(MediaSocket::bind(SocketAddr::new(local.ip(), 0))?);
        let began = Clock::instant();
        let sample_rate = sample_rate(call.codec);
        let call_id_seen = call_id.clone();
        let report =
            PhoneReport { sample_rate, began, call_id: call_id_seen, ..Default::default() };
        let (own, remote, target) = Default::default();
        let wording = Wording::of(call.codec);
        Ok(Phone {
            call,
            wording,
            entropy,
            local,
            media,
            call_id,
            own,
            remote,
            target,
            began,
            report,
        })
    }

    pub(super) fn elapsed(&self) -> Duration {
        Clock::instant().since(self.began)
    }

    pub(super) fn note(&mut self, text: impl Into<String>) {
        self.report.rungs.push((self.elapsed(), text.into()));
    }

    fn uri(&self) -> String {
        format!(
            "sip:{}@{};transport={}",
            self.call.to_user,
            self.call.server,
            self.call.transport.uri_param()
        )
    }

    fn request(&mut self, method: &Method, uri: &str, cseq: u32) -> Builder {
        let via = format!(
            "SIP/2.0/{} {};branch=z9hG4bK{};rport",
            self.call.transport.via_token(),
            self.local,
            self.entropy.token(64)
        );
        Builder::request(method, uri)
            .header("Via", &via)
            .header("Max-Forwards", "70")
            .header("From", &self.own)
            .header("To", &self.remote)
            .header("Call-ID", &self.call_id)
            .header("CSeq", &format!("{cseq} {}", method.as_str()))
            .header("Contact", &self.contact())
            .header("User-Agent", "voxedge-phone")
    }

    pub(super) fn contact(&self) -> String {
        format!("<sip:phone@{};transport={}>", self.local, self.call.transport.uri_param())
    }

    /// Sends the INVITE and waits for its final answer.
    async fn dial(&mut self, line: &mut Line) -> io::Result<Response> {
        let invite = self.invite();
        self.note("INVITE →");
        line.send(&invite).await?;
        let answer = self.await_final(line, &invite).await?;
        self.report.setup = self.elapsed();
        Ok(answer)
    }

    fn invite(&mut self) -> Bytes {
        let uri = self.uri();
        let headers = self.call.headers.clone();
        let mut builder = self.request(&Method::Invite, &uri, 1);
        for (name, value) in &headers {
            builder = builder.header(name, value);
        }
        let offer = self.offer();
        builder
            .body("application/sdp", offer.as_bytes())
            .finish()
            .expect("the demo's own headers hold no line ends")
    }

    /// The phone's one codec; it is also the answer to an offer that has it.
    pub(super) fn offer(&self) -> String {
        let port = self.media.local_addr().map_or(0, |address| address.port());
        let ip = self.local.ip();
        let family = if ip.is_ipv4() { "IP4" } else { "IP6" };
        let Wording { payload_type: number, rtpmap, fmtp, packet_ms } = self.wording;
        let fmtp = match fmtp {
            "" => String::new(),
            some => format!("a=fmtp:{number} {some}\r\n"),
        };
        format!(
            "v=0\r\no=phone 1 1 IN {family} {ip}\r\ns=-\r\nc=IN {family} {ip}\r\nt=0 0\r\n\
             m=audio {port} RTP/AVP {number} 101\r\na=rtpmap:{number} {rtpmap}\r\n\
             {fmtp}a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-15\r\na=ptime:{packet_ms}\r\n\
             a=sendrecv\r\n"
        )
    }

    /// Waits for the final answer; over UDP the INVITE is sent again as RFC 3261 §17.1.1.2 says.
    async fn await_final(&mut self, line: &mut Line, invite: &Bytes) -> io::Result<Response> {
        let mut resend = Duration::from_millis(500);
        let mut provisional = false;
        loop {
            let message = tokio::time::timeout(resend, line.receive()).await;
            match message {
                Ok(message) => {
                    let Message::Response(response) = message? else { continue };
                    if response.cseq().method != &Method::Invite {
                        continue;
                    }
                    self.note(format!("← {} {}", response.code(), response.reason()));
                    if response.code() >= 200 {
                        self.report.status = response.code();
                        self.report.reason = response.reason().to_owned();
                        return Ok(response);
                    }
                    provisional = true;
                }
                Err(_) if self.elapsed() > Duration::from_secs(40) => {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "no final answer"));
                }
                Err(_) if line.is_datagram() && !provisional => {
                    line.send(invite).await?;
                    resend = (resend * 2).min(Duration::from_secs(4));
                }
                Err(_) => {}
            }
        }
    }

    fn ack(&mut self, answer: &Response, accepted: bool) -> Bytes {
        let uri = match answer.contact() {
            Some(contact) if accepted => contact.uri().as_str().to_owned(),
            _ => self.uri(),
        };
        self.remote = answer.to().as_str().to_owned();
        self.request(&Method::Ack, &uri, 1)
            .finish()
            .expect("the demo's own headers hold no line ends")
    }

    /// Speaks, listens, and hangs up when the time is over or the far end does.
    pub(super) async fn talk(
        &mut self,
        line: &mut Line,
        (remote, number): (SocketAddr, u8),
    ) -> io::Result<()> {
        let stop = Arc::new(AtomicBool::new(false));
        let ears = self.spawn_ears(Arc::clone(&stop))?;
        let mouth = self.spawn_mouth(remote, number, Arc::clone(&stop))?;
        let left = self.until_over(line).await?;
        stop.store(true, Ordering::Relaxed);
        if !left {
            self.hang_up(line).await?;
        }
        self.collect(ears, mouth).await
    }

    async fn hang_up(&mut self, line: &mut Line) -> io::Result<()> {
        let target = self.target.clone();
        let bye = self.request(&Method::Bye, &target, 2).finish();
        self.note("BYE →");
        line.send(&bye.expect("the demo's own headers hold no line ends")).await?;
        let done = tokio::time::timeout(Duration::from_secs(5), line.receive()).await;
        if let Ok(Ok(Message::Response(response))) = done {
            self.note(format!("← {} {}", response.code(), response.reason()));
        }
        Ok(())
    }

    /// True when the far end hung up before the time was over.
    async fn until_over(&mut self, line: &mut Line) -> io::Result<bool> {
        let end = tokio::time::Instant::now() + self.call.talk;
        loop {
            let Ok(message) = tokio::time::timeout_at(end, line.receive()).await else {
                return Ok(false);
            };
            let Message::Request(request) = message? else { continue };
            if request.method() != &Method::Bye {
                continue;
            }
            let reason = request.get_named("Reason").map(|text| text.to_owned());
            self.report.far_end_left = Some(reason.unwrap_or_default());
            self.note("← BYE");
            let ok = crate::sip::status::StatusLine { code: 200, reason: "OK".into() };
            let answer = Builder::response(&request, &ok, self.call.server).finish();
            line.send(&answer.expect("an answer repeats what was read")).await?;
            return Ok(true);
        }
    }

    async fn collect(
        &mut self,
        ears: std::thread::JoinHandle<Heard>,
        mouth: std::thread::JoinHandle<(u64, Duration)>,
    ) -> io::Result<()> {
        let joined = tokio::task::spawn_blocking(move || (ears.join(), mouth.join())).await;
        let (Ok(heard), Ok((sent, late))) = joined.map_err(io::Error::other)? else {
            return Err(io::Error::other("the phone's media thread failed"));
        };
        (self.report.packets_sent, self.report.sent_late) = (sent, late);
        self.report.packets_received = heard.packets;
        self.report.packets_lost = heard.lost;
        self.report.first_sound = heard.first_sound.map(|at| at.since(self.began));
        if let Some(at) = self.report.first_sound {
            self.report.rungs.push((at, "first sound heard".into()));
            self.report.rungs.sort_by_key(|(at, _)| *at);
        }
        self.report.heard = heard.samples;
        Ok(())
    }

    /// Sends a packet each 20 ms by absolute deadlines, until told to stop. Gives their number and
    /// the greatest lateness.
    fn spawn_mouth(
        &mut self,
        remote: SocketAddr,
        number: u8,
        stop: Arc<AtomicBool>,
    ) -> io::Result<std::thread::JoinHandle<(u64, Duration)>> {
        let media = Arc::clone(&self.media);
        let codec = self.call.codec;
        let speech = std::mem::take(&mut self.call.speech);
        let mut header = RtpHeader {
            marker: true,
            payload_type: number,
            sequence: self.entropy.u32() as u16,
            timestamp: self.entropy.u32(),
            ssrc: self.entropy.u32(),
        };
        let settings = EncoderSettings::default();
        let mut encoder = Encoder::with_format(codec, format(codec), sample_rate(codec), settings)
            .map_err(io::Error::other)?;
        let start = Clock::instant();
        let frame = sample_rate(codec) as usize / 50;
        std::thread::Builder::new().name("phone-mouth".into()).spawn(move || {
            let (mut packets, mut late) = (0u64, Duration::ZERO);
            let (mut pcm, mut wire) = (vec![0i16; frame], [0u8; 1_500]);
            while !stop.load(Ordering::Relaxed) {
                let from = packets as usize * frame;
                pcm.fill(0);
                for (slot, sample) in pcm.iter_mut().zip(speech.iter().skip(from)) {
                    *slot = *sample;
                }
                let head = header.write(&mut wire);
                if let Ok(length) = encoder.encode(&pcm, &mut wire[head..]) {
                    // A refused send (the far end is gone) is seen as missing audio.
                    let _ = media.send_to(&wire[..head + length], remote);
                }
                late = late.max(
                    Clock::instant().since(start + Duration::from_millis(20) * packets as u32),
                );
                packets += 1;
                header.marker = false;
                header.sequence = header.sequence.wrapping_add(1);
                header.timestamp = header.timestamp.wrapping_add(codec.rtp_clock_hz() / 50);
                let next = start + Duration::from_millis(20) * packets as u32;
                std::thread::sleep(next.since(Clock::instant()));
            }
            (packets, late)
        })
    }

    /// Keeps what comes, each packet where its timestamp puts it on the speaker's timeline.
    fn spawn_ears(&self, stop: Arc<AtomicBool>) -> io::Result<std::thread::JoinHandle<Heard>> {
        let media = Arc::clone(&self.media);
        let codec = self.call.codec;
        let rate = sample_rate(codec);
        let mut decoder =
            Decoder::with_format(codec, format(codec), rate).map_err(io::Error::other)?;
        let spoken_from = Clock::instant();
        media.set_read_timeout(Some(Duration::from_millis(100)))?;
        std::thread::Builder::new().name("phone-ears".into()).spawn(move || {
            let mut heard = Heard::new(spoken_from, rate, codec.rtp_clock_hz());
            let (mut wire, mut pcm) = ([0u8; 2_048], vec![0i16; 5_760]);
            while !stop.load(Ordering::Relaxed) {
                let Ok((length, _)) = media.recv_from(&mut wire) else { continue };
                let now = Clock::instant();
                let Ok(packet) = RtpPacket::parse(&wire[..length]) else { continue };
                if let Ok(samples) = decoder.decode(packet.payload, &mut pcm) {
                    let header = packet.header;
                    heard.place(now, header.sequence, header.timestamp, &pcm[..samples]);
                }
            }
            heard
        })
    }
}

/// Media address of the daemon's description, which must have the phone's payload number. The phone
/// reads just what it needs.
pub(super) fn media_of(description: &[u8], payload_type: u8) -> io::Result<SocketAddr> {
    let text = String::from_utf8_lossy(description);
    let bad =
        || io::Error::new(io::ErrorKind::InvalidData, "the description has no usable audio line");
    let address = text
        .lines()
        .find_map(|line| line.strip_prefix("c=IN IP4 ").or(line.strip_prefix("c=IN IP6 ")))
        .and_then(|address| address.trim().parse().ok())
        .ok_or_else(bad)?;
    let media = text.lines().find_map(|line| line.strip_prefix("m=audio ")).ok_or_else(bad)?;
    let mut words = media.split_ascii_whitespace();
    let port: u16 = words.next().and_then(|port| port.parse().ok()).ok_or_else(bad)?;
    let word = payload_type.to_string();
    if port == 0 || !words.skip(1).any(|offered| offered == word) {
        return Err(bad());
    }
    Ok(SocketAddr::new(address, port))
}
