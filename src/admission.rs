//! Who may call: the packet's source address against the account's ranges. Decided before anything
//! is parsed. An empty list admits nobody; an IPv4-mapped IPv6 address is its IPv4 address.

use crate::account::SipConfig;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// Why a source is admitted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Admission {
    /// It lies in this range of `allowedCidrRanges`, as the customer wrote it.
    Range(Arc<str>),
    /// It is the registrar of this registration: the PBX calls the contact that was registered
    /// there.
    Registration(Arc<str>),
}

impl fmt::Display for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Admission::Range(range) => write!(f, "range {range}"),
            Admission::Registration(name) => write!(f, "registration {name}"),
        }
    }
}

/// The first range in the list's order that holds the source; `None` for a stranger.
pub fn admit(config: &SipConfig, source: IpAddr) -> Option<Admission> {
    let source = source.to_canonical();
    let range = config.allowed_cidr_ranges().iter().find(|range| range.contains(source))?;
    Some(Admission::Range(range.text()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::{SipConfigDocument, compile};

    fn check(ranges: &[&str], source: &str, admission: Option<&str>) {
        let document = SipConfigDocument {
            allowed_cidr_ranges: ranges.iter().map(|range| (*range).to_owned()).collect(),
            ..SipConfigDocument::default()
        };
        let (config, _) = compile(&document).expect("compiles");
        let admitted = admit(&config, source.parse().expect("address"));
        let expected = admission.map(|range| format!("range {range}"));
        assert_eq!(
            admitted.map(|admitted| admitted.to_string()),
            expected,
            "{source} in {ranges:?}"
        );
    }

    #[test]
    fn a_source_is_admitted_by_the_first_range_that_holds_it() {
        check(&[], "203.0.113.5", None);
        check(&["0.0.0.0/0"], "203.0.113.5", Some("0.0.0.0/0"));
        check(&["91.200.160.14/32"], "91.200.160.14", Some("91.200.160.14/32"));
        check(&["91.200.160.14/32"], "91.200.160.15", None);
        let ranges = ["10.0.0.0/8", "203.0.113.0/24", "203.0.113.5/32"];
        check(&ranges, "203.0.113.5", Some("203.0.113.0/24"));
        check(&ranges, "192.0.2.1", None);
    }

    #[test]
    fn a_mapped_address_neither_slips_past_nor_is_shut_out() {
        check(&["10.0.0.0/8"], "::ffff:10.1.2.3", Some("10.0.0.0/8"));
        check(&["::/0"], "::ffff:10.1.2.3", None);
        check(&["::ffff:10.0.0.0/104"], "10.1.2.3", Some("::ffff:10.0.0.0/104"));
        check(&["::/0"], "2001:db8::1", Some("::/0"));
    }
}
