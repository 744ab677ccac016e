//! `GET /edge/live`: the legs of the calls that are up, as their media goes just now. The figures come
//! from the media threads when somebody asks; who calls whom comes from the records.

use super::{AdminState, api};
use crate::billing::Cdr;
use crate::billing::cdr::FarEnd;
use crate::ground::{CallKey, limits};
use crate::media::plan::{Direction, LegView};
use crate::media::quality::Scale;
use crate::shell::media::CallView;
use crate::shell::store::Filter;
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The whole answer.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Live {
    pub calls: Vec<LiveCall>,
}

/// One call that is up.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct LiveCall {
    pub key: String,
    /// `None` for a call so young that no record of it was written.
    pub from_uri: Option<String>,
    pub to_uri: Option<String>,
    pub agent_id: Option<String>,
    /// Empty while no media is open.
    pub legs: Vec<LiveLeg>,
}

/// One leg of it. "now" is the last five seconds or so.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct LiveLeg {
    /// 0: the leg that the call began with.
    pub leg: u32,
    pub codec: String,
    /// `sendrecv`, `sendonly`, `recvonly` or `inactive`, seen from the edge.
    pub direction: String,
    pub encrypted: bool,
    pub packets_received: u64,
    pub packets_sent: u64,
    /// Packets of the far end that were lost or too late, in percent.
    pub missed_percent: Option<f32>,
    pub missed_percent_now: Option<f32>,
    pub jitter_ms: f32,
    /// `None`: never measured.
    pub round_trip_ms: Option<f32>,
    /// How it sounds to us, and we to it, on this scale.
    pub mos_scale: Scale,
    pub mos_received: Option<f32>,
    pub mos_received_now: Option<f32>,
    pub mos_sent: Option<f32>,
    pub mos_sent_now: Option<f32>,
    /// Milliseconds of the agent's audio that wait to be sent to it, and the median wait so far.
    pub agent_queue_ms: u32,
    pub agent_wait_median_ms: u32,
    /// How it hears us by its extended reports.
    pub far_end: Option<FarEnd>,
}

/// `GET /edge/live`.
pub async fn live(State(state): State<AdminState>) -> Response {
    let views = (state.legs)().await;
    let filter = Filter { live: Some(true), ..Filter::default() };
    let records = api::read(&state, move |reader| reader.list(&filter, limits::LIVE_MAX)).await;
    match records {
        Ok(records) => Json(join(records, views)).into_response(),
        Err(answer) => *answer,
    }
}

/// Calls of both, newest first.
fn join(records: Vec<Cdr>, views: Vec<CallView>) -> Live {
    let mut calls: BTreeMap<CallKey, LiveCall> = BTreeMap::new();
    for record in records {
        let call = LiveCall {
            key: record.key.to_string(),
            from_uri: Some(record.from_uri),
            to_uri: Some(record.to_uri),
            agent_id: record.agent_id,
            legs: Vec::new(),
        };
        calls.insert(record.key, call);
    }
    for view in views {
        let unknown = || LiveCall {
            key: view.call.to_string(),
            from_uri: None,
            to_uri: None,
            agent_id: None,
            legs: Vec::new(),
        };
        calls.entry(view.call).or_insert_with(unknown).legs =
            view.legs.iter().map(LiveLeg::from).collect();
    }
    Live { calls: calls.into_values().rev().collect() }
}

impl From<&LegView> for LiveLeg {
    fn from(view: &LegView) -> LiveLeg {
        let report = &view.report;
        let millis = |micros: u32| (f64::from(micros) / 100.0).round() as f32 / 10.0;
        let direction = match view.direction {
            Direction::SendRecv => "sendrecv",
            Direction::SendOnly => "sendonly",
            Direction::RecvOnly => "recvonly",
            Direction::Inactive => "inactive",
        };
        LiveLeg {
            leg: view.leg.0,
            codec: view.kind.encoding_name().to_owned(),
            direction: direction.to_owned(),
            encrypted: view.encrypted,
            packets_received: report.packets_received,
            packets_sent: report.packets_sent,
            missed_percent: view.missed_percent.map(tenths),
            missed_percent_now: view.missed_percent_now.map(tenths),
            jitter_ms: millis(report.jitter_us),
            round_trip_ms: (report.round_trip_us > 0).then(|| millis(report.round_trip_us)),
            mos_scale: report.mos_scale,
            mos_received: report.mos_received,
            mos_received_now: view.mos_received_now,
            mos_sent: report.mos_sent,
            mos_sent_now: view.mos_sent_now,
            agent_queue_ms: report.agent_queue_ms,
            agent_wait_median_ms: report.agent_wait_median_ms,
            far_end: report.far_end.as_ref().map(FarEnd::from),
        }
    }
}

fn tenths(percent: f64) -> f32 {
    (percent * 10.0).round() as f32 / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::billing::{CallDirection, Source};
    use crate::codec::CodecKind;
    use crate::ground::{LegId, Transport, WallTime};
    use crate::media::plan::MediaReport;

    #[test]
    fn legs_stand_under_their_calls_and_young_calls_without_a_record() {
        let source = Source { address: ([192, 0, 2, 7], 5060).into(), transport: Transport::Udp };
        let record = |number| {
            let opened = WallTime::from_unix_micros(1);
            let direction = CallDirection::Incoming;
            let mut cdr = Cdr::opened(CallKey(number), direction, source, "c".into(), opened);
            cdr.from_uri = format!("sip:{number}@pbx.example");
            cdr
        };
        let view = |leg| LegView {
            leg: LegId(leg),
            kind: CodecKind::Pcmu,
            direction: Direction::SendOnly,
            encrypted: true,
            missed_percent: Some(2.84),
            missed_percent_now: None,
            mos_received_now: Some(4.2),
            mos_sent_now: None,
            report: MediaReport { jitter_us: 12_345, round_trip_us: 0, ..MediaReport::default() },
        };
        let views = vec![
            CallView { call: CallKey(3), legs: vec![view(0)] },
            CallView { call: CallKey(2), legs: vec![view(0), view(1)] },
        ];
        let Live { calls } = join(vec![record(2), record(1)], views);
        let shown: Vec<_> = calls
            .iter()
            .map(|call| (call.key.as_str(), call.from_uri.as_deref(), call.legs.len()))
            .collect();
        let keys = [3, 2, 1].map(|number| CallKey(number).to_string());
        let expected = [
            (keys[0].as_str(), None, 1),
            (keys[1].as_str(), Some("sip:2@pbx.example"), 2),
            (keys[2].as_str(), Some("sip:1@pbx.example"), 0),
        ];
        assert_eq!(shown, expected);
        let leg = &calls[1].legs[1];
        assert_eq!((leg.leg, leg.codec.as_str(), leg.direction.as_str()), (1, "PCMU", "sendonly"));
        assert_eq!((leg.jitter_ms, leg.round_trip_ms, leg.missed_percent), (12.3, None, Some(2.8)));
        assert_eq!((leg.missed_percent_now, leg.mos_received_now), (None, Some(4.2)));
    }
}
