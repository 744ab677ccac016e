//! The record of one call. Opened when its INVITE was admitted, updated at the answer and every six
//! seconds while legs are up, closed at the end. It keeps two clocks side by side: SIP time (the
//! legs; the seed's red) and agent time (joined to left; the seed's blue). It holds phone numbers
//! and is shown to the operator only; no secret, join URL or key ever enters it.

use super::deciminute::Deciminutes;
use super::loss::AgentLoss;
use super::stamp;
use super::transfer::TransferRecord;
use crate::ground::{CallKey, Transport, WallTime};
use crate::media::plan::MediaReport;
use crate::media::quality::Scale;
use crate::rtp::rtcp::extended::VoipMetrics;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::net::SocketAddr;
use std::time::Duration;

pub use super::stamp::rfc3339;

/// Who called whom.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallDirection {
    Incoming,
    Outgoing,
}

/// Who ended the call.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndedBy {
    /// BYE or CANCEL of the caller, or media that stopped coming.
    Caller,
    /// BYE or refusal of the callee of an outgoing call.
    Callee,
    /// The target of a transfer, after both legs were bridged.
    Target,
    /// The client that asked for an outgoing call.
    Client,
    /// The agent hung up, or its stream was lost.
    Agent,
    /// This daemon: a refusal, a time-out of its own, a drain.
    Edge,
    /// The process ended without closing the record; it was closed at its last heartbeat.
    NodeLost,
}

/// Where the call came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Source {
    pub address: SocketAddr,
    #[serde(serialize_with = "transport_text", deserialize_with = "transport_parse")]
    pub transport: Transport,
}

/// Everything that is kept of a call. Times are wall times and only label; durations come from the
/// monotonic clock.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Cdr {
    #[serde(serialize_with = "key_text", deserialize_with = "key_parse")]
    pub key: CallKey,
    /// Call-ID of the caller's dialog.
    pub sip_call_id: String,
    pub direction: CallDirection,
    pub source: Source,
    pub from_uri: String,
    pub from_display: Option<String>,
    pub to_uri: String,
    /// As given to the agent (P-Asserted-Identity of a listed peer, else the From user).
    pub caller_id: Option<String>,
    pub agent_id: Option<String>,
    /// Ultravox's id of the agent call.
    pub ultravox_call_id: Option<String>,
    /// Ids of the agent calls that went on, one after the other, where an agent was lost.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub continued_as: Vec<String>,
    /// The range or registration that admitted the source.
    pub admitted_by: Option<String>,
    /// The allowance that named the agent, `allowAllAgents` or `fallbackHandler`.
    pub routed_by: Option<String>,
    /// `X-` headers that did not reach the agent as they came, by name and reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub header_remarks: Vec<String>,
    /// Encoding name of the agreed codec (`PCMU`, `opus`, …).
    pub codec: Option<String>,
    #[serde(with = "stamp::wall")]
    pub opened_at: WallTime,
    #[serde(with = "stamp::wall_option")]
    pub ringing_at: Option<WallTime>,
    #[serde(with = "stamp::wall_option")]
    pub answered_at: Option<WallTime>,
    /// The agent stream was joined.
    #[serde(with = "stamp::wall_option")]
    pub joined_at: Option<WallTime>,
    /// The agent left.
    #[serde(with = "stamp::wall_option")]
    pub left_at: Option<WallTime>,
    /// `None` while the call is up.
    #[serde(with = "stamp::wall_option")]
    pub ended_at: Option<WallTime>,
    /// The legs' running time, added up.
    #[serde(rename = "sip_time_ms", with = "stamp::millis")]
    pub sip_time: Duration,
    /// From joined to left.
    #[serde(rename = "agent_time_ms", with = "stamp::millis")]
    pub agent_time: Duration,
    /// Of `sip_time`, to the last nanosecond of it.
    pub deciminutes: Deciminutes,
    /// Final SIP status of the caller's INVITE; 200 for an answered call.
    pub status: Option<u16>,
    /// Reason phrase that went with it.
    pub status_reason: Option<String>,
    pub ended_by: Option<EndedBy>,
    /// Why it ended, in words.
    pub end_reason: Option<String>,
    /// The same in a few fixed words, which hold nothing that a peer sent.
    #[serde(default)]
    pub end: Option<String>,
    /// Detail of a refusal, as in the `Warning` header and the log.
    pub warning: Option<String>,
    /// Directions of its legs that carried nothing, with the likeliest cause.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub one_way: Vec<String>,
    pub media: Option<MediaSummary>,
    /// The same of further legs, in the order in which they ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub further_media: Vec<MediaSummary>,
    /// Its transfers, in the order of their beginning.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub transfers: Vec<TransferRecord>,
    /// Agents that were lost while the caller was not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub agent_losses: Vec<AgentLoss>,
    /// How often somebody took the place of a leg's peer (RFC 3891).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub taken_over: u32,
    /// Fetched hold music that could not be played, and why; the default played.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sound_faults: Vec<String>,
    /// Keys of all its legs. How many, never which.
    #[serde(default, skip_serializing_if = "KeyCounts::is_empty")]
    pub keys: KeyCounts,
}

/// Keys that were pressed in a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct KeyCounts {
    /// Received as telephone-events (RFC 4733), by INFO, and as tones in the audio. A key that came
    /// two ways counts for the first.
    pub rfc4733: u32,
    pub info: u32,
    pub inband: u32,
    /// Pressed towards a leg: by the agent, and passed on from the other leg of a bridge.
    pub sent_by_agent: u32,
    pub passed_on: u32,
}

impl KeyCounts {
    fn is_empty(&self) -> bool {
        *self == KeyCounts::default()
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

impl Cdr {
    /// A record as it is opened: who, whence and when; all else is unknown yet.
    pub fn opened(
        key: CallKey,
        direction: CallDirection,
        source: Source,
        sip_call_id: String,
        opened_at: WallTime,
    ) -> Cdr {
        Cdr {
            key,
            sip_call_id,
            direction,
            source,
            from_uri: String::new(),
            from_display: None,
            to_uri: String::new(),
            caller_id: None,
            agent_id: None,
            ultravox_call_id: None,
            continued_as: Vec::new(),
            admitted_by: None,
            routed_by: None,
            header_remarks: Vec::new(),
            codec: None,
            opened_at,
            ringing_at: None,
            answered_at: None,
            joined_at: None,
            left_at: None,
            ended_at: None,
            sip_time: Duration::ZERO,
            agent_time: Duration::ZERO,
            deciminutes: Deciminutes::default(),
            status: None,
            status_reason: None,
            ended_by: None,
            end_reason: None,
            end: None,
            warning: None,
            one_way: Vec::new(),
            media: None,
            further_media: Vec::new(),
            transfers: Vec::new(),
            agent_losses: Vec::new(),
            taken_over: 0,
            sound_faults: Vec::new(),
            keys: KeyCounts::default(),
        }
    }

    /// Sets both clocks, and the deciminutes that follow from the first.
    pub fn set_times(&mut self, sip_time: Duration, agent_time: Duration) {
        self.sip_time = sip_time;
        self.agent_time = agent_time;
        self.deciminutes = Deciminutes::billed_for(sip_time);
    }

    /// One of its agent calls has this Ultravox id.
    pub fn has_ultravox_call(&self, id: &str) -> bool {
        self.ultravox_call_id.as_deref() == Some(id)
            || self.further_agent_calls().any(|later| later == id)
    }

    /// Its agent calls beyond the first: those that went on for a lost one, then operators'.
    pub fn further_agent_calls(&self) -> impl Iterator<Item = &str> {
        let operators = self.transfers.iter().filter_map(|one| one.operator_call_id.as_deref());
        self.continued_as.iter().map(String::as_str).chain(operators)
    }

    /// True once the call has ended.
    pub fn is_closed(&self) -> bool {
        self.ended_at.is_some()
    }
}

/// The media figures of a record: what a `MediaReport` holds, as plain numbers.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct MediaSummary {
    pub packets_received: u64,
    pub packets_sent: u64,
    pub packets_lost: u64,
    pub packets_late: u64,
    pub packets_refused: u64,
    pub srtp_failures: u64,
    pub concealed_ms: u64,
    pub jitter_us: u32,
    pub jitter_max_us: u32,
    /// What packets waited in the jitter buffer: mean and longest; and its target, last and largest.
    pub jitter_wait_us: u32,
    pub jitter_wait_max_us: u32,
    pub jitter_target_us: u32,
    pub jitter_target_max_us: u32,
    /// By how much audio was made shorter and longer to follow the clock.
    pub shortened_ms: u64,
    pub lengthened_ms: u64,
    pub round_trip_us: u32,
    /// How the far end sounds to us, and we to it: mean opinion scores (E-model), 1 to 4.5, on this scale.
    /// `None`: nothing came; the far end never reported.
    pub mos_scale: Scale,
    pub mos_received: Option<f32>,
    pub mos_sent: Option<f32>,
    /// Stretches in which many packets were missed, and their mean length (RFC 3611 §4.7.2).
    pub bursts: u32,
    pub burst_ms: u32,
    /// How the far end hears us by its extended reports (RFC 3611); `None` where it sends none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub far_end: Option<FarEnd>,
    pub agent_received_ms: u64,
    pub agent_played_ms: u64,
    pub agent_cleared_ms: u64,
    pub agent_dropped_ms: u64,
    pub agent_queue_mean_ms: u32,
    pub agent_queue_max_ms: u32,
    pub agent_wait_median_ms: u32,
    pub agent_wait_max_ms: u32,
    pub agent_underruns: u32,
    pub agent_shortened_ms: u64,
    pub agent_lengthened_ms: u64,
    pub uplink_dropped_frames: u64,
    pub frames_late: u64,
    pub digits: u32,
}

/// What a far end reported of our audio.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct FarEnd {
    /// Of our packets, in percent: lost on the way, and too late for its jitter buffer.
    pub lost_percent: f32,
    pub late_percent: f32,
    /// Of the packets in bursts of loss, the missed ones in percent; the mean length of a burst.
    pub burst_percent: f32,
    pub burst_ms: u16,
    /// Its round trip, and the delay within it, both ways together; zero when it knows none.
    pub round_trip_ms: u16,
    pub end_system_ms: u16,
    /// Delay of its jitter buffer.
    pub buffer_ms: u16,
    /// By its own reckoning: the E-model's rating, and scores of listening and in conversation.
    pub r_factor: Option<u8>,
    pub mos_listening: Option<f32>,
    pub mos_conversation: Option<f32>,
}

impl From<&VoipMetrics> for FarEnd {
    fn from(metrics: &VoipMetrics) -> FarEnd {
        let percent = |of_256: u8| (f32::from(of_256) * 1_000.0 / 256.0).round() / 10.0;
        let score = |tenths: u8| f32::from(tenths) / 10.0;
        FarEnd {
            lost_percent: percent(metrics.loss_rate),
            late_percent: percent(metrics.discard_rate),
            burst_percent: percent(metrics.burst_density),
            burst_ms: metrics.burst_ms,
            round_trip_ms: metrics.round_trip_ms,
            end_system_ms: metrics.end_system_ms,
            buffer_ms: metrics.buffer_nominal_ms,
            r_factor: metrics.r_factor,
            mos_listening: metrics.mos_listening.map(score),
            mos_conversation: metrics.mos_conversation.map(score),
        }
    }
}

impl From<&MediaReport> for MediaSummary {
    fn from(report: &MediaReport) -> MediaSummary {
        MediaSummary {
            packets_received: report.packets_received,
            packets_sent: report.packets_sent,
            packets_lost: report.packets_lost,
            packets_late: report.packets_late,
            packets_refused: report.packets_refused,
            srtp_failures: report.srtp_failures,
            concealed_ms: report.concealed_ms,
            jitter_us: report.jitter_us,
            jitter_max_us: report.jitter_max_us,
            jitter_wait_us: report.jitter_wait_us,
            jitter_wait_max_us: report.jitter_wait_max_us,
            jitter_target_us: report.jitter_target_us,
            jitter_target_max_us: report.jitter_target_max_us,
            shortened_ms: report.shortened_ms,
            lengthened_ms: report.lengthened_ms,
            round_trip_us: report.round_trip_us,
            mos_scale: report.mos_scale,
            mos_received: report.mos_received,
            mos_sent: report.mos_sent,
            bursts: report.bursts,
            burst_ms: report.burst_ms,
            far_end: report.far_end.as_ref().map(FarEnd::from),
            agent_received_ms: report.agent_received_ms,
            agent_played_ms: report.agent_played_ms,
            agent_cleared_ms: report.agent_cleared_ms,
            agent_dropped_ms: report.agent_dropped_ms,
            agent_queue_mean_ms: report.agent_queue_mean_ms,
            agent_queue_max_ms: report.agent_queue_max_ms,
            agent_wait_median_ms: report.agent_wait_median_ms,
            agent_wait_max_ms: report.agent_wait_max_ms,
            agent_underruns: report.agent_underruns,
            agent_shortened_ms: report.agent_shortened_ms,
            agent_lengthened_ms: report.agent_lengthened_ms,
            uplink_dropped_frames: report.uplink_dropped_frames,
            frames_late: report.frames_late,
            digits: report.digits,
        }
    }
}

fn key_text<S: Serializer>(key: &CallKey, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(key)
}

fn key_parse<'de, D: Deserializer<'de>>(deserializer: D) -> Result<CallKey, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|()| serde::de::Error::custom("not a call key"))
}

fn transport_text<S: Serializer>(transport: &Transport, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(transport.uri_param())
}

fn transport_parse<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Transport, D::Error> {
    match String::deserialize(deserializer)?.as_str() {
        "udp" => Ok(Transport::Udp),
        "tcp" => Ok(Transport::Tcp),
        "tls" => Ok(Transport::Tls),
        _ => Err(serde::de::Error::custom("not a transport")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_back_as_it_was_written() {
        let source = Source {
            address: "192.0.2.7:5060".parse().expect("an address"),
            transport: Transport::Tls,
        };
        let opened = WallTime::from_unix_micros(1_700_000_000_000_000);
        let mut cdr = Cdr::opened(
            CallKey(0x68f0_1234_0000_002a),
            CallDirection::Incoming,
            source,
            "a84b4c76e66710@pbx".into(),
            opened,
        );
        assert!(!cdr.is_closed());
        cdr.answered_at = Some(WallTime::from_unix_micros(1_700_000_004_000_000));
        cdr.ended_at = Some(WallTime::from_unix_micros(1_700_000_011_000_000));
        cdr.set_times(Duration::from_millis(7_000), Duration::from_millis(6_500));
        cdr.ended_by = Some(EndedBy::Caller);
        cdr.media = Some(MediaSummary::from(&MediaReport {
            digits: 3,
            mos_scale: Scale::Wideband,
            mos_received: Some(4.38),
            far_end: Some(VoipMetrics {
                loss_rate: 26,
                r_factor: Some(88),
                mos_conversation: Some(42),
                ..Default::default()
            }),
            ..Default::default()
        }));
        let json = serde_json::to_string(&cdr).expect("a record is plain data");
        assert!(json.contains(r#""key":"68f01234-2a""#), "{json}");
        assert!(json.contains(r#""transport":"tls""#), "{json}");
        assert!(json.contains(r#""answered_at":"2023-11-14T22:13:24.000Z""#), "{json}");
        assert!(json.contains(r#""sip_time_ms":7000,"agent_time_ms":6500,"deciminutes":2"#));
        assert!(json.contains(r#""mos_scale":"wideband","mos_received":4.38,"mos_sent":null"#));
        assert!(json.contains(r#""far_end":{"lost_percent":10.2,"#), "{json}");
        assert!(json.contains(r#""r_factor":88,"mos_listening":null,"mos_conversation":4.2}"#));
        assert_eq!(serde_json::from_str::<Cdr>(&json).expect("it is its own form"), cdr);
        assert!(cdr.is_closed());
    }
}
