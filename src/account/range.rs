//! A range of addresses in CIDR form. The one door to `ipnet`. IPv4 as the seed says, IPv6 as our
//! extension; an IPv4-mapped IPv6 address or range is its IPv4 one, so that nothing slips past in
//! the other notation.

use ipnet::{IpNet, Ipv4Net};
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

/// A checked range, with the text that it was written as.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CidrRange {
    text: Arc<str>,
    net: IpNet,
}

/// What is wrong with a range, and how to write it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RangeFault {
    pub problem: String,
    pub fix: String,
}

impl CidrRange {
    /// Reads `<address>/<prefix>`.
    ///
    /// # Errors
    /// No prefix, a prefix out of bounds, bits beyond the prefix, leading zeros, or no address.
    pub fn parse(text: &str) -> Result<CidrRange, RangeFault> {
        let text = text.trim();
        let fault = |problem: String, fix: String| Err(RangeFault { problem, fix });
        let Some((address_text, prefix_text)) = text.split_once('/') else {
            let fix = match text.parse::<IpAddr>() {
                Ok(IpAddr::V4(ip)) => format!("write \"{ip}/32\" for this single address"),
                Ok(IpAddr::V6(ip)) => format!("write \"{ip}/128\" for this single address"),
                Err(_) => "write an address and a prefix, as in \"91.200.160.14/32\"".to_owned(),
            };
            return fault(format!("\"{text}\" has no prefix length"), fix);
        };
        let Ok(address) = address_text.parse::<IpAddr>() else {
            let (problem, fix) = explain_address(address_text, prefix_text);
            return fault(problem, fix);
        };
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let all_digits = prefix_text.bytes().all(|byte| byte.is_ascii_digit());
        let Some(prefix) = prefix_text.parse::<u8>().ok().filter(|p| all_digits && *p <= longest)
        else {
            let problem = format!("\"/{prefix_text}\" is no prefix length of this kind of address");
            return fault(problem, format!("write a number from 0 to {longest} after the slash"));
        };
        let net = IpNet::new(address, prefix).expect("the prefix is within its bounds");
        if net.addr() != net.network() {
            let problem = format!("\"{text}\" has address bits beyond its prefix");
            let fix = format!(
                "write \"{}\" for the whole range, or \"{address}/{longest}\" for the one address",
                net.trunc()
            );
            return fault(problem, fix);
        }
        Ok(CidrRange { text: text.into(), net: canonical(net) })
    }

    /// Whether the range holds the address, in whichever notation it is given.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.net.contains(&address.to_canonical())
    }

    /// True for a range of all addresses of its family.
    pub fn is_everything(&self) -> bool {
        self.net.prefix_len() == 0
    }

    /// The range as it was written.
    pub fn text(&self) -> Arc<str> {
        self.text.clone()
    }
}

impl fmt::Display for CidrRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A range inside `::ffff:0:0/96` as the IPv4 range that it stands for.
fn canonical(net: IpNet) -> IpNet {
    let IpNet::V6(v6) = net else { return net };
    let host_bits = v6.prefix_len().checked_sub(96);
    match (v6.addr().to_ipv4_mapped(), host_bits) {
        (Some(v4), Some(prefix)) => {
            IpNet::V4(Ipv4Net::new(v4, prefix).expect("a prefix of at most 32"))
        }
        _ => net,
    }
}

fn explain_address(address: &str, prefix: &str) -> (String, String) {
    let octets: Vec<&str> = address.split('.').collect();
    let is_number = |octet: &&str| !octet.is_empty() && octet.bytes().all(|b| b.is_ascii_digit());
    let usual = "write an address and a prefix, as in \"91.200.160.14/32\"".to_owned();
    if octets.iter().all(is_number) && octets.len() == 4 {
        let plain = octets.iter().map(|octet| octet.trim_start_matches('0'));
        let plain: Vec<&str> =
            plain.map(|octet| if octet.is_empty() { "0" } else { octet }).collect();
        let plain = plain.join(".");
        if plain.parse::<IpAddr>().is_ok() {
            let problem =
                format!("\"{address}\" has a leading zero, which some programs read as octal");
            return (problem, format!("write \"{plain}/{prefix}\" if decimal is meant"));
        }
        return (format!("\"{address}\" has a part above 255"), usual);
    }
    if octets.iter().all(is_number) && octets.len() < 4 {
        let mut full = octets;
        full.resize(4, "0");
        let full = full.join(".");
        let problem = format!("\"{address}\" has fewer than four parts");
        return (problem, format!("write all four, as in \"{full}/{prefix}\""));
    }
    if address.parse::<Ipv6Addr>().is_err() && address.contains('[') {
        let problem = format!("\"{address}\" has brackets");
        return (problem, "write an IPv6 address without brackets".to_owned());
    }
    (format!("\"{address}\" is no IP address"), usual)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ground::Entropy;
    use std::net::Ipv4Addr;

    #[test]
    fn ranges_hold_their_addresses_in_every_notation() {
        for (range, address, inside) in [
            ("91.200.160.14/32", "91.200.160.14", true),
            ("91.200.160.14/32", "91.200.160.15", false),
            ("91.200.160.14/32", "::ffff:91.200.160.14", true),
            ("::ffff:91.200.160.14/128", "91.200.160.14", true),
            ("::ffff:91.200.160.0/120", "91.200.160.255", true),
            ("::ffff:91.200.160.0/120", "91.200.161.0", false),
            ("0.0.0.0/0", "255.255.255.255", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("0.0.0.0/0", "::ffff:1.2.3.4", true),
            ("::/0", "2001:db8::1", true),
            ("::/0", "1.2.3.4", false),
            ("::/0", "::ffff:1.2.3.4", false),
            ("2001:db8::/32", "2001:db8:ffff::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("10.0.0.0/31", "10.0.0.1", true),
            ("10.0.0.0/31", "10.0.0.2", false),
        ] {
            let range = CidrRange::parse(range).expect(range);
            let address: IpAddr = address.parse().expect("address");
            assert_eq!(range.contains(address), inside, "{address} in {range}");
        }
    }

    #[test]
    fn a_wrong_range_is_refused_with_its_fix() {
        for (text, problem, fix) in [
            ("91.200.160.14", "no prefix", "\"91.200.160.14/32\""),
            ("2001:db8::1", "no prefix", "\"2001:db8::1/128\""),
            ("91.200.160.14/24", "bits beyond", "\"91.200.160.0/24\""),
            ("2001:db8::1/32", "bits beyond", "\"2001:db8::/32\""),
            ("010.0.0.0/8", "octal", "\"10.0.0.0/8\""),
            ("10.0.0.0/33", "prefix length", "0 to 32"),
            ("10.0.0.0/-1", "prefix length", "0 to 32"),
            ("10.0.0.0/+8", "prefix length", "0 to 32"),
            ("10.0.0.0/", "prefix length", "0 to 32"),
            ("::/129", "prefix length", "0 to 128"),
            ("10.0.0.0/255.0.0.0", "prefix length", "0 to 32"),
            ("10.0.0/24", "fewer than four", "\"10.0.0.0/24\""),
            ("10.0.0.256/32", "above 255", "91.200.160.14/32"),
            ("[2001:db8::1]/128", "brackets", "without brackets"),
            ("pbx.example/32", "no IP address", "91.200.160.14/32"),
            ("", "no prefix", "91.200.160.14/32"),
        ] {
            let fault = CidrRange::parse(text).expect_err(text);
            assert!(
                fault.problem.contains(problem) && fault.fix.contains(fix),
                "{text}: {fault:?}"
            );
        }
    }

    /// Bit by bit, with no word of the code above.
    fn holds(network: u32, prefix: u32, address: u32) -> bool {
        (0..prefix).all(|bit| network >> (31 - bit) & 1 == address >> (31 - bit) & 1)
    }

    #[test]
    fn a_million_random_pairs_agree_with_a_naive_reading() {
        let mut entropy = Entropy::from_number(4632);
        let mut inside = 0;
        for _ in 0..10_000 {
            let prefix = entropy.below(33) as u32;
            let kept = u32::MAX.checked_shl(32 - prefix).unwrap_or(0);
            let network = entropy.u32() & kept;
            let mapped = prefix.is_multiple_of(2);
            let text = match mapped {
                true => format!("::ffff:{}/{}", Ipv4Addr::from(network), prefix + 96),
                false => format!("{}/{prefix}", Ipv4Addr::from(network)),
            };
            let range = CidrRange::parse(&text).expect("well written");
            for round in 0..100 {
                // Half of the addresses differ from the network in one late bit.
                let flip = 1_u32 << entropy.below(32);
                let address = if round % 2 == 0 { network ^ flip } else { entropy.u32() };
                let expected = holds(network, prefix, address);
                let v4 = Ipv4Addr::from(address);
                let ip =
                    if round % 3 == 0 { IpAddr::V6(v4.to_ipv6_mapped()) } else { IpAddr::V4(v4) };
                assert_eq!(range.contains(ip), expected, "{ip} in {text}");
                inside += u32::from(expected);
            }
        }
        assert!((100_000..900_000).contains(&inside), "{inside}");
    }
}
