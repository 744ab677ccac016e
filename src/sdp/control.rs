//! What a description says of RTCP beyond its address: `a=rtcp-xr` (RFC 3611 §5), read and written,
//! and its bandwidth, `b=RS` and `b=RR` (RFC 3556), read.
//!
//! A description names the blocks of extended reports that its writer wants to get. What we name in
//! an answer are those of the offer that we do, so that both ends send the same.

use super::text::{Attributes, MediaSection, SessionDescription};
use crate::media::plan::{ControlPlan, ExtendedPlan};

/// Whether extended reports of RTCP are agreed to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ExtendedReports {
    Off,
    /// When the peer offers them.
    #[default]
    Answered,
    /// In our offers too.
    Offered,
}

/// Everything that we can send.
const ALL: ExtendedPlan = ExtendedPlan { voip_metrics: true, summary: true, reference_time: true };

/// The blocks that our offer names.
pub(super) fn offered(terms: ExtendedReports) -> ExtendedPlan {
    match terms {
        ExtendedReports::Offered => ALL,
        ExtendedReports::Off | ExtendedReports::Answered => ExtendedPlan::default(),
    }
}

/// The blocks that we send when a peer's offer asks for them.
pub(super) fn answerable(terms: ExtendedReports) -> ExtendedPlan {
    match terms {
        ExtendedReports::Off => ExtendedPlan::default(),
        ExtendedReports::Answered | ExtendedReports::Offered => ALL,
    }
}

/// What is agreed of RTCP: of the blocks that the peer's section asks for, those that are `allowed`.
pub(super) fn agree(
    session: &SessionDescription,
    section: &MediaSection,
    allowed: ExtendedPlan,
) -> ControlPlan {
    let asked = asked(session, section);
    let extended = ExtendedPlan {
        voip_metrics: asked.voip_metrics && allowed.voip_metrics,
        summary: asked.summary && allowed.summary,
        reference_time: asked.reference_time && allowed.reference_time,
    };
    ControlPlan { extended, bits_per_s: bits_per_s(session, section) }
}

/// The blocks that a description names; the section's own line stands in place of the session's (§5.1).
pub(super) fn asked(session: &SessionDescription, section: &MediaSection) -> ExtendedPlan {
    let line = section.attributes.first("rtcp-xr");
    line.or_else(|| session.attributes.first("rtcp-xr")).map_or_else(Default::default, read)
}

/// The value of our `a=rtcp-xr`; `None` when there is nothing to name.
pub(super) fn write(plan: ExtendedPlan) -> Option<String> {
    let words = [
        (plan.voip_metrics, "voip-metrics"),
        (plan.summary, "stat-summary=loss,dup,jitt"),
        (plan.reference_time, "rcvr-rtt=all"),
    ];
    let named: Vec<_> = words.iter().filter(|(wanted, _)| *wanted).map(|(_, word)| *word).collect();
    (!named.is_empty()).then(|| named.join(" "))
}

/// The blocks of a peer's line that we do; others, and what bounds them, are passed over.
fn read(value: &str) -> ExtendedPlan {
    let mut plan = ExtendedPlan::default();
    for word in value.split_ascii_whitespace() {
        let (name, limit) = word.split_once('=').unwrap_or((word, ""));
        match name {
            "voip-metrics" => plan.voip_metrics = true,
            "stat-summary" => plan.summary = true,
            "rcvr-rtt" => {
                let mode = limit.split(':').next().unwrap_or_default();
                plan.reference_time = ["all", "sender"].contains(&mode);
            }
            _ => {}
        }
    }
    plan
}

/// Bits a second for the RTCP of senders and of receivers together, when both are given.
fn bits_per_s(session: &SessionDescription, section: &MediaSection) -> Option<u32> {
    let number = |attributes: &Attributes, name| attributes.first(name)?.parse().ok();
    let figure =
        |name| number(&section.attributes, name).or_else(|| number(&session.attributes, name));
    let (senders, receivers): (u32, u32) = (figure(SENDERS)?, figure(RECEIVERS)?);
    Some(senders.saturating_add(receivers))
}

/// Under which names `b=RS` and `b=RR` stand among the attributes.
pub(super) const SENDERS: &str = "b=RS";
pub(super) const RECEIVERS: &str = "b=RR";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_blocks_that_we_do_are_read_and_written() {
        for (value, written) in [
            ("", None),
            ("voip-metrics", Some("voip-metrics")),
            ("pkt-loss-rle=1000 voip-metrics x-new", Some("voip-metrics")),
            ("stat-summary", Some("stat-summary=loss,dup,jitt")),
            (
                "rcvr-rtt=all:10000 stat-summary=loss,dup,jitt,TTL voip-metrics",
                Some("voip-metrics stat-summary=loss,dup,jitt rcvr-rtt=all"),
            ),
            ("rcvr-rtt=sender", Some("rcvr-rtt=all")),
            ("rcvr-rtt=none rcvr-rtt", None),
            ("VOIP-METRICS", None),
        ] {
            assert_eq!(write(read(value)).as_deref(), written, "{value}");
        }
        assert_eq!(offered(ExtendedReports::Answered), ExtendedPlan::default());
        assert_eq!(write(offered(ExtendedReports::Offered)).map(|text| read(&text)), Some(ALL));
    }
}
