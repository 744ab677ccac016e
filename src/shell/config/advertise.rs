//! The addresses that we give out, where they are not those that sockets are bound to: behind NAT, or
//! where a name is better. One for each address family, for all listeners or for single ones, in SIP
//! and in session descriptions.

use super::problem::Report;
use super::reader::{Found, Section};
use super::sections::is_host;
use std::net::{IpAddr, SocketAddr};

/// What is given out: a name, which speaks for both families, or an address of each.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Advertised {
    pub name: Option<String>,
    pub v4: Option<IpAddr>,
    pub v6: Option<IpAddr>,
}

impl Advertised {
    pub fn is_empty(&self) -> bool {
        *self == Advertised::default()
    }

    /// The address of a family.
    pub fn address(&self, v4: bool) -> Option<IpAddr> {
        if v4 { self.v4 } else { self.v6 }
    }

    /// The host of a family: its address, else the name.
    pub fn host(&self, v4: bool) -> Option<String> {
        self.address(v4).map(|address| address.to_string()).or(self.name.clone())
    }

    /// The host for where only one can stand.
    pub fn any_host(&self) -> Option<String> {
        self.name.clone().or_else(|| self.host(true)).or_else(|| self.host(false))
    }

    /// Takes one more; the words say why not.
    fn add(&mut self, host: &str) -> Result<(), String> {
        let Ok(address) = host.parse::<IpAddr>() else {
            if self.name.replace(host.to_owned()).is_some() {
                return Err("names a second name".to_owned());
            }
            return Ok(());
        };
        if address.is_unspecified() || address.is_multicast() {
            return Err(format!("{address} cannot be given to a peer"));
        }
        let (place, family) = match address {
            IpAddr::V4(_) => (&mut self.v4, "IPv4"),
            IpAddr::V6(_) => (&mut self.v6, "IPv6"),
        };
        match place.replace(address) {
            Some(_) => Err(format!("has a second {family} address")),
            None => Ok(()),
        }
    }
}

/// One listener with an address of its own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListenerAdvertised {
    /// As it stands in `[listen]`.
    pub listen: SocketAddr,
    /// For Contact, and for session descriptions of its calls when it is an address.
    pub advertise: Advertised,
}

impl ListenerAdvertised {
    /// Whether a socket bound to this address is the listener's.
    pub fn is(&self, bound: SocketAddr) -> bool {
        let any_port = self.listen.port() == 0;
        self.listen.ip() == bound.ip() && (any_port || self.listen.port() == bound.port())
    }
}

/// Reads `advertise`: one host, or one for each address family.
pub(super) fn read(section: &mut Section<'_>, names: bool, report: &mut Report) -> Advertised {
    let mut advertised = Advertised::default();
    let path = section.path("advertise");
    for found in section.text_or_texts("advertise", report) {
        if !is_host(&found.value) || !names && found.value.parse::<IpAddr>().is_err() {
            let (what, fix) = match names {
                true => ("host", "give an address or a name without a port"),
                false => ("IP address", "write the address alone; names and ports do not go here"),
            };
            let what = format!("\"{}\" is no {what}", found.value);
            report.error(&found.span, &path, what, format!("{fix}: advertise = \"203.0.113.5\""));
        } else if let Err(what) = advertised.add(&found.value) {
            let fix = "give one address for each family, such as \
                       [\"203.0.113.5\", \"2001:db8::5\"], that peers reach";
            report.error(&found.span, &path, what, fix.to_owned());
        }
    }
    advertised
}

/// Reads `[[listen.listeners]]`; `heard` are the addresses of `[listen]`.
pub(super) fn read_listeners(
    section: &mut Section<'_>,
    heard: &[SocketAddr],
    report: &mut Report,
) -> Vec<ListenerAdvertised> {
    let mut listeners: Vec<ListenerAdvertised> = Vec::new();
    for mut entry in section.sections("listeners", report) {
        let text = entry.text("listen", report);
        let advertise = read(&mut entry, true, report);
        entry.finish(report);
        if advertise.is_empty() && entry.key_span("advertise").is_none() {
            let fix = "add advertise = \"203.0.113.5\"".to_owned();
            report.error(entry.span(), &entry.path("advertise"), "is missing".to_owned(), fix);
        }
        let Some(found) = known_listener(text, &entry, heard, report) else { continue };
        if listeners.iter().any(|other| other.listen == found.value) {
            let what = format!("names {} a second time", found.value);
            report.error(&found.span, &entry.path("listen"), what, "remove one".to_owned());
        }
        listeners.push(ListenerAdvertised { listen: found.value, advertise });
    }
    listeners
}

/// The address of an entry, as `[listen]` has it.
fn known_listener(
    text: Option<Found<String>>,
    entry: &Section<'_>,
    heard: &[SocketAddr],
    report: &mut Report,
) -> Option<Found<SocketAddr>> {
    let path = entry.path("listen");
    let Some(text) = text else {
        if entry.key_span("listen").is_none() {
            let fix = "add listen = \"0.0.0.0:5060\", as it stands under [listen]".to_owned();
            report.error(entry.span(), &path, "is missing".to_owned(), fix);
        }
        return None;
    };
    let known = text.value.parse().ok().filter(|address| heard.contains(address));
    let Some(address) = known else {
        let what = format!("\"{}\" is no address of [listen]", text.value);
        let fix = "write it as udp, tcp or tls under [listen] have it".to_owned();
        report.error(&text.span, &path, what, fix);
        return None;
    };
    Some(Found { value: address, span: text.span })
}

#[cfg(test)]
mod tests {
    use super::super::{Config, Machine, read as read_file};
    use std::path::Path;

    fn config(listen: &str, rest: &str) -> (Option<Config>, String) {
        let text = format!(
            "[listen]\nudp = [\"0.0.0.0:5060\", \"[::]:5060\"]\n{listen}\n\
             [ultravox]\nbase_url = \"embedded\"\n[sip]\nallowed_cidr_ranges = [\"127.0.0.0/8\"]\n\
             allow_all_agents = true\n[admin]\napi_key = \"k\"\n{rest}"
        );
        let machine = Machine { ephemeral: None, ..Machine::this() };
        let (config, report) = read_file("f.toml", &text, Path::new(""), &machine);
        (config, report.to_string())
    }

    #[test]
    fn each_family_has_its_address_and_a_name_speaks_for_both() {
        for (listen, v4, v6, any) in [
            ("advertise = \"203.0.113.5\"", Some("203.0.113.5"), None, "203.0.113.5"),
            (
                "advertise = [\"2001:db8::5\", \"203.0.113.5\"]",
                Some("203.0.113.5"),
                Some("2001:db8::5"),
                "203.0.113.5",
            ),
            (
                "advertise = [\"sip.example.com\", \"203.0.113.5\"]",
                Some("203.0.113.5"),
                Some("sip.example.com"),
                "sip.example.com",
            ),
        ] {
            let (config, report) = config(listen, "");
            let advertise = config.unwrap_or_else(|| panic!("{report}")).listen.advertise;
            let hosts = [true, false].map(|v4| advertise.host(v4));
            assert_eq!(hosts.each_ref().map(Option::as_deref), [v4, v6], "{listen}");
            assert_eq!(advertise.any_host().as_deref(), Some(any));
        }
    }

    #[test]
    fn media_takes_the_addresses_of_the_listeners_unless_it_has_its_own() {
        let both = "advertise = [\"203.0.113.5\", \"2001:db8::5\"]";
        for (rest, addresses) in [
            ("", ["203.0.113.5", "2001:db8::5"]),
            ("[media]\nadvertise = \"198.51.100.9\"", ["198.51.100.9", "2001:db8::5"]),
            (
                "[media]\nadvertise = [\"2001:db8::9\", \"198.51.100.9\"]",
                ["198.51.100.9", "2001:db8::9"],
            ),
        ] {
            let (config, report) = config(both, rest);
            let media = config.unwrap_or_else(|| panic!("{report}")).media;
            let shown = [true, false].map(|v4| media.advertise.host(v4).unwrap_or_default());
            assert_eq!(shown, addresses, "{rest}");
        }
    }

    #[test]
    fn each_problem_is_told() {
        let listener =
            |lines: &str| format!("advertise = \"203.0.113.5\"\n[[listen.listeners]]\n{lines}");
        for (listen, rest, words) in [
            ("advertise = [\"203.0.113.5\", \"203.0.113.6\"]", "", "has a second IPv4 address"),
            ("advertise = [\"a.example\", \"b.example\"]", "", "names a second name"),
            ("advertise = \"0.0.0.0\"", "", "0.0.0.0 cannot be given to a peer"),
            ("advertise = \"a.example:5060\"", "", "\"a.example:5060\" is no host"),
            ("advertise = 5", "", "must be a text or a list of texts"),
            (
                "advertise = \"203.0.113.5\"",
                "[media]\nadvertise = \"media.example\"",
                "media.advertise: \"media.example\" is no IP address",
            ),
            (
                "advertise = \"203.0.113.5\"",
                "[media]\naddress = [\"192.0.2.1\", \"192.0.2.2\"]",
                "media.address: has a second IPv4 address",
            ),
            (
                &listener("listen = \"0.0.0.0:5062\"\nadvertise = \"198.51.100.1\""),
                "",
                "listen.listeners[0].listen: \"0.0.0.0:5062\" is no address of [listen]",
            ),
            (
                &listener("advertise = \"198.51.100.1\""),
                "",
                "listen.listeners[0].listen: is missing",
            ),
            (
                &listener("listen = \"0.0.0.0:5060\""),
                "",
                "listen.listeners[0].advertise: is missing",
            ),
            (
                &listener(
                    "listen = \"0.0.0.0:5060\"\nadvertise = \"198.51.100.1\"\n[[listen.listeners]]\n\
                     listen = \"0.0.0.0:5060\"\nadvertise = \"198.51.100.2\"",
                ),
                "",
                "names 0.0.0.0:5060 a second time",
            ),
        ] {
            let (config, report) = config(listen, rest);
            assert!(report.contains(words), "{words} in\n{report}");
            assert!(config.is_none(), "{listen} {rest}");
        }
    }
}
