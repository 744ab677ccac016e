//! Lexical pieces shared by the views (RFC 3261 §25.1): tokens, quoted strings, comma lists,
//! `;name=value` parameters, percent escapes. All work on one unfolded line.

use std::borrow::Cow;

/// True for the bytes of `token`.
pub(super) fn is_token_byte(byte: u8) -> bool {
    TOKEN[usize::from(byte)]
}

/// Tables, since these are asked for nearly every byte of a head.
static TOKEN: [bool; 256] =
    table(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.!%*_+`'~");
static VALUE_ENDS: [bool; 256] = table(b" \t;,\"<>");

/// A table that is true for `bytes`.
pub(super) const fn table(bytes: &[u8]) -> [bool; 256] {
    let mut table = [false; 256];
    let mut at = 0;
    while at < bytes.len() {
        table[bytes[at] as usize] = true;
        at += 1;
    }
    table
}

/// True when `text` is a `token`: not empty, token bytes only.
pub fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(is_token_byte)
}

/// Blanks within a line.
pub(super) fn is_blank(character: char) -> bool {
    character == ' ' || character == '\t'
}

/// What stands before and after the first `at`, an ASCII character. For texts of some ten bytes this
/// is twice as fast as `split_once`.
pub(super) fn cut(text: &str, at: u8) -> Option<(&str, &str)> {
    let place = text.bytes().position(|byte| byte == at)?;
    Some((text.get(..place)?, text.get(place + 1..)?))
}

/// Without blanks at both ends.
pub(super) fn trim(text: &str) -> &str {
    let text = trim_start(text);
    let last = text.bytes().rposition(|byte| !is_blank_byte(byte));
    text.get(..last.map_or(0, |last| last + 1)).unwrap_or_default()
}

/// Without blanks at its start. By bytes, since it is asked for each header and parameter.
pub(super) fn trim_start(text: &str) -> &str {
    let first = text.bytes().position(|byte| !is_blank_byte(byte)).unwrap_or(text.len());
    text.get(first..).unwrap_or_default()
}

/// A blank as a byte.
pub(super) fn is_blank_byte(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

/// The index after the closing quote of the quoted string that begins at `text[0]`; `None` when it
/// never closes.
pub fn quoted_end(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (index, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some(index + 1),
            _ => {}
        }
    }
    None
}

/// The text of a quoted string without its quotes and escapes; other text as it is.
pub fn unquote(text: &str) -> Cow<'_, str> {
    let Some(inner) = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
        return Cow::Borrowed(text);
    };
    if !inner.contains('\\') {
        return Cow::Borrowed(inner);
    }
    let mut plain = String::with_capacity(inner.len());
    let mut characters = inner.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => plain.extend(characters.next()),
            other => plain.push(other),
        }
    }
    Cow::Owned(plain)
}

/// The elements of a comma list, trimmed, empty ones included. Commas within quotes and within
/// `<…>` split nothing.
pub fn split_commas(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let current = rest?;
        let end = comma_position(current);
        rest = end.and_then(|end| current.get(end + 1..));
        Some(trim(current.get(..end.unwrap_or(current.len())).unwrap_or_default()))
    })
}

fn comma_position(text: &str) -> Option<usize> {
    if !text.as_bytes().contains(&b',') {
        return None;
    }
    let (mut quoted, mut escaped, mut angled) = (false, false, false);
    for (index, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' if !angled => quoted = !quoted,
            _ if quoted => {}
            b'<' => angled = true,
            b'>' => angled = false,
            b',' if !angled => return Some(index),
            _ => {}
        }
    }
    None
}

/// A parameter list is not well formed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct BadParam;

/// Header parameters, `;name=value` in a row. The text was checked when its message was parsed, so
/// iteration ends at the first thing that is not a parameter.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Params<'a> {
    rest: &'a str,
}

/// Parameters, and the value of the one that was asked for first.
type Checked<'a> = (Params<'a>, Option<Option<&'a str>>);

impl<'a> Params<'a> {
    /// The parameters of `text`, which starts at the first `;` (or is empty).
    pub fn new(text: &'a str) -> Params<'a> {
        Params { rest: text }
    }

    /// Checks that the whole text is parameters and that `unique` names come at most once. Gives the
    /// value of the first of these too, as [`Params::named`] does.
    pub(super) fn check(text: &'a str, unique: &[&str]) -> Result<Checked<'a>, BadParam> {
        let mut seen = 0_u32;
        let mut first = None;
        let mut params = Params::new(text);
        while let Some((name, value)) = params.step()? {
            let Some(bit) = unique.iter().position(|known| known.eq_ignore_ascii_case(name)) else {
                continue;
            };
            if seen & (1 << bit) != 0 {
                return Err(BadParam);
            }
            seen |= 1 << bit;
            if bit == 0 {
                first = Some(value);
            }
        }
        Ok((Params::new(text), first))
    }

    /// The first parameter with this name in any case: `Some(None)` when it has no value. Quotes of
    /// a quoted value are kept.
    pub fn named(mut self, name: &str) -> Option<Option<&'a str>> {
        self.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    fn step(&mut self) -> Result<Option<(&'a str, Option<&'a str>)>, BadParam> {
        let text = trim_start(self.rest);
        if text.is_empty() {
            self.rest = text;
            return Ok(None);
        }
        let text = trim_start(text.strip_prefix(';').ok_or(BadParam)?);
        let end = text.bytes().position(|byte| !is_token_byte(byte)).unwrap_or(text.len());
        let (name, text) = text.split_at_checked(end).ok_or(BadParam)?;
        if name.is_empty() {
            return Err(BadParam);
        }
        let text = trim_start(text);
        let Some(text) = text.strip_prefix('=') else {
            self.rest = text;
            return Ok(Some((name, None)));
        };
        let text = trim_start(text);
        let end = value_end(text).ok_or(BadParam)?;
        let (value, text) = text.split_at_checked(end).ok_or(BadParam)?;
        self.rest = text;
        Ok(Some((name, Some(value))))
    }
}

impl<'a> Iterator for Params<'a> {
    type Item = (&'a str, Option<&'a str>);

    fn next(&mut self) -> Option<Self::Item> {
        self.step().ok().flatten()
    }
}

/// Where a parameter value ends: a quoted string, or a run without blanks and separators. Wider
/// than `token`, since hosts, bare IPv6 addresses and odd tags are values too.
fn value_end(text: &str) -> Option<usize> {
    if text.starts_with('"') {
        return quoted_end(text);
    }
    let end = text.bytes().position(|byte| VALUE_ENDS[usize::from(byte)]).unwrap_or(text.len());
    (end > 0).then_some(end)
}

/// True when each `%` is followed by two hex digits.
pub(super) fn escapes_are_whole(text: &str) -> bool {
    if !text.contains('%') {
        return true;
    }
    let bytes = text.as_bytes();
    let whole = |at: usize| {
        let digit = |offset: usize| bytes.get(at + offset).is_some_and(u8::is_ascii_hexdigit);
        digit(1) && digit(2)
    };
    bytes.iter().enumerate().all(|(at, byte)| *byte != b'%' || whole(at))
}

/// Percent escapes decoded once. Bytes that are not UTF-8 are read as Latin-1. The result may hold
/// any character, CR, LF and NUL included.
pub(super) fn percent_decode(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let escape = (*byte == b'%').then(|| hex_pair(bytes.get(at + 1..at + 3)?)).flatten();
        plain.push(escape.unwrap_or(*byte));
        at += if escape.is_some() { 3 } else { 1 };
    }
    Cow::Owned(String::from_utf8(plain).unwrap_or_else(|fault| latin1(fault.as_bytes())))
}

fn hex_pair(pair: &[u8]) -> Option<u8> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    let (high, low) = (digit(pair.first()?)?, digit(pair.get(1)?)?);
    u8::try_from(high << 4 | low).ok()
}

/// Each byte as the character of the same number (ISO 8859-1).
pub(super) fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

/// A decimal number of digits only, at most `max`; leading zeros are allowed.
pub(super) fn number(text: &str, max: u64) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse::<u64>().ok().filter(|value| *value <= max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_split_outside_quotes_and_angles() {
        let cases: [(&str, &[&str]); 6] = [
            ("a, b ,c", &["a", "b", "c"]),
            (r#""a,\",b" <sip:x,y@h>, <sip:z@h>"#, &[r#""a,\",b" <sip:x,y@h>"#, "<sip:z@h>"]),
            ("", &[""]),
            (",", &["", ""]),
            (r#""open, never closed"#, &[r#""open, never closed"#]),
            (r#"<sip:a"b@h>,c"#, &[r#"<sip:a"b@h>"#, "c"]),
        ];
        for (text, expected) in cases {
            assert_eq!(split_commas(text).collect::<Vec<_>>(), expected, "{text}");
        }
    }

    #[test]
    fn params_are_read_or_refused() {
        let read = |text| {
            Params::check(text, &["tag"])
                .map(|(params, _)| params.collect::<Vec<_>>())
                .map_err(drop)
        };
        assert_eq!(read(""), Ok(vec![]));
        assert_eq!(
            read(r#" ; a = 1 ;b;TAG="x;\"y" ; received=2001:db8::1"#),
            Ok(vec![
                ("a", Some("1")),
                ("b", None),
                ("TAG", Some(r#""x;\"y""#)),
                ("received", Some("2001:db8::1")),
            ])
        );
        for wrong in [";", ";;a", ";a=", ";=b", ";a=\"b", "a=b", ";a=b c", ";tag=1;Tag=2", ";a=<b>"]
        {
            assert_eq!(read(wrong), Err(()), "{wrong}");
        }
    }

    #[test]
    fn escapes_decode_once() {
        let cases = [
            ("plain", "plain"),
            ("v%61lue%25%34%31", "value%41"),
            ("%00", "\0"),
            ("a%4", "a%4"),
            ("%zz%", "%zz%"),
            ("%C3%BC", "ü"),
            ("%FC", "ü"),
        ];
        for (text, expected) in cases {
            assert_eq!(percent_decode(text), expected, "{text}");
        }
        assert!(
            escapes_are_whole("a%20b") && !escapes_are_whole("a%2") && !escapes_are_whole("%g0")
        );
    }

    #[test]
    fn quoted_strings_lose_quotes_and_escapes() {
        assert_eq!(unquote(r#""A \"q\" \\""#), r#"A "q" \"#);
        assert_eq!(unquote("plain"), "plain");
        assert_eq!(quoted_end(r#""a\"b" c"#), Some(6));
        assert_eq!(quoted_end(r#""a\""#), None);
    }

    #[test]
    fn numbers_are_digits_in_range() {
        assert_eq!(number("0068", 255), Some(68));
        for wrong in ["", "-1", "+1", "256", "1 ", "18446744073709551616", "１"] {
            assert_eq!(number(wrong, 255), None, "{wrong}");
        }
    }
}
