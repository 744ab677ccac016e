//! What the agent is told about a call before it speaks (seed, "Personalizing the Call"): the
//! template context from the caller's `X-` headers, and the automatic values `ultravox.sip.*` as
//! far as the agent's context schema lets them in. Caller data is untrusted text: it is bounded here
//! and printed by a JSON serializer only.

mod schema;

use crate::ground::limits;
use crate::sip::msg::{Name, NameAddr, Request};
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::fmt;

/// The key that belongs to automatic values.
const RESERVED: &str = "ultravox";

/// What a caller without a name is called (RFC 3323 §4.1).
const ANONYMOUS: &str = "anonymous";
const ANONYMOUS_URI: &str = "sip:anonymous@anonymous.invalid";

/// The context values that `X-` headers give, and what was left out or taken otherwise.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct XHeaders {
    pub values: Map<String, Value>,
    pub remarks: Vec<Remark>,
}

/// What became of one `X-` header that was not taken as it came. It shows the header's name, never
/// its value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Remark {
    header: String,
    pub oddity: Oddity,
}

/// Why a header was left out, or taken otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Oddity {
    /// One of more than [`limits::X_HEADERS_MAX`].
    TooMany,
    /// Its value is longer than [`limits::X_HEADER_BYTES_MAX`].
    TooLong,
    /// With it all headers would be longer than [`limits::X_HEADERS_BYTES_MAX`].
    BeyondAll,
    /// Its value holds control characters.
    Control,
    /// The same header, or another one of the same key, came before.
    Repeated,
    /// Its key belongs to the automatic values.
    Reserved,
    /// `X-` and nothing more.
    Nameless,
    /// Its JSON is nested deeper than [`limits::JSON_DEPTH_MAX`] or holds a NUL: taken as text.
    KeptAsText,
}

/// Characters of a header's name that a remark shows.
const NAME_CHARS_MAX: usize = 40;

impl Remark {
    fn of(name: &str, oddity: Oddity) -> Remark {
        let plain = |c: char| if c.is_ascii_graphic() { c } else { '?' };
        Remark { header: name.chars().take(NAME_CHARS_MAX).map(plain).collect(), oddity }
    }
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.header;
        match self.oddity {
            Oddity::TooMany => write!(f, "{name} left out: too many X- headers"),
            Oddity::TooLong => write!(f, "{name} left out: longer than 2 KiB"),
            Oddity::BeyondAll => write!(f, "{name} left out: beyond 8 KiB of X- headers"),
            Oddity::Control => write!(f, "{name} left out: control characters"),
            Oddity::Repeated => write!(f, "{name} left out: repeated"),
            Oddity::Reserved => write!(f, "{name} left out: the key is reserved"),
            Oddity::Nameless => write!(f, "{name} left out: no name"),
            Oddity::KeptAsText => write!(f, "{name} taken as text: its JSON is not usable"),
        }
    }
}

/// The `X-` headers within the bounds, by their names as received and with trimmed values, and
/// what is to be said of the others. A header that is left out takes no room from the next.
pub fn x_headers<'a>(
    headers: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> (Vec<(&'a str, &'a str)>, Vec<Remark>) {
    let (mut kept, mut remarks, mut bytes) = (Vec::new(), Vec::new(), 0);
    for (name, value) in headers {
        if !is_x_header(name) {
            continue;
        }
        let value = value.trim();
        let size = name.len() + value.len();
        let oddity = if kept.len() >= limits::X_HEADERS_MAX {
            Some(Oddity::TooMany)
        } else if value.len() > limits::X_HEADER_BYTES_MAX {
            Some(Oddity::TooLong)
        } else if bytes + size > limits::X_HEADERS_BYTES_MAX {
            Some(Oddity::BeyondAll)
        } else if value.chars().any(|c| c.is_control() && c != '\t') {
            Some(Oddity::Control)
        } else {
            None
        };
        match oddity {
            Some(oddity) => remarks.push(Remark::of(name, oddity)),
            None => {
                bytes += size;
                kept.push((name, value));
            }
        }
    }
    (kept, remarks)
}

fn is_x_header(name: &str) -> bool {
    name.get(..2).is_some_and(|start| start.eq_ignore_ascii_case("x-"))
}

/// Turns `X-` headers into context values: `X-` removed, lower-cased, `-` to `_`; the value read as
/// JSON, else kept as text. Other headers are passed over. Of a repeated header the first counts.
pub fn from_headers<'a>(headers: impl IntoIterator<Item = (&'a str, &'a str)>) -> XHeaders {
    let (kept, remarks) = x_headers(headers);
    let mut context = XHeaders { values: Map::new(), remarks };
    for (name, text) in kept {
        let key = key(name);
        let (value, oddity) = match () {
            () if key.is_empty() => (None, Some(Oddity::Nameless)),
            () if is_reserved(&key) => (None, Some(Oddity::Reserved)),
            () if context.values.contains_key(&key) => (None, Some(Oddity::Repeated)),
            () => {
                let (value, is_odd) = read_value(text);
                (Some(value), is_odd.then_some(Oddity::KeptAsText))
            }
        };
        context.remarks.extend(oddity.map(|oddity| Remark::of(name, oddity)));
        if let Some(value) = value {
            context.values.insert(key, value);
        }
    }
    context
}

/// The context key of an `X-` header.
fn key(name: &str) -> String {
    name.get(2..).unwrap_or_default().to_ascii_lowercase().replace('-', "_")
}

/// `ultravox`, and dotted paths below it, which a template would look up in the automatic values'
/// place.
fn is_reserved(key: &str) -> bool {
    key.strip_prefix(RESERVED).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// The handler's context over the headers': the handler's values win, and neither may speak for the
/// automatic values.
pub fn merge(
    headers: &Map<String, Value>,
    handler: Option<&Map<String, Value>>,
) -> Map<String, Value> {
    let mut merged = headers.clone();
    for (key, value) in handler.into_iter().flatten() {
        merged.insert(key.clone(), value.clone());
    }
    merged.retain(|key, _| !is_reserved(key));
    merged
}

/// JSON, or the text itself. JSON that is nested too deep, or holds a NUL, which databases refuse,
/// stays text and is odd. Integers that no JSON number of ours holds exactly stay text, since an
/// account number must not lose digits.
fn read_value(text: &str) -> (Value, bool) {
    let as_text = || Value::String(text.to_owned());
    let Ok(value) = serde_json::from_str::<Value>(text) else { return (as_text(), false) };
    if depth(&value, limits::JSON_DEPTH_MAX + 1) > limits::JSON_DEPTH_MAX || holds_nul(&value) {
        return (as_text(), true);
    }
    let is_long_integer =
        value.is_f64() && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    if is_long_integer { (as_text(), false) } else { (value, false) }
}

/// Levels of arrays and objects, counted up to `most`.
fn depth(value: &Value, most: usize) -> usize {
    let inner = |value: &Value| depth(value, most - 1);
    match value {
        _ if most == 0 => 0,
        Value::Array(items) => 1 + items.iter().map(inner).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(inner).max().unwrap_or(0),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

/// Whether a text or a name in the value holds a NUL. The value is not deep.
fn holds_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(holds_nul),
        Value::Object(fields) => {
            fields.iter().any(|(name, value)| name.contains('\0') || holds_nul(value))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// P-Asserted-Identity values that are looked at; RFC 3325 §9.1 allows two.
const ASSERTED_MAX: usize = 8;

/// One identity of a caller, from a From or P-Asserted-Identity header.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity<'a> {
    pub display_name: Option<Cow<'a, str>>,
    /// The whole URI as received.
    pub uri: &'a str,
    /// The decoded user part, or the number of a `tel:` URI; empty when there is none.
    pub user: Cow<'a, str>,
}

impl<'a> Identity<'a> {
    fn of(address: &NameAddr<'a>) -> Identity<'a> {
        let uri = address.uri();
        let display_name = address.display_name();
        Identity { display_name, uri: uri.as_str(), user: uri.user_decoded() }
    }
}

/// Who calls, as the agent is told.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Caller {
    /// The identity that the listed peer asserts, else the From user; `None` when there is neither
    /// or the caller asks for privacy.
    pub caller_id: Option<String>,
    /// The display name of From, else its user; `None` when there is neither or for privacy.
    pub from_display_name: Option<String>,
    pub from_uri: String,
}

impl Caller {
    /// The caller of an INVITE from an admitted peer.
    pub fn of(request: &Request) -> Caller {
        let headers = request.headers();
        let asserted: Vec<Identity<'_>> = headers
            .values(Name::PAssertedIdentity)
            .take(ASSERTED_MAX)
            .filter_map(|value| NameAddr::parse(value).ok().as_ref().map(Identity::of))
            .collect();
        Caller::identify(&Identity::of(&headers.from()), &asserted, headers.get(Name::Privacy))
    }

    /// Tells the caller from its identities. `asserted` are the P-Asserted-Identity values of a
    /// peer that was admitted, and so is trusted (RFC 3325 §5); `privacy` is the Privacy header's value.
    ///
    /// With `Privacy: id`, `user` or `header` the caller is anonymous: the agent stands outside the
    /// trust domain (RFC 3325 §7). A From that is anonymous by itself hides nothing that the peer
    /// asserts without privacy.
    pub fn identify(
        from: &Identity<'_>,
        asserted: &[Identity<'_>],
        privacy: Option<&str>,
    ) -> Caller {
        if privacy.is_some_and(asks_privacy) {
            return Caller {
                caller_id: None,
                from_display_name: None,
                from_uri: ANONYMOUS_URI.to_owned(),
            };
        }
        let from_user = subscriber(&from.user);
        let caller_id = asserted_user(asserted).or(from_user);
        let name = from.display_name.as_deref().map(str::trim).filter(|name| !name.is_empty());
        let own = |text: &str| bounded(text).to_owned();
        Caller {
            caller_id: caller_id.filter(|id| !id.eq_ignore_ascii_case(ANONYMOUS)).map(own),
            from_display_name: name.or(from_user).map(own),
            from_uri: own(from.uri),
        }
    }

    fn values(&self) -> [(&'static str, &str); 3] {
        [
            ("caller_id", self.caller_id.as_deref().unwrap_or(ANONYMOUS)),
            ("from_display_name", self.from_display_name.as_deref().unwrap_or(ANONYMOUS)),
            ("from_uri", self.from_uri.as_str()),
        ]
    }
}

/// The first asserted value that is a telephone number, else the first that has a user: peers that
/// assert two give a `tel:` and a `sip:` one (RFC 3325 §9.1).
fn asserted_user<'a>(asserted: &'a [Identity<'_>]) -> Option<&'a str> {
    let users = || asserted.iter().filter_map(|identity| subscriber(&identity.user));
    users().find(|user| is_number(user)).or_else(|| users().next())
}

/// The user without the parameters that a telephone number may carry (RFC 3261 §19.1.6); `None` for
/// an empty one.
fn subscriber(user: &str) -> Option<&str> {
    let number = user.split(';').next().filter(|number| is_number(number));
    number.or(Some(user)).filter(|user| !user.is_empty())
}

fn is_number(user: &str) -> bool {
    let digits = user.strip_prefix('+').unwrap_or(user);
    let known = |byte: u8| byte.is_ascii_digit() || b"-.()".contains(&byte);
    digits.bytes().any(|byte| byte.is_ascii_digit()) && digits.bytes().all(known)
}

fn asks_privacy(privacy: &str) -> bool {
    let words = privacy.split([';', ',']).map(str::trim);
    words
        .into_iter()
        .any(|word| ["id", "user", "header"].iter().any(|asked| word.eq_ignore_ascii_case(asked)))
}

/// The text, cut at a character within the bound of a header value.
fn bounded(text: &str) -> &str {
    let end = text.char_indices().map(|(at, char)| at + char.len_utf8());
    let end = end.take_while(|end| *end <= limits::X_HEADER_BYTES_MAX).last().unwrap_or(0);
    text.get(..end).unwrap_or_default()
}

/// The context of a call: the header values, and what `schema` (the agent's `contextSchema`)
/// permits of the automatic values. No schema permits all; no caller leaves them out.
pub fn template_context(
    x_headers: &Map<String, Value>,
    caller: Option<&Caller>,
    schema: Option<&Value>,
) -> Map<String, Value> {
    let mut context = x_headers.clone();
    context.retain(|key, _| !is_reserved(key));
    let values = caller.map(Caller::values).into_iter().flatten();
    let permitted: Map<String, Value> = values
        .filter(|(name, text)| {
            schema.is_none_or(|schema| schema::permits(schema, &[RESERVED, "sip", name], text))
        })
        .map(|(name, text)| (name.to_owned(), Value::from(text)))
        .collect();
    if !permitted.is_empty() {
        let sip = Map::from_iter([("sip".to_owned(), Value::Object(permitted))]);
        context.insert(RESERVED.to_owned(), Value::Object(sip));
    }
    context
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ground::Entropy;
    use crate::sip::msg::{Framing, Message};
    use bytes::Bytes;
    use serde_json::json;

    fn check(headers: &[(&str, &str)], values: Value, oddities: &[Oddity]) {
        let context = from_headers(headers.iter().copied());
        let found: Vec<Oddity> = context.remarks.iter().map(|remark| remark.oddity).collect();
        assert_eq!((Value::Object(context.values), &found[..]), (values, oddities), "{headers:?}");
    }

    #[test]
    fn the_seeds_example() {
        check(
            &[("X-Customer-Name", "Bob"), ("X-Complex-Value", r#"{"subkey": "value"}"#)],
            json!({"customer_name": "Bob", "complex_value": {"subkey": "value"}}),
            &[],
        );
    }

    #[test]
    fn values_are_json_where_they_can_be() {
        for (text, value) in [
            ("123", json!(123)),
            ("-1.5", json!(-1.5)),
            ("0123", json!("0123")),
            ("+15551234567", json!("+15551234567")),
            ("15551234567", json!(15_551_234_567_u64)),
            ("12345678901234567890123", json!("12345678901234567890123")),
            ("true", json!(true)),
            ("null", json!(null)),
            ("True", json!("True")),
            ("NaN", json!("NaN")),
            ("1e999", json!("1e999")),
            ("\"quoted\"", json!("quoted")),
            ("[1, 2]", json!([1, 2])),
            ("{\"a\":", json!("{\"a\":")),
            ("", json!("")),
            ("  padded  ", json!("padded")),
        ] {
            check(&[("X-V", text)], json!({"v": value}), &[]);
        }
    }

    #[test]
    fn names_are_folded_and_other_headers_do_not_matter() {
        check(
            &[("From", "a"), ("x-Call-ID", "b"), ("X-A_B-c", "1"), ("Xylophone", "c"), ("é", "d")],
            json!({"call_id": "b", "a_b_c": 1}),
            &[],
        );
    }

    #[test]
    fn what_is_repeated_reserved_or_nameless_is_left_out_and_counted() {
        check(
            &[
                ("X-A", "1"),
                ("x-a", "2"),
                ("X-", "3"),
                ("X-Ultravox", "4"),
                ("x-ULTRAVOX.Sip.Caller_Id", "4"),
                ("X-Ultravox-Sip", "free"),
                ("X-A-B", "5"),
                ("X-A_B", "6"),
            ],
            json!({"a": 1, "ultravox_sip": "free", "a_b": 5}),
            &[
                Oddity::Repeated,
                Oddity::Nameless,
                Oddity::Reserved,
                Oddity::Reserved,
                Oddity::Repeated,
            ],
        );
    }

    #[test]
    fn odd_bytes_do_not_reach_the_agent() {
        check(
            &[
                ("X-A", "a\0b"),
                ("X-B", "a\u{1b}[31m"),
                ("X-C", "tab\tis fine"),
                ("X-D", r#"{"a": "\u0000"}"#),
                ("X-E", "\u{202e}é中"),
            ],
            json!({"c": "tab\tis fine", "d": r#"{"a": "\u0000"}"#, "e": "\u{202e}é中"}),
            &[Oddity::Control, Oddity::Control, Oddity::KeptAsText],
        );
    }

    #[test]
    fn the_caps_hold_on_both_sides() {
        let long = "a".repeat(limits::X_HEADER_BYTES_MAX);
        check(&[("X-A", &long)], json!({"a": long}), &[]);
        check(&[("X-A", &format!("{long}a"))], json!({}), &[Oddity::TooLong]);
        let names: Vec<String> = (0..65).map(|index| format!("X-{index}")).collect();
        let many = from_headers(names.iter().map(|name| (name.as_str(), "v")));
        assert_eq!((many.values.len(), many.remarks.len()), (64, 1));
        assert_eq!(many.remarks[0].to_string(), "X-64 left out: too many X- headers");
        let nested = |levels| format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
        let (fits, deep, deepest) = (nested(16), nested(17), nested(1_000));
        let context = from_headers([("X-A", fits.as_str()), ("X-B", &deep), ("X-C", &deepest)]);
        let is_text: Vec<bool> = context.values.values().map(Value::is_string).collect();
        assert_eq!((is_text, context.remarks.len()), (vec![false, true, true], 1));
    }

    /// Four headers fill 8 KiB to the last byte: the fifth is dropped, and so would be one byte more.
    #[test]
    fn a_header_beyond_8_kib_is_dropped_and_a_smaller_one_may_still_fit() {
        let value = "a".repeat(2_000);
        let rest = "b".repeat(limits::X_HEADERS_BYTES_MAX - 4 * 2_003 - 3);
        let four = [("X-A", value.as_str()), ("X-B", &value), ("X-C", &value), ("X-D", &value)];
        let with = |last: &str, more: &[(&str, &str)]| {
            let mut headers = four.to_vec();
            headers.push(("X-E", last));
            headers.extend(more);
            let context = from_headers(headers);
            let remarks: Vec<String> = context.remarks.iter().map(Remark::to_string).collect();
            (context.values.len(), remarks)
        };
        assert_eq!(with(&rest, &[]), (5, vec![]));
        let dropped = |name: &str| format!("{name} left out: beyond 8 KiB of X- headers");
        assert_eq!(with(&format!("{rest}b"), &[]), (4, vec![dropped("X-E")]));
        assert_eq!(with(&value, &[("X-F", "fits")]), (5, vec![dropped("X-E")]));
        assert_eq!(with(&rest, &[("X-\u{1b}", "v")]), (5, vec![dropped("X-?")]));
    }

    #[test]
    fn the_handlers_values_win_and_the_reserved_key_is_nobodys() {
        let headers = json!({"tier": "gold", "name": "Ada"});
        let handler = json!({"tier": "silver", "ultravox": {"sip": 1}, "ultravox.sip": 2, "n": 3});
        let headers = headers.as_object().expect("an object");
        let merged = Value::Object(merge(headers, handler.as_object()));
        assert_eq!(merged, json!({"tier": "silver", "name": "Ada", "n": 3}));
        assert_eq!(merge(headers, None), *headers);
    }

    #[test]
    fn hostile_headers_stay_bounded_and_print_as_json() {
        let mut entropy = Entropy::from_number(8259);
        let pieces = [
            "{", "}", "[", "]", "\"", ":", ",", "1", "e9", "\\u0000", "\r\n", "é", "\u{202e}", "-",
        ];
        for _ in 0..5_000 {
            let count = 1 + entropy.below(80);
            let mut text = || {
                let length = entropy.below(12);
                (0..length).map(|_| pieces[entropy.below(14) as usize]).collect::<String>()
            };
            let headers: Vec<(String, String)> =
                (0..count).map(|_| (format!("X-{}", text()), text())).collect();
            let context = from_headers(headers.iter().map(|(n, v)| (n.as_str(), v.as_str())));
            assert!(context.values.len() <= limits::X_HEADERS_MAX);
            assert!(
                context.values.values().all(|value| depth(value, 99) <= limits::JSON_DEPTH_MAX)
            );
            let all = Value::Object(context.values);
            let printed = all.to_string();
            assert!(!printed.bytes().any(|byte| byte < b' '), "{printed}");
            assert_eq!(serde_json::from_str::<Value>(&printed).ok(), Some(all));
        }
    }

    fn identity<'a>(display_name: Option<&'a str>, uri: &'a str, user: &'a str) -> Identity<'a> {
        Identity { display_name: display_name.map(Cow::from), uri, user: Cow::from(user) }
    }

    fn check_caller(caller: &Caller, values: [&str; 3]) {
        assert_eq!(caller.values().map(|(_, value)| value), values);
    }

    #[test]
    fn the_caller_is_who_the_listed_peer_asserts() {
        let ada = identity(Some("Ada"), "sip:+12025550100@pbx.example", "+12025550100");
        let uri = "sip:+12025550100@pbx.example";
        let sip = identity(None, "sip:ada@pbx.example", "ada");
        let tel = identity(None, "tel:+12025550199", "+12025550199");
        check_caller(&Caller::identify(&ada, &[], None), ["+12025550100", "Ada", uri]);
        check_caller(
            &Caller::identify(&ada, std::slice::from_ref(&sip), None),
            ["ada", "Ada", uri],
        );
        check_caller(
            &Caller::identify(&ada, &[sip.clone(), tel.clone()], None),
            ["+12025550199", "Ada", uri],
        );
        check_caller(
            &Caller::identify(&ada, &[tel.clone(), sip.clone()], Some("none")),
            ["+12025550199", "Ada", uri],
        );
        let nameless = identity(None, uri, "+12025550100");
        check_caller(
            &Caller::identify(&nameless, &[], None),
            ["+12025550100", "+12025550100", uri],
        );
        let userless = identity(Some(" "), "sip:pbx.example", "");
        let nobody = ["anonymous", "anonymous", "sip:pbx.example"];
        check_caller(&Caller::identify(&userless, &[], None), nobody);
    }

    #[test]
    fn privacy_hides_the_caller_and_an_anonymous_from_hides_no_assertion() {
        let ada = identity(Some("Ada"), "sip:+12025550100@pbx.example", "+12025550100");
        let tel = identity(None, "tel:+12025550199", "+12025550199");
        let hidden = ["anonymous", "anonymous", "sip:anonymous@anonymous.invalid"];
        for privacy in ["id", "ID;critical", "user; header", "critical,id"] {
            check_caller(
                &Caller::identify(&ada, std::slice::from_ref(&tel), Some(privacy)),
                hidden,
            );
        }
        let uri = "sip:anonymous@anonymous.invalid";
        let nobody = identity(Some("Anonymous"), uri, "anonymous");
        check_caller(
            &Caller::identify(&nobody, std::slice::from_ref(&tel), None),
            ["+12025550199", "Anonymous", uri],
        );
        let caller = Caller::identify(&nobody, &[], None);
        assert_eq!(caller.caller_id, None);
        check_caller(&caller, ["anonymous", "Anonymous", uri]);
    }

    #[test]
    fn automatic_values_join_the_headers_and_own_their_key() {
        let ada = identity(Some("Ada"), "sip:ada@pbx.example", "ada");
        let caller = Caller::identify(&ada, &[], None);
        let headers = json!({"tier": "gold", "ultravox": {"sip": "forged"}});
        let headers = headers.as_object().expect("an object");
        let sip = json!({
            "caller_id": "ada", "from_display_name": "Ada", "from_uri": "sip:ada@pbx.example",
        });
        let all = Value::Object(template_context(headers, Some(&caller), None));
        assert_eq!(all, json!({"tier": "gold", "ultravox": {"sip": sip}}));
        let none = Value::Object(template_context(headers, None, None));
        assert_eq!(none, json!({"tier": "gold"}));
    }

    #[test]
    fn the_caller_is_read_from_an_invite() {
        let check = |headers: &str, values: [&str; 3]| {
            let text = format!(
                "INVITE sip:a@edge.example SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\n\
                 To: <sip:a@edge.example>\r\nCall-ID: 1\r\nCSeq: 1 INVITE\r\n{headers}\r\n\r\n"
            );
            let message =
                Message::parse(Bytes::from(text), Framing::Datagram).expect("well-formed");
            let Message::Request(request) = message else { panic!("a request") };
            check_caller(&Caller::of(&request), values);
        };
        check(
            "From: \"Ada \\\"L\\\"\" <sip:%2B12025550100;npdi=yes@pbx.example;user=phone>;tag=1",
            ["+12025550100", "Ada \"L\"", "sip:%2B12025550100;npdi=yes@pbx.example;user=phone"],
        );
        check(
            "From: <sip:ada@pbx.example>;tag=1\r\n\
             P-Asserted-Identity: \"A, B\" <sip:ada@pbx.example>, <tel:+12025550199>",
            ["+12025550199", "ada", "sip:ada@pbx.example"],
        );
        check(
            "From: <sip:ada@pbx.example>;tag=1\r\nPrivacy: id\r\n\
             P-Asserted-Identity: <tel:+12025550199>",
            ["anonymous", "anonymous", "sip:anonymous@anonymous.invalid"],
        );
        check(
            "From: <sip:ada@pbx.example>;tag=1\r\nP-Asserted-Identity: \"broken",
            ["ada", "ada", "sip:ada@pbx.example"],
        );
    }

    #[test]
    fn long_names_are_cut_at_a_character() {
        let long = "é".repeat(2_000);
        let caller = Caller::identify(&identity(Some(&long), "sip:a@b", "a"), &[], None);
        assert_eq!(caller.from_display_name.map(|name| name.len()), Some(2_048));
    }
}
