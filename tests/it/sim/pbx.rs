//! A small UAC, written apart from the product: it places one call over UDP, sends PCMU, holds,
//! cancels, hangs up, and does with a REFER what its manner says. Its transactions are those of RFC 3261 §17.1 (timers A, B, E and F) and
//! nothing more. It never looks at a clock: it asks to be woken.

use super::ladder::header;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

const T1: Duration = Duration::from_millis(500);
const T2: Duration = Duration::from_secs(4);
/// Packets of 20 ms.
const PTIME: Duration = Duration::from_millis(20);

/// What a person, or the PBX itself, does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    Invite,
    /// An INVITE that is to take the place of this caller (RFC 3891).
    TakeOver(usize),
    /// CANCEL before the answer, BYE after it.
    HangUp,
    /// BYE in the early dialog.
    EarlyBye,
    /// re-INVITE with another direction (`sendonly`, `inactive`, `sendrecv`); holding stops the voice.
    Reinvite(&'static str),
    /// A re-INVITE that offers these payload numbers.
    Reoffer(&'static str),
    /// re-INVITE with the same description.
    Refresh,
    /// re-INVITE without a description.
    LateReinvite,
    /// re-INVITE that offers G.729 only.
    BadReinvite,
    /// UPDATE without a body.
    UpdateEmpty,
    /// UPDATE with another direction.
    Update(&'static str),
    /// The same INVITE once more, as a doubled packet.
    CopyInvite,
    Options,
    /// INFO with a body of this type.
    Info(&'static str, &'static str),
    StopVoice,
    StartVoice,
    /// A REFER to this user at 192.0.2.100 and up.
    Refer(&'static str),
}

/// What the INVITE brings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Offer {
    Pcmu,
    /// These payload numbers; the voice goes on with the first.
    Numbers(&'static str),
    /// G.729 only.
    NoCommon,
    /// Nothing: our offer comes in the 200.
    Late,
    /// A body of another type.
    Text,
}

/// What the PBX does with a REFER, in milliseconds after it came.
#[derive(Clone, Debug)]
pub struct Refers {
    /// When it answers, and with which status.
    pub answer: (u64, u16),
    /// What it tells by NOTIFY after a 202: when, and the status of the target.
    pub notifies: Vec<(u64, u16)>,
    /// BYE.
    pub leaves: Option<u64>,
}

impl Default for Refers {
    /// Takes it, and has the target after two seconds.
    fn default() -> Refers {
        Refers { answer: (5, 202), notifies: vec![(10, 100), (2_000, 200)], leaves: None }
    }
}

pub enum Out {
    Send(Vec<u8>),
    Rtp(SocketAddr, Vec<u8>),
    Wake(Duration, Wake),
}

#[derive(Clone, Debug)]
pub enum Wake {
    Resend(String),
    Speak,
    /// The answer to a request of the edge.
    Reply(Vec<u8>),
    Notify {
        code: u16,
        id: u32,
    },
    Leave,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    Idle,
    Calling,
    Up,
    Over,
}

/// A request of ours without its final answer.
struct Pending {
    bytes: Vec<u8>,
    invite: bool,
    quiet: bool,
    interval: Duration,
    waited: Duration,
}

/// An INVITE of ours, for its ACK.
struct Invited {
    branch: String,
    late: bool,
}

/// How a re-INVITE of the edge is answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refreshed {
    /// With this refusal.
    Refused(u16),
    /// Media goes to and comes from this port of ours from now on.
    Moves(u16),
    /// With this direction; holding stops the voice.
    Turns(&'static str),
    /// With this instead of a description.
    Nonsense(&'static str),
    Silence,
}

/// One call of the PBX.
pub struct Caller {
    pub name: String,
    pub address: SocketAddr,
    pub media: SocketAddr,
    pub to_user: String,
    /// More header lines of the INVITE.
    pub headers: Vec<String>,
    pub offer: Offer,
    /// More lines of its descriptions.
    pub media_lines: &'static str,
    /// ACKs 2xx at all, and with a description after a late offer.
    pub acks: bool,
    pub ack_describes: bool,
    /// What an answer to a late offer chooses.
    pub ack_numbers: &'static str,
    pub answers_bye: bool,
    pub speaks: bool,
    pub refers: Refers,
    /// What re-INVITEs of the edge are answered with, in turn; 200 without a change when there is no
    /// more.
    pub refreshed: Vec<Refreshed>,
    /// Refer-To and Referred-By of each REFER that came.
    pub referred: Vec<(String, String)>,
    /// `X-Team` of the REFERs themselves.
    pub refer_teams: Vec<String>,
    pub phase: Phase,
    /// Status and To tag of each final answer to the first INVITE, copies among them.
    pub finals: Vec<(u16, String)>,
    pub rtp_received: u64,
    pub rtp_sent: u64,
    cseq: u32,
    /// The edge's tag.
    pub to_tag: Option<String>,
    target: Option<String>,
    /// Where the edge's description says that it listens.
    pub far_media: Option<SocketAddr>,
    direction: &'static str,
    version: u32,
    proceeding: bool,
    hang_up_wanted: bool,
    /// BYE went out before the answer.
    said_bye: bool,
    pending: BTreeMap<String, Pending>,
    invites: BTreeMap<u32, Invited>,
    speaking: bool,
    sequence: u16,
    /// The payload number of the voice.
    voice: u8,
    /// CSeq number of the last REFER that came.
    refer_cseq: Option<u32>,
}

impl Caller {
    pub fn new(index: usize, to_user: &str) -> Caller {
        let host = 10 + index;
        let address = |port: u16| format!("192.0.2.{host}:{port}").parse().expect("an address");
        Caller {
            name: if index == 0 { "pbx".into() } else { format!("pbx{}", index + 1) },
            address: address(5060),
            media: address(4000),
            to_user: to_user.into(),
            headers: Vec::new(),
            offer: Offer::Pcmu,
            media_lines: "",
            acks: true,
            ack_describes: true,
            ack_numbers: "0 101",
            answers_bye: true,
            speaks: true,
            refers: Refers::default(),
            refreshed: Vec::new(),
            referred: Vec::new(),
            refer_teams: Vec::new(),
            phase: Phase::Idle,
            finals: Vec::new(),
            rtp_received: 0,
            rtp_sent: 0,
            cseq: 0,
            to_tag: None,
            target: None,
            far_media: None,
            direction: "sendrecv",
            version: 1,
            proceeding: false,
            hang_up_wanted: false,
            said_bye: false,
            pending: BTreeMap::new(),
            invites: BTreeMap::new(),
            speaking: false,
            sequence: 100,
            voice: 0,
            refer_cseq: None,
        }
    }

    pub fn call_id(&self) -> String {
        format!("{}@pbx.example", self.name)
    }

    pub fn act(&mut self, action: Action, out: &mut Vec<Out>) {
        let up = self.phase == Phase::Up;
        match action {
            Action::Invite if self.phase == Phase::Idle => {
                self.phase = Phase::Calling;
                self.invite(self.offer, out);
            }
            Action::HangUp if up => self.bye(out),
            Action::HangUp if self.phase == Phase::Calling && !self.said_bye => {
                self.hang_up_wanted = true;
                if self.proceeding {
                    self.cancel(out);
                }
            }
            Action::EarlyBye if self.phase == Phase::Calling && self.to_tag.is_some() => {
                self.said_bye = true;
                self.request("BYE", None, out);
            }
            Action::Reinvite(direction) if up => {
                self.turn(direction, out);
                self.invite(Offer::Pcmu, out);
            }
            Action::Reoffer(numbers) if up => {
                self.version += 1;
                self.voice = first_number(numbers);
                self.invite(Offer::Numbers(numbers), out);
            }
            Action::Refresh if up => self.invite(Offer::Pcmu, out),
            Action::LateReinvite if up => self.invite(Offer::Late, out),
            Action::BadReinvite if up => self.invite(Offer::NoCommon, out),
            Action::UpdateEmpty if up => self.request("UPDATE", None, out),
            Action::Update(direction) if up => {
                self.turn(direction, out);
                let sdp = self.sdp("0 101");
                self.request("UPDATE", Some(("application/sdp", sdp)), out);
            }
            Action::CopyInvite => {
                let copies = self.pending.values().filter(|pending| pending.invite);
                out.extend(copies.map(|pending| Out::Send(pending.bytes.clone())));
            }
            Action::Options => self.request("OPTIONS", None, out),
            Action::Info(content_type, body) if up => {
                self.request("INFO", Some((content_type, body.to_owned())), out);
            }
            Action::Refer(user) if up => {
                let to = format!("Refer-To: <sip:{user}@192.0.2.100>\r\n");
                self.request_with("REFER", &to, None, out);
            }
            Action::StopVoice => self.speaking = false,
            Action::StartVoice if up => self.speak(out),
            _ => {}
        }
    }

    pub fn wake(&mut self, wake: &Wake, out: &mut Vec<Out>) {
        match wake {
            Wake::Resend(key) => self.resend(key, out),
            Wake::Speak => self.on_speak(out),
            Wake::Reply(bytes) => out.push(Out::Send(bytes.clone())),
            Wake::Notify { code, id } => self.notify(*code, *id, out),
            Wake::Leave if self.phase == Phase::Up => self.bye(out),
            Wake::Leave => {}
        }
    }

    pub fn receive(&mut self, bytes: &[u8], out: &mut Vec<Out>) {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        if header(head, "Call-ID") != Some(&self.call_id()) {
            return;
        }
        match head.strip_prefix("SIP/2.0 ") {
            Some(status) => {
                let code = status.get(..3).and_then(|code| code.parse().ok()).unwrap_or(0);
                self.on_response(code, head, body, out);
            }
            None => self.on_request(head, out),
        }
    }

    fn turn(&mut self, direction: &'static str, out: &mut Vec<Out>) {
        self.direction = direction;
        self.version += 1;
        if direction == "sendrecv" {
            self.speak(out);
        } else {
            self.speaking = false;
        }
    }

    fn invite(&mut self, offer: Offer, out: &mut Vec<Out>) {
        let body = match offer {
            Offer::Pcmu => Some(("application/sdp", self.sdp("0 101"))),
            Offer::Numbers(numbers) => Some(("application/sdp", self.sdp(numbers))),
            Offer::NoCommon => Some(("application/sdp", self.sdp("18"))),
            Offer::Late => None,
            Offer::Text => Some(("text/plain", "hello".to_owned())),
        };
        self.request("INVITE", body, out);
        let branch = self.branch("INVITE", self.cseq);
        self.invites.insert(self.cseq, Invited { branch, late: offer == Offer::Late });
    }

    fn cancel(&mut self, out: &mut Vec<Out>) {
        let Some(invited) = self.invites.get(&1) else { return };
        let branch = invited.branch.clone();
        let bytes = self.write("CANCEL", 1, &branch, None, None);
        self.begin(format!("{branch} CANCEL"), bytes, false, out);
    }

    fn bye(&mut self, out: &mut Vec<Out>) {
        self.phase = Phase::Over;
        self.speaking = false;
        self.request("BYE", None, out);
    }

    /// A new request of ours, in the dialog when there is one.
    fn request(&mut self, method: &str, body: Option<(&str, String)>, out: &mut Vec<Out>) {
        self.request_with(method, "", body, out);
    }

    /// The same with these header lines.
    fn request_with(
        &mut self,
        method: &str,
        lines: &str,
        body: Option<(&str, String)>,
        out: &mut Vec<Out>,
    ) {
        self.cseq += 1;
        let (branch, tag) = (self.branch(method, self.cseq), self.to_tag.clone());
        let bytes = self.write(method, self.cseq, &branch, tag.as_deref(), body);
        let text = String::from_utf8(bytes).expect("our own text");
        let bytes = text.replacen("Contact:", &format!("{lines}Contact:"), 1).into_bytes();
        self.begin(format!("{branch} {method}"), bytes, method == "INVITE", out);
    }

    fn branch(&self, method: &str, cseq: u32) -> String {
        format!("z9hG4bK{}{method}{cseq}", self.name)
    }

    fn begin(&mut self, key: String, bytes: Vec<u8>, invite: bool, out: &mut Vec<Out>) {
        out.push(Out::Send(bytes.clone()));
        out.push(Out::Wake(T1, Wake::Resend(key.clone())));
        let waited = Duration::ZERO;
        self.pending.insert(key, Pending { bytes, invite, quiet: false, interval: T1, waited });
    }

    /// Timers A and E; B and F after 64 × T1.
    fn resend(&mut self, key: &str, out: &mut Vec<Out>) {
        let Some(pending) = self.pending.get_mut(key) else { return };
        pending.waited += pending.interval;
        if pending.waited >= 64 * T1 && !(pending.invite && pending.quiet) {
            let invite = pending.invite;
            self.pending.remove(key);
            if invite && self.phase == Phase::Calling {
                self.phase = Phase::Over;
            }
            return;
        }
        if pending.invite && pending.quiet {
            return;
        }
        out.push(Out::Send(pending.bytes.clone()));
        pending.interval *= 2;
        if !pending.invite || pending.quiet {
            pending.interval = pending.interval.min(T2);
        }
        out.push(Out::Wake(pending.interval, Wake::Resend(key.to_owned())));
    }

    fn on_response(&mut self, code: u16, head: &str, body: &str, out: &mut Vec<Out>) {
        let cseq = header(head, "CSeq").unwrap_or_default();
        let (number, method) = cseq.split_once(' ').unwrap_or(("0", ""));
        let number: u32 = number.parse().unwrap_or(0);
        let branch = header(head, "Via").and_then(|via| via.split_once("branch="));
        let branch = branch.map_or("", |(_, rest)| rest.split(';').next().unwrap_or(""));
        let key = format!("{branch} {method}");
        if method != "INVITE" {
            if code >= 200 {
                self.pending.remove(&key);
            }
            return;
        }
        let tag = header(head, "To").and_then(|to| to.split_once(";tag="));
        let tag = tag.map(|(_, tag)| tag.to_owned());
        if code < 200 {
            if let Some(pending) = self.pending.get_mut(&key) {
                pending.quiet = true;
            }
            if number == 1 && self.phase == Phase::Calling {
                self.learn(head, tag);
                if !std::mem::replace(&mut self.proceeding, true) && self.hang_up_wanted {
                    self.cancel(out);
                }
            }
            return;
        }
        if number == 1 {
            self.finals.push((code, tag.clone().unwrap_or_default()));
        }
        self.pending.remove(&key);
        if code >= 300 {
            let ack = self.write("ACK", number, branch, tag.as_deref(), None);
            out.push(Out::Send(ack));
            if number == 1 && self.phase == Phase::Calling {
                self.phase = Phase::Over;
            }
            return;
        }
        self.on_success(number, head, tag, body, out);
    }

    /// 2xx, or a copy of one: it wants an ACK of its own.
    fn on_success(
        &mut self,
        number: u32,
        head: &str,
        tag: Option<String>,
        body: &str,
        out: &mut Vec<Out>,
    ) {
        self.learn(head, tag.clone());
        let late = self.invites.get(&number).is_some_and(|invited| invited.late);
        if late && self.ack_describes {
            self.voice = first_number(self.ack_numbers);
        }
        let answer =
            (late && self.ack_describes).then(|| ("application/sdp", self.sdp(self.ack_numbers)));
        if self.acks {
            let branch = format!("{}ack", self.branch("INVITE", number));
            let ack = self.write("ACK", number, &branch, tag.as_deref(), answer);
            out.push(Out::Send(ack));
        }
        if number == 1 && self.phase == Phase::Calling {
            if self.said_bye {
                self.phase = Phase::Over;
                return;
            }
            self.phase = Phase::Up;
            self.far_media = far_media(body);
            if self.hang_up_wanted {
                self.bye(out);
            } else if self.speaks {
                self.speak(out);
            }
        }
    }

    /// Tag and target of the dialog.
    fn learn(&mut self, head: &str, tag: Option<String>) {
        self.to_tag = tag.or(self.to_tag.take());
        let contact = header(head, "Contact").and_then(|contact| {
            contact.split_once('<').and_then(|(_, rest)| rest.split_once('>')).map(|(uri, _)| uri)
        });
        self.target = contact.map(str::to_owned).or(self.target.take());
    }

    /// A request of the edge: BYE, REFER, NOTIFY.
    fn on_request(&mut self, head: &str, out: &mut Vec<Out>) {
        match head.split(' ').next().unwrap_or_default() {
            "ACK" => {}
            "BYE" if !self.answers_bye => {}
            "BYE" => {
                self.phase = Phase::Over;
                self.speaking = false;
                out.push(Out::Send(reply(head, 200)));
            }
            "REFER" => self.on_refer(head, out),
            "INVITE" => self.on_reinvite(head, out),
            _ => out.push(Out::Send(reply(head, 200))),
        }
    }

    /// An offer of the edge: its own description once more.
    fn on_reinvite(&mut self, head: &str, out: &mut Vec<Out>) {
        if self.refreshed.first() == Some(&Refreshed::Silence) {
            return;
        }
        let how = (!self.refreshed.is_empty()).then(|| self.refreshed.remove(0));
        let mut body = None;
        match how {
            Some(Refreshed::Silence) | None => {}
            Some(Refreshed::Refused(code)) => return out.push(Out::Send(reply(head, code))),
            Some(Refreshed::Moves(port)) => self.media.set_port(port),
            Some(Refreshed::Turns(direction)) => self.turn(direction, out),
            Some(Refreshed::Nonsense(text)) => body = Some(text.to_owned()),
        }
        self.version += 1;
        let body = body.unwrap_or_else(|| self.sdp("0 101"));
        let text = String::from_utf8(reply(head, 200)).expect("our own text");
        let sdp = format!(
            "Require: timer\r\nSession-Expires: 90;refresher=uac\r\n\
             Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        out.push(Out::Send(text.replace("Content-Length: 0\r\n\r\n", &sdp).into_bytes()));
    }

    /// A REFER: the first copy of it counts.
    fn on_refer(&mut self, head: &str, out: &mut Vec<Out>) {
        let value = |name| header(head, name).unwrap_or_default().to_owned();
        let cseq = value("CSeq").split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0);
        if self.refer_cseq == Some(cseq) {
            return;
        }
        self.refer_cseq = Some(cseq);
        self.referred.push((value("Refer-To"), value("Referred-By")));
        self.refer_teams.push(value("X-Team"));
        let Refers { answer: (ms, code), notifies, leaves } = self.refers.clone();
        let at = |ms: u64, wake: Wake| Out::Wake(Duration::from_millis(ms), wake);
        out.push(at(ms, Wake::Reply(reply(head, code))));
        if code < 300 {
            let told = |(ms, code)| at(ms, Wake::Notify { code, id: cseq });
            out.extend(notifies.into_iter().map(told));
        }
        out.extend(leaves.map(|ms| at(ms, Wake::Leave)));
    }

    fn notify(&mut self, code: u16, id: u32, out: &mut Vec<Out>) {
        if self.phase != Phase::Up {
            return;
        }
        let state = if code < 200 { "active;expires=60" } else { "terminated;reason=noresource" };
        let lines = format!("Event: refer;id={id}\r\nSubscription-State: {state}\r\n");
        let body = format!("SIP/2.0 {code} Status\r\n");
        self.request_with("NOTIFY", &lines, Some(("message/sipfrag;version=2.0", body)), out);
    }

    fn speak(&mut self, out: &mut Vec<Out>) {
        if !std::mem::replace(&mut self.speaking, true) {
            self.on_speak(out);
        }
    }

    fn on_speak(&mut self, out: &mut Vec<Out>) {
        let Some(to) = self.far_media.filter(|_| self.speaking) else { return };
        self.sequence = self.sequence.wrapping_add(1);
        let mut packet = vec![0x80, self.voice];
        packet.extend_from_slice(&self.sequence.to_be_bytes());
        packet.extend_from_slice(&(u32::from(self.sequence) * 160).to_be_bytes());
        packet.extend_from_slice(&[0, 0, 7, 7]);
        packet.resize(172, 0xd5);
        self.rtp_sent += 1;
        out.push(Out::Rtp(to, packet));
        out.push(Out::Wake(PTIME, Wake::Speak));
    }

    fn write(
        &self,
        method: &str,
        cseq: u32,
        branch: &str,
        to_tag: Option<&str>,
        body: Option<(&str, String)>,
    ) -> Vec<u8> {
        let Caller { name, address, to_user, .. } = self;
        let in_dialog = to_tag.is_some() && branch.starts_with("z9hG4bK") && method != "CANCEL";
        let first =
            cseq == 1 && self.invites.get(&1).is_some_and(|invited| invited.branch == branch);
        let target = self.target.as_deref().filter(|_| in_dialog && !first);
        let initial = format!("sip:{to_user}@edge.example");
        let tag = to_tag.map_or(String::new(), |tag| format!(";tag={tag}"));
        let mut text = format!(
            "{method} {} SIP/2.0\r\nVia: SIP/2.0/UDP {address};rport;branch={branch}\r\n\
             Max-Forwards: 70\r\nFrom: \"Ann\" <sip:+15550100@pbx.example>;tag=from-{name}\r\n\
             To: <sip:{to_user}@edge.example>{tag}\r\nCall-ID: {}\r\nCSeq: {cseq} {method}\r\n\
             Contact: <sip:{name}@{address}>\r\n",
            target.unwrap_or(&initial),
            self.call_id()
        );
        if method == "INVITE" && !in_dialog {
            for line in &self.headers {
                text.push_str(line);
                text.push_str("\r\n");
            }
        }
        let (kind, body) = body.unzip();
        if let Some(kind) = kind {
            text.push_str(&format!("Content-Type: {kind}\r\n"));
        }
        let body = body.unwrap_or_default();
        text.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
        text.into_bytes()
    }

    fn sdp(&self, numbers: &str) -> String {
        let (ip, port) = (self.media.ip(), self.media.port());
        let map = match numbers {
            "18" => "a=rtpmap:18 G729/8000\r\n",
            "9 101" => "a=rtpmap:9 G722/8000\r\na=rtpmap:101 telephone-event/8000\r\n",
            _ => "a=rtpmap:0 PCMU/8000\r\na=rtpmap:101 telephone-event/8000\r\n",
        };
        format!(
            "v=0\r\no=pbx 7 {} IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\n\
             m=audio {port} RTP/AVP {numbers}\r\n{map}a={}\r\n{}",
            self.version, self.direction, self.media_lines
        )
    }
}

fn first_number(numbers: &str) -> u8 {
    numbers.split(' ').next().and_then(|number| number.parse().ok()).expect("a payload number")
}

/// The answer to a request of the edge.
fn reply(head: &str, code: u16) -> Vec<u8> {
    let mut answer = format!("SIP/2.0 {code} Status\r\n");
    for line in head.split("\r\n") {
        let name = line.split(':').next().unwrap_or_default();
        if ["Via", "From", "To", "Call-ID", "CSeq"].contains(&name) {
            answer.push_str(line);
            answer.push_str("\r\n");
        }
    }
    answer.push_str("Content-Length: 0\r\n\r\n");
    answer.into_bytes()
}

/// Where a description wants its media.
fn far_media(body: &str) -> Option<SocketAddr> {
    let line = |start: &str| body.lines().find_map(|line| line.strip_prefix(start));
    let address = line("c=IN IP4 ")?.trim();
    let port = line("m=audio ")?.split(' ').next()?;
    format!("{address}:{port}").parse().ok()
}
