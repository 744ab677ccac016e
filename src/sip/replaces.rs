//! The Replaces header (RFC 3891 §6.1): the dialog that an INVITE is to take over. Names and text
//! only: which session is meant, and whether it may be taken, is the user agent's to decide.

use super::msg::Params;
use std::fmt;

/// A dialog as its holder is asked for it: `to_tag` is the holder's own tag.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Replaces {
    pub call_id: String,
    pub to_tag: String,
    pub from_tag: String,
    /// Only while it is not answered.
    pub early_only: bool,
}

/// Not the value of a Replaces header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadReplaces;

impl Replaces {
    /// Reads the value of the header: a Call-ID and both tags, each once.
    ///
    /// # Errors
    /// [`BadReplaces`] when one of them is missing, empty or there twice.
    pub fn parse(value: &str) -> Result<Replaces, BadReplaces> {
        let value = value.trim();
        let at = value.find(';').ok_or(BadReplaces)?;
        let (call_id, params) = value.split_at_checked(at).ok_or(BadReplaces)?;
        let call_id = call_id.trim_end();
        if call_id.is_empty() || !call_id.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(BadReplaces);
        }
        let mut read = Replaces {
            call_id: call_id.to_owned(),
            to_tag: String::new(),
            from_tag: String::new(),
            early_only: false,
        };
        for (name, value) in Params::new(params) {
            let tag = match name.to_ascii_lowercase().as_str() {
                "to-tag" => &mut read.to_tag,
                "from-tag" => &mut read.from_tag,
                "early-only" => {
                    read.early_only = true;
                    continue;
                }
                _ => continue,
            };
            let value = value.filter(|value| !value.is_empty()).ok_or(BadReplaces)?;
            if !tag.is_empty() {
                return Err(BadReplaces);
            }
            value.clone_into(tag);
        }
        if read.to_tag.is_empty() || read.from_tag.is_empty() { Err(BadReplaces) } else { Ok(read) }
    }

    /// True when the Call-ID can stand in the header: a `;` in it would begin the parameters.
    pub fn is_writable(&self) -> bool {
        !self.call_id.contains([';', ','])
    }
}

impl fmt::Display for Replaces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Replaces { call_id, to_tag, from_tag, early_only } = self;
        write!(f, "{call_id};to-tag={to_tag};from-tag={from_tag}")?;
        if *early_only { f.write_str(";early-only") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_and_written_or_refused() {
        let cases = [
            ("a@b;to-tag=1;from-tag=2", Some("a@b;to-tag=1;from-tag=2")),
            ("a@b ; From-Tag=2;x=y; TO-TAG=1", Some("a@b;to-tag=1;from-tag=2")),
            ("a;early-only;to-tag=1;from-tag=2", Some("a;to-tag=1;from-tag=2;early-only")),
            ("a;to-tag=1;from-tag=0", Some("a;to-tag=1;from-tag=0")),
            ("a", None),
            (";to-tag=1;from-tag=2", None),
            ("a;to-tag=1", None),
            ("a;from-tag=1", None),
            ("a;to-tag=;from-tag=2", None),
            ("a;to-tag;from-tag=2", None),
            ("a;to-tag=1;to-tag=1;from-tag=2", None),
            ("a b;to-tag=1;from-tag=2", None),
        ];
        for (value, expected) in cases {
            let read = Replaces::parse(value).ok().map(|read| read.to_string());
            assert_eq!(read.as_deref(), expected, "{value}");
        }
        let odd = Replaces { call_id: "a;b".into(), ..Replaces::parse(cases[0].0).expect("good") };
        assert!(!odd.is_writable());
    }
}
