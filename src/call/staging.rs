//! A warm transfer with the caller's own agent: it speaks with the operator in a stage of its own, on
//! the same stream (`[transfers] warm = "stage"`). The tool's own result was spent on the placeholder,
//! so that the stage is entered by a message that makes the agent call the tool once more, with its
//! result known; on refusal the caller's stage, which was read before, is put back the same way.
//!
//! ```text
//! ReadyAgent ──GET stages, tools──▶ read ──target answered──▶ operator's stage ──refused──▶ put back
//! ```

use super::ladder::Lane;
use super::transfer::{Failure, Happened};
use super::{Act, Call};
use crate::ground::Now;
use crate::ultravox::CallId;
use crate::ultravox::create_call::CreateFault;
use crate::ultravox::data_message::{ClientMessage, KnownTool, ToolOutcome, Urgency};
use crate::ultravox::stage::Stage;
use crate::ultravox::tool::{self, REFUSE, TelephoneTool};
use serde_json::json;

/// The caller's stage, while an operator's may be in its place.
#[derive(Debug)]
pub(super) struct Staging {
    callers: Stage,
    /// The agent is in the operator's stage.
    is_entered: bool,
}

impl Call {
    /// Reads the agent's present stage, to put it back.
    pub(super) fn read_stage(&mut self, now: Now, out: &mut Vec<Act>) {
        let last = self.cdr.continued_as.last().or(self.cdr.ultravox_call_id.as_ref());
        match last.and_then(|id| CallId::parse(id)) {
            Some(call_id) => {
                self.note(now, Lane::Agent, "read the present stage  edge → Ultravox");
                out.push(Act::FetchStage { call_id });
            }
            None => self.on_no_stage(now, out),
        }
    }

    /// The stage was read, or could not be.
    pub fn on_stage_fetched(
        &mut self,
        now: Now,
        fetched: Result<Stage, CreateFault>,
        out: &mut Vec<Act>,
    ) {
        let Some(transferring) = &mut self.transfer else { return };
        if transferring.staging.is_some() {
            return;
        }
        match fetched {
            Ok(callers) => {
                transferring.staging = Some(Staging { callers, is_entered: false });
                self.note(now, Lane::Agent, "200 stage  Ultravox → edge");
                self.drive(now, Happened::AgentReady, out);
            }
            Err(fault) => {
                self.note(now, Lane::Agent, fault.to_string());
                self.on_no_stage(now, out);
            }
        }
    }

    fn on_no_stage(&mut self, now: Now, out: &mut Vec<Act>) {
        let failure = Failure::NoAgent("its stage could not be read");
        self.drive(now, Happened::AgentLost(failure), out);
    }

    /// The target is there: the agent goes into the operator's stage.
    pub(super) fn enter_stage(&mut self, now: Now, out: &mut Vec<Act>) {
        let Some(transferring) = &mut self.transfer else { return };
        let brief = &transferring.brief;
        let system_prompt = tool::operator_prompt(brief.template.as_deref(), &brief.context);
        let stage = Stage { system_prompt, tools: tool::operator_tools() };
        let Some(staging) = &mut transferring.staging else { return };
        if std::mem::replace(&mut staging.is_entered, true) {
            return;
        }
        self.note(now, Lane::Agent, "operator's stage  edge → Ultravox");
        let warm = TelephoneTool::WarmTransfer;
        let offered = self.tools.offered.iter().find(|(_, offered)| offered.tool == warm);
        let name = offered.map_or(warm.name(), |(name, _)| name).to_owned();
        self.change_stage(
            name,
            &stage,
            "The operator is on the line. Brief the operator now.",
            out,
        );
    }

    /// The operator is gone, or never was: the agent has its stage back.
    pub(super) fn leave_stage(&mut self, now: Now, out: &mut Vec<Act>) {
        let staging = self.transfer.as_mut().and_then(|transferring| transferring.staging.take());
        let Some(Staging { callers, is_entered: true }) = staging else { return };
        self.note(now, Lane::Agent, "caller's stage  edge → Ultravox");
        self.change_stage(REFUSE.to_owned(), &callers, "The operator has left the line.", out);
    }

    fn change_stage(&mut self, name: String, stage: &Stage, words: &str, out: &mut Vec<Act>) {
        self.stages_begun += 1;
        let tool = KnownTool {
            invocation_id: format!("edge-stage-{}", self.stages_begun),
            name,
            arguments: json!({}),
            outcome: ToolOutcome::NewStage { result: stage.result(words) },
        };
        let message = ClientMessage::ForcedAgent {
            content: String::new(),
            uninterruptible: false,
            urgency: Urgency::Immediate,
            tool: Some(Box::new(tool)),
        };
        self.tell_agent(self.agent, &message, out);
    }
}
