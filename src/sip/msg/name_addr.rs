//! `name-addr` and `addr-spec` with header parameters (RFC 3261 §20.10, §25.1): From, To, Contact,
//! Route, Record-Route, Refer-To and identities. Tolerated: any characters but `" < > , ;` in an
//! unquoted display name. Refused: blanks within `<…>`, and without `<…>` a `?`, `,` or later `@`.

use super::lex::{Params, cut, quoted_end, trim, trim_start, unquote};
use super::uri::Uri;
use std::borrow::Cow;

/// A parsed view of one address with its header parameters.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct NameAddr<'a> {
    text: &'a str,
    display: Option<&'a str>,
    uri: Uri<'a>,
    params: Params<'a>,
}

/// Why a text is not an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadAddress;

impl<'a> NameAddr<'a> {
    /// Reads one address, without a list around it.
    pub fn parse(text: &'a str) -> Result<NameAddr<'a>, BadAddress> {
        let text = trim(text);
        let (display, rest) = read_display(text)?;
        let (uri, params) = match rest.strip_prefix('<') {
            Some(rest) => cut(rest, b'>').ok_or(BadAddress)?,
            None if display.is_some() => return Err(BadAddress),
            None => read_bare(rest)?,
        };
        let uri = Uri::parse(uri).map_err(|_| BadAddress)?;
        let (params, tag) = Params::check(params, &["tag"]).map_err(|_| BadAddress)?;
        if tag.is_some_and(|tag| tag.is_none_or(|tag| tag.starts_with('"'))) {
            return Err(BadAddress);
        }
        Ok(NameAddr { text, display, uri, params })
    }

    /// The display name without quotes and escapes; `None` when there is none or it is empty.
    pub fn display_name(&self) -> Option<Cow<'a, str>> {
        self.display.map(unquote).filter(|name| !name.is_empty())
    }

    pub fn uri(&self) -> Uri<'a> {
        self.uri
    }

    /// The dialog tag, compared byte for byte.
    pub fn tag(&self) -> Option<&'a str> {
        self.params.named("tag").flatten()
    }

    /// A header parameter by its name in any case: `Some(None)` when it has no value; a quoted
    /// value without its quotes.
    pub fn param(&self, name: &str) -> Option<Option<Cow<'a, str>>> {
        self.params.named(name).map(|value| value.map(unquote))
    }

    /// All header parameters in order, quoted values with their quotes.
    pub fn params(&self) -> Params<'a> {
        self.params
    }

    /// The address as received, unfolded.
    pub fn as_str(&self) -> &'a str {
        self.text
    }
}

/// The display name and the rest, which starts with `<` when a display name was there.
fn read_display(text: &str) -> Result<(Option<&str>, &str), BadAddress> {
    if text.starts_with('"') {
        let end = quoted_end(text).ok_or(BadAddress)?;
        let (display, rest) = text.split_at_checked(end).ok_or(BadAddress)?;
        return Ok((Some(display), trim_start(rest)));
    }
    let Some(at) = text.find('<') else {
        return Ok((None, text));
    };
    let (display, rest) = text.split_at_checked(at).ok_or(BadAddress)?;
    let display = trim(display);
    if display.contains(['"', '>', ',', ';']) {
        return Err(BadAddress);
    }
    Ok(((!display.is_empty()).then_some(display), rest))
}

/// Without `<…>` the parameters belong to the header (RFC 3261 §20.10).
fn read_bare(text: &str) -> Result<(&str, &str), BadAddress> {
    let end = text.find([';', ' ', '\t']).unwrap_or(text.len());
    let (uri, params) = text.split_at_checked(end).ok_or(BadAddress)?;
    if uri.contains(['?', ',']) || params.contains('@') {
        return Err(BadAddress);
    }
    Ok((uri, params))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// display | uri | tag, or `refused`
    fn shown(text: &str) -> String {
        NameAddr::parse(text).map_or("refused".into(), |address| {
            let display = address.display_name().unwrap_or("-".into());
            format!("{display}|{}|{}", address.uri().as_str(), address.tag().unwrap_or("-"))
        })
    }

    #[test]
    fn addresses_are_read_or_refused() {
        let cases = [
            ("<sip:a@b>;tag=1", "-|sip:a@b|1"),
            ("sip:a@b;tag=1;x", "-|sip:a@b|1"),
            ("sip:a@b ; TAG = 9", "-|sip:a@b|9"),
            ("caller<sip:a@b>", "caller|sip:a@b|-"),
            ("\"\" <sip:a@b;x=y>", "-|sip:a@b;x=y|-"),
            (
                r#""A \"quoted, <x>;y\" name\\" <sip:a@b>;tag=1;x="a;b,c>""#,
                r#"A "quoted, <x>;y" name\|sip:a@b|1"#,
            ),
            (
                "\"J Rosenberg \\\\\\\"\"       <sip:j@e.com>   ;   tag = 98asjd8",
                "J Rosenberg \\\"|sip:j@e.com|98asjd8",
            ),
            (
                "token1~` token2'+_ token3*%!.- <sip:m@e.com>;tag=_t~1'+`*%!-.",
                "token1~` token2'+_ token3*%!.-|sip:m@e.com|_t~1'+`*%!-.",
            ),
            ("Müller (home) <sip:a@b>", "Müller (home)|sip:a@b|-"),
            (
                "<tel:+15551234567;npdi;rn=+15550001111>;tag=1",
                "-|tel:+15551234567;npdi;rn=+15550001111|1",
            ),
            ("isbn:2983792873", "-|isbn:2983792873|-"),
            ("\"Mr. J. User <sip:j.user@example.com>", "refused"),
            ("\"W\" < sip:t@e.org >", "refused"),
            ("Bell, Alexander <sip:a@b>;tag=43", "refused"),
            ("sip:user@example.com?Route=%3Csip:e.com%3E", "refused"),
            ("sip:u;p=x@h;tag=1", "refused"),
            ("\"A\" sip:a@b", "refused"),
            ("<sip:a@b", "refused"),
            ("<sip:a@b>x", "refused"),
            ("<sip:a@b>;;;;", "refused"),
            ("<sip:a@b>;tag=1;tag=2", "refused"),
            ("<sip:a@b>;tag", "refused"),
            ("<sip:a@b>;tag=", "refused"),
            ("<<sip:a@b>>", "refused"),
            ("*", "refused"),
            ("", "refused"),
        ];
        for (text, expected) in cases {
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    #[test]
    fn quoted_parameters_lose_their_quotes() {
        let address =
            NameAddr::parse(r#"<sip:a@b>;q=0.5;+sip.instance="<urn:x:1>";ob"#).expect("good");
        assert_eq!(address.param("+SIP.instance"), Some(Some("<urn:x:1>".into())));
        assert_eq!(address.param("ob"), Some(None));
        assert_eq!(address.param("expires"), None);
        assert_eq!(address.params().count(), 3);
    }
}
