//! What a call and its parts print when somebody formats them: no media key, no password.

use super::reoffer::Pending;
use super::*;
use crate::ground::Entropy;
use crate::sdp::{LocalMedia, SrtpPolicy, SrtpTerms};
use crate::sip::msg::{Framing, Message};
use crate::sip::ua::RequestToken;
use bytes::Bytes;
use std::fmt::Debug;

/// An exchange with an offer of ours that is out, the offer, and the keys in it.
pub(super) fn encrypted_offer() -> (OfferAnswer, String, Vec<String>) {
    let mut offer_answer = OfferAnswer::new(1, &mut Entropy::from_number(1));
    let text = offer_answer.offer(&LocalMedia {
        address: IpAddr::from([192, 0, 2, 1]),
        port: 30_000,
        ptime_ms: 20,
        codecs: vec![CodecKind::Pcmu],
        telephone_event: true,
        opus_fec: false,
        extended: Default::default(),
        silence_suppression: false,
        srtp: SrtpTerms { policy: SrtpPolicy::Required, keys_are_safe: true },
        own: Default::default(),
    });
    let keys = text.split("inline:").skip(1);
    let keys = keys.filter_map(|rest| rest.split_whitespace().next()).map(str::to_owned);
    let keys: Vec<String> = keys.collect();
    assert!(!keys.is_empty() && keys.iter().all(|key| key.len() >= 40), "{text}");
    (offer_answer, text, keys)
}

/// None of `secrets` in what is printed, as text or as a list of its bytes.
pub(super) fn assert_silent(what: &dyn Debug, secrets: &[String]) {
    for printed in [format!("{what:?}"), format!("{what:#?}")] {
        for secret in secrets {
            assert!(!printed.contains(secret.as_str()), "{printed}");
            let bytes = format!("{:?}", &secret.as_bytes()[..16]);
            assert!(!printed.contains(bytes.trim_matches(['[', ']'])), "{printed}");
        }
    }
}

#[test]
fn descriptions_never_print_their_keys() {
    let (offer_answer, text, keys) = encrypted_offer();
    let description = DescriptionText::from(text.clone());
    let address = MediaAddress {
        bind: IpAddr::from([192, 0, 2, 1]),
        advertise: IpAddr::from([192, 0, 2, 1]),
    };
    let negotiated = Negotiated {
        offer: Some(Bytes::from(text.clone()).into()),
        offer_answer,
        description: description.clone(),
        agreed: None,
        kind: CodecKind::Pcmu,
        target_srtp: None,
        address,
    };
    let token = RequestToken(1);
    let pending = Pending { token, revision: 1, description: description.clone() };
    let acts = [
        Act::Accept { description: description.clone() },
        Act::AnswerReoffer { token, description: Some(description.clone()) },
    ];
    for what in [&negotiated as &dyn Debug, &pending, &acts, &description] {
        assert_silent(what, &keys);
    }
    assert_eq!(description.as_bytes(), text.as_bytes(), "the text itself is whole");
}

#[test]
fn messages_print_neither_keys_nor_credentials() {
    let (_, text, mut secrets) = encrypted_offer();
    let response = "6629fae49393a05397450978507c4ef1".to_owned();
    let invite = format!(
        "INVITE sip:a@192.0.2.1 SIP/2.0\r\nVia: SIP/2.0/TLS 192.0.2.7;branch=z9hG4bK1\r\n\
         From: <sip:b@192.0.2.7>;tag=1\r\nTo: <sip:a@192.0.2.1>\r\nCall-ID: 1\r\nCSeq: 7 INVITE\r\n\
         Max-Forwards: 70\r\nAuthorization: Digest username=\"b\", realm=\"r\", nonce=\"n\", \
         uri=\"sip:a@192.0.2.1\", response=\"{response}\"\r\nContent-Type: application/sdp\r\n\
         Content-Length: {}\r\n\r\n{text}",
        text.len()
    );
    secrets.push(response);
    let message = Message::parse(Bytes::from(invite), Framing::Stream).expect("a good INVITE");
    assert_silent(&message, &secrets);
    assert!(format!("{message:?}").contains("7 INVITE"));
}

#[test]
fn a_key_never_prints() {
    use crate::call::tool::ToolCall;
    use crate::media::plan::{Key, MediaEvent};
    let keys = vec![Key('7'), Key('#')];
    let (leg, second) = (LegId::CALLER, Duration::from_secs(1));
    let pressed = MediaEvent::Digit { leg, digit: Key('7'), duration_ms: 100 };
    let sent = MediaCommand::SendKeys { leg, keys: keys.clone(), tone: second, gap: second };
    let asked = ToolCall::Keys { keys, tone: second, gap: second };
    for what in [&pressed as &dyn Debug, &sent, &asked, &Act::Media(sent.clone())] {
        let printed = format!("{what:?}");
        assert!(!printed.contains(['7', '#']), "{printed}");
    }
}
