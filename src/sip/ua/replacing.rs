//! An INVITE that is to take the place of a dialog of ours (RFC 3891 §3). Which call that is, is found
//! out here; whether the caller may, and what becomes of the two, is the call layer's.

use super::{SessionId, UserAgent};
use crate::ground::limits::ENDED_DIALOGS_MAX;
use crate::sip::dialog::Dialog;
use crate::sip::msg::{Name, Request};
use crate::sip::replaces::Replaces;
use crate::sip::session::Stage;
use std::collections::VecDeque;

/// The dialogs that ended last, so that who comes too late hears that the call is over, and not that
/// there never was one.
#[derive(Debug, Default)]
pub(super) struct EndedDialogs {
    last: VecDeque<Replaces>,
}

impl EndedDialogs {
    pub(super) fn note(&mut self, dialog: &Dialog) {
        if self.last.len() >= ENDED_DIALOGS_MAX {
            self.last.pop_front();
        }
        self.last.push_back(named(dialog));
    }

    fn has(&self, wanted: &Replaces) -> bool {
        self.last.iter().any(|ended| is_same(ended, wanted))
    }
}

impl UserAgent {
    /// The session that the INVITE is to replace; `None` when it names none.
    ///
    /// # Errors
    /// The status of the refusal: 400 for a header that cannot be read, 481 when there is no such
    /// dialog or it is one that rings here, 486 when only a ringing one was wanted, 603 when it ended.
    pub(super) fn replaced(&self, request: &Request) -> Result<Option<SessionId>, u16> {
        let Some(value) = request.get(Name::Replaces) else { return Ok(None) };
        let wanted = Replaces::parse(value).map_err(|_| 400_u16)?;
        let session = self.dialogs.get(&wanted.to_tag).copied();
        let state = session.and_then(|session| Some((session, self.sessions.get(&session)?)));
        let fits = state.filter(|(_, state)| is_same(&named(&state.dialog), &wanted));
        let Some((session, state)) = fits else {
            return Err(if self.ended.has(&wanted) { 603 } else { 481 });
        };
        match state.stage {
            Stage::Early => Err(481),
            Stage::Established if wanted.early_only => Err(486),
            Stage::Established => Ok(Some(session)),
            Stage::Leaving { .. } | Stage::Left => Err(603),
        }
    }
}

/// A dialog in the words of who wants to replace its peer: our tag is the To tag.
fn named(dialog: &Dialog) -> Replaces {
    Replaces {
        call_id: dialog.call_id().to_owned(),
        to_tag: dialog.local_tag().to_owned(),
        // Zero stands for the missing tag of RFC 2543 (§6.1).
        from_tag: dialog.remote_tag().unwrap_or("0").to_owned(),
        early_only: false,
    }
}

fn is_same(one: &Replaces, other: &Replaces) -> bool {
    one.call_id == other.call_id && one.to_tag == other.to_tag && one.from_tag == other.from_tag
}
