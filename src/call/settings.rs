//! What the configuration says of a call's hands: its tools, transfers, keys, and what is done when
//! the agent is lost; and of its media's encryption. Plain values, checked by whoever made them.

use super::ringing::WhileRinging;
use super::sound::Sounds;
use crate::ground::{Flow, Transport};
use crate::outgoing::{HostRule, OutgoingPolicy, needs_tls};
use crate::sdp::{SrtpPolicy, SrtpTerms};
use crate::sip::msg::Uri;
use crate::sip::target::{Target, TargetHost};
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
    /// `[[srtp.targets]]`: peers with a policy of their own, the first that fits.
    pub targets: Vec<(HostRule, SrtpPolicy)>,
    /// Keys may go through signalling that is not TLS.
    pub insecure_signalling: bool,
}

impl SrtpSettings {
    /// The policy of a peer whom we call, where the host of this URI has one of its own. Then it stays
    /// the leg's, whichever address the name turns out to have.
    pub fn policy_named(&self, uri: &str) -> Option<SrtpPolicy> {
        self.targets.iter().find(|(rule, _)| rule.names(uri)).map(|(_, policy)| *policy)
    }

    /// False when no offer can be made to this URI, as far as can be told before its way is known: keys
    /// go over TLS only. A name may lead to TLS, and to an address or by a listener with another policy.
    pub fn may_call(&self, uri: &str) -> bool {
        let is_required = |policy: SrtpPolicy| policy == SrtpPolicy::Required;
        let is_refused = match self.policy_named(uri) {
            Some(policy) => is_required(policy),
            None => {
                let peers = self.targets.iter().map(|(_, policy)| *policy);
                let listeners = self.listeners.iter().map(|(_, policy)| *policy);
                let mut all = peers.chain(listeners).chain([self.policy]);
                all.all(is_required) && is_plain(uri)
            }
        };
        !is_refused || needs_tls(uri) || self.insecure_signalling
    }

    /// The terms of a leg whose signalling goes this way; `target`: the policy that the peer whom we
    /// called has by its name. Else a peer has a policy of its own where it is named by its address,
    /// and then the listener that it is spoken with over.
    pub fn terms(&self, flow: Flow, target: Option<SrtpPolicy>) -> SrtpTerms {
        let peer = self.targets.iter().find(|(rule, _)| rule.holds(flow.peer.ip()));
        let listener = self.listeners.iter().find(|(listener, _)| flow.is_of(*listener));
        let peer = target.or(peer.map(|(_, policy)| *policy));
        let own = peer.or(listener.map(|(_, policy)| *policy));
        let keys_are_safe = flow.transport == Transport::Tls || self.insecure_signalling;
        SrtpTerms { policy: own.unwrap_or(self.policy), keys_are_safe }
    }
}

/// No search in DNS leads from this URI to TLS.
fn is_plain(uri: &str) -> bool {
    let target = Uri::parse(uri).ok().and_then(|uri| Target::of_uri(&uri).ok());
    target.is_some_and(|target| {
        let is_settled = target.port.is_some() || matches!(target.host, TargetHost::Address(_));
        target.transport != Some(Transport::Tls) && (is_settled || target.transport.is_some())
    })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ground::FlowId;
    use SrtpPolicy::{Allowed, Off, Required};

    fn settings() -> SrtpSettings {
        let rule = |text| HostRule::parse(text).expect("a host");
        SrtpSettings {
            policy: Allowed,
            listeners: vec![("0.0.0.0:5061".parse().expect("an address"), Required)],
            targets: vec![
                (rule("trunk.example.com"), Required),
                (rule("*.example.com"), Off),
                (rule("198.51.100.0/24"), Off),
            ],
            insecure_signalling: false,
        }
    }

    #[test]
    fn a_peer_goes_before_its_listener_and_that_before_the_rest() {
        let settings = settings();
        for (uri, policy) in [
            ("sips:1@trunk.example.com", Some(Required)),
            ("sip:1@TRUNK.example.com:5061;transport=tls", Some(Required)),
            ("sip:1@other.example.com", Some(Off)),
            ("sip:1@198.51.100.9", Some(Off)),
            ("sip:1@other.example.com:6000", None),
            ("sip:1@elsewhere.example", None),
            ("nonsense", None),
        ] {
            assert_eq!(settings.policy_named(uri), policy, "{uri}");
        }
        for (transport, port, peer, target, policy, keys_are_safe) in [
            (Transport::Udp, 5060, "192.0.2.7:5060", None, Allowed, false),
            (Transport::Tls, 5061, "192.0.2.7:40000", None, Required, true),
            (Transport::Tls, 5061, "198.51.100.7:40000", None, Off, true),
            (Transport::Tls, 5061, "198.51.100.7:40000", Some(Allowed), Allowed, true),
            (Transport::Udp, 5060, "192.0.2.7:5060", Some(Required), Required, false),
        ] {
            let local = SocketAddr::from(([192, 0, 2, 1], port));
            let peer = peer.parse().expect("an address");
            let flow = Flow { id: FlowId(1), transport, local, peer };
            let terms = settings.terms(flow, target);
            assert_eq!(terms, SrtpTerms { policy, keys_are_safe }, "{peer} {target:?}");
        }
        let unmeetable = SrtpTerms { policy: Required, keys_are_safe: false };
        assert!(unmeetable.may_offer().is_err(), "keys would go in the clear");
    }

    #[test]
    fn only_who_cannot_be_offered_keys_by_any_way_is_not_called() {
        let required = SrtpSettings { policy: Required, ..SrtpSettings::default() };
        let range = vec![(HostRule::parse("10.0.0.0/8").expect("a range"), Off)];
        let but_some = SrtpSettings { targets: range, ..required.clone() };
        let insecure = SrtpSettings { insecure_signalling: true, ..required.clone() };
        for (uri, expected) in [
            ("sip:1@pbx.example.com", [true, true, true, true]),
            ("sip:1@pbx.example.com:5060", [false, true, true, true]),
            ("sip:1@pbx.example.com;transport=tcp", [false, true, true, true]),
            ("sip:1@10.0.0.7", [false, true, true, true]),
            ("sips:1@10.0.0.7", [true, true, true, true]),
            ("sip:1@trunk.example.com", [true, true, true, false]),
            ("sip:1@trunk.example.com;transport=tls", [true, true, true, true]),
        ] {
            let all = [&required, &but_some, &insecure, &settings()];
            assert_eq!(all.map(|settings| settings.may_call(uri)), expected, "{uri}");
        }
    }
}
