//! SIPp plays the scenarios of `fixtures/sipp`. Its exit code says that every message came as the
//! scenario wants it; the daemon's records say that the calls were what they looked like.

use super::agents::Agents;
use super::rig::{Edge, Folder, has};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use voxedge::billing::{Cdr, EndedBy};
use voxedge::ground::{Entropy, Secret};
use voxedge::standin::{Fault, FaultRule, Stage, Standin, StandinOptions};

/// How SIPp is to call.
struct Run<'a> {
    scenario: &'a str,
    user: &'a str,
    /// `u1` or `t1`: one UDP socket or one TCP connection for all calls.
    transport: &'a str,
    calls: usize,
    per_second: u32,
    /// More options.
    more: &'a [&'a str],
}

impl Default for Run<'_> {
    fn default() -> Self {
        let (scenario, user, transport) = ("call", "echo", "u1");
        Run { scenario, user, transport, calls: 3, per_second: 10, more: &[] }
    }
}

/// Plays it; every call must succeed.
fn play(edge: &Edge, run: &Run<'_>) {
    let folder = Folder::new();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/sipp");
    let output = Command::new("sipp")
        .current_dir(&folder.0)
        .arg("-sf")
        .arg(fixtures.join(run.scenario).with_extension("xml"))
        .args(["-s", run.user, "-t", run.transport, "-i", "127.0.0.1"])
        .args(["-m", &run.calls.to_string(), "-r", &run.per_second.to_string()])
        .args(["-p", &super::rig::free_port().to_string()])
        .args(["-l", "200", "-nostdin", "-trace_err", "-error_file", "errors.log"])
        .args(["-timeout", "40", "-timeout_error"])
        .args(run.more)
        .arg(format!("127.0.0.1:{}", edge.port))
        .stdin(Stdio::null())
        .output()
        .expect("it is installed");
    let errors = std::fs::read(folder.0.join("errors.log")).unwrap_or_default();
    assert!(
        output.status.success(),
        "{} over {}: {}\n{}{}",
        run.scenario,
        run.transport,
        output.status,
        String::from_utf8_lossy(&errors),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The scenario over UDP and over TCP, each against a daemon of its own; gives all records.
fn over_both(run: Run<'_>) -> Vec<Cdr> {
    if !has("sipp") {
        return Vec::new();
    }
    let mut records = Vec::new();
    for transport in ["u1", "t1"] {
        let edge = Edge::start(None);
        play(&edge, &Run { transport, ..run });
        records.extend(edge.closed(run.calls));
    }
    let named = |name: &'static str| {
        records.iter().filter(move |cdr| cdr.source.transport.uri_param() == name)
    };
    assert_eq!((named("udp").count(), named("tcp").count()), (run.calls, run.calls));
    records
}

/// Answered, billed for its time, and ended by the caller.
fn assert_held(record: &Cdr, at_least: Duration) {
    assert_eq!(record.status, Some(200), "{record:#?}");
    assert_eq!(record.codec.as_deref(), Some("PCMU"), "{record:#?}");
    assert_eq!(record.ended_by, Some(EndedBy::Caller), "{record:#?}");
    assert!(record.answered_at.is_some() && record.joined_at.is_some(), "{record:#?}");
    assert!(record.sip_time >= at_least, "{record:#?}");
    assert_eq!(
        record.deciminutes.count(),
        record.sip_time.as_nanos().div_ceil(6_000_000_000) as u64
    );
}

fn assert_refused(record: &Cdr, status: u16) {
    assert_eq!(record.status, Some(status), "{record:#?}");
    assert_eq!(record.answered_at, None, "{record:#?}");
    assert_eq!((record.sip_time, record.deciminutes.count()), (Duration::ZERO, 0), "{record:#?}");
}

#[test]
fn sipp_holds_plain_calls() {
    for record in over_both(Run::default()) {
        assert_held(&record, Duration::from_millis(280));
    }
}

/// Over UDP, where networks double packets. `closed` counts records: a copy that made a call of its
/// own would be one too many.
#[test]
fn sipp_sends_each_invite_twice() {
    if !has("sipp") {
        return;
    }
    let edge = Edge::start(None);
    let run = Run { scenario: "duplicate", ..Run::default() };
    play(&edge, &run);
    for record in edge.closed(run.calls) {
        assert_held(&record, Duration::from_millis(280));
    }
}

#[test]
fn sipp_is_given_an_offer_when_it_makes_none() {
    for record in over_both(Run { scenario: "late_offer", ..Run::default() }) {
        assert_held(&record, Duration::from_millis(280));
    }
}

#[test]
fn sipp_hangs_up_at_once() {
    for record in over_both(Run { scenario: "early_bye", ..Run::default() }) {
        assert_held(&record, Duration::ZERO);
    }
}

#[test]
fn sipp_holds_and_resumes() {
    for record in over_both(Run { scenario: "hold_resume", ..Run::default() }) {
        assert_held(&record, Duration::from_millis(550));
    }
}

#[test]
fn sipp_holds_in_other_ways() {
    for record in over_both(Run { scenario: "hold_inactive", ..Run::default() }) {
        assert_held(&record, Duration::from_millis(750));
    }
    for record in over_both(Run { scenario: "update_hold", ..Run::default() }) {
        assert_held(&record, Duration::from_millis(550));
    }
}

#[test]
fn sipp_is_given_an_offer_in_its_call() {
    for record in over_both(Run { scenario: "late_reoffer", ..Run::default() }) {
        assert_held(&record, Duration::from_millis(450));
    }
}

#[test]
fn sipp_changes_codec_and_port() {
    for record in over_both(Run { scenario: "codec_change", ..Run::default() }) {
        assert_held(&record, Duration::from_millis(650));
    }
}

#[test]
fn sipp_is_refused_and_goes_on() {
    for record in over_both(Run { scenario: "refused_in_dialog", ..Run::default() }) {
        assert_held(&record, Duration::from_millis(280));
    }
}

#[test]
fn sipp_asks_for_options() {
    // No call: no record.
    if has("sipp") {
        let edge = Edge::start(None);
        for transport in ["u1", "t1"] {
            play(&edge, &Run { scenario: "options", transport, ..Run::default() });
        }
        assert_eq!(edge.closed(0), []);
    }
}

#[test]
fn sipp_offers_no_codec_in_common() {
    for record in over_both(Run { scenario: "unknown_codec", ..Run::default() }) {
        assert_refused(&record, 488);
    }
}

#[test]
fn sipp_calls_nobody() {
    for record in over_both(Run { scenario: "nobody", user: "nobody", ..Run::default() }) {
        assert_refused(&record, 404);
    }
}

#[test]
fn sipp_cancels_while_it_rings() {
    if !has("sipp") {
        return;
    }
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let options = StandinOptions {
        faults: vec![FaultRule {
            stage: Stage::Create,
            agent_id: None,
            fault: Fault::Slow { ms: 20_000 },
            times: None,
        }],
        ..StandinOptions::local(Secret::new("interop"), Entropy::from_number(7))
    };
    let standin = runtime.block_on(Standin::start(options)).expect("loopback has free ports");
    for transport in ["u1", "t1"] {
        let edge = Edge::start_with(None, standin.base_url());
        let run = Run { scenario: "cancel", calls: 40, per_second: 40, ..Run::default() };
        play(&edge, &Run { transport, ..run });
        for record in edge.closed(40) {
            assert_refused(&record, 487);
            assert_eq!(record.ended_by, Some(EndedBy::Caller), "{record:#?}");
        }
    }
    runtime.block_on(standin.stop());
}

#[test]
fn sipp_requires_reliable_ringing() {
    if !has("sipp") {
        return;
    }
    // The PRACK is to come before the answer, which SIPp could not tell from that of the PRACK.
    let slow = Fault::Slow { ms: 1_500 };
    let slow = FaultRule { stage: Stage::Create, agent_id: None, fault: slow, times: None };
    let agents = Agents::start_with(Vec::new(), vec![slow]);
    for transport in ["u1", "t1"] {
        let edge = agents.edge(9, "");
        play(&edge, &Run { scenario: "reliable", transport, ..Run::default() });
        for record in edge.closed(3) {
            assert_held(&record, Duration::from_millis(280));
        }
    }
}

#[test]
fn sipp_times_its_session() {
    for record in over_both(Run { scenario: "session_timer", ..Run::default() }) {
        assert_held(&record, Duration::from_millis(380));
    }
}

#[test]
fn sipp_sends_whatever_a_pbx_may_send_in_a_call() {
    for record in over_both(Run { scenario: "in_dialog", ..Run::default() }) {
        assert_held(&record, Duration::from_millis(180));
    }
}

#[test]
fn sipp_wants_to_take_over_a_call_that_is_not_there() {
    // Refused at the door: no record.
    if has("sipp") {
        let edge = Edge::start(None);
        for transport in ["u1", "t1"] {
            play(&edge, &Run { scenario: "takeover", transport, ..Run::default() });
        }
        assert_eq!(edge.closed(0), []);
    }
}

#[test]
fn sipp_never_acknowledges() {
    if !has("sipp") {
        return;
    }
    // 64·T1 is 2.56 s.
    let edge = Edge::start(Some(40));
    // Over UDP: of the copies of a 200 that come over TCP, SIPp takes one for a message of its own.
    play(&edge, &Run { scenario: "lost_ack", ..Run::default() });
    for record in &edge.closed(3) {
        assert_eq!(record.status, Some(200), "{record:#?}");
        assert_eq!(record.ended_by, Some(EndedBy::Edge), "{record:#?}");
        let seconds = record.sip_time.as_secs_f64();
        assert!((2.5..6.0).contains(&seconds), "{record:#?}");
    }
}

#[test]
fn sipp_loses_packets() {
    if !has("sipp") {
        return;
    }
    // SIPp repeats its BYE after 0.5, 1, 2 s …: the edge must know it for as long, so T1 is the RFC's.
    let edge = Edge::start(None);
    play(&edge, &Run { calls: 20, per_second: 20, more: &["-lost", "8"], ..Run::default() });
    for record in edge.closed(20) {
        assert_held(&record, Duration::from_millis(200));
    }
}

#[test]
fn sipp_places_a_hundred_calls_in_five_seconds() {
    if !has("sipp") {
        return;
    }
    let edge = Edge::start(None);
    play(&edge, &Run { calls: 100, per_second: 20, ..Run::default() });
    for record in edge.closed(100) {
        assert_held(&record, Duration::from_millis(280));
    }
}
