//! What a caller meets when the agent service does wrong: each fault has its answer, no call is
//! answered that no agent joined, and what an agent said is heard to its end.

use crate::rig::{self, Caller, Rig, SOON};
use std::sync::Arc;
use std::time::Duration;
use voxedge::cli::demo::phone::{self, PhoneCall, PhoneReport};
use voxedge::cli::demo::speech;
use voxedge::codec::CodecKind;
use voxedge::ground::Transport;
use voxedge::sip::msg::Response;
use voxedge::standin::script::{ECHO, FAREWELL, SILENT, SPEECH};
use voxedge::standin::{Fault, FaultRule, Stage};

const LIMIT: Duration = Duration::from_secs(90);
/// The codec's smallest sample that counts as sound.
const AUDIBLE: i16 = 100;

fn standin(rig: &Rig) -> &voxedge::standin::Standin {
    rig.daemon.standin().expect("the demo's configuration embeds it")
}

/// The final answer to a call to `agent_id` while `fault` stands.
async fn answer_under(rig: &Rig, stage: Stage, fault: Fault, agent_id: &str) -> Response {
    standin(rig).clear_faults();
    assert!(standin(rig).add_fault(FaultRule::always(stage, fault)));
    let mut caller = rig.caller(Transport::Udp).await;
    call(&mut caller, agent_id).await
}

async fn call(caller: &mut Caller, agent_id: &str) -> Response {
    caller.call(&format!("agent_{agent_id}"), 30_000).await
}

fn status(status: u16, retry_after: Option<&str>) -> Fault {
    Fault::Status { status, retry_after: retry_after.map(str::to_owned) }
}

#[test]
fn each_fault_of_the_agent_service_has_its_answer() {
    rig::run(LIMIT, async {
        let rig = Rig::start(&[]).await;
        let retry = |answer: &Response| answer.get_named("Retry-After").map(str::to_owned);
        let cases = [
            // A wait of nothing is tried some times; longer ones are in `webhook`.
            (Stage::Create, status(429, Some("0")), 503, Some("1")),
            (Stage::Create, status(402, None), 503, None),
            (Stage::Create, status(400, None), 488, None),
            (Stage::Create, status(401, None), 500, None),
            (Stage::Create, status(404, None), 404, None),
            (Stage::Create, status(500, None), 503, Some("5")),
            (Stage::Create, status(503, Some("0")), 503, Some("1")),
            (Stage::Create, Fault::BadJson, 503, Some("5")),
            (Stage::Create, Fault::MissingJoinUrl, 503, Some("5")),
            (Stage::Create, Fault::Drop { after_audio_ms: 0 }, 503, Some("5")),
            (Stage::Join, status(403, None), 503, Some("5")),
            (Stage::Join, status(500, None), 503, Some("5")),
            (Stage::Join, Fault::Drop { after_audio_ms: 0 }, 503, Some("5")),
        ];
        for (stage, fault, code, retry_after) in cases {
            let what = format!("{stage:?} {fault:?}");
            let answer = answer_under(&rig, stage, fault, ECHO).await;
            assert_eq!(answer.code(), code, "{what}");
            assert_eq!(retry(&answer).as_deref(), retry_after, "{what}");
            assert!(answer.get_named("Warning").is_some(), "{what}: no word on why");
        }
        standin(&rig).clear_faults();
        let mut caller = rig.caller(Transport::Tcp).await;
        let stranger = call(&mut caller, "00000000-0000-4000-8000-0000000000ff").await;
        assert_eq!(stranger.code(), 404, "the implicit rule names no agent of the account");
        let served = call(&mut caller, ECHO).await;
        assert_eq!(served.code(), 200, "the service is well again");
        assert_eq!(caller.hang_up(&served).await, 200);
        let counters = rig.daemon.snapshot().await.counters;
        assert_eq!(counters.answered, 1, "no call was answered while a fault stood");
        rig.stop().await;
    });
}

#[test]
fn a_service_that_is_too_slow_is_a_504() {
    rig::run(LIMIT, async {
        let rig = Rig::start(&[]).await;
        let answer = answer_under(&rig, Stage::Create, Fault::NeverAnswers, ECHO).await;
        assert_eq!(answer.code(), 504);
        assert_eq!(rig.daemon.snapshot().await.counters.answered, 0);
        rig.stop().await;
    });
}

/// Places a call as a telephone does, with its audio.
async fn place(rig: &Rig, agent_id: &str, talk: Duration, seed: u64) -> PhoneReport {
    let call = PhoneCall {
        server: rig.doors.udp,
        transport: Transport::Udp,
        tls: Some(Arc::clone(&rig.trust)),
        to_user: format!("agent_{agent_id}"),
        domain: "localhost".into(),
        codec: CodecKind::Pcmu,
        speech: Vec::new(),
        talk,
        headers: Vec::new(),
        seed,
    };
    phone::place(call).await.expect("the call ends")
}

#[test]
fn a_stream_that_breaks_ends_the_call_with_its_reason() {
    rig::run(LIMIT, async {
        let rig = Rig::start(&[]).await;
        let faults = [
            (SILENT, Fault::Drop { after_audio_ms: 300 }),
            (ECHO, Fault::Close { code: 1011, after_audio_ms: 300 }),
        ];
        for (number, (agent_id, fault)) in faults.into_iter().enumerate() {
            let rule = FaultRule {
                agent_id: Some(agent_id.into()),
                ..FaultRule::always(Stage::Media, fault)
            };
            assert!(standin(&rig).add_fault(rule));
            let report = place(&rig, agent_id, SOON, number as u64).await;
            assert_eq!(report.status, 200);
            let reason = report.far_end_left.expect("the edge hangs up");
            assert!(reason.contains("Q.850;cause=41"), "{reason}");
        }
        rig.stop().await;
    });
}

/// From the first to the last audible sample, in milliseconds at 8 kHz.
fn audible_ms(samples: &[i16]) -> usize {
    let loud = |sample: &i16| sample.saturating_abs() > AUDIBLE;
    let first = samples.iter().position(loud);
    let last = samples.iter().rposition(loud);
    first.zip(last).map_or(0, |(first, last)| (last - first) / 8)
}

#[test]
fn all_that_a_leaving_agent_said_is_heard_before_the_bye() {
    rig::run(LIMIT, async {
        let rig = Rig::start(&[]).await;
        let said = audible_ms(&speech::sentence(8_000));
        let report = place(&rig, FAREWELL, SOON, 21).await;
        let reason = report.far_end_left.as_deref().expect("the agent hangs up");
        assert!(reason.contains("Q.850;cause=16"), "{reason}");
        let heard = audible_ms(&report.heard);
        assert!(heard + 40 > said, "{heard} ms of {said} ms were heard");
        rig.stop().await;
    });
}

#[test]
fn an_agent_that_goes_on_talking_is_cut_by_the_callers_bye_alone() {
    rig::run(LIMIT, async {
        let rig = Rig::start(&[]).await;
        let report = place(&rig, SPEECH, Duration::from_millis(800), 22).await;
        assert_eq!((report.status, report.far_end_left), (200, None));
        assert!(report.packets_received > 0);
        let seen = tokio::time::timeout(
            SOON,
            standin(&rig).wait_until(|calls| calls.iter().all(|call| call.end_reason.is_some())),
        );
        let seen = seen.await.expect("the stream is closed with the call");
        assert_eq!(seen.len(), 1);
        assert!(seen[0].joined && seen[0].samples_received > 0);
        rig.stop().await;
    });
}
