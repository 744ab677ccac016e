//! A leg whose packets go to another leg as they are: which packets may, when it begins, and how the
//! audio path takes over again. What becomes of their numbers is the relay's matter.

use super::Leg;
use crate::codec::resample::Resampler;
use crate::ground::{Instant, LegId};
use crate::media::bridge::Bridge;
use crate::media::clock::samples_in;
use crate::media::inbound::{Content, Hearers};
use crate::media::lane::{FADE_MS, FADE_SAMPLES_MAX, scaled};
use crate::media::outbound::Outbound;
use crate::media::plan::{CodecPlan, Direction, LegPlan, Port};
use crate::media::relay::{Incoming, splice};
use crate::media::supply::law;
use crate::rtp::packet::RtpHeader;

/// Samples of the longest packet that we send: 60 ms at 48 kHz.
const FOLLOWED_SAMPLES_MAX: usize = 2_880;
/// Bytes of the longest packet of G.711 that we send: 60 ms.
const JOINED_BYTES_MAX: usize = 480;

impl Leg {
    /// Hands a packet on to the only leg that hears this one; false when it is to be decoded. It begins
    /// where it is not heard: with G.711 at once, since its bytes can be joined, with other codecs when
    /// the speaker is quiet, since the far decoder goes on from what it heard before.
    pub(super) fn hand_on(
        &mut self,
        now: Instant,
        header: RtpHeader,
        content: Content,
        payload: &[u8],
        hearers: &mut Hearers<'_>,
    ) -> bool {
        let (Some((id, listener)), Some(bridge)) = (&mut hearers.listener, &mut hearers.bridge)
        else {
            return false;
        };
        let Some(relay) = listener.relay() else { return false };
        let (is_open, quiet_peak) = (relay.is_open(), relay.quiet_peak(now));
        // What comes late in the codec before is no noise, though it stands for silence.
        let is_noise =
            content == Content::ComfortNoise && self.inbound.is_noise(header.payload_type);
        let packet = incoming(&self.plan.codec, header, (content, is_noise), payload);
        let fits = packet.ticks.is_none_or(|ticks| ticks <= listener.packet_ticks());
        // Audio of another framing than the agreed one: our decoder may know it, the listener's need not.
        let broken = content == Content::Audio && packet.ticks.is_none();
        if is_open && fits && !broken {
            self.inbound.count(listener.hand_on(now, packet));
            return true;
        }
        if is_open {
            self.take_back(now, *id, listener, Some(bridge));
            self.inbound.set_heard(now, true);
            return false;
        }
        let ready = packet.ticks.is_some() && fits && self.inbound.is_next(header);
        let joins = law(self.plan.codec.kind).is_some();
        if !ready || !(joins || bridge.peak_lately(self.id, *id) <= quiet_peak) {
            return false;
        }
        self.begin_to_hand_on(now, *id, listener, bridge, packet);
        true
    }

    /// The first packet that is handed on. What the listener heard until now sinks into it.
    fn begin_to_hand_on(
        &mut self,
        now: Instant,
        id: LegId,
        listener: &mut Outbound,
        bridge: &mut Bridge,
        packet: Incoming<'_>,
    ) {
        self.inbound.set_heard(now, false);
        listener.enter_relay(now);
        bridge.part(self.id, id);
        let mut tail = [0; FADE_SAMPLES_MAX];
        let fade = samples_in(FADE_MS, listener.rate_hz()).min(tail.len());
        bridge.mix(now, Port::Leg(id), &mut tail[..fade]);
        let mut joined = [0; JOINED_BYTES_MAX];
        let payload = match (law(self.plan.codec.kind), joined.get_mut(..packet.payload.len())) {
            (Some(law), Some(joined)) => {
                joined.copy_from_slice(packet.payload);
                splice(law, &tail[..fade], joined);
                joined
            }
            (None, _) | (_, None) => packet.payload,
        };
        self.inbound.count(listener.hand_on(now, Incoming { payload, ..packet }));
    }

    /// What this leg says is decoded for `listener` again: our decoder and encoder go on where the far
    /// ones are, and what was heard last sinks.
    pub(in crate::media) fn take_back(
        &mut self,
        now: Instant,
        id: LegId,
        listener: &mut Outbound,
        bridge: Option<&mut Bridge>,
    ) {
        let Some(relay) = listener.end_relay(now) else { return };
        let (from_hz, to_hz) = (self.inbound.rate_hz(), listener.rate_hz());
        // Never fails: either is a codec's rate.
        let mut resampler = Resampler::continuous(from_hz, to_hz).ok();
        let last = self.inbound.resume(&relay, |pcm| {
            let mut out = [0; FOLLOWED_SAMPLES_MAX];
            let resampled = resampler.as_mut().map(|filter| filter.resample(pcm, &mut out));
            if let Some(Ok(count)) = resampled {
                listener.follow(&out[..count]);
            }
        });
        if let (Some(bridge), Some(_)) = (bridge, relay.due()) {
            let mut tail = [0; FADE_SAMPLES_MAX];
            let fade = samples_in(FADE_MS, listener.rate_hz()).min(tail.len());
            for (index, sample) in tail[..fade].iter_mut().enumerate() {
                *sample = scaled(last, fade - index - 1, fade);
            }
            bridge.add_rest(id, &tail[..fade]);
        }
    }

    /// Whether what this leg says can be handed on to `listener` as it comes. Where keys are listened
    /// for in the audio it is decoded all the same.
    pub(in crate::media) fn suits(&self, listener: &Leg) -> bool {
        let plain = |leg: &Leg| leg.ear.is_none() && leg.plan.direction == Direction::SendRecv;
        let (ours, theirs) = (&self.plan.codec, &listener.plan.codec);
        let same = ours.kind == theirs.kind && theirs.format.takes(ours.kind, ours.format);
        same && plain(self) && plain(listener)
    }

    /// The leg whose packets are handed on to this one, now or at a good moment.
    pub(in crate::media) fn takes_from(&self) -> Option<LegId> {
        self.outbound.relay().map(|relay| relay.speaker)
    }

    /// Whether a leg of this plan gives and takes the same packets as before.
    pub(in crate::media) fn speaks_as(&self, plan: &LegPlan) -> bool {
        let before = &self.plan;
        let keys = plan.telephone_event.is_some() == before.telephone_event.is_some();
        keys && (plan.codec, plan.direction) == (before.codec, before.direction)
    }
}

fn incoming<'a>(
    codec: &CodecPlan,
    header: RtpHeader,
    (content, is_noise): (Content, bool),
    payload: &'a [u8],
) -> Incoming<'a> {
    let CodecPlan { kind, format, .. } = *codec;
    let (ticks, pauses) = match content {
        Content::Audio => (format.ticks(kind, payload), format.tells_pause(kind, payload)),
        Content::ComfortNoise => (None, is_noise),
        Content::Event => (None, false),
    };
    Incoming { header, ticks, pauses, is_noise, payload }
}
