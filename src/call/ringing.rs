//! What the first leg hears while the target of a bridged transfer rings: hold music, our ringing tone,
//! or what the target's side sends before it answers (RFC 3960). Nobody is heard by the target; where it
//! is heard, silence goes to it, since many send only to where media comes from. In a
//! warm transfer it is music from the first moment to the last.
//!
//! ```text
//!              music            ringback             target
//! 180, 183     music            ringing tone         ringing tone, until the target is heard
//! 18x with     music            (as without)         what the target's side sends, from its first
//! description                                        packet on; until that what was heard before
//! ```

use super::early::Provisional;
use super::ladder::Lane;
use super::sound::Music;
use super::transfer::{Briefing, Manner};
use super::{Act, Call};
use crate::ground::Now;
use crate::media::plan::{LegPlan, MediaCommand, Port, Scene};
use crate::sip::ua::SessionId;

/// `[transfers] while_ringing`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum WhileRinging {
    #[default]
    Music,
    /// Our own ringing tone.
    Ringback,
    /// Early media of the target; until there is any, as `Ringback`.
    Target,
}

/// What the first leg hears of a target that rings.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Ringing {
    /// Our ringing tone.
    tone: bool,
    /// What comes from the target's side.
    open: bool,
    /// Something came from there.
    has_spoken: bool,
}

impl Call {
    /// A provisional answer of the target's side.
    pub fn on_target_progress(&mut self, now: Now, said: &Provisional, out: &mut Vec<Act>) {
        let early = if said.body.is_some() { " with early media" } else { "" };
        self.note(now, Lane::Sip, format!("{}{early}  target → edge", said.code));
        let mode = self.while_ringing();
        let Some(second) = &mut self.second else { return };
        let plan = second.leg.hear_fork(said);
        if mode == WhileRinging::Target {
            match plan.filter(is_heard) {
                Some(plan) => {
                    second.leg.take_plan(plan, out);
                    self.hear_target(now, out);
                }
                None => self.hear_no_target(now, said, out),
            }
        }
        let is_open = self.second.as_ref().is_some_and(|second| second.ringing.open);
        let rings = match mode {
            WhileRinging::Music => false,
            WhileRinging::Ringback => matches!(said.code, 180 | 183),
            WhileRinging::Target => said.code == 180 || (said.code == 183 && !is_open),
        };
        if rings {
            self.hear_ringing(now, out);
        }
    }

    /// A target that rings describes its media anew.
    pub(super) fn hear_updated_target(&mut self, now: Now, session: SessionId, out: &mut Vec<Act>) {
        let is_wanted = self.is_second(session) && self.while_ringing() == WhileRinging::Target;
        let plan = self.leg(session).and_then(|leg| leg.plan.as_ref());
        if is_wanted && plan.is_some_and(is_heard) {
            self.hear_target(now, out);
        }
    }

    /// What is heard while the target of the present transfer rings.
    fn while_ringing(&self) -> WhileRinging {
        let Some(transferring) = &self.transfer else { return WhileRinging::Music };
        let machine = &transferring.machine;
        match (machine.is_ringing(), machine.manner(), machine.briefing()) {
            (true, Manner::Bridge, Briefing::Cold) => self.settings.hands.transfers.while_ringing,
            _ => WhileRinging::Music,
        }
    }

    /// From its first packet on the first leg hears the target: until then what it heard before.
    fn hear_target(&mut self, now: Now, out: &mut Vec<Act>) {
        let first = Port::Leg(self.first.id);
        let Some(second) = &mut self.second else { return };
        if std::mem::replace(&mut second.ringing.open, true) {
            return;
        }
        let has_spoken = second.ringing.has_spoken;
        let target = second.leg.id;
        let scene = Scene::new().hearing(first, Port::Leg(target)).opening(target);
        let scene = if has_spoken { scene } else { scene.hearing(first, Port::Sound) };
        self.note(now, Lane::Media, format!("early media of the target to {}", self.far_end()));
        out.push(Act::Media(MediaCommand::Arrange { scene }));
        if has_spoken {
            self.stop_music(out);
        }
    }

    /// Another phone than the one that is heard rings, and sends nothing: the proxy has given that one up.
    fn hear_no_target(&mut self, now: Now, said: &Provisional, out: &mut Vec<Act>) {
        let Some(second) = &mut self.second else { return };
        let is_another = said.body.is_none() && second.leg.heard_fork() != Some(&said.fork);
        if said.code != 180 || !second.ringing.open || !is_another {
            return;
        }
        (second.ringing.open, second.ringing.tone) = (false, false);
        self.note(now, Lane::Media, "another phone of the target rings");
        let scene = Scene::new().hearing(Port::Leg(self.first.id), Port::Sound);
        out.push(Act::Media(MediaCommand::Arrange { scene }));
    }

    /// The first packet of the second leg's media.
    pub(super) fn on_target_heard(&mut self, now: Now, out: &mut Vec<Act>) {
        self.note(now, Lane::Media, "first RTP  target → edge");
        let is_ringing = self.while_ringing() == WhileRinging::Target;
        let Some(second) = &mut self.second else { return };
        second.ringing.has_spoken = true;
        if is_ringing && second.ringing.open {
            self.stop_music(out);
        }
    }

    fn hear_ringing(&mut self, now: Now, out: &mut Vec<Act>) {
        let Some(sound) = self.settings.hands.sounds.ringback.clone() else { return };
        let Some(second) = &mut self.second else { return };
        let Ringing { tone, open, has_spoken } = second.ringing;
        if tone || (open && has_spoken) {
            return;
        }
        second.ringing.tone = true;
        self.note(now, Lane::Media, format!("ringing tone to {}", self.far_end()));
        // Music that is still fetched would come too late.
        self.music = Music::On;
        out.push(Act::Media(MediaCommand::Play { sound: Some(sound) }));
    }

    /// Another target is called in the place of the one that rang.
    pub(super) fn ring_anew(&mut self, now: Now, out: &mut Vec<Act>) {
        let Some(second) = &mut self.second else { return };
        second.leg.forget_forks();
        let Ringing { tone, open, has_spoken } = second.ringing;
        second.ringing = Ringing { has_spoken, ..Ringing::default() };
        if tone || open {
            self.hold_caller(now, out);
        }
    }
}

/// The peer sends, and says where from.
fn is_heard(plan: &LegPlan) -> bool {
    plan.direction.receives() && plan.remote.rtp.is_some()
}
