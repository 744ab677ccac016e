//! Whom a certificate is made out to, by the rules of SIP (RFC 5922 §7): its `sip:` URIs without a
//! user; else, when there is none, its DNS names. Literal addresses match IP entries. Wildcards match
//! nothing unless they were allowed, and a common name never does. Trust is judged elsewhere.

use super::element;
use crate::sip::target::TargetHost;
use std::fmt;
use std::net::IpAddr;

/// The names in one certificate.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Identities {
    /// Hosts of `sip:` URIs.
    sip: Vec<String>,
    dns: Vec<String>,
    addresses: Vec<IpAddr>,
}

/// The certificate is made out to others.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct OtherIdentity {
    wanted: String,
    found: Vec<String>,
}

/// Names that are told of a certificate that has many.
const TOLD_MAX: usize = 4;

impl fmt::Display for OtherIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.found.as_slice() {
            [] => write!(f, "the certificate names no host; wanted is {}", self.wanted),
            found => {
                let told: Vec<&str> = found.iter().take(TOLD_MAX).map(String::as_str).collect();
                let more = if found.len() > TOLD_MAX { ", …" } else { "" };
                let (told, wanted) = (told.join(", "), &self.wanted);
                write!(f, "the certificate is made out to {told}{more}, not to {wanted}")
            }
        }
    }
}

impl std::error::Error for OtherIdentity {}

impl Identities {
    /// Reads a certificate (RFC 5280 §4.1, §4.2.1.6); `None` when it is none.
    pub fn of(certificate: &[u8]) -> Option<Identities> {
        const VERSION: u8 = 0xa0;
        const EXTENSIONS: u8 = 0xa3;
        let (_, certificate, _) = element(certificate)?;
        let (_, mut body, _) = element(certificate)?;
        if body.first() == Some(&VERSION) {
            body = element(body)?.2;
        }
        for _serial_signature_issuer_validity_subject_key in 0..6 {
            body = element(body)?.2;
        }
        let (mut names, mut rest) = (Identities::default(), body);
        while let Some((tag, content, after)) = element(rest) {
            if tag == EXTENSIONS {
                names.read_extensions(element(content)?.1);
            }
            rest = after;
        }
        Some(names)
    }

    /// Whether the certificate is made out to `host`.
    pub fn check(&self, host: &TargetHost, wildcards: bool) -> Result<(), OtherIdentity> {
        let names = if self.sip.is_empty() { &self.dns } else { &self.sip };
        let (wanted, holds) = match host {
            TargetHost::Address(address) => {
                let named = self.sip.iter().any(|name| name.parse() == Ok(*address));
                (address.to_string(), named || self.addresses.contains(address))
            }
            TargetHost::Name(host) => {
                let matches = |name: &String| {
                    same_name(name, host) || wildcards && matches_wildcard(name, host)
                };
                (host.clone(), names.iter().any(matches))
            }
        };
        match holds {
            true => Ok(()),
            false => {
                let addresses = self.addresses.iter().map(IpAddr::to_string);
                let found = names.iter().cloned().chain(addresses).collect();
                Err(OtherIdentity { wanted, found })
            }
        }
    }

    fn read_extensions(&mut self, mut extensions: &[u8]) {
        const SUBJECT_ALT_NAME: [u8; 3] = [0x55, 0x1d, 0x11];
        const OCTET_STRING: u8 = 0x04;
        while let Some((_, extension, after)) = element(extensions) {
            extensions = after;
            let Some((_, id, mut rest)) = element(extension) else { continue };
            while let Some((tag, content, after)) = element(rest) {
                if tag == OCTET_STRING && id == SUBJECT_ALT_NAME {
                    self.read_names(element(content).map_or(&[], |(_, names, _)| names));
                }
                rest = after;
            }
        }
    }

    fn read_names(&mut self, mut names: &[u8]) {
        const DNS: u8 = 0x82;
        const URI: u8 = 0x86;
        const ADDRESS: u8 = 0x87;
        while let Some((tag, name, after)) = element(names) {
            names = after;
            match tag {
                DNS => self.dns.extend(printable(name)),
                URI => self.sip.extend(printable(name).as_deref().and_then(domain_of_uri)),
                ADDRESS => self.addresses.extend(address_of(name)),
                _ => {}
            }
        }
    }
}

/// The host of `sip:host`; a URI of another scheme or with a user names no domain (§7.1).
fn domain_of_uri(uri: &str) -> Option<String> {
    let (scheme, rest) = uri.split_once(':')?;
    if !scheme.eq_ignore_ascii_case("sip") || rest.contains('@') {
        return None;
    }
    let host = rest.split([';', '?']).next()?;
    let host = match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next()?,
        None => host.split(':').next()?,
    };
    (!host.is_empty()).then(|| host.to_owned())
}

fn address_of(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from);
    v4.or_else(|| <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from))
}

/// A name that can be compared; one with a NUL or other oddities is not read.
fn printable(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?;
    (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())).then(|| text.to_owned())
}

fn same_name(name: &str, host: &str) -> bool {
    name.trim_end_matches('.').eq_ignore_ascii_case(host)
}

/// `*.example.com` for one label in the place of the star, below a domain of two labels or more.
fn matches_wildcard(name: &str, host: &str) -> bool {
    let Some(domain) = name.strip_prefix("*.") else { return false };
    let Some((label, rest)) = host.split_once('.') else { return false };
    !label.is_empty() && domain.contains('.') && same_name(domain, rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    fn certificate(common_name: &str, alternatives: &[&str]) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        if !common_name.is_empty() {
            params.distinguished_name.push(DnType::CommonName, common_name);
        }
        params.subject_alt_names = alternatives
            .iter()
            .map(|text| match text.split_once('=').expect("kind=value") {
                ("uri", uri) => SanType::URI(uri.try_into().expect("ASCII")),
                ("ip", address) => SanType::IpAddress(address.parse().expect("an address")),
                (_, name) => SanType::DnsName(name.try_into().expect("ASCII")),
            })
            .collect();
        let key = KeyPair::generate().expect("a key");
        params.self_signed(&key).expect("a certificate").der().to_vec()
    }

    fn host(text: &str) -> TargetHost {
        match text.parse() {
            Ok(address) => TargetHost::Address(address),
            Err(_) => TargetHost::Name(text.to_owned()),
        }
    }

    /// Whether `wanted` is named, without and with wildcards.
    #[track_caller]
    fn check(common_name: &str, alternatives: &[&str], wanted: &str, holds: (bool, bool)) {
        let names = Identities::of(&certificate(common_name, alternatives)).expect("it is read");
        let check = |wildcards| names.check(&host(wanted), wildcards).is_ok();
        assert_eq!((check(false), check(true)), holds, "{wanted} in {names:?}");
    }

    const YES: (bool, bool) = (true, true);
    const NO: (bool, bool) = (false, false);

    #[test]
    fn sip_uris_come_before_names_and_a_common_name_is_none() {
        check("x", &["dns=pbx.example"], "pbx.example", YES);
        check("x", &["dns=PBX.example"], "pbx.example", YES);
        check("x", &["dns=a.example", "dns=b.example"], "b.example", YES);
        check("x", &["uri=sip:pbx.example"], "pbx.example", YES);
        check("x", &["uri=SIP:pbx.example:5061;x=y"], "pbx.example", YES);
        check("x", &["uri=sip:pbx.example", "dns=host.example"], "host.example", NO);
        check("x", &["uri=sips:pbx.example", "dns=host.example"], "host.example", YES);
        check("x", &["uri=sips:pbx.example"], "pbx.example", NO);
        check("x", &["uri=sip:alice@pbx.example"], "pbx.example", NO);
        check("x", &["uri=https://pbx.example/"], "pbx.example", NO);
        check("pbx.example", &[], "pbx.example", NO);
        check("pbx.example", &["dns=host.example"], "pbx.example", NO);
        check("pbx.example", &["ip=192.0.2.1"], "pbx.example", NO);
        check("", &[], "pbx.example", NO);
    }

    #[test]
    fn literal_addresses_match_addresses() {
        check("x", &["ip=192.0.2.1"], "192.0.2.1", YES);
        check("x", &["ip=2001:db8::1"], "2001:db8::1", YES);
        check("x", &["ip=192.0.2.1"], "192.0.2.2", NO);
        check("x", &["uri=sip:192.0.2.1"], "192.0.2.1", YES);
        check("x", &["uri=sip:[2001:db8::1]:5061"], "2001:db8::1", YES);
        check("x", &["dns=192.0.2.1"], "192.0.2.1", NO);
        check("192.0.2.1", &[], "192.0.2.1", NO);
    }

    #[test]
    fn wildcards_match_one_label_and_only_when_allowed() {
        check("x", &["dns=*.example.com"], "a.example.com", (false, true));
        check("x", &["dns=*.example.com"], "a.b.example.com", NO);
        check("x", &["dns=*.example.com"], "example.com", NO);
        check("x", &["dns=*.com"], "example.com", NO);
        check("x", &["dns=a*.example.com"], "ab.example.com", NO);
    }

    #[test]
    fn a_refusal_says_what_was_found_and_what_was_wanted() {
        let said = |common_name, alternatives: &[&str]| {
            let names = Identities::of(&certificate(common_name, alternatives)).expect("read");
            names.check(&host("pbx.example"), false).expect_err("it is another's").to_string()
        };
        let words = "the certificate is made out to a.example, 192.0.2.1, not to pbx.example";
        assert_eq!(said("x", &["dns=a.example", "ip=192.0.2.1"]), words);
        assert_eq!(said("", &[]), "the certificate names no host; wanted is pbx.example");
        let many: Vec<String> = (0..9).map(|n| format!("dns=h{n}.example")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert!(said("x", &many).contains("h3.example, …, not to"));
    }

    #[test]
    fn junk_is_no_certificate_and_no_cut_makes_it_panic() {
        let whole = certificate("x", &["uri=sip:a", "dns=b", "ip=::1"]);
        for len in 0..whole.len() {
            let _ = Identities::of(&whole[..len]);
            let mut torn = whole.clone();
            torn[len] = torn[len].wrapping_add(0x55);
            let _ = Identities::of(&torn);
        }
        assert_eq!(Identities::of(b"junk"), None);
    }
}
