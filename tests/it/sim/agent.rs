//! A simulated Ultravox: what it answers to the two REST requests, and what its media stream does.

use voxedge::ground::{Entropy, Secret};
use voxedge::media::plan::{AgentClose, AgentStreamFault};
use voxedge::ultravox::CallId;
use voxedge::ultravox::agent::Agent;
use voxedge::ultravox::create_call::{CreateFault, Created};

/// The agent that the allowance names, and another one of the account.
pub const SALES: &str = "6f1d3c52-0b1e-4f51-9a53-2d1f6a0d9c11";
pub const OTHER: &str = "0b7c2a9e-7f0e-4a6c-b7c4-93b1f4f0a2de";

/// What one call meets. Times are milliseconds until the answer.
#[derive(Clone, Debug)]
pub struct Script {
    pub fetch: (u64, Result<(), CreateFault>),
    /// The agent's context schema.
    pub schema: Option<serde_json::Value>,
    /// One for each creation; the last one stands for all further ones.
    pub creations: Vec<(u64, Result<(), CreateFault>)>,
    pub prepare: (u64, Result<(), AgentStreamFault>),
    pub join: (u64, Result<(), AgentStreamFault>),
    /// Milliseconds of speech that the agent pushes as it joins.
    pub speech_ms: u64,
    /// When after its joining the agent leaves, and how.
    pub leaves: Option<(u64, AgentClose)>,
    /// Data messages that the agent sends, so long after its joining.
    pub texts: Vec<(u64, String)>,
    /// What the agent answers to data messages of the edge: the first one that holds these words is
    /// answered with that, so long after it came.
    pub replies: Vec<(String, u64, String)>,
}

impl Default for Script {
    fn default() -> Script {
        Script {
            fetch: (40, Ok(())),
            schema: None,
            creations: vec![(150, Ok(()))],
            prepare: (30, Ok(())),
            join: (20, Ok(())),
            speech_ms: 0,
            leaves: None,
            texts: Vec::new(),
            replies: Vec::new(),
        }
    }
}

/// Draws what an agent says: after so many milliseconds, a data message.
pub type Says = fn(&mut Entropy) -> Vec<(u64, String)>;

/// Hands out scripts: always the same one, or random ones.
pub struct Service {
    pub script: Script,
    /// Of the streams of a call beyond its first, in turn; `script` when there are no more.
    pub further: Vec<Script>,
    pub random: Option<Entropy>,
    /// What random agents say.
    pub says: Option<Says>,
    pub created: u64,
}

impl Service {
    pub fn draw(&mut self) -> Script {
        match &mut self.random {
            Some(entropy) => {
                let texts = self.says.map(|says| says(entropy)).unwrap_or_default();
                Script { texts, ..random(entropy) }
            }
            None => self.script.clone(),
        }
    }

    /// The script of a further stream of a call.
    pub fn draw_further(&mut self) -> Script {
        match self.further.is_empty() {
            true => self.draw(),
            false => self.further.remove(0),
        }
    }

    /// The answer to one creation.
    pub fn creation(&mut self) -> (u64, Result<Created, CreateFault>) {
        let (latency, outcome) = match &mut self.random {
            Some(entropy) => random(entropy).creations.remove(0),
            None if self.script.creations.len() > 1 => self.script.creations.remove(0),
            None => self.script.creations[0],
        };
        self.created += 1;
        let number = self.created;
        let created = outcome.map(|()| Created {
            call_id: CallId::parse(&format!("call-{number}")).expect("an identifier"),
            join_url: Secret::new(format!("wss://voice.ultravox.ai/calls/{number}")),
            call: serde_json::json!({ "callId": format!("call-{number}"), "model": "ultravox-v0.7",
                "temperature": 0.3, "languageHint": "de", "voice": "Susi", "externalVoice": null,
                "voiceOverrides": { "elevenLabs": { "speed": 1.1 } } })
            .as_object()
            .expect("an object")
            .clone(),
        });
        (latency, created)
    }
}

pub fn agent(id: &str, schema: Option<serde_json::Value>) -> Agent {
    Agent {
        agent_id: id.into(),
        published_revision_id: None,
        context_schema: schema,
        tools: Vec::new(),
    }
}

fn random(entropy: &mut Entropy) -> Script {
    let rest_faults = [
        CreateFault::BadRequest,
        CreateFault::NotFound,
        CreateFault::Unauthorized,
        CreateFault::PaymentRequired,
        CreateFault::TooMany { retry_after: None },
        CreateFault::Unavailable { retry_after: None },
        CreateFault::ServerError(500),
        CreateFault::TimedOut,
        CreateFault::Unreachable,
        CreateFault::BadAnswer,
    ];
    let stream_faults = [
        AgentStreamFault::BadUrl("no host".into()),
        AgentStreamFault::Unreachable("refused".into()),
        AgentStreamFault::Refused(404),
        AgentStreamFault::BadHandshake("no key".into()),
        AgentStreamFault::TimedOut,
    ];
    let latency = |entropy: &mut Entropy, usual: u64| match entropy.below(40) {
        0 => entropy.below(35_000),
        1 => 0,
        _ => entropy.below(usual),
    };
    let fetch = latency(entropy, 200);
    let creation = latency(entropy, 600);
    let prepare = latency(entropy, 200);
    let join = latency(entropy, 100);
    let rest = |entropy: &mut Entropy| match entropy.below(15) {
        0 => Err(rest_faults[entropy.below(rest_faults.len() as u64) as usize]),
        _ => Ok(()),
    };
    let stream = |entropy: &mut Entropy| match entropy.below(25) {
        0 => Err(stream_faults[entropy.below(stream_faults.len() as u64) as usize].clone()),
        _ => Ok(()),
    };
    let closes = [AgentClose::Code(1000), AgentClose::Code(1011), AgentClose::Lost];
    Script {
        fetch: (fetch, rest(entropy)),
        schema: None,
        creations: vec![(creation, rest(entropy))],
        prepare: (prepare, stream(entropy)),
        join: (join, stream(entropy)),
        speech_ms: entropy.below(2_000),
        leaves: (entropy.below(3) == 0)
            .then(|| (entropy.below(6_000), closes[entropy.below(3) as usize])),
        texts: Vec::new(),
        replies: Vec::new(),
    }
}
