//! What the configuration says of a call's hands: its tools, transfers, keys, and what is done when
//! the agent is lost; and of its media's encryption. Plain values, checked by whoever made them.

use super::ringing::WhileRinging;
use super::sound::Sounds;
use crate::ground::{Flow, Transport};
use crate::outgoing::OutgoingPolicy;
use crate::sdp::{SrtpPolicy, SrtpTerms};
use crate::ultravox::data_message::Urgency;
use crate::ultravox::tool::GivenTools;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// `[srtp]`: on what terms media is encrypted. Shared by the calls that began with it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SrtpSettings {
    /// Where no listener has one of its own.
    pub policy: SrtpPolicy,
    /// `[[srtp.listeners]]`: the address as `[listen]` has it.
    pub listeners: Vec<(SocketAddr, SrtpPolicy)>,
    /// Keys may go through signalling that is not TLS.
    pub insecure_signalling: bool,
}

impl SrtpSettings {
    /// The terms of a leg whose signalling goes this way.
    pub fn terms(&self, flow: Flow) -> SrtpTerms {
        let own = self.listeners.iter().find(|(listener, _)| flow.is_of(*listener));
        let own = own.map(|(_, policy)| *policy);
        let keys_are_safe = flow.transport == Transport::Tls || self.insecure_signalling;
        SrtpTerms { policy: own.unwrap_or(self.policy), keys_are_safe }
    }
}

/// Everything of it. Shared by the calls that began with it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct HandSettings {
    pub tools: GivenTools,
    pub transfers: TransferSettings,
    pub keys: KeySettings,
    pub lost: LostSettings,
    pub sounds: Sounds,
}

/// How the agent that speaks with the operator of a warm transfer comes about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WarmMode {
    /// A second agent call for the operator; the caller's is parked meanwhile.
    SecondCall,
    /// The caller's agent itself, in a stage of its own.
    Stage,
}

/// `[transfers]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TransferSettings {
    /// Who may be a target: `[outgoing]`.
    pub policy: Arc<OutgoingPolicy>,
    pub warm: WarmMode,
    /// What a caller hears while the target of a bridge rings.
    pub while_ringing: WhileRinging,
    /// A target that rings for this long does not answer.
    pub ring_timeout: Duration,
    /// How long the outcome of a REFER is waited for.
    pub refer_timeout: Duration,
    /// How long the agent may talk with an operator.
    pub briefing_max: Duration,
    /// Bridged legs are ended after this long.
    pub bridged_max: Duration,
    /// A REFER of the peer is followed, when the policy admits its target; else it is refused.
    pub follow_refer: bool,
    /// An INVITE with Replaces may take a call over (RFC 3891).
    pub replaces: bool,
}

impl Default for TransferSettings {
    fn default() -> TransferSettings {
        TransferSettings {
            policy: Arc::new(OutgoingPolicy::default()),
            warm: WarmMode::SecondCall,
            while_ringing: WhileRinging::Music,
            ring_timeout: Duration::from_secs(45),
            refer_timeout: Duration::from_secs(60),
            briefing_max: Duration::from_secs(180),
            bridged_max: Duration::from_secs(4 * 3_600),
            follow_refer: false,
            replaces: false,
        }
    }
}

/// `[keys]`: what becomes of keys that the caller presses. The names are those of Ultravox's
/// `dtmfHandling`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeySettings {
    /// Keys are not told to the agent.
    pub ignore: bool,
    /// `{digits}` stands for the keys.
    pub text: String,
    pub urgency: Urgency,
    /// Keys within this time of each other are told together.
    pub pause: Duration,
}

impl Default for KeySettings {
    fn default() -> KeySettings {
        KeySettings {
            ignore: false,
            text: "{digits}".to_owned(),
            urgency: Urgency::Immediate,
            pause: Duration::from_millis(750),
        }
    }
}

/// `[agent_lost]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LostSettings {
    /// A new agent call goes on where the lost one was (`priorCallId`).
    pub continues: bool,
    /// How often in one call.
    pub attempts_max: u8,
    /// How long the caller waits for it.
    pub within: Duration,
    /// Where the caller goes when no agent can be had: a SIP URI.
    pub failover: Option<String>,
}

impl Default for LostSettings {
    fn default() -> LostSettings {
        LostSettings {
            continues: true,
            attempts_max: 2,
            within: Duration::from_secs(15),
            failover: None,
        }
    }
}
