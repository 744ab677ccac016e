//! A small UAS, written apart from the product: it takes calls over UDP as its manner says: rings,
//! challenges, refuses, redirects, sends early media, answers, hangs up. Final answers are repeated
//! until their ACK comes. It never looks at a clock: it asks to be woken.

use super::ladder::header;
use std::net::SocketAddr;
use std::time::Duration;

const T1: Duration = Duration::from_millis(500);
const T2: Duration = Duration::from_secs(4);

/// What the callee does with an INVITE, in milliseconds after its coming.
#[derive(Clone, Debug)]
pub struct Manner {
    /// Says nothing at all.
    pub silent: bool,
    /// Wants credentials first.
    pub challenges: bool,
    pub rings: Option<u64>,
    /// 183 with a description.
    pub early_media: Option<u64>,
    /// The same from another fork, whose media comes from a port of its own.
    pub other_fork: Option<u64>,
    /// 180 of another fork, which describes nothing.
    pub other_fork_rings: Option<u64>,
    /// Provisional answers with a description want a PRACK (RFC 3262).
    pub reliable: bool,
    /// UPDATE before the answer: its media moves to where the other fork's would come from.
    pub updates: Option<u64>,
    /// The final answer: status and further headers.
    pub answers: Option<(u64, u16, &'static str)>,
    /// BYE so long after the ACK.
    pub hangs_up: Option<u64>,
    /// Answers the INVITE with 200 when a CANCEL comes: both cross.
    pub answers_at_cancel: bool,
    /// The 200 leaves out what the 183 said already.
    pub bare_200: bool,
    /// re-INVITE with this direction so long after the ACK.
    pub reinvites: Option<(u64, &'static str)>,
    /// Agrees to telephone-events.
    pub events: bool,
    /// Takes SRTP where it is offered.
    pub encrypts: bool,
    /// Says nothing of its media before it has heard a packet of ours.
    pub waits_for_rtp: bool,
    /// What the edge's re-INVITEs are answered with at once, in turn, the last one again and again. Where
    /// there is none, they are answered like the first INVITE.
    pub refreshed: &'static [Refreshed],
}

/// The further headers of a 200 that has the edge refresh the session every 45 s (RFC 4028).
pub const REFRESH: &str = "Require: timer\r\nSession-Expires: 90;refresher=uac\r\n";

/// How a re-INVITE of the edge is answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refreshed {
    Same,
    /// Media comes from where the other fork's would, and is wanted there.
    Moves,
    Refused(u16),
    Silence,
}

impl Default for Manner {
    /// Rings after 50 ms, answers after 2 s.
    fn default() -> Manner {
        Manner {
            silent: false,
            challenges: false,
            rings: Some(50),
            early_media: None,
            other_fork: None,
            other_fork_rings: None,
            reliable: false,
            updates: None,
            answers: Some((2_000, 200, "")),
            hangs_up: None,
            answers_at_cancel: false,
            bare_200: false,
            reinvites: None,
            events: false,
            encrypts: false,
            waits_for_rtp: false,
            refreshed: &[],
        }
    }
}

pub enum Out {
    Send(Vec<u8>),
    Wake(Duration, Wake),
}

#[derive(Clone, Debug)]
pub enum Wake {
    Ring {
        branch: String,
        fork: Fork,
    },
    Early {
        branch: String,
        fork: Fork,
    },
    Update {
        branch: String,
    },
    Answer {
        branch: String,
        code: u16,
        extra: &'static str,
    },
    /// The final answer once more.
    Again {
        branch: String,
        interval: Duration,
        waited: Duration,
    },
    HangUp,
    Reinvite(&'static str),
}

/// Which of the phones behind one address speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fork {
    Own,
    Other,
}

/// One INVITE that came, by its branch.
struct Invited {
    branch: String,
    head: String,
    answer: Option<Vec<u8>>,
    acked: bool,
}

/// One phone.
pub struct Callee {
    pub name: String,
    pub address: SocketAddr,
    pub media: SocketAddr,
    /// Where the other fork's media comes from.
    pub other_media: SocketAddr,
    pub manner: Manner,
    pub rtp_received: u64,
    /// The methods of the requests that came, copies among them.
    pub heard: Vec<String>,
    /// Messages with a description as they came.
    pub described: Vec<String>,
    /// `Authorization` of the last INVITE.
    pub authorization: Option<String>,
    invites: Vec<Invited>,
    said_bye: bool,
    pub bye_answered: bool,
    /// The final answers to our re-INVITEs.
    pub reoffered: Vec<String>,
    /// The final answers to our UPDATEs.
    pub updated: Vec<String>,
    /// Re-INVITEs of the edge so far.
    pub refreshes: usize,
    cseq: u32,
    version: u32,
}

impl Callee {
    pub fn new(index: usize, manner: Manner) -> Callee {
        let host = 100 + index;
        let address = |port: u16| format!("192.0.2.{host}:{port}").parse().expect("an address");
        Callee {
            name: if index == 0 { "callee".into() } else { format!("callee{}", index + 1) },
            address: address(5060),
            media: address(4000),
            other_media: address(4100),
            manner,
            rtp_received: 0,
            heard: Vec::new(),
            described: Vec::new(),
            authorization: None,
            invites: Vec::new(),
            said_bye: false,
            bye_answered: false,
            reoffered: Vec::new(),
            updated: Vec::new(),
            refreshes: 0,
            cseq: 0,
            version: 1,
        }
    }

    pub fn receive(&mut self, bytes: &[u8], out: &mut Vec<Out>) {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let head = text.split_once("\r\n\r\n").map_or(text.as_str(), |(head, _)| head).to_owned();
        if text.contains("m=audio") {
            self.described.push(text.clone());
        }
        if head.starts_with("SIP/2.0 ") {
            return self.on_response(&head, out);
        }
        let method = head.split(' ').next().unwrap_or_default().to_owned();
        self.heard.push(method.clone());
        let branch = branch_of(&head);
        if self.manner.silent {
            return;
        }
        match method.as_str() {
            "INVITE" => self.on_invite(head, branch, out),
            "ACK" => self.on_ack(&head, &branch, out),
            "CANCEL" => self.on_cancel(&head, &branch, out),
            _ => out.push(Out::Send(self.reply(&head, 200, "", None))),
        }
    }

    pub fn wake(&mut self, wake: Wake, out: &mut Vec<Out>) {
        match wake {
            Wake::Ring { branch, fork } => self.ring(&branch, fork, out),
            Wake::Update { branch } => self.update(&branch, out),
            Wake::Early { branch, fork } => self.describe_early(&branch, fork, out),
            Wake::Answer { branch, code, extra } => self.answer(&branch, code, extra, out),
            Wake::Again { branch, interval, waited } => {
                let Some(invited) = self.invites.iter().find(|one| one.branch == branch) else {
                    return;
                };
                if invited.acked || waited >= T1 * 64 {
                    return;
                }
                out.extend(invited.answer.clone().map(Out::Send));
                let interval = (interval * 2).min(T2);
                let again = Wake::Again { branch, interval, waited: waited + interval };
                out.push(Out::Wake(interval, again));
            }
            Wake::HangUp => self.hang_up(out),
            Wake::Reinvite(direction) => self.reinvite(direction, out),
        }
    }

    fn on_invite(&mut self, head: String, branch: String, out: &mut Vec<Out>) {
        if let Some(known) = self.invites.iter().find(|invited| invited.branch == branch) {
            out.extend(known.answer.clone().map(Out::Send));
            return;
        }
        if let Some(last) = self.manner.refreshed.last() {
            let in_dialog = header(&head, "To").is_some_and(|to| to.contains(";tag="));
            if in_dialog {
                let answer = self.manner.refreshed.get(self.refreshes).copied().unwrap_or(*last);
                return self.refresh(head, branch, answer, out);
            }
        }
        self.authorization = header(&head, "Authorization").map(str::to_owned);
        out.push(Out::Send(self.reply(&head, 100, "", None)));
        let challenged = self.manner.challenges && self.authorization.is_none();
        self.invites.push(Invited { branch: branch.clone(), head, answer: None, acked: false });
        if challenged {
            let extra = "WWW-Authenticate: Digest realm=\"trunk\", nonce=\"n1\", algorithm=MD5, \
                         qop=\"auth\"\r\n";
            return self.answer(&branch, 401, extra, out);
        }
        let at = |ms: u64, wake: Wake| Out::Wake(Duration::from_millis(ms), wake);
        let manner = &self.manner;
        for (rings, fork) in [(manner.rings, Fork::Own), (manner.other_fork_rings, Fork::Other)] {
            out.extend(rings.map(|ms| at(ms, Wake::Ring { branch: branch.clone(), fork })));
        }
        for (early, fork) in [(manner.early_media, Fork::Own), (manner.other_fork, Fork::Other)] {
            out.extend(early.map(|ms| at(ms, Wake::Early { branch: branch.clone(), fork })));
        }
        out.extend(manner.updates.map(|ms| at(ms, Wake::Update { branch: branch.clone() })));
        if let Some((ms, code, extra)) = manner.answers {
            out.push(at(ms, Wake::Answer { branch, code, extra }));
        }
    }

    fn refresh(&mut self, head: String, branch: String, answer: Refreshed, out: &mut Vec<Out>) {
        self.refreshes += 1;
        self.invites.push(Invited { branch: branch.clone(), head, answer: None, acked: false });
        match answer {
            Refreshed::Same => self.answer(&branch, 200, REFRESH, out),
            Refreshed::Moves => {
                self.media = self.other_media;
                self.version += 1;
                self.answer(&branch, 200, REFRESH, out);
            }
            Refreshed::Refused(code) => self.answer(&branch, code, "", out),
            Refreshed::Silence => {}
        }
    }

    fn on_ack(&mut self, head: &str, branch: &str, out: &mut Vec<Out>) {
        let cseq = header(head, "CSeq").unwrap_or_default().to_owned();
        let number = cseq.split(' ').next().unwrap_or_default();
        let fits = |invited: &&mut Invited| {
            let own = header(&invited.head, "CSeq").unwrap_or_default();
            invited.branch == branch || own.split(' ').next() == Some(number)
        };
        let Some(invited) = self.invites.iter_mut().find(fits) else { return };
        let first = !std::mem::replace(&mut invited.acked, true);
        let up = invited.answer.as_ref().is_some_and(|answer| answer.starts_with(b"SIP/2.0 200"));
        if let Some((ms, direction)) = self.manner.reinvites.filter(|_| first && up) {
            out.push(Out::Wake(Duration::from_millis(ms), Wake::Reinvite(direction)));
        }
        if let Some(ms) = self.manner.hangs_up.filter(|_| first && up) {
            out.push(Out::Wake(Duration::from_millis(ms), Wake::HangUp));
        }
    }

    fn on_cancel(&mut self, head: &str, branch: &str, out: &mut Vec<Out>) {
        out.push(Out::Send(self.reply(head, 200, "", None)));
        let code = if self.manner.answers_at_cancel { 200 } else { 487 };
        self.answer(branch, code, "", out);
    }

    fn ring(&mut self, branch: &str, fork: Fork, out: &mut Vec<Out>) {
        if let Some(invited) = self.unanswered(branch) {
            out.push(Out::Send(self.said_by(fork, self.reply(&invited.head, 180, "", None))));
        }
    }

    /// The answer with the tag of this fork.
    fn said_by(&self, fork: Fork, answer: Vec<u8>) -> Vec<u8> {
        if fork == Fork::Own {
            return answer;
        }
        let text = String::from_utf8(answer).expect("our own text");
        text.replace(&self.tag(), &format!("other-{}", self.name)).into_bytes()
    }

    /// 183 with a description. A reliable one is not repeated.
    fn describe_early(&mut self, branch: &str, fork: Fork, out: &mut Vec<Out>) {
        let Some(invited) = self.unanswered(branch) else { return };
        let extra = match self.manner.reliable {
            true => "Require: 100rel\r\nRSeq: 1\r\n",
            false => "",
        };
        let sdp = match fork {
            Fork::Own => self.sdp(),
            Fork::Other => self.other_sdp(),
        };
        let bytes = self.said_by(fork, self.reply(&invited.head, 183, extra, Some(sdp)));
        out.push(Out::Send(bytes));
    }

    /// An offer in the early dialog. It is not repeated.
    fn update(&mut self, branch: &str, out: &mut Vec<Out>) {
        let Some(head) = self.unanswered(branch).map(|invited| invited.head.clone()) else {
            return;
        };
        self.version += 1;
        let sdp = self.other_sdp();
        out.push(Out::Send(self.request_in(&head, "UPDATE", Some(sdp))));
    }

    fn unanswered(&self, branch: &str) -> Option<&Invited> {
        let invited = self.invites.iter().find(|invited| invited.branch == branch)?;
        invited.answer.is_none().then_some(invited)
    }

    /// The final answer, once.
    fn answer(&mut self, branch: &str, code: u16, extra: &str, out: &mut Vec<Out>) {
        let body = (code == 200 && !self.manner.bare_200).then(|| self.sdp());
        let Some(at) = self.invites.iter().position(|invited| invited.branch == branch) else {
            return;
        };
        if self.invites[at].answer.is_some() {
            return;
        }
        let bytes = self.reply(&self.invites[at].head, code, extra, body);
        self.invites[at].answer = Some(bytes.clone());
        out.push(Out::Send(bytes));
        let again = Wake::Again { branch: branch.to_owned(), interval: T1, waited: T1 };
        out.push(Out::Wake(T1, again));
    }

    /// BYE, with its roles turned round.
    fn hang_up(&mut self, out: &mut Vec<Out>) {
        if std::mem::replace(&mut self.said_bye, true) {
            return;
        }
        out.extend(self.request("BYE", None).map(Out::Send));
    }

    /// A new direction of the media, in a re-INVITE. One that is not answered is not repeated.
    fn reinvite(&mut self, direction: &str, out: &mut Vec<Out>) {
        if self.said_bye {
            return;
        }
        self.version += 1;
        let sdp = format!("{}a={direction}\r\n", self.sdp());
        out.extend(self.request("INVITE", Some(sdp)).map(Out::Send));
    }

    /// The edge's answer to our BYE or re-INVITE.
    fn on_response(&mut self, head: &str, out: &mut Vec<Out>) {
        let cseq = header(head, "CSeq").unwrap_or_default().to_owned();
        self.bye_answered |= cseq.ends_with("BYE");
        if cseq.ends_with("UPDATE") {
            self.updated.push(head.get(8..11).unwrap_or_default().to_owned());
        }
        if !cseq.ends_with("INVITE") || head.starts_with("SIP/2.0 1") {
            return;
        }
        self.reoffered.push(head.get(8..11).unwrap_or_default().to_owned());
        let number = cseq.split(' ').next().unwrap_or_default().to_owned();
        let cseq = std::mem::replace(&mut self.cseq, number.parse::<u32>().unwrap_or(1) - 1);
        let branch = if head.starts_with("SIP/2.0 2") { "ack" } else { "" };
        if let Some(ack) = self.request("ACK", None) {
            let text = String::from_utf8(ack).expect("our own text");
            let own = format!("z9hG4bK{}ACK{number}", self.name);
            let wanted = match branch {
                "ack" => own.clone(),
                _ => format!("z9hG4bK{}INVITE{number}", self.name),
            };
            out.push(Out::Send(text.replace(&own, &wanted).into_bytes()));
        }
        self.cseq = cseq;
    }

    /// A request in the dialog, its roles turned round.
    fn request(&mut self, method: &str, body: Option<String>) -> Option<Vec<u8>> {
        let invited = self.invites.iter().find(|one| one.acked && one.answer.is_some());
        let head = invited?.head.clone();
        Some(self.request_in(&head, method, body))
    }

    /// A request in the dialog of this INVITE.
    fn request_in(&mut self, head: &str, method: &str, body: Option<String>) -> Vec<u8> {
        self.cseq += 1;
        let value = |name| header(head, name).unwrap_or_default();
        let contact = value("Contact").trim_matches(['<', '>']).to_owned();
        let kind = if body.is_some() { "Content-Type: application/sdp\r\n" } else { "" };
        let body = body.unwrap_or_default();
        let (name, cseq) = (&self.name, self.cseq);
        let text = format!(
            "{method} {contact} SIP/2.0\r\nVia: SIP/2.0/UDP {};branch=z9hG4bK{name}{method}{cseq}\r\n\
             Max-Forwards: 70\r\nFrom: {};tag={}\r\nTo: {}\r\nCall-ID: {}\r\nCSeq: {cseq} {method}\r\n\
             Contact: <sip:{name}@{}>\r\n{kind}Content-Length: {}\r\n\r\n{body}",
            self.address,
            value("To"),
            self.tag(),
            value("From"),
            value("Call-ID"),
            self.address,
            body.len(),
        );
        text.into_bytes()
    }

    fn tag(&self) -> String {
        format!("to-{}", self.name)
    }

    fn reply(&self, head: &str, code: u16, extra: &str, body: Option<String>) -> Vec<u8> {
        let value = |name| header(head, name).unwrap_or_default();
        let tag = match value("To").contains(";tag=") || code == 100 {
            true => String::new(),
            false => format!(";tag={}", self.tag()),
        };
        let kind = if body.is_some() { "Content-Type: application/sdp\r\n" } else { "" };
        let body = body.unwrap_or_default();
        let contact = match (300..400).contains(&code) {
            true => String::new(),
            false => format!("Contact: <sip:{}@{}>\r\n", self.name, self.address),
        };
        format!(
            "SIP/2.0 {code} Status\r\nVia: {}\r\nFrom: {}\r\nTo: {}{tag}\r\nCall-ID: {}\r\n\
             CSeq: {}\r\n{contact}{extra}{kind}Content-Length: {}\r\n\r\n{body}",
            value("Via"),
            value("From"),
            value("To"),
            value("Call-ID"),
            value("CSeq"),
            body.len()
        )
        .into_bytes()
    }

    fn other_sdp(&self) -> String {
        let own = format!("m=audio {}", self.media.port());
        let other = format!("m=audio {}", self.other_media.port());
        let [here, there] =
            [self.media, self.other_media].map(|at| format!("c=IN IP4 {}", at.ip()));
        self.sdp().replace(&own, &other).replace(&here, &there)
    }

    fn sdp(&self) -> String {
        let (ip, port) = (self.media.ip(), self.media.port());
        let (number, event) = match self.manner.events {
            true => (" 101", "a=rtpmap:101 telephone-event/8000\r\n"),
            false => ("", ""),
        };
        let (proto, crypto) = self.security();
        format!(
            "v=0\r\no=callee 9 {} IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\n\
             m=audio {port} {proto} 0{number}\r\na=rtpmap:0 PCMU/8000\r\n{event}{crypto}",
            self.version
        )
    }

    /// The profile and the key line that answer the last description.
    fn security(&self) -> (&'static str, String) {
        const SUITE: &str = "AES_CM_128_HMAC_SHA1_80";
        let offer = self.described.last().filter(|_| self.manner.encrypts);
        let line = offer.and_then(|offer| {
            offer
                .lines()
                .find_map(|line| line.strip_prefix("a=crypto:").filter(|l| l.contains(SUITE)))
        });
        let Some(tag) = line.and_then(|line| line.split(' ').next()) else {
            return ("RTP/AVP", String::new());
        };
        let secure = offer.is_some_and(|offer| offer.contains("RTP/SAVP"));
        let proto = if secure { "RTP/SAVP" } else { "RTP/AVP" };
        let key = "WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz";
        (proto, format!("a=crypto:{tag} {SUITE} inline:{key}\r\n"))
    }
}

fn branch_of(head: &str) -> String {
    let branch = header(head, "Via").and_then(|via| via.split_once("branch="));
    branch.map_or("", |(_, rest)| rest.split(';').next().unwrap_or("")).to_owned()
}
