//! Many calls against a daemon in a process of its own: CANCEL at every moment of the set-up, and a
//! thousand short calls with audio, after which everything is back where it was.

use crate::rig::{self, Caller, Footprint, Heard, Place, Process, SOON, Service};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use voxedge::ground::{Entropy, Transport};
use voxedge::sip::msg::{Message, Method, Response};
use voxedge::standin::{Fault, FaultRule, Stage};

const LIMIT: Duration = Duration::from_secs(240);
/// The daemon's T1, so that its transactions end within seconds.
const T1: (&str, &str) = ("VOXEDGE_TEST_T1_MS", "60");
const RACES: u64 = 1_000;
/// Moments of the set-up that the CANCELs sweep, and the time over which they are spread.
const STEPS: u64 = 31;
const WINDOW_MIN: Duration = Duration::from_millis(30);
const WINDOW_MAX: Duration = Duration::from_secs(5);
/// How long the agent service takes for each creation, so that the sweep meets every state.
const CREATION_MS: u64 = 12;
const AT_ONCE: usize = 12;
const CALLS: usize = 1_000;

#[test]
fn cancel_at_any_moment_leaves_one_final_answer_and_no_trace() {
    rig::run(LIMIT, async {
        let (process, service) = start().await;
        let slow = FaultRule::always(Stage::Create, Fault::Slow { ms: CREATION_MS });
        assert!(service.standin.add_fault(slow));
        let (mut running, mut sweep, mut started) = (JoinSet::new(), Sweep::new(), 0);
        loop {
            while running.len() < AT_ONCE && started < RACES {
                running.spawn(race(Arc::clone(&process), sweep.moment(started)));
                started += 1;
            }
            let Some(ended) = running.join_next().await else { break };
            sweep.count(&ended.expect("no panic"));
        }
        eprintln!("{RACES} races: {sweep:?}");
        assert!(sweep.cancelled > 50 && sweep.answered > 50, "the sweep meets both sides");
        process.doors.await_idle();
        service.standin.stop().await;
    });
}

/// The races so far, and when the next CANCELs leave: spread over the time that a set-up takes, and a
/// little longer. A loaded machine takes long, so that it is measured again and again.
#[derive(Debug)]
struct Sweep {
    window: Duration,
    answered: u64,
    cancelled: u64,
}

impl Sweep {
    fn new() -> Sweep {
        Sweep { window: WINDOW_MIN, answered: 0, cancelled: 0 }
    }

    /// How long after its INVITE the CANCEL of this race leaves; every tenth only after the answer.
    fn moment(&self, number: u64) -> Option<Duration> {
        (number % 10 != 9).then(|| self.window * (number % STEPS) as u32 / STEPS as u32)
    }

    fn count(&mut self, raced: &Raced) {
        match raced.code {
            200 => self.answered += 1,
            487 => self.cancelled += 1,
            other => panic!("the INVITE was answered with {other}"),
        }
        if let Some(took) = raced.set_up.filter(|_| raced.code == 200) {
            self.window = (took * 5 / 4).clamp(WINDOW_MIN, WINDOW_MAX);
        }
    }
}

/// How a race ended.
struct Raced {
    /// The INVITE's only final answer.
    code: u16,
    /// How long it took, where the CANCEL waited for it.
    set_up: Option<Duration>,
}

/// A daemon with short timers, and its agent service in this process.
async fn start() -> (Arc<Process>, Service) {
    let place = Arc::new(Place::new());
    let service = Service::start(&place, "key.of.many-calls", Entropy::from_number(3)).await;
    let environment = [T1, service.trust()];
    let process = Process::spawn_in(&place, &[service.change()], &environment);
    (Arc::new(process), service)
}

/// One INVITE with its CANCEL `after` that time, or after its answer.
async fn race(process: Arc<Process>, after: Option<Duration>) -> Raced {
    let mut caller = process.caller(Transport::Udp).await;
    let id = rig::unique("race");
    let invite = caller.invite("echo", &id, 30_000);
    let cancel = cancel_of(&invite);
    let begin = Instant::now();
    caller.send(&invite).await;
    let mut seen = Seen { id, finals: BTreeSet::new(), answer: None, cancel_answered: false };
    let due = begin + after.unwrap_or(SOON);
    while after.is_some() || seen.answer.is_none() {
        let left = due.saturating_duration_since(Instant::now());
        match caller.receive(left).await {
            Heard::Message(message) => seen.take(&mut caller, message).await,
            Heard::Closed => panic!("packets do not close"),
            Heard::Nothing => break,
        }
    }
    let set_up = after.is_none().then(|| begin.elapsed());
    caller.send(&cancel).await;
    let end = Instant::now() + SOON;
    while seen.answer.is_none() || !seen.cancel_answered {
        assert!(Instant::now() < end, "no answer: {:?}", seen.finals);
        match caller.receive(Duration::from_millis(500)).await {
            Heard::Message(message) => seen.take(&mut caller, message).await,
            Heard::Closed => panic!("packets do not close"),
            Heard::Nothing if seen.cancel_answered => drop(caller.send(&invite).await),
            Heard::Nothing => drop(caller.send(&cancel).await),
        }
    }
    let answer = seen.answer.take().expect("it was awaited");
    if answer.code() == 200 {
        assert!(matches!(caller.bye(&answer).await, 200 | 481));
    }
    for message in caller.fence().await.expect("packets do not close") {
        seen.take(&mut caller, message).await;
    }
    assert_eq!(seen.finals.len(), 1, "one final answer: {:?}", seen.finals);
    Raced { code: answer.code(), set_up }
}

/// The answers of one race.
struct Seen {
    id: String,
    /// Distinct final answers: code and To tag.
    finals: BTreeSet<(u16, String)>,
    answer: Option<Response>,
    cancel_answered: bool,
}

impl Seen {
    async fn take(&mut self, caller: &mut Caller, message: Message) {
        let Message::Response(answer) = message else { return };
        if answer.call_id() != self.id || answer.code() < 200 {
            return;
        }
        if answer.cseq().method == &Method::Cancel {
            assert!(matches!(answer.code(), 200 | 481), "CANCEL: {}", answer.code());
            self.cancel_answered = true;
        } else if answer.cseq().method == &Method::Invite {
            let ack = caller.ack(&answer);
            caller.send(&ack).await;
            let tag = answer.to().tag().unwrap_or_default().to_owned();
            self.finals.insert((answer.code(), tag));
            self.answer.get_or_insert(answer);
        }
    }
}

/// The CANCEL of an INVITE: the same but for the method and the body (RFC 3261 §9.1).
fn cancel_of(invite: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(invite);
    let head = text.split("\r\n\r\n").next().expect("a head");
    let lines = head.lines().filter(|line| !line.starts_with("Content-"));
    let lines: Vec<String> = lines
        .map(|line| match line.strip_prefix("INVITE ") {
            Some(rest) => format!("CANCEL {rest}"),
            None => line.replace("CSeq: 1 INVITE", "CSeq: 1 CANCEL"),
        })
        .collect();
    format!("{}\r\nContent-Length: 0\r\n\r\n", lines.join("\r\n")).into_bytes()
}

#[test]
fn after_a_thousand_calls_everything_is_back_where_it_was() {
    // By then the daemon keeps the ladders of as many ended calls as it ever will (1,000), so that
    // what still grows is a leak, or an allocator: below 4 KiB for each call, where a call that is
    // up holds several times as much.
    const GROWTH_KIB_MAX: u64 = 2 * 1_024;
    // Idle connections to the agent service that the HTTP client keeps.
    const KEPT_FILES_MAX: usize = AT_ONCE;
    rig::run(LIMIT, async {
        let (process, service) = start().await;
        place_all(&process, CALLS / 10).await;
        let start = settled(&process);
        place_all(&process, CALLS - CALLS / 10).await;
        let full = settled(&process);
        place_all(&process, CALLS / 2).await;
        let end = settled(&process);
        eprintln!("after 100: {start:?}\nafter 1,000: {full:?}\nafter 1,500: {end:?}");
        assert_eq!(end.threads, start.threads, "threads");
        assert!(end.files <= start.files + KEPT_FILES_MAX, "files");
        let growth = end.rss_kib.saturating_sub(full.rss_kib);
        assert!(growth < GROWTH_KIB_MAX, "memory grew by {growth} KiB in the last 500 calls");
        let answered = rig::await_some(SOON, "a figure", || {
            process
                .doors
                .metric("calls_answered_total")
                .filter(|count| *count >= CALLS as f64 * 1.5)
        });
        assert_eq!(answered, CALLS as f64 * 1.5);
        service.standin.stop().await;
    });
}

fn settled(process: &Process) -> Footprint {
    process.doors.await_idle();
    process.footprint()
}

async fn place_all(process: &Arc<Process>, calls: usize) {
    let mut running = JoinSet::new();
    for number in 0..calls {
        if running.len() >= AT_ONCE
            && let Some(ended) = running.join_next().await
        {
            ended.expect("no panic");
        }
        let transport = if number % 10 == 9 { Transport::Tcp } else { Transport::Udp };
        running.spawn(short_call(Arc::clone(process), transport));
    }
    while let Some(ended) = running.join_next().await {
        ended.expect("no panic");
    }
}

/// A call to the echo agent that lasts until audio came back.
async fn short_call(process: Arc<Process>, transport: Transport) {
    let mut caller = process.caller(transport).await;
    let any = SocketAddr::new(caller.local.ip(), 0);
    let media = UdpSocket::bind(any).await.expect("127/8 is ours");
    let port = media.local_addr().expect("it is bound").port();
    let answer = caller.call("echo", port).await;
    assert_eq!(answer.code(), 200);
    let ack = caller.ack(&answer);
    caller.send(&ack).await;
    let remote = media_of(answer.body());
    let (mut buffer, end) = ([0; 2_048], Instant::now() + SOON);
    for sequence in 0u16.. {
        assert!(Instant::now() < end, "no audio comes back");
        media.send_to(&packet(sequence), remote).await.expect("loopback");
        let frame = Duration::from_millis(20);
        let heard = tokio::time::timeout(frame, media.recv(&mut buffer)).await;
        if sequence >= 3 && matches!(heard, Ok(Ok(_))) {
            break;
        }
    }
    assert_eq!(caller.bye(&answer).await, 200);
}

/// A frame of PCMU silence.
fn packet(sequence: u16) -> Vec<u8> {
    let mut packet = vec![0x80, 0];
    packet.extend(sequence.to_be_bytes());
    packet.extend((u32::from(sequence) * 160).to_be_bytes());
    packet.extend(0x5eed_u32.to_be_bytes());
    packet.resize(172, 0xff);
    packet
}

fn media_of(body: &[u8]) -> SocketAddr {
    let text = String::from_utf8_lossy(body);
    let field = |prefix: &str| text.lines().find_map(|line| line.strip_prefix(prefix));
    let address: IpAddr = field("c=IN IP4 ").and_then(|a| a.trim().parse().ok()).expect("c=");
    let port = field("m=audio ").and_then(|media| media.split(' ').next());
    SocketAddr::new(address, port.and_then(|port| port.parse().ok()).expect("m="))
}
