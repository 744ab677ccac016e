//! The agent's telephone tools at work: an invocation is read, answered within Ultravox's time for
//! tools, and begun. A transfer or a long row of keys takes longer than a tool may (the conversation is
//! frozen meanwhile), so a placeholder answers at once and the outcome follows as a message.
//!
//! ```text
//! client_tool_invocation ──read──▶ client_tool_result: a placeholder ──▶ begin_cold, begin_warm, …
//!     │ bad parameters, target not allowed: a result that tells the model what to do instead
//!     │ no tool of ours: errorType undefined
//! playDtmfSounds ──▶ SendKeys ──KeysSent──▶ client_tool_result
//! ```
//!
//! Keys, numbers and what callers said stand in no ladder: only which tool, and how many keys.

use super::deed::{Deed, KeySender};
use super::ladder::Lane;
use super::{Act, Call};
use crate::ground::{LegId, Now, StreamId};
use crate::media::plan::{Key, MediaCommand};
use crate::sip::digest::Credentials;
use crate::ultravox::data_message::{ClientMessage, Reaction, ServerMessage, ToolOutcome, Urgency};
use crate::ultravox::tool::{ACCEPT, Fixed, OfferedTools, REFUSE, TelephoneTool};
pub use crate::ultravox::tool::{HoldMusic, SipVerb, TransferType};
use serde_json::Value;
use std::time::Duration;

/// Longest `invocationId` that is answered, in bytes.
const INVOCATION_ID_BYTES_MAX: usize = 256;
/// Keys of one invocation.
const KEYS_MAX: usize = 64;
/// Bytes of what the agent tells an operator.
const CONTEXT_BYTES_MAX: usize = 16 * 1024;
/// Bytes of a target, and of a reason.
const TEXT_BYTES_MAX: usize = 2 * 1024;
/// Defaults of Ultravox's `playDtmfSounds`.
const TONE: Duration = Duration::from_millis(200);
const GAP: Duration = Duration::from_millis(100);
/// Keys that take longer are answered before they are pressed: Ultravox waits 40 s for a result.
const PRESSING_MAX: Duration = Duration::from_secs(30);

/// Whom a tool's result goes to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Invocation {
    pub stream: StreamId,
    /// `invocationId`.
    pub id: String,
}

/// `coldTransfer`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ColdTransfer {
    /// As the agent gave it; the toll-fraud policy has admitted it.
    pub target: String,
    pub verb: SipVerb,
    /// `None`: the caller's number.
    pub from: Option<String>,
    pub credentials: Option<Credentials>,
    pub headers: Vec<(String, String)>,
    pub music: HoldMusic,
}

/// `warmTransfer`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WarmTransfer {
    /// As the agent gave it; the toll-fraud policy has admitted it.
    pub target: String,
    pub kind: TransferType,
    /// `None`: the caller's number.
    pub from: Option<String>,
    pub credentials: Option<Credentials>,
    pub invite_headers: Vec<(String, String)>,
    pub refer_headers: Vec<(String, String)>,
    pub music: HoldMusic,
    /// With `{context}`; `None`: the daemon's own.
    pub prompt_template: Option<String>,
    /// What the operator is to know, in the agent's words.
    pub context: String,
}

/// An invocation that was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ToolCall {
    Cold(ColdTransfer),
    Warm(WarmTransfer),
    Keys {
        keys: Vec<Key>,
        tone: Duration,
        gap: Duration,
    },
    /// The operator takes the caller.
    Accept,
    Refuse {
        reason: Option<String>,
    },
}

/// Why an invocation is not obeyed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Unusable {
    /// No tool of ours has this name.
    NoSuchTool,
    /// In words for the model.
    Parameters(String),
}

impl ToolCall {
    /// Reads an invocation of one of the tools that the call's agent was offered, or of an operator's
    /// agent. What is fixed of a tool wins over what the model gives.
    ///
    /// # Errors
    /// [`Unusable`].
    pub fn read(
        name: &str,
        offered: &OfferedTools,
        parameters: &Value,
    ) -> Result<ToolCall, Unusable> {
        let given = Given(parameters);
        match (offered.get(name), name) {
            (Some(offered), _) => read_offered(offered.tool, &offered.fixed, given),
            (None, ACCEPT) => Ok(ToolCall::Accept),
            (None, REFUSE) => {
                Ok(ToolCall::Refuse { reason: given.text("reason", TEXT_BYTES_MAX)? })
            }
            (None, _) => Err(Unusable::NoSuchTool),
        }
    }
}

/// The tool as a label of metrics: never the name that an agent gave.
fn tool_label(name: &str, offered: &OfferedTools) -> &'static str {
    match (offered.get(name), name) {
        (Some(offered), _) => match offered.tool {
            TelephoneTool::ColdTransfer => "cold_transfer",
            TelephoneTool::WarmTransfer => "warm_transfer",
            TelephoneTool::PlayDtmfSounds => "play_dtmf_sounds",
        },
        (None, ACCEPT) => "accept_transfer",
        (None, REFUSE) => "refuse_transfer",
        (None, _) => "unknown",
    }
}

fn read_offered(
    tool: TelephoneTool,
    fixed: &Fixed,
    given: Given<'_>,
) -> Result<ToolCall, Unusable> {
    let fixed = fixed.clone();
    match tool {
        TelephoneTool::ColdTransfer => Ok(ToolCall::Cold(ColdTransfer {
            credentials: credentials(&fixed),
            target: target(fixed.target, given)?,
            verb: fixed.verb.unwrap_or(SipVerb::Refer),
            from: fixed.from,
            headers: fixed.headers.unwrap_or_default(),
            music: fixed.hold_music.unwrap_or_default(),
        })),
        TelephoneTool::WarmTransfer => Ok(ToolCall::Warm(WarmTransfer {
            credentials: credentials(&fixed),
            target: target(fixed.target, given)?,
            kind: fixed.kind.unwrap_or(TransferType::TryRefer),
            from: fixed.from,
            invite_headers: fixed.headers.unwrap_or_default(),
            refer_headers: fixed.refer_headers.unwrap_or_default(),
            music: fixed.hold_music.unwrap_or_default(),
            prompt_template: fixed.prompt_template,
            context: given.text("context", CONTEXT_BYTES_MAX)?.unwrap_or_default(),
        })),
        TelephoneTool::PlayDtmfSounds => Ok(ToolCall::Keys {
            keys: keys(given)?,
            tone: fixed.tone.unwrap_or(TONE),
            gap: fixed.gap.unwrap_or(GAP),
        }),
    }
}

fn credentials(fixed: &Fixed) -> Option<Credentials> {
    let (username, password) = (fixed.username.clone()?, fixed.password.clone()?);
    Some(Credentials { username, password })
}

fn target(fixed: Option<String>, given: Given<'_>) -> Result<String, Unusable> {
    let target = match fixed {
        Some(target) => Some(target),
        None => given.text("target", TEXT_BYTES_MAX)?,
    };
    target.ok_or_else(|| {
        bad("the parameter target is missing: give a SIP address such as sip:sales@example.com")
    })
}

/// `digits`: what a telephone has. Blanks and dashes, which models put into numbers, are passed over.
fn keys(given: Given<'_>) -> Result<Vec<Key>, Unusable> {
    let Some(digits) = given.digits()? else {
        return Err(bad("the parameter digits is missing: give the keys as text such as \"12#\""));
    };
    let keys: Vec<char> = digits.chars().filter(|c| !matches!(c, ' ' | '-')).collect();
    let is_key = |key: &char| key.is_ascii_digit() || matches!(key, '*' | '#' | 'A'..='D');
    match keys.len() {
        0 => Err(bad("the parameter digits is empty")),
        count if count > KEYS_MAX => Err(bad("too many keys: press at most 64 at a time")),
        _ if keys.iter().all(is_key) => Ok(keys.into_iter().map(Key).collect()),
        _ => Err(bad("the parameter digits may hold 0-9, *, # and A-D only")),
    }
}

fn bad(words: &str) -> Unusable {
    Unusable::Parameters(words.to_owned())
}

/// The parameters of an invocation, as the model gave them.
#[derive(Clone, Copy)]
struct Given<'a>(&'a Value);

impl Given<'_> {
    /// A text; an empty one, or `null`, counts as absent.
    fn text(self, name: &str, bytes_max: usize) -> Result<Option<String>, Unusable> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if text.len() > bytes_max => {
                Err(bad(&format!("the parameter {name} is too long")))
            }
            Some(Value::String(text)) => {
                Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty()))
            }
            Some(_) => Err(bad(&format!("the parameter {name} must be a text"))),
        }
    }

    /// A text of keys, or the whole number that a model makes of it.
    fn digits(self) -> Result<Option<String>, Unusable> {
        match self.0.get("digits") {
            Some(Value::Number(number)) if number.is_u64() => Ok(Some(number.to_string())),
            _ => self.text("digits", TEXT_BYTES_MAX),
        }
    }
}

/// The tools of one call, and the keys that are being pressed.
#[derive(Debug, Default)]
pub struct Tools {
    pub offered: OfferedTools,
    pressing: Option<Pressing>,
}

/// Keys on their way to the caller's side.
#[derive(Debug)]
struct Pressing {
    invocation: Invocation,
    leg: LegId,
    /// A placeholder was its answer: their end is told in a message.
    is_answered: bool,
    count: usize,
}

impl Tools {
    /// Nobody asks any more what became of keys that are being pressed.
    pub(super) fn forget_keys(&mut self) {
        self.pressing = None;
    }
}

impl Call {
    /// A data message of an agent. All but invocations of tools were the shard's to act on.
    pub fn on_agent_text(&mut self, now: Now, stream: StreamId, text: &str, out: &mut Vec<Act>) {
        let ServerMessage::ClientToolInvocation { tool_name, invocation_id, parameters } =
            ServerMessage::parse(text)
        else {
            return;
        };
        if !self.is_answered() || invocation_id.len() > INVOCATION_ID_BYTES_MAX {
            return;
        }
        let invocation = Invocation { stream, id: invocation_id };
        let tool = tool_label(&tool_name, &self.tools.offered);
        let read = ToolCall::read(&tool_name, &self.tools.offered, &parameters);
        let begun = match read.and_then(|call| self.admitted(call)) {
            Ok(call) => {
                self.note(now, Lane::Agent, format!("tool {tool_name}  Ultravox → edge"));
                self.obey(now, invocation, call, out)
            }
            Err(Unusable::NoSuchTool) => {
                self.note(now, Lane::Agent, "a tool that the edge does not have: refused");
                self.answer_tool(&invocation, ToolOutcome::UnknownTool, out);
                false
            }
            Err(Unusable::Parameters(words)) => {
                self.note(now, Lane::Agent, format!("tool {tool_name} refused: {words}"));
                self.refuse_tool(&invocation, &words, out);
                false
            }
        };
        out.push(Act::Tell(Deed::Tool { tool, begun }));
    }

    /// The toll-fraud policy on a target, before the model is told that its transfer has begun.
    fn admitted(&self, call: ToolCall) -> Result<ToolCall, Unusable> {
        let target = match &call {
            ToolCall::Cold(cold) => &cold.target,
            ToolCall::Warm(warm) => &warm.target,
            ToolCall::Keys { .. } | ToolCall::Accept | ToolCall::Refuse { .. } => return Ok(call),
        };
        match self.settings.hands.transfers.policy.admit(target, false) {
            Ok(_) => Ok(call),
            Err(unwanted) => Err(Unusable::Parameters(unwanted.to_string())),
        }
    }

    /// Begins what an invocation asks for; false when it is refused instead.
    fn obey(
        &mut self,
        now: Now,
        invocation: Invocation,
        call: ToolCall,
        out: &mut Vec<Act>,
    ) -> bool {
        match call {
            ToolCall::Cold(_) | ToolCall::Warm(_) if !self.may_begin(&invocation, out) => false,
            ToolCall::Cold(cold) => {
                self.begin_cold(now, invocation, cold, out);
                true
            }
            ToolCall::Warm(warm) => {
                self.begin_warm(now, invocation, warm, out);
                true
            }
            ToolCall::Accept | ToolCall::Refuse { .. } if !self.briefs(invocation.stream) => {
                self.refuse_tool(&invocation, "nobody is being asked to take a caller", out);
                false
            }
            ToolCall::Accept => {
                self.begin_tool(&invocation, "The caller is being connected.", out);
                self.on_operator_accepts(now, &invocation, out);
                true
            }
            ToolCall::Refuse { reason } => {
                self.begin_tool(&invocation, "The caller will be told.", out);
                self.on_operator_refuses(now, &invocation, reason, out);
                true
            }
            ToolCall::Keys { keys, tone, gap } => {
                self.press(now, invocation, keys, (tone, gap), out)
            }
        }
    }

    /// Answers the tool of a transfer at once: with a placeholder, or with what stands against it.
    fn may_begin(&mut self, invocation: &Invocation, out: &mut Vec<Act>) -> bool {
        match self.may_transfer() {
            Ok(()) => {
                let words = "The transfer has begun. Say nothing until you hear of its outcome.";
                self.begin_tool(invocation, words, out);
                true
            }
            Err(words) => {
                self.refuse_tool(invocation, words, out);
                false
            }
        }
    }

    /// Presses keys towards the caller's side. The agent hears of their end, so that it listens to
    /// what they bring, unless that is later than Ultravox waits. False: other keys are in the way.
    fn press(
        &mut self,
        now: Now,
        invocation: Invocation,
        keys: Vec<Key>,
        (tone, gap): (Duration, Duration),
        out: &mut Vec<Act>,
    ) -> bool {
        if self.tools.pressing.is_some() {
            let words = "other keys are still being pressed: wait, then try again";
            self.refuse_tool(&invocation, words, out);
            return false;
        }
        let count = keys.len();
        self.note(now, Lane::Media, format!("{count} keys  edge → {}", self.far_end()));
        let is_long = (tone + gap) * u32::try_from(count).unwrap_or(u32::MAX) > PRESSING_MAX;
        if is_long {
            self.begin_tool(&invocation, "The keys are being pressed; it takes a while.", out);
        }
        let leg = self.first.id;
        self.tools.pressing = Some(Pressing { invocation, leg, is_answered: is_long, count });
        out.push(Act::Media(MediaCommand::SendKeys { leg, keys, tone, gap }));
        true
    }

    /// Keys have been pressed towards this leg: the agent's, or one that was passed on over a bridge.
    pub fn on_keys_sent(&mut self, now: Now, leg: LegId, out: &mut Vec<Act>) {
        let pressing = self.tools.pressing.take_if(|pressing| pressing.leg == leg);
        let Some(pressing) = pressing else { return self.on_key_passed() };
        self.note(now, Lane::Media, format!("{} keys pressed", pressing.count));
        let count = u32::try_from(pressing.count).unwrap_or(u32::MAX);
        self.cdr.keys.sent_by_agent += count;
        out.push(Act::Tell(Deed::KeysSent { sender: KeySender::Agent, count }));
        const DONE: &str = "The keys were pressed.";
        match pressing.is_answered {
            true => self.report_to_agent(pressing.invocation.stream, DONE, out),
            false => self.begin_tool(&pressing.invocation, DONE, out),
        }
    }

    /// The line that keys were being pressed on is gone.
    pub(super) fn give_up_keys(&mut self, out: &mut Vec<Act>) {
        let Some(pressing) = self.tools.pressing.take() else { return };
        const GONE: &str = "the line that the keys were for is gone, not all of them were pressed";
        match pressing.is_answered {
            true => self.report_to_agent(pressing.invocation.stream, GONE, out),
            false => self.refuse_tool(&pressing.invocation, GONE, out),
        }
    }

    /// A result after which the agent listens: what was asked for has begun, or is done.
    pub(super) fn begin_tool(&mut self, invocation: &Invocation, words: &str, out: &mut Vec<Act>) {
        let result = words.to_owned();
        self.answer_tool(
            invocation,
            ToolOutcome::Result { result, reaction: Reaction::Listens },
            out,
        );
    }

    /// A result that tells the model why not, so that it can do something else. An `errorMessage` would
    /// not be shown to it.
    pub(super) fn refuse_tool(&mut self, invocation: &Invocation, words: &str, out: &mut Vec<Act>) {
        let result = format!("Error: {words}.");
        self.answer_tool(
            invocation,
            ToolOutcome::Result { result, reaction: Reaction::Speaks },
            out,
        );
    }

    pub(super) fn answer_tool(
        &mut self,
        invocation: &Invocation,
        outcome: ToolOutcome,
        out: &mut Vec<Act>,
    ) {
        let invocation_id = invocation.id.clone();
        let message = ClientMessage::ClientToolResult { invocation_id, outcome };
        self.tell_agent(invocation.stream, &message, out);
    }

    /// Sends a data message to an agent.
    pub(super) fn tell_agent(
        &mut self,
        stream: StreamId,
        message: &ClientMessage,
        out: &mut Vec<Act>,
    ) {
        out.push(Act::Media(MediaCommand::SendText { stream, text: message.to_text() }));
    }

    /// Tells an agent what became of something that it began, so that it speaks of it now. The marks
    /// are Ultravox's convention for what does not come from the user.
    pub(super) fn report_to_agent(&mut self, stream: StreamId, words: &str, out: &mut Vec<Act>) {
        let text = format!("<instruction>{words}</instruction>");
        let message = ClientMessage::UserText { text, urgency: Urgency::Immediate };
        self.tell_agent(stream, &message, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ground::Secret;
    use crate::ultravox::tool::Offered;
    use serde_json::json;

    fn offered(tool: TelephoneTool, fixed: Fixed) -> OfferedTools {
        [(tool.name().to_owned(), Offered { tool, fixed })].into()
    }

    fn read(tool: TelephoneTool, fixed: Fixed, parameters: Value) -> Result<ToolCall, Unusable> {
        ToolCall::read(tool.name(), &offered(tool, fixed), &parameters)
    }

    #[test]
    fn what_is_fixed_wins_over_what_the_model_gives() {
        let fixed = Fixed {
            target: Some("sip:desk@pbx.example".into()),
            verb: Some(SipVerb::Invite),
            username: Some("us".into()),
            password: Some(Secret::new("hunter2")),
            hold_music: Some(HoldMusic::None),
            ..Fixed::default()
        };
        let parameters = json!({"target": "sip:900@evil.example", "from": "1", "sipVerb": "REFER"});
        let expected = ColdTransfer {
            target: "sip:desk@pbx.example".into(),
            verb: SipVerb::Invite,
            from: None,
            credentials: Some(Credentials {
                username: "us".into(),
                password: Secret::new("hunter2"),
            }),
            headers: Vec::new(),
            music: HoldMusic::None,
        };
        let call = read(TelephoneTool::ColdTransfer, fixed, parameters);
        assert_eq!(call, Ok(ToolCall::Cold(expected)));
    }

    #[test]
    fn a_transfer_without_settings_is_as_ultravoxs_own() {
        let parameters = json!({"target": " sip:a@b ", "context": "Ada, order 7"});
        let warm = WarmTransfer {
            target: "sip:a@b".into(),
            kind: TransferType::TryRefer,
            from: None,
            credentials: None,
            invite_headers: Vec::new(),
            refer_headers: Vec::new(),
            music: HoldMusic::Default,
            prompt_template: None,
            context: "Ada, order 7".into(),
        };
        let call = read(TelephoneTool::WarmTransfer, Fixed::default(), parameters);
        assert_eq!(call, Ok(ToolCall::Warm(warm)));
        match read(TelephoneTool::ColdTransfer, Fixed::default(), json!({"target": "sip:a@b"})) {
            Ok(ToolCall::Cold(cold)) => assert_eq!(cold.verb, SipVerb::Refer),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn keys_are_those_of_a_telephone() {
        let long = "1".repeat(65);
        for (digits, expected) in [
            (json!("12#*AD"), Ok("12#*AD")),
            (json!("1 2-3"), Ok("123")),
            (json!(42), Ok("42")),
            (json!(""), Err("missing")),
            (json!(null), Err("missing")),
            (json!("--"), Err("empty")),
            (json!("12a"), Err("only")),
            (json!("E"), Err("only")),
            (json!("١"), Err("only")),
            (json!(-1), Err("must be a text")),
            (json!([1]), Err("must be a text")),
            (json!(&long[..64]), Ok(&long[..64])),
            (json!(long), Err("too many")),
        ] {
            let call =
                read(TelephoneTool::PlayDtmfSounds, Fixed::default(), json!({"digits": digits}));
            match (call, expected) {
                (Ok(ToolCall::Keys { keys, tone, gap }), Ok(expected)) => {
                    assert_eq!(keys.iter().map(|key| key.0).collect::<String>(), expected);
                    assert_eq!((tone, gap), (TONE, GAP));
                }
                (Err(Unusable::Parameters(words)), Err(expected)) => {
                    assert!(words.contains(expected), "{digits}: {words}");
                }
                (other, _) => panic!("{digits}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_tool_that_was_not_offered_is_none_of_ours() {
        let keys = offered(TelephoneTool::PlayDtmfSounds, Fixed::default());
        for name in ["coldTransfer", "look_up", ""] {
            assert_eq!(
                ToolCall::read(name, &keys, &json!({})),
                Err(Unusable::NoSuchTool),
                "{name}"
            );
        }
        assert_eq!(ToolCall::read(ACCEPT, &keys, &json!({})), Ok(ToolCall::Accept));
        let reason = Some("in a meeting".to_owned());
        let refuse = ToolCall::read(REFUSE, &keys, &json!({"reason": "in a meeting"}));
        assert_eq!(refuse, Ok(ToolCall::Refuse { reason }));
    }

    #[test]
    fn a_target_that_is_missing_or_no_text_is_told_to_the_model() {
        let cold = |parameters| read(TelephoneTool::ColdTransfer, Fixed::default(), parameters);
        for (parameters, part) in [
            (json!({}), "target is missing"),
            (json!({"target": "  "}), "target is missing"),
            (json!({"target": 7}), "must be a text"),
            (json!({"target": "x".repeat(TEXT_BYTES_MAX + 1)}), "too long"),
            (json!("sip:a@b"), "target is missing"),
        ] {
            let Err(Unusable::Parameters(words)) = cold(parameters) else { panic!("{part}") };
            assert!(words.contains(part), "{words}");
        }
    }
}
