//! Our description once more, as an offer that changes nothing for us: a refresh of the session by
//! re-INVITE (RFC 4028 §7.4, RFC 3264 §8). The peer may change its own side in the answer: another
//! address or port, another codec of those that stand there, hold and resume (RFC 6337 §5.3).

use super::{Agreed, LocalMedia, OfferAnswer, OfferFault, State};
use crate::media::plan::Direction;
use crate::sdp::section::Allowed;
use crate::sdp::{control, payload, text};

impl OfferAnswer {
    /// Reads the answer to our last description, which went out again as it stands.
    ///
    /// # Errors
    /// The answer refuses the audio or breaks RFC 3264 §6, or there was nothing to answer; what was
    /// agreed stands.
    pub fn accept_refresh(
        &mut self,
        answer: &[u8],
        local: &LocalMedia,
    ) -> Result<Agreed, OfferFault> {
        let (State::Stable, Some(sent)) = (&self.state, &self.sent) else {
            return Err(OfferFault::AnswerMismatch);
        };
        let crypto = sent.sections.iter().find(|section| section.port != 0);
        let crypto = crypto.map(|section| section.crypto.clone()).unwrap_or_default();
        // What we write can be read, so that no second form of it is kept.
        let ours = text::parse(sent.print(self.version).as_bytes());
        let ours = ours.map_err(OfferFault::Malformed)?;
        let section = ours.media.iter().find(|section| section.port != 0);
        let section = section.ok_or(OfferFault::AnswerMismatch)?;
        let formats = payload::formats(section);
        let formats: Vec<_> = formats
            .iter()
            .filter_map(|format| format.encoding.map(|encoding| (encoding, format.number)))
            .collect();
        let direction = section.attributes.direction().unwrap_or(Direction::SendRecv);
        let allowed = Allowed {
            rtcp_mux: section.attributes.first("rtcp-mux").is_some(),
            extended: control::asked(&ours, section),
        };
        let agreed = self.read_answer(answer, local, allowed, (&formats, &crypto))?;
        Ok(Agreed { direction: within(agreed.direction, direction), ..agreed })
    }

    /// Our open offer was refused as a whole: what was agreed before stands again.
    pub fn withdraw(&mut self) {
        let state = std::mem::replace(&mut self.state, State::Stable);
        if let State::LocalOffer { before, .. } = state
            && self.sent != before
        {
            // The next description differs from the offer, which was the last to go out.
            self.version += 1;
            self.sent = before;
        }
    }
}

/// What of `agreed` our own description allows: an answer cannot open what its offer has closed.
fn within(agreed: Direction, ours: Direction) -> Direction {
    match (agreed.sends() && ours.sends(), agreed.receives() && ours.receives()) {
        (true, true) => Direction::SendRecv,
        (true, false) => Direction::SendOnly,
        (false, true) => Direction::RecvOnly,
        (false, false) => Direction::Inactive,
    }
}
