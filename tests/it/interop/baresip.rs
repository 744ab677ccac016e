//! baresip without sound hardware: `aufile` speaks the sentence, `sndfile` writes what is heard,
//! `aubridge` plays into nothing, and `ctrl_tcp` takes commands and tells events as netstrings of
//! JSON.

use super::agents::{AGENT, Agents, FAILED, agent, invoke, texts, tool, uses};
use super::callee::post;
use super::phone::Phone as Sipp;
use super::rig::{DEADLINE, Edge, Folder, free_port, has};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use voxedge::billing::{Cdr, EndedBy, TransferOutcome};
use voxedge::cli::demo::measure::{self, WAV_HEADER_BYTES};
use voxedge::cli::demo::speech;
use voxedge::standin::Observed;
use voxedge::standin::script::Step;

const ECHO: &str = "agent_00000000-0000-4000-8000-0000000000e0";
/// Longest way of the audio through both that is looked for, in milliseconds.
const ROUND_TRIP_MAX_MS: usize = 1_500;
/// Pause between two tries to reach baresip's control port while it starts.
const LOOK: Duration = Duration::from_millis(20);

/// Samples at 8 kHz that are looked for at once: a quarter of a second.
const PIECE: usize = 2_000;

/// A codec as baresip names it and runs it.
struct Codec {
    module: &'static str,
    name: &'static str,
    /// As the record names it.
    recorded: &'static str,
    hz: u32,
    channels: u16,
}

const PCMU: Codec =
    Codec { module: "g711", name: "PCMU", recorded: "PCMU", hz: 8_000, channels: 1 };
const PCMA: Codec =
    Codec { module: "g711", name: "PCMA", recorded: "PCMA", hz: 8_000, channels: 1 };
const G722: Codec =
    Codec { module: "g722", name: "G722", recorded: "G722", hz: 16_000, channels: 1 };
const OPUS: Codec =
    Codec { module: "opus", name: "opus", recorded: "opus", hz: 48_000, channels: 2 };
const AMR_WB: Codec =
    Codec { module: "amr", name: "AMR-WB", recorded: "AMR-WB", hz: 16_000, channels: 1 };

/// A running baresip, killed when dropped.
struct Phone {
    child: Child,
    folder: Folder,
    control: TcpStream,
    unread: Vec<u8>,
}

impl Phone {
    fn start(edge: &Edge, codec: &Codec, transport: &str) -> Phone {
        Phone::start_as(edge, codec, transport, 0, "")
    }

    /// Starts it to hear SIP on `sip_port`, with more in its account.
    fn start_as(edge: &Edge, codec: &Codec, transport: &str, sip_port: u16, more: &str) -> Phone {
        let folder = Folder::new();
        let control_port = free_port();
        folder.write("speech.wav", spoken(codec));
        let encrypts = if more.contains("mediaenc=") { "module srtp.so\n" } else { "" };
        let config = config(edge, &folder, codec, (sip_port, control_port)) + encrypts;
        folder.write("config", config);
        folder.write("contacts", "");
        folder.write(
            "accounts",
            format!(
                "<sip:test@127.0.0.1;transport={transport}>;regint=0;audio_codecs={}/{}/{}{more}\n",
                codec.name,
                // RFC 3551 §4.5.2: G.722 says 8000 in SDP and means 16000; baresip's list has it so.
                codec.hz,
                codec.channels
            ),
        );
        let log = File::create(folder.0.join("log")).expect("our own folder");
        let child = Command::new("baresip")
            .arg("-f")
            .arg(&folder.0)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("it is installed");
        let control = connect(control_port);
        control.set_read_timeout(Some(DEADLINE)).expect("a time limit");
        Phone { child, folder, control, unread: Vec::new() }
    }

    fn command(&mut self, command: &str, params: &str) {
        let text = json!({"command": command, "params": params}).to_string();
        let netstring = format!("{}:{text},", text.len());
        self.control.write_all(netstring.as_bytes()).expect("baresip listens");
    }

    /// The next event of this type; those before it are passed over.
    fn await_event(&mut self, kind: &str) -> Value {
        let end = Instant::now() + DEADLINE;
        loop {
            let message = self.message();
            if message["type"] == kind {
                return message;
            }
            let closed = message["type"] == "CALL_CLOSED";
            assert!(!closed, "closed before {kind}: {message}\n{}", self.log());
            assert!(Instant::now() < end, "{kind} never came\n{}", self.log());
        }
    }

    /// The end of a call, in baresip's words.
    fn await_closed(&mut self) -> String {
        loop {
            let message = self.message();
            if message["type"] == "CALL_CLOSED" {
                return message.to_string();
            }
        }
    }

    fn message(&mut self) -> Value {
        loop {
            if let Some(colon) = self.unread.iter().position(|byte| *byte == b':') {
                let length = std::str::from_utf8(&self.unread[..colon]).expect("digits");
                let end = colon + 1 + length.parse::<usize>().expect("a length");
                if self.unread.len() > end {
                    let message = serde_json::from_slice(&self.unread[colon + 1..end]);
                    self.unread.drain(..=end);
                    return message.expect("baresip speaks JSON");
                }
            }
            let mut bytes = [0; 4_096];
            let count = self.control.read(&mut bytes).unwrap_or(0);
            assert!(count > 0, "baresip is silent or gone\n{}", self.log());
            self.unread.extend_from_slice(&bytes[..count]);
        }
    }

    fn log(&self) -> String {
        let log = std::fs::read(self.folder.0.join("log")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// Where `sndfile` writes what is heard, once there is something.
    fn heard_file(&self) -> Option<PathBuf> {
        let entries = std::fs::read_dir(&self.folder.0).expect("our own folder");
        let paths = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
        paths.filter(|path| path.to_string_lossy().ends_with("-dec.wav")).min()
    }

    /// What was heard so far: samples of the first channel.
    fn heard(&self, codec: &Codec) -> Vec<i16> {
        let bytes = self.heard_file().and_then(|path| std::fs::read(path).ok()).unwrap_or_default();
        let samples = bytes.get(WAV_HEADER_BYTES..).unwrap_or_default().chunks_exact(2);
        let samples = samples.map(|pair| i16::from_le_bytes([pair[0], pair[1]]));
        samples.step_by(usize::from(codec.channels)).collect()
    }

    /// Waits until this much of the call was heard.
    fn await_heard(&self, codec: &Codec, samples: usize) {
        let end = Instant::now() + DEADLINE;
        while self.heard(codec).len() < samples {
            assert!(Instant::now() < end, "too little was heard\n{}", self.log());
            std::thread::sleep(LOOK * 5);
        }
    }
}

impl Drop for Phone {
    fn drop(&mut self) {
        // One that has ended already cannot be killed, which is as well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn connect(port: u16) -> TcpStream {
    let end = Instant::now() + DEADLINE;
    loop {
        match TcpStream::connect(("127.0.0.1", port)) {
            Ok(stream) => return stream,
            Err(error) => assert!(Instant::now() < end, "baresip does not listen: {error}"),
        }
        std::thread::sleep(LOOK);
    }
}

/// The sentence and a long silence, as baresip wants it: in the codec's rate and channels.
fn spoken(codec: &Codec) -> Vec<u8> {
    let mut speech = speech::sentence(codec.hz);
    speech.extend(vec![0; codec.hz as usize * 60]);
    let channels = usize::from(codec.channels);
    let pcm: Vec<i16> = speech.into_iter().flat_map(|s| std::iter::repeat_n(s, channels)).collect();
    measure::wav(&pcm, codec.hz, codec.channels).expect("it is short")
}

fn config(
    edge: &Edge,
    folder: &Folder,
    codec: &Codec,
    (sip_port, control_port): (u16, u16),
) -> String {
    let folder = folder.0.display();
    let certificate = edge.certificate();
    format!(
        "poll_method epoll\nsip_listen 127.0.0.1:{sip_port}\nsip_cafile {}\nnet_interface 127.0.0.1\n\
         call_local_timeout 30\naudio_source aufile,{folder}/speech.wav\n\
         audio_player aubridge,sink\naudio_alert aubridge,alert\naudio_buffer 20-160\n\
         ausrc_format s16\nauplay_format s16\nauenc_format s16\naudec_format s16\n\
         rtp_ports 32768-60000\njitter_buffer_delay 1-10\nopus_bitrate 64000\n\
         snd_path {folder}\nctrl_tcp_listen 127.0.0.1:{control_port}\n\
         module_path /usr/lib/baresip/modules\nmodule {}.so\nmodule sndfile.so\n\
         module aubridge.so\nmodule aufile.so\nmodule_tmp uuid.so\nmodule_tmp account.so\n\
         module_app menu.so\nmodule_app ctrl_tcp.so\n",
        certificate.display(),
        codec.module
    )
}

fn uri(edge: &Edge, user: &str, transport: &str) -> String {
    let port = if transport == "tls" { edge.tls_port } else { edge.port };
    format!("sip:{user}@127.0.0.1:{port};transport={transport}")
}

fn delay_max_8k() -> usize {
    8 * ROUND_TRIP_MAX_MS
}

/// Speaks the sentence to the echo agent and hangs up when it must be back.
fn echo_call(codec: &Codec, transport: &str) {
    if !has("baresip") {
        return;
    }
    let edge = Edge::start(None);
    let mut phone = Phone::start(&edge, codec, transport);
    phone.command("dial", &uri(&edge, ECHO, transport));
    converse(&edge, phone, codec, transport);
}

/// The call that is on its way is answered, its sentence comes back, and the phone hangs up.
fn converse(edge: &Edge, mut phone: Phone, codec: &Codec, transport: &str) {
    phone.await_event("CALL_ESTABLISHED");
    phone.await_event("CALL_RTPESTAB");
    let sentence = speech::sentence(codec.hz);
    let delay_max = codec.hz as usize * ROUND_TRIP_MAX_MS / 1_000;
    phone.await_heard(codec, sentence.len() + delay_max);
    phone.command("hangup", "");
    phone.await_event("CALL_CLOSED");
    let heard = phone.heard(codec);
    // At a lower rate, since 48 kHz costs much and tells no more; piece by piece, since a machine
    // that stalls moves the pieces apart.
    let (sent, heard) =
        (speech::resample(&sentence, codec.hz, 8_000), speech::resample(&heard, codec.hz, 8_000));
    let loud = sent.chunks_exact(PIECE).enumerate();
    let loud: Vec<_> = loud.filter(|(_, piece)| measure::level_dbfs(piece) > -35.0).collect();
    let likeness = |(number, piece): &(usize, &[i16])| -> f64 {
        let place = number * PIECE;
        let found = measure::align(piece, heard.get(place..).unwrap_or_default(), delay_max_8k());
        found.map_or(0.0, |found| found.correlation)
    };
    let likeness: Vec<f64> = loud.iter().map(likeness).collect();
    let found = likeness.iter().filter(|likeness| **likeness > 0.8).count();
    assert!(
        found * 2 > likeness.len(),
        "{likeness:.2?} of the sentence came back\n{}",
        phone.log()
    );
    let record = &edge.measured()[0];
    assert_answered(record, codec);
    assert_eq!(record.source.transport.uri_param(), transport);
    assert!(matches!(record.ended_by, Some(EndedBy::Caller | EndedBy::Callee)), "{record:#?}");
    let media = record.media.expect("a closed call has its media figures");
    // Where it encrypts, baresip still opens its path and takes its leave with plain RTCP.
    assert!(media.srtp_failures <= 2, "{media:?}");
    assert!(media.packets_received > 50 && media.packets_sent > 50, "{media:?}");
    assert!(media.agent_played_ms > 1_000, "{media:?}");
}

fn assert_answered(record: &Cdr, codec: &Codec) {
    assert_eq!(record.status, Some(200), "{record:#?}");
    assert_eq!(record.codec.as_deref(), Some(codec.recorded));
    assert!(record.answered_at <= record.ended_at, "{record:#?}");
    assert!(record.sip_time > Duration::from_secs(1), "{record:#?}");
    assert!(record.agent_time > Duration::from_secs(1), "{record:#?}");
    assert_eq!(record.deciminutes.count(), record.sip_time.as_millis().div_ceil(6_000) as u64);
}

#[test]
fn a_softphone_talks_in_pcmu_over_udp() {
    echo_call(&PCMU, "udp");
}

#[test]
fn a_softphone_talks_in_pcma_over_tcp() {
    echo_call(&PCMA, "tcp");
}

#[test]
fn a_softphone_talks_in_g722_over_tls() {
    echo_call(&G722, "tls");
}

#[test]
fn a_softphone_talks_in_opus_over_udp() {
    echo_call(&OPUS, "udp");
}

/// Debian's baresip links the same two libraries, and has the octet-aligned packing only.
#[test]
fn a_softphone_talks_in_amr_wb_over_udp() {
    echo_call(&AMR_WB, "udp");
}

#[test]
fn a_softphone_talks_in_opus_over_tls() {
    echo_call(&OPUS, "tls");
}

#[test]
fn digits_hold_and_resume_of_a_softphone_are_served() {
    if !has("baresip") {
        return;
    }
    let edge = Edge::start(None);
    let mut phone = Phone::start(&edge, &PCMU, "udp");
    phone.command("dial", &uri(&edge, "echo", "udp"));
    phone.await_event("CALL_ESTABLISHED");
    phone.await_event("CALL_RTPESTAB");
    for (number, digit) in ["1", "#", "5"].into_iter().enumerate() {
        phone.command("sndcode", digit);
        // The next digit comes when the last one has been sent: baresip ends it after 100 ms or so.
        phone.await_heard(&PCMU, 8_000 * (number + 2) / 2);
    }
    for command in ["hold", "resume"] {
        phone.command(command, "");
        // It tells the answer to its re-INVITE so.
        phone.await_event("CALL_REMOTE_SDP");
    }
    phone.command("hangup", "");
    phone.await_event("CALL_CLOSED");
    let record = &edge.measured()[0];
    assert_answered(record, &PCMU);
    let digits = record.media.map(|media| media.digits);
    assert_eq!(digits, Some(3), "{record:#?}\n{}", phone.log());
}

#[test]
fn keys_of_a_softphone_reach_the_agent_as_one_message_and_the_agents_keys_the_softphone() {
    if !has("baresip") {
        return;
    }
    let pressed = vec![Step::AwaitText { text: "1#5".into() }];
    let steps = [pressed, invoke("playDtmfSounds", json!({"digits": "42#"}))].concat();
    let keys = json!({"toolName": "playDtmfSounds"});
    let agents = Agents::start(vec![agent(keys, steps)]);
    let edge = agents.edge(9, "[keys]\npause_ms = 2000\n");
    let mut phone = Phone::start(&edge, &PCMU, "udp");
    phone.command("dial", &uri(&edge, AGENT, "udp"));
    phone.await_event("CALL_ESTABLISHED");
    phone.await_event("CALL_RTPESTAB");
    for (number, digit) in ["1", "#", "5"].into_iter().enumerate() {
        phone.command("sndcode", digit);
        phone.await_heard(&PCMU, 8_000 * (number + 2) / 2);
    }
    for digit in ["4", "2", "#"] {
        assert_eq!(phone.await_event("CALL_DTMF_START")["param"], digit, "{}", phone.log());
        phone.await_event("CALL_DTMF_END");
    }
    let answered = |seen: &[Observed]| !texts(&seen[0], "client_tool_result", "result").is_empty();
    agents.seen_when(answered);
    phone.command("hangup", "");
    phone.await_event("CALL_CLOSED");
    assert_answered(&edge.measured()[0], &PCMU);
    assert_eq!(agents.told(), ["1#5"]);
}

#[test]
fn bridged_softphones_hold_resume_and_press_keys_to_each_other() {
    if !has("baresip") {
        return;
    }
    let port = free_port();
    let target = format!("sip:test@127.0.0.1:{port}");
    let cold = tool("coldTransfer", port, json!({"sipVerb": "INVITE", "target": target}));
    let agents = Agents::start(vec![agent(cold, uses("coldTransfer", json!({}), FAILED))]);
    let edge = agents.edge(port, "");
    let mut target = Phone::start_as(&edge, &PCMU, "udp", port, ";answermode=auto");
    let mut caller = Phone::start(&edge, &PCMU, "udp");
    caller.command("dial", &uri(&edge, AGENT, "udp"));
    caller.await_event("CALL_ESTABLISHED");
    target.await_event("CALL_ESTABLISHED");
    let bridged = |list: &[Cdr]| {
        let transfers = list.first().map(|record| record.transfers.as_slice());
        transfers.is_some_and(|all| all.iter().any(|one| one.outcome == TransferOutcome::Bridged))
    };
    edge.records_when(bridged);
    target.await_event("CALL_RTPESTAB");
    // Keys of either reach the other, before and after a hold.
    press(&mut caller, &mut target, "4");
    press(&mut target, &mut caller, "#");
    for command in ["hold", "resume"] {
        caller.command(command, "");
        // It tells the answer to its re-INVITE so.
        caller.await_event("CALL_REMOTE_SDP");
    }
    press(&mut caller, &mut target, "2");
    press(&mut target, &mut caller, "7");
    caller.command("hangup", "");
    caller.await_closed();
    target.await_closed();
    let record = &edge.measured()[0];
    assert_eq!(record.transfers[0].outcome, TransferOutcome::Bridged, "{record:#?}");
    assert_eq!(record.ended_by, Some(EndedBy::Caller), "{record:#?}");
    assert_eq!((record.keys.rfc4733, record.keys.passed_on), (4, 4), "{record:#?}");
    assert_eq!(agents.told(), [""; 0]);
}

/// One softphone presses a key, the other hears it.
fn press(from: &mut Phone, to: &mut Phone, key: &str) {
    from.command("sndcode", key);
    assert_eq!(to.await_event("CALL_DTMF_START")["param"], key, "{}", to.log());
    to.await_event("CALL_DTMF_END");
}

#[test]
fn a_softphone_is_transferred_blind() {
    if !has("baresip") || !has("sipp") {
        return;
    }
    let target = Sipp::start("callee_answers", "u1");
    let cold = tool("coldTransfer", target.port, json!({}));
    let agents = Agents::start(vec![agent(cold, uses("coldTransfer", json!({}), FAILED))]);
    let edge = agents.edge(target.port, "");
    let mut phone = Phone::start(&edge, &PCMU, "udp");
    phone.command("dial", &uri(&edge, AGENT, "udp"));
    phone.await_event("CALL_ESTABLISHED");
    // Its INVITE, its answer and its BYE: the target had this softphone.
    target.assert_content();
    let record = &edge.closed(1)[0];
    let transfer = &record.transfers[0];
    assert_eq!(transfer.outcome, TransferOutcome::Referred, "{record:#?}\n{}", phone.log());
    assert_eq!(record.ended_by, Some(EndedBy::Agent), "{record:#?}");
    assert_eq!(agents.told(), [""; 0]);
}

#[test]
fn an_agent_that_says_farewell_hangs_up_on_a_softphone() {
    if !has("baresip") {
        return;
    }
    let edge = Edge::start(None);
    let mut phone = Phone::start(&edge, &PCMU, "tcp");
    phone.command("dial", &uri(&edge, "farewell", "tcp"));
    phone.await_event("CALL_ESTABLISHED");
    phone.await_event("CALL_CLOSED");
    let record = &edge.closed(1)[0];
    assert_answered(record, &PCMU);
    assert_eq!(record.ended_by, Some(EndedBy::Agent), "{record:#?}");
    let level = measure::level_dbfs(&phone.heard(&PCMU));
    assert!(level > -45.0, "the farewell was not heard: {level} dBFS");
}

/// A call whose media is encrypted, to a daemon that takes no other; `enc` as baresip names it.
fn encrypted_call(codec: &Codec, enc: &str, transport: &str, srtp: &str) {
    if !has("baresip") {
        return;
    }
    let edge = Edge::start_configured(None, "embedded", &format!("[srtp]\n{srtp}\n"));
    let account = format!(";mediaenc={enc}");
    let mut phone = Phone::start_as(&edge, codec, transport, 0, &account);
    let log = phone.folder.0.join("log");
    let log = File::open(log).expect("baresip writes it");
    phone.command("dial", &uri(&edge, ECHO, transport));
    converse(&edge, phone, codec, transport);
    let log = std::io::read_to_string(log).expect("it is text");
    assert!(log.contains("SRTP is Enabled"), "{log}");
}

#[test]
fn a_softphone_talks_encrypted_over_tls() {
    encrypted_call(&PCMU, "srtp-mand", "tls", "policy = \"required\"");
}

#[test]
fn a_softphone_talks_encrypted_with_a_plain_profile() {
    encrypted_call(&G722, "srtp", "tls", "policy = \"required\"");
}

#[test]
fn a_softphone_talks_encrypted_over_udp_where_that_was_configured() {
    encrypted_call(&OPUS, "srtp-mandf", "udp", "insecure_signalling = true");
}

/// One call that is refused with 488; gives the reason in its record.
fn refused_call(srtp: &str, transport: &str, account: &str) -> String {
    let edge = Edge::start_configured(None, "embedded", &format!("[srtp]\n{srtp}\n"));
    let mut phone = Phone::start_as(&edge, &PCMU, transport, 0, account);
    phone.command("dial", &uri(&edge, ECHO, transport));
    let closed = phone.await_closed();
    assert!(closed.contains("488"), "{closed}\n{}", phone.log());
    let record = edge.closed(1).remove(0);
    assert_eq!(record.status, Some(488), "{record:#?}");
    format!("{record:?}")
}

#[test]
fn media_that_is_not_encrypted_as_the_policy_says_is_refused() {
    if !has("baresip") {
        return;
    }
    for (srtp, transport, account, words) in [
        ("policy = \"required\"", "tls", "", "plain RTP is not taken"),
        ("policy = \"off\"", "tls", ";mediaenc=srtp-mand", "srtp.policy is off"),
        ("policy = \"allowed\"", "udp", ";mediaenc=srtp-mand", "need signalling over TLS"),
    ] {
        let record = refused_call(srtp, transport, account);
        assert!(record.contains(words), "{words} in {record}");
    }
}

#[test]
fn a_softphone_is_called_with_the_strongest_suite() {
    if !has("baresip") {
        return;
    }
    let port = free_port();
    let more = format!(
        "[outgoing]\nallowed_hosts = [\"127.0.0.1:{port}\"]\n\
         [srtp]\npolicy = \"required\"\ninsecure_signalling = true\n"
    );
    let edge = Edge::start_configured(None, "embedded", &more);
    let account = ";mediaenc=srtp-mand;answermode=auto";
    let phone = Phone::start_as(&edge, &PCMA, "tcp", port, account);
    let log = File::open(phone.folder.0.join("log")).expect("baresip writes it");
    let agent = "00000000-0000-4000-8000-0000000000e0";
    let body = format!(
        "{{\"medium\": {{\"sip\": {{\"outgoing\": {{\"to\": \"sip:test@127.0.0.1:{port};transport=tcp\", \
         \"from\": \"+15550100\"}}}}}}}}"
    );
    let (status, answer) = post(&edge, &format!("/api/agents/{agent}/calls"), &body);
    assert_eq!(status, 201, "{answer}");
    converse(&edge, phone, &PCMA, "tcp");
    let log = std::io::read_to_string(log).expect("it is text");
    assert!(log.contains("SRTP is Enabled (cryptosuite=AEAD_AES_256_GCM)"), "{log}");
}
