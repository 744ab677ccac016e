//! Our parser against `rsip`, an independent one: on every fixture both read the same, or the
//! difference has its reason in the list.

use crate::torture_parse::{own, rows};
use rsip::prelude::{HeadersExt, ToTypedHeader, UntypedHeader};
use std::collections::BTreeMap;
use voxedge::sip::msg::{Framing, Message, Name};

type Reading = BTreeMap<&'static str, String>;

fn ours(bytes: &bytes::Bytes) -> Option<Reading> {
    let message = Message::parse(bytes.clone(), Framing::Datagram).ok()?;
    let start = match &message {
        Message::Request(request) => format!("{} {}", request.method(), request.uri().as_str()),
        Message::Response(response) => response.code().to_string(),
    };
    let names =
        message.lines().map(|(name, _)| name.to_ascii_lowercase()).collect::<Vec<_>>().join(" ");
    let tag = |tag: Option<&str>| tag.unwrap_or("-").to_owned();
    Some(BTreeMap::from([
        ("start", start),
        ("names", names),
        ("call-id", message.call_id().to_owned()),
        ("cseq", format!("{} {}", message.cseq().number, message.cseq().method)),
        ("from tag", tag(message.from().tag())),
        ("to tag", tag(message.to().tag())),
        ("from uri", message.from().uri().as_str().to_owned()),
        ("max-forwards", message.max_forwards().map_or("-".into(), |hops| hops.to_string())),
        ("branch", message.via().branch().unwrap_or("-").to_owned()),
        ("body", message.body().len().to_string()),
        ("vias", message.values(Name::Via).count().to_string()),
    ]))
}

fn theirs(bytes: &bytes::Bytes) -> Option<Reading> {
    let message = rsip::SipMessage::try_from(bytes.as_ref()).ok()?;
    let start = match &message {
        rsip::SipMessage::Request(request) => format!("{} {}", request.method, request.uri),
        rsip::SipMessage::Response(response) => response.status_code.code().to_string(),
    };
    let headers = match &message {
        rsip::SipMessage::Request(request) => &request.headers,
        rsip::SipMessage::Response(response) => &response.headers,
    };
    let printed = headers.iter().map(|header| header.to_string());
    let names = printed.filter_map(|line| Some(line.split_once(':')?.0.to_ascii_lowercase()));
    let names = names.collect::<Vec<_>>().join(" ");
    let vias = headers.iter().filter(|header| matches!(header, rsip::Header::Via(_))).count();
    let from = message.from_header().ok()?.typed().ok()?;
    let to = message.to_header().ok()?.typed().ok()?;
    let cseq = message.cseq_header().ok()?.typed().ok()?;
    let via = message.via_header().ok()?.typed().ok()?;
    let hops = message.max_forwards_header().ok().map(|header| header.value().trim().to_owned());
    Some(BTreeMap::from([
        ("start", start),
        ("names", names),
        ("call-id", message.call_id_header().ok()?.value().to_owned()),
        ("cseq", format!("{} {}", cseq.seq, cseq.method)),
        ("from tag", from.tag().map_or("-".into(), |tag| tag.value().to_owned())),
        ("to tag", to.tag().map_or("-".into(), |tag| tag.value().to_owned())),
        ("from uri", from.uri.to_string()),
        ("max-forwards", hops.unwrap_or("-".into())),
        ("branch", via.branch().map_or("-".into(), |branch| branch.value().to_owned())),
        ("body", message.body().len().to_string()),
        ("vias", vias.to_string()),
    ]))
}

/// `equal`, or what differs: who refuses, or the fields.
fn difference(bytes: &bytes::Bytes) -> String {
    match (ours(bytes), theirs(bytes)) {
        (None, None) => "equal".into(),
        (Some(_), None) => "they refuse".into(),
        (None, Some(_)) => "we refuse".into(),
        (Some(ours), Some(theirs)) if ours == theirs => "equal".into(),
        (Some(ours), Some(theirs)) => {
            let fields = ours.iter().filter(|(field, value)| theirs.get(*field) != Some(value));
            fields.map(|(field, _)| *field).collect::<Vec<_>>().join(", ")
        }
    }
}

/// File, what differs, why ours is right.
const EXPLAINED: [(&str, &str, &str); 47] = [
    (
        "freeswitch-401-compact.sip",
        "they refuse",
        "they know no compact names, so Via and others are missing",
    ),
    ("broadworks-invite.sip", "start", "they print the transport parameter in capitals"),
    ("teams-invite.sip", "start", "they print the transport parameter in capitals"),
    ("twilio-tls-sdes-invite.sip", "start", "they print the transport parameter in capitals"),
    ("vonage-invite.sip", "start", "they print the transport parameter in capitals"),
    ("case.sip", "from uri, start", "they print schemes and parameters in a case of their own"),
    ("trunk-invite.sip", "start", "they print the transport parameter in capitals"),
    ("ipv6-unbracketed-received.sip", "they refuse", "they read no IPv6 reference"),
    ("quoted-escapes.sip", "they refuse", "they read no quoted pair in a display name"),
    ("tel-uri.sip", "they refuse", "they know no scheme but sip and sips"),
    ("folded-everything.sip", "they refuse", "they unfold nothing"),
    ("odd-token-characters.sip", "they refuse", "they know no method of another name"),
    ("percent-is-no-escape.sip", "they refuse", "they know no method of another name"),
    ("long-values.sip", "they refuse", "they allow no blank before the colon"),
    ("bytes-after-the-body.sip", "body", "they keep what follows the body"),
    ("semicolon-in-user.sip", "they refuse", "they take user parameters for URI parameters"),
    ("unknown-transports.sip", "vias", "they count no Via under its compact name"),
    ("stray-separators.sip", "we refuse", "they pass what the grammar does not allow"),
    ("length-too-large.sip", "we refuse", "they do not look at Content-Length"),
    ("length-negative.sip", "we refuse", "they do not look at Content-Length"),
    ("length-wraps-32.sip", "we refuse", "they do not look at Content-Length"),
    ("length-wraps-64.sip", "we refuse", "they do not look at Content-Length"),
    ("length-twice.sip", "we refuse", "they do not look at Content-Length"),
    ("length-twice-equal.sip", "we refuse", "they do not look at Content-Length"),
    ("length-blank-before-colon.sip", "they refuse", "they allow no blank before the colon"),
    ("length-folded.sip", "they refuse", "they unfold nothing"),
    ("length-in-words.sip", "we refuse", "they do not look at Content-Length"),
    ("max-forwards-too-large.sip", "we refuse", "they allow more than 255 hops"),
    ("quote-never-closed.sip", "we refuse", "they pass what the grammar does not allow"),
    ("uri-in-angles.sip", "we refuse", "they pass what the grammar does not allow"),
    ("contact-without-angles.sip", "we refuse", "they pass what the grammar does not allow"),
    ("blanks-in-angles.sip", "we refuse", "they pass what the grammar does not allow"),
    ("comma-in-name.sip", "we refuse", "they pass what the grammar does not allow"),
    ("method-mismatch.sip", "we refuse", "they do not compare CSeq with the start line"),
    ("branch-is-cookie.sip", "we refuse", "they take the cookie alone for a branch"),
    ("unknown-scheme.sip", "they refuse", "they know no scheme but sip and sips"),
    ("unknown-schemes-elsewhere.sip", "they refuse", "they know no scheme but sip and sips"),
    ("two-of-everything.sip", "we refuse", "they take one of several copies"),
    ("ipv6-reference.sip", "they refuse", "they read no IPv6 reference"),
    ("ipv6-three-colons.sip", "they refuse", "they read no IPv6 reference"),
    ("ipv4-mapped.sip", "they refuse", "they read no IPv6 reference"),
    (
        "compact-names.sip",
        "they refuse",
        "they know no compact names, so Via and others are missing",
    ),
    ("latin1-name.sip", "they refuse", "they read UTF-8 only"),
    ("bare-lf-header.sip", "we refuse", "they pass bare CR, LF and NUL through"),
    ("bare-cr-header.sip", "we refuse", "they pass bare CR, LF and NUL through"),
    ("nul-in-header.sip", "we refuse", "they pass bare CR, LF and NUL through"),
    ("ack-malformed.sip", "we refuse", "they do not compare CSeq with the start line"),
];

#[test]
fn rsip_reads_the_same_or_the_difference_is_explained() {
    let mut explained: BTreeMap<&str, &str> =
        EXPLAINED.iter().map(|(name, difference, _)| (*name, *difference)).collect();
    let mut wrong = Vec::new();
    let mut equal = 0;
    for (row, bytes) in ["sip", "sip_syntax"].into_iter().flat_map(|folder| rows(&own(folder))) {
        let found = difference(&bytes);
        let expected = explained.remove(row["name"].as_str()).unwrap_or("equal");
        equal += usize::from(found == "equal");
        if found != expected {
            wrong.push(format!("{}: {found}, not {expected}", row["name"]));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    assert!(explained.is_empty(), "files that are gone: {explained:?}");
    assert!(equal >= 40, "only {equal} are equal");
}
