//! Prometheus text (exposition format 0.0.4) from plain counters. Machines keep their counters as
//! plain fields; the daemon gathers them into a [`Snapshot`] when somebody asks. No label ever holds
//! a phone number or an address.

use super::AdminState;
use crate::call::deed::Tally;
use crate::media::quality::{SCORE_BOUNDS, Scale, Scores, ScoresByScale};
use crate::shell::media::{BUCKETS_US, HistogramSnapshot};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

/// Every figure that is published, at one moment.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Snapshot {
    pub uptime: Duration,
    /// Calls that are up now, ringing ones among them.
    pub calls_live: u64,
    /// Calls admitted since the start.
    pub calls_total: u64,
    /// Calls answered since the start.
    pub calls_answered: u64,
    /// Final status of the calls' INVITEs since the start.
    pub calls_by_status: BTreeMap<u16, u64>,
    /// Billed deciminutes of closed calls since the start.
    pub deciminutes: u64,
    pub sip_time: Duration,
    pub agent_time: Duration,
    pub sip: SipFigures,
    pub media: MediaFigures,
    pub store: StoreFigures,
    /// Requests to the admin listener, by class and status.
    pub requests: BTreeMap<(&'static str, u16), u64>,
    pub setup: SetupFigures,
    pub hands: HandFigures,
    pub draining: bool,
}

/// Figures of the SIP side.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct SipFigures {
    pub messages_received: u64,
    pub messages_sent: u64,
    /// Packets and connections from addresses in no allowed range.
    pub unlisted: u64,
    /// Messages that could not be parsed.
    pub malformed: u64,
    /// INVITEs shed since the queue aged or a cap was reached.
    pub shed: u64,
    pub transactions: u64,
    /// Registrations that are up, that are down, and whose outcome is not known yet.
    pub registrations: [u64; 3],
    pub dialogs: u64,
    pub connections: u64,
    /// Packets and TLS handshakes of listed sources that came too fast.
    pub too_fast: u64,
    /// Times that an unlisted source was muted in the kernel.
    pub muted: u64,
    /// Messages that the parser failed on by our own bug.
    pub parser_panics: u64,
    /// Connections of ours to peers: made, and not to be made.
    pub connects: u64,
    pub connects_failed: u64,
    /// TLS sessions with peers that were resumed.
    pub tls_resumed: u64,
}

/// Figures of the media plane, over all shards.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct MediaFigures {
    pub sessions: u64,
    pub ports_in_use: u64,
    pub ports_capacity: u64,
    pub agent_streams: u64,
    pub packets_received: u64,
    pub packets_sent: u64,
    /// Of closed calls, as are the figures that follow.
    pub packets_lost: u64,
    /// Came too late to be played.
    pub packets_late: u64,
    /// By how much audio was made shorter and longer to follow the clock.
    pub shortened: Duration,
    pub lengthened: Duration,
    pub packets_refused: u64,
    pub srtp_failures: u64,
    pub concealed: Duration,
    /// Frames that missed their deadline and were skipped.
    pub frames_late: u64,
    pub uplink_dropped_frames: u64,
    /// Times that agents' words ran out and went on at once.
    pub agent_underruns: u64,
    /// What streams in real time were made shorter and longer by, to keep their delay.
    pub agent_shortened: Duration,
    pub agent_lengthened: Duration,
    /// Directions of legs that carried nothing, by kind.
    pub one_way: BTreeMap<&'static str, u64>,
    /// How legs of closed calls sounded to us, and we to them.
    pub mos_received: ScoresByScale,
    pub mos_sent: ScoresByScale,
    /// The same by the legs' own extended reports.
    pub mos_far_end: Scores,
    /// For each shard the share of its time in which it worked, 0 to 1.
    pub shard_busy: Vec<f64>,
    /// How far each shard relieves itself: 0, 1 or 2.
    pub shard_relief: Vec<u64>,
    /// How late frames were sent, over all shards.
    pub pacing_lateness: HistogramSnapshot,
    /// From a packet's arrival to its audio on the way to the agent.
    pub forwarding_delay: HistogramSnapshot,
}

/// Figures of the calls' way to their agents.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct SetupFigures {
    pub waiting: u64,
    pub waited: u64,
    pub wait_total: Duration,
    pub turned_away: u64,
    /// Agent calls that nobody will join, not lapsed yet.
    pub lapsing: u64,
    pub fallback_asked: u64,
    pub fallback_failed: u64,
    /// Outgoing calls placed, and requests for one that were refused.
    pub outgoing: u64,
    pub outgoing_refused: u64,
}

/// What calls do with their hands: transfers, keys, tools, and agents that are lost.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct HandFigures {
    pub tally: Tally,
    /// Transfers under way, without those that are bridged.
    pub transferring: u64,
    /// Legs that hear another leg in the place of an agent: two for each such call.
    pub legs_bridged: u64,
}

/// Figures of the record store.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct StoreFigures {
    pub written: u64,
    pub commits: u64,
    pub failures: u64,
    pub dropped: u64,
    pub waiting: u64,
    pub failing: bool,
}

/// `GET /metrics`.
pub async fn metrics(State(state): State<AdminState>) -> Response {
    let snapshot = Snapshot { requests: state.desk.requests(), ..(state.metrics)() };
    let text = render(&snapshot);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

/// The snapshot as Prometheus text.
pub fn render(snapshot: &Snapshot) -> String {
    let mut page = Page(String::with_capacity(4_096));
    page.gauge("uptime_seconds", "Time since the start.", snapshot.uptime.as_secs_f64());
    page.gauge("draining", "1 while no new call is taken after SIGTERM.", bit(snapshot.draining));
    page.gauge("calls_live", "Calls that are up, ringing ones among them.", snapshot.calls_live);
    page.counter("calls_total", "Calls admitted.", snapshot.calls_total);
    page.counter("calls_answered_total", "Calls answered.", snapshot.calls_answered);
    page.head("calls_ended_total", "Final status of the calls' INVITEs.", "counter");
    for (status, count) in &snapshot.calls_by_status {
        page.line(&format!("calls_ended_total{{status=\"{status}\"}}"), count);
    }
    page.counter("deciminutes_total", "Billed deciminutes of closed calls.", snapshot.deciminutes);
    let seconds = snapshot.sip_time.as_secs_f64();
    page.counter("sip_seconds_total", "SIP time of closed calls: the legs added up.", seconds);
    let seconds = snapshot.agent_time.as_secs_f64();
    page.counter("agent_seconds_total", "Agent time of closed calls: joined to left.", seconds);
    render_sip(&mut page, &snapshot.sip);
    render_setup(&mut page, &snapshot.setup);
    render_hands(&mut page, &snapshot.hands);
    render_media(&mut page, &snapshot.media);
    render_store(&mut page, &snapshot.store);
    let help = "Requests to the admin listener, by class of their path and status.";
    page.head("http_requests_total", help, "counter");
    for ((class, status), count) in &snapshot.requests {
        page.line(&format!("http_requests_total{{class=\"{class}\",status=\"{status}\"}}"), count);
    }
    page.0
}

fn render_sip(page: &mut Page, sip: &SipFigures) {
    page.counter("sip_received_total", "SIP messages received.", sip.messages_received);
    page.counter("sip_sent_total", "SIP messages sent.", sip.messages_sent);
    let help = "Packets and connections from addresses in no allowed range.";
    page.counter("sip_unlisted_total", help, sip.unlisted);
    page.counter("sip_malformed_total", "Messages that could not be parsed.", sip.malformed);
    page.counter("sip_shed_total", "INVITEs refused by overload protection.", sip.shed);
    page.gauge("sip_transactions", "Transactions held.", sip.transactions);
    page.head("sip_registrations", "Registrations with PBXs, by their last outcome.", "gauge");
    for (outcome, count) in ["up", "down", "unknown"].into_iter().zip(sip.registrations) {
        page.line(&format!("sip_registrations{{outcome=\"{outcome}\"}}"), count);
    }
    page.gauge("sip_dialogs", "Dialogs held.", sip.dialogs);
    page.gauge("sip_connections", "TCP and TLS connections open.", sip.connections);
    let help = "Packets and TLS handshakes dropped: one listed source came too fast.";
    page.counter("sip_too_fast_total", help, sip.too_fast);
    let help = "Times that an unlisted source was muted in the kernel for 10 s: it flooded.";
    page.counter("sip_muted_total", help, sip.muted);
    let help = "Messages dropped since the parser failed on them: please report.";
    page.counter("sip_parser_panics_total", help, sip.parser_panics);
    page.counter("sip_connects_total", "Connections made to peers.", sip.connects);
    let help = "Connections to peers that could not be made.";
    page.counter("sip_connects_failed_total", help, sip.connects_failed);
    page.counter("sip_tls_resumed_total", "TLS sessions with peers resumed.", sip.tls_resumed);
}

fn render_setup(page: &mut Page, setup: &SetupFigures) {
    let help = "Callers that wait for the creation of their agent calls.";
    page.gauge("creations_waiting", help, setup.waiting);
    page.counter("creations_waited_total", "Callers that had to wait for it.", setup.waited);
    let seconds = setup.wait_total.as_secs_f64();
    page.counter("creations_waited_seconds_total", "For how long they did.", seconds);
    let help = "Callers refused since their turn would have come too late.";
    page.counter("creations_turned_away_total", help, setup.turned_away);
    let help = "Agent calls that nobody will join and that have not lapsed yet.";
    page.gauge("creations_lapsing", help, setup.lapsing);
    page.counter("fallback_asked_total", "Questions to the handler.", setup.fallback_asked);
    let help = "Questions to the handler that brought no decision.";
    page.counter("fallback_failed_total", help, setup.fallback_failed);
    page.counter("outgoing_calls_total", "Outgoing calls placed.", setup.outgoing);
    let help = "Requests for an outgoing call that were refused here.";
    page.counter("outgoing_refused_total", help, setup.outgoing_refused);
}

fn render_hands(page: &mut Page, hands: &HandFigures) {
    let HandFigures { tally, transferring, legs_bridged } = hands;
    page.head("transfers_total", "Transfers, by kind and by what became of them first.", "counter");
    for ((kind, outcome), count) in &tally.transfers {
        page.line(&format!("transfers_total{{kind=\"{kind}\",outcome=\"{outcome}\"}}"), count);
    }
    page.gauge("transfers_under_way", "Transfers that are not decided yet.", transferring);
    page.gauge("legs_bridged", "Legs that hear another leg, no agent.", legs_bridged);
    page.head("keys_received_total", "Keys that parties of calls pressed.", "counter");
    for (way, count) in &tally.keys_received {
        page.line(&format!("keys_received_total{{way=\"{way}\"}}"), count);
    }
    page.head("keys_sent_total", "Keys pressed towards legs, by whom.", "counter");
    for (sender, count) in &tally.keys_sent {
        page.line(&format!("keys_sent_total{{sender=\"{sender}\"}}"), count);
    }
    page.head("agent_tools_total", "Telephone tools that agents invoked.", "counter");
    for ((tool, outcome), count) in &tally.tools {
        page.line(&format!("agent_tools_total{{tool=\"{tool}\",outcome=\"{outcome}\"}}"), count);
    }
    let help = "Agents lost while their callers were not, by what followed.";
    page.head("agents_lost_total", help, "counter");
    for (then, count) in &tally.agents_lost {
        page.line(&format!("agents_lost_total{{then=\"{then}\"}}"), count);
    }
}

fn render_media(page: &mut Page, media: &MediaFigures) {
    page.gauge("media_sessions", "Media sessions open.", media.sessions);
    page.gauge("media_ports_in_use", "Pairs of media ports in use.", media.ports_in_use);
    page.gauge("media_ports_capacity", "Pairs of media ports in all.", media.ports_capacity);
    page.gauge("agent_streams", "Agent streams joined.", media.agent_streams);
    page.head("media_shard_busy_ratio", "Share of a shard's time in which it worked.", "gauge");
    for (shard, busy) in media.shard_busy.iter().enumerate() {
        page.line(&format!("media_shard_busy_ratio{{shard=\"{shard}\"}}"), busy);
    }
    let help = "How far a shard relieves itself of load: 0, 1 or 2.";
    page.head("media_shard_relief", help, "gauge");
    for (shard, step) in media.shard_relief.iter().enumerate() {
        page.line(&format!("media_shard_relief{{shard=\"{shard}\"}}"), step);
    }
    page.histogram(
        "media_pacing_lateness_seconds",
        "How late frames were sent.",
        &media.pacing_lateness,
    );
    let help = "From a packet's arrival to its audio written to the agent.";
    page.histogram("media_forwarding_delay_seconds", help, &media.forwarding_delay);
    page.counter("rtp_received_total", "RTP packets accepted.", media.packets_received);
    page.counter("rtp_sent_total", "RTP packets sent.", media.packets_sent);
    page.counter("rtp_lost_total", "RTP packets that never came.", media.packets_lost);
    page.counter("rtp_late_total", "RTP packets too late to be played.", media.packets_late);
    let shortened = media.shortened.as_secs_f64();
    page.counter("rtp_shortened_seconds_total", "Time by which audio was shortened.", shortened);
    let lengthened = media.lengthened.as_secs_f64();
    page.counter("rtp_lengthened_seconds_total", "Time by which it was lengthened.", lengthened);
    let help = "RTP packets dropped: wrong source, wrong payload number, malformed.";
    page.counter("rtp_refused_total", help, media.packets_refused);
    let help = "Packets dropped since SRTP did not verify them: plain, forged, replayed.";
    page.counter("srtp_failures_total", help, media.srtp_failures);
    let help = "Concealment given to agents.";
    page.counter("rtp_concealed_seconds_total", help, media.concealed.as_secs_f64());
    let help = "Outgoing frames that missed their deadline and were skipped.";
    page.counter("rtp_frames_late_total", help, media.frames_late);
    let help = "Frames dropped since the agent's socket did not take them.";
    page.counter("uplink_dropped_frames_total", help, media.uplink_dropped_frames);
    let help = "Times that agents' words ran out and went on within 100 ms.";
    page.counter("agent_underruns_total", help, media.agent_underruns);
    let help = "Agents' streams in real time made shorter, to keep their delay.";
    page.counter("agent_shortened_seconds_total", help, media.agent_shortened.as_secs_f64());
    let help = "Agents' streams in real time made longer, to keep their delay.";
    page.counter("agent_lengthened_seconds_total", help, media.agent_lengthened.as_secs_f64());
    let help = "Directions of legs that carried nothing two seconds after the answer, by kind.";
    page.head("media_one_way_total", help, "counter");
    for (kind, count) in &media.one_way {
        page.line(&format!("media_one_way_total{{kind=\"{kind}\"}}"), count);
    }
    let help = "How legs of closed calls sounded to us: mean opinion scores, 1 to 4.5.";
    page.scores_by_scale("media_mos_received", help, &media.mos_received);
    let help = "How we sounded to legs of closed calls, by their RTCP.";
    page.scores_by_scale("media_mos_sent", help, &media.mos_sent);
    let help = "How we sounded to legs of closed calls by their own reckoning (RTCP XR).";
    page.head("media_mos_far_end", help, "histogram");
    page.scores("media_mos_far_end", None, &media.mos_far_end);
}

fn render_store(page: &mut Page, store: &StoreFigures) {
    page.counter("store_written_total", "Call records committed.", store.written);
    page.counter("store_commits_total", "Transactions of the record store.", store.commits);
    let help = "Transactions that failed: look at the disk.";
    page.counter("store_failures_total", help, store.failures);
    let help = "Records lost since neither disk nor memory had room.";
    page.counter("store_dropped_total", help, store.dropped);
    page.gauge("store_waiting", "Records that wait in memory.", store.waiting);
    let help = "1 from a failed transaction to the next that succeeds.";
    page.gauge("store_failing", help, bit(store.failing));
}

fn bit(on: bool) -> u8 {
    u8::from(on)
}

/// A page of metrics, each with its HELP and TYPE lines.
struct Page(String);

impl Page {
    fn head(&mut self, name: &str, help: &str, kind: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "# HELP voxedge_{name} {help}\n# TYPE voxedge_{name} {kind}");
    }

    fn line(&mut self, name: &str, value: impl std::fmt::Display) {
        let _ = writeln!(self.0, "voxedge_{name} {value}");
    }

    fn counter(&mut self, name: &str, help: &str, value: impl std::fmt::Display) {
        self.head(name, help, "counter");
        self.line(name, value);
    }

    fn histogram(&mut self, name: &str, help: &str, values: &HistogramSnapshot) {
        self.head(name, help, "histogram");
        let mut below = 0;
        for (bound_us, count) in BUCKETS_US.iter().zip(values.counts) {
            below += count;
            let bound = *bound_us as f64 / 1e6;
            self.line(&format!("{name}_bucket{{le=\"{bound}\"}}"), below);
        }
        self.line(&format!("{name}_bucket{{le=\"+Inf\"}}"), values.count());
        self.line(&format!("{name}_sum"), values.sum_us as f64 / 1e6);
        self.line(&format!("{name}_count"), values.count());
    }

    fn scores_by_scale(&mut self, name: &str, help: &str, scores: &ScoresByScale) {
        self.head(name, help, "histogram");
        for scale in Scale::ALL {
            self.scores(name, Some(scale), scores.of(scale));
        }
    }

    /// The lines of a histogram, without its head.
    fn scores(&mut self, name: &str, scale: Option<Scale>, scores: &Scores) {
        let label = scale.map(|scale| format!("scale=\"{}\"", scale.name()));
        let first = label.as_ref().map_or(String::new(), |label| format!("{label},"));
        let alone = label.map_or(String::new(), |label| format!("{{{label}}}"));
        let mut below = 0;
        for (bound, count) in SCORE_BOUNDS.iter().zip(scores.counts) {
            below += count;
            self.line(&format!("{name}_bucket{{{first}le=\"{bound}\"}}"), below);
        }
        let count = scores.counts.iter().sum::<u64>();
        self.line(&format!("{name}_bucket{{{first}le=\"+Inf\"}}"), count);
        self.line(&format!("{name}_sum{alone}"), scores.sum);
        self.line(&format!("{name}_count{alone}"), count);
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl std::fmt::Display) {
        self.head(name, help, "gauge");
        self.line(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::billing::{LossEnd, TransferKind};
    use crate::call::deed::{Deed, KeySender};
    use crate::call::keys::KeyPath;

    fn tally() -> Tally {
        let mut tally = Tally::default();
        let busy = Deed::Transfer { kind: TransferKind::ColdInvite, outcome: "busy" };
        for deed in [
            busy,
            busy,
            Deed::Replaces { taken: true },
            Deed::KeyReceived(KeyPath::Tones),
            Deed::KeysSent { sender: KeySender::Agent, count: 2 },
            Deed::KeysSent { sender: KeySender::Agent, count: 3 },
            Deed::Tool { tool: "cold_transfer", begun: false },
            Deed::AgentLost(LossEnd::FailedOver),
        ] {
            tally.add(deed);
        }
        tally
    }

    #[test]
    fn every_figure_has_its_help_its_type_and_its_value() {
        let snapshot = Snapshot {
            uptime: Duration::from_millis(1_500),
            calls_total: 7,
            calls_by_status: BTreeMap::from([(200, 5), (404, 2)]),
            store: StoreFigures { failing: true, ..StoreFigures::default() },
            media: MediaFigures {
                mos_received: {
                    let mut scores = ScoresByScale::default();
                    scores.add(Scale::Wideband, 4.25);
                    scores.add(Scale::Wideband, 3.5);
                    scores.add(Scale::Narrowband, 3.0);
                    scores
                },
                mos_far_end: {
                    let mut scores = Scores::default();
                    scores.add(4.25);
                    scores
                },
                one_way: BTreeMap::from([("only_rtcp", 3)]),
                shard_busy: vec![0.5, 0.25],
                shard_relief: vec![0, 2],
                pacing_lateness: HistogramSnapshot {
                    counts: std::array::from_fn(|index| if index < 3 { 1 } else { 0 }),
                    sum_us: 1_500,
                },
                ..MediaFigures::default()
            },
            hands: HandFigures { tally: tally(), transferring: 1, legs_bridged: 2 },
            ..Snapshot::default()
        };
        let text = render(&snapshot);
        for line in [
            "# TYPE voxedge_media_pacing_lateness_seconds histogram",
            "voxedge_media_pacing_lateness_seconds_bucket{le=\"+Inf\"} 3",
            "voxedge_media_pacing_lateness_seconds_sum 0.0015",
            "voxedge_media_one_way_total{kind=\"only_rtcp\"} 3\n",
            "voxedge_media_mos_received_bucket{scale=\"narrowband\",le=\"3.6\"} 1",
            "voxedge_media_mos_received_bucket{scale=\"wideband\",le=\"3.6\"} 1",
            "voxedge_media_mos_received_bucket{scale=\"wideband\",le=\"4.34\"} 2",
            "voxedge_media_mos_received_sum{scale=\"wideband\"} 7.75\n",
            "voxedge_media_mos_received_count{scale=\"wideband\"} 2",
            "voxedge_media_mos_far_end_bucket{le=\"4.34\"} 1",
            "voxedge_media_mos_far_end_sum 4.25\nvoxedge_media_mos_far_end_count 1\n",
            "voxedge_media_shard_busy_ratio{shard=\"1\"} 0.25",
            "voxedge_media_shard_relief{shard=\"1\"} 2",
            "# TYPE voxedge_uptime_seconds gauge\nvoxedge_uptime_seconds 1.5\n",
            "# TYPE voxedge_calls_total counter\nvoxedge_calls_total 7\n",
            "voxedge_calls_ended_total{status=\"200\"} 5\nvoxedge_calls_ended_total{status=\"404\"} 2\n",
            "voxedge_transfers_total{kind=\"cold_invite\",outcome=\"busy\"} 2\n",
            "voxedge_transfers_total{kind=\"replaces\",outcome=\"taken_over\"} 1\n",
            "voxedge_transfers_under_way 1\n",
            "voxedge_legs_bridged 2\n",
            "voxedge_keys_received_total{way=\"inband\"} 1\n",
            "voxedge_keys_sent_total{sender=\"agent\"} 5\n",
            "voxedge_agent_tools_total{tool=\"cold_transfer\",outcome=\"refused\"} 1\n",
            "voxedge_agents_lost_total{then=\"failed_over\"} 1\n",
            "# TYPE voxedge_store_failing gauge\nvoxedge_store_failing 1\n",
        ] {
            assert!(text.contains(line), "{line}\nin\n{text}");
        }
        let named = |word: &str| text.lines().filter(|line| line.starts_with(word)).count();
        assert_eq!(named("# HELP "), named("# TYPE "));
        let names: Vec<&str> = text.lines().filter_map(|l| l.strip_prefix("# TYPE ")).collect();
        let mut once = names.clone();
        once.dedup();
        assert_eq!(names, once, "no metric is declared twice");
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (name, value) = line.rsplit_once(' ').expect("a name and a value");
            assert!(name.starts_with("voxedge_") && value.parse::<f64>().is_ok(), "{line}");
        }
    }
}
