//! From the configuration file's words to the Switchboard's settings.

use crate::call::settings::HandSettings;
use crate::call::sound::Sounds;
use crate::call::{CallSettings, MediaAddress};
use crate::ground::{Transport, limits};
use crate::media::sound::{self, Ringback};
use crate::refusal::RefusalPolicy;
use crate::shell::clock::Clock;
use crate::shell::config::{Advertised, Config};
use crate::sip::transaction::Timing;
use crate::sip::ua::UaConfig;
use crate::switchboard::Settings;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

/// The Switchboard's settings; `bound` are the listeners with their real addresses.
pub fn of(config: &Config, bound: &[(Transport, SocketAddr)]) -> Settings {
    let (media_v4, media_v6) = media_addresses(config, bound);
    Settings {
        ua: ua(config, bound),
        call: CallSettings {
            codecs: config.media.codecs.clone(),
            opus_output_hz: config.media.opus_output_hz,
            ptime_ms: config.media.ptime_ms,
            extended: config.media.rtcp_xr,
            silence_suppression: config.media.silence_suppression,
            srtp: Arc::new(config.srtp.clone()),
            setup: limits::SETUP,
            rtp_timeout: config.limits.rtp_timeout,
            rtcp_only_max: config.limits.rtcp_only_max,
            hold_max: config.limits.hold_max,
            jitter: config.media.jitter,
            refusals: RefusalPolicy { no_match_status: config.sip.no_match_status },
            hands: Arc::new(HandSettings { sounds: sounds(), ..config.hands.clone() }),
        },
        media_v4,
        media_v6,
        advertised: listeners_advertised(config, bound),
        own_addresses: own_addresses(bound),
        ports: (*config.media.ports.start(), *config.media.ports.end()),
        calls_max: config.limits.calls_max,
        creations: config.ultravox.creations,
        outgoing: Arc::new(config.outgoing.clone()),
        warn_agent: config.sip.account.domain().to_owned(),
        epoch_s: u32::try_from(Clock::now().wall.unix_micros() / 1_000_000).unwrap_or(u32::MAX),
    }
}

/// The daemon's own sounds, made once.
fn sounds() -> Sounds {
    Sounds {
        hold: Some(sound::hold_music()),
        ringback: Some(sound::ringback(Ringback::default())),
        lost: Some(sound::lost_agent()),
    }
}

fn ua(config: &Config, bound: &[(Transport, SocketAddr)]) -> UaConfig {
    let contact = |address: &SocketAddr| {
        let own = config.listen.listeners.iter().find(|listener| listener.is(*address));
        let own = own.and_then(|listener| listener.advertise.host(address.is_ipv4()));
        let advertise = own.or_else(|| config.listen.advertise.host(address.is_ipv4()));
        let host = match (advertise, address.ip().is_unspecified()) {
            (Some(host), _) => bracketed(&host),
            (None, true) => bracketed(&primary_address(address.is_ipv4()).to_string()),
            (None, false) => bracketed(&address.ip().to_string()),
        };
        format!("{host}:{}", address.port())
    };
    UaConfig {
        contacts: bound.iter().map(|(kind, at)| ((*kind, *at), contact(at))).collect(),
        advertise_v4: config.listen.advertise.host(true).as_deref().map(bracketed),
        advertise_v6: config.listen.advertise.host(false).as_deref().map(bracketed),
        domain: Some(config.sip.account.domain().to_owned()),
        early_calls_per_source_max: config.limits.early_calls_per_source_max,
        session_interval: config.limits.session_interval,
        timing: timing(),
        ..UaConfig::default()
    }
}

/// RFC 3261's timers. Tests over real sockets shorten T1 through the environment, since they
/// cannot wait 32 s for each lost ACK; no configuration key does.
fn timing() -> Timing {
    let t1 = std::env::var("VOXEDGE_TEST_T1_MS").ok().and_then(|text| text.parse().ok());
    t1.map(Duration::from_millis).map_or_else(Timing::default, |t1| Timing {
        t1,
        t2: t1 * 8,
        t4: t1 * 10,
    })
}

/// Each address of `media.address` serves its own family. Another family is served where SIP is heard
/// in it, on the listener's address.
fn media_addresses(
    config: &Config,
    bound: &[(Transport, SocketAddr)],
) -> (Option<MediaAddress>, Option<MediaAddress>) {
    let of_family = |v4: bool| {
        let listener = bound.iter().map(|(_, address)| address.ip()).find(|ip| ip.is_ipv4() == v4);
        let configured = if v4 { config.media.bind.v4 } else { config.media.bind.v6 };
        let advertise = config.media.advertise.address(v4);
        configured.or(listener).map(|bind| MediaAddress {
            bind,
            advertise: advertise.unwrap_or_else(|| match bind.is_unspecified() {
                true => heard_address(bound, v4),
                false => bind,
            }),
        })
    };
    (of_family(true), of_family(false))
}

/// Where peers find us in this family when nobody says it: where SIP is heard, before loopback; the
/// machine's main address when it is heard on every address, or nowhere.
fn heard_address(bound: &[(Transport, SocketAddr)], v4: bool) -> IpAddr {
    let own = || bound.iter().map(|(_, at)| at.ip()).filter(|ip| ip.is_ipv4() == v4);
    match own().any(|ip| ip.is_unspecified()) {
        true => primary_address(v4),
        false => {
            let outside = own().find(|ip| !ip.is_loopback());
            outside.or_else(|| own().next()).unwrap_or_else(|| primary_address(v4))
        }
    }
}

/// What the descriptions of one listener's calls say, where it has addresses of its own: those that it
/// was given, else the one that it is bound to, when no address is given out for all and media is heard
/// on every address.
fn listeners_advertised(
    config: &Config,
    bound: &[(Transport, SocketAddr)],
) -> Vec<(SocketAddr, IpAddr)> {
    let mut advertised = Vec::new();
    for (_, address) in bound {
        let own = config.listen.listeners.iter().find(|listener| listener.is(*address));
        if let Some(Advertised { v4, v6, .. }) = own.map(|own| &own.advertise) {
            advertised.extend([v4, v6].into_iter().flatten().map(|given| (*address, *given)));
            continue;
        }
        let (ip, v4) = (address.ip(), address.is_ipv4());
        let bind = if v4 { config.media.bind.v4 } else { config.media.bind.v6 };
        let open = bind.is_some_and(|bind| bind.is_unspecified());
        if open && !ip.is_unspecified() && config.media.advertise.address(v4).is_none() {
            advertised.push((*address, ip));
        }
    }
    advertised
}

/// Where this machine is reached, as far as it tells: its listeners, and its main addresses.
fn own_addresses(bound: &[(Transport, SocketAddr)]) -> Vec<IpAddr> {
    let listeners = bound.iter().map(|(_, address)| address.ip());
    listeners.chain([true, false].map(primary_address)).collect()
}

fn bracketed(host: &str) -> String {
    match host.parse::<Ipv6Addr>() {
        Ok(address) => format!("[{address}]"),
        Err(_) => host.to_owned(),
    }
}

/// The address that the kernel would send from towards the internet; no packet is sent (the target
/// is a documentation address). Loopback when there is no route.
pub fn primary_address(v4: bool) -> IpAddr {
    let (any, target): (IpAddr, IpAddr) = match v4 {
        true => (Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::new(192, 0, 2, 1).into()),
        false => {
            (Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into())
        }
    };
    let probe = UdpSocket::bind(SocketAddr::new(any, 0))
        .and_then(|socket| socket.connect(SocketAddr::new(target, 9)).map(|()| socket))
        .and_then(|socket| socket.local_addr());
    match (probe, v4) {
        (Ok(address), _) => address.ip(),
        (Err(_), true) => Ipv4Addr::LOCALHOST.into(),
        (Err(_), false) => Ipv6Addr::LOCALHOST.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ground::{Flow, FlowId};
    use crate::shell::config::{self, Machine};
    use std::path::Path;

    const CONFIG: &str = r#"
[listen]
udp = ["0.0.0.0:5060", "[::]:5060", "10.0.0.5:5070"]
advertise = ["203.0.113.5", "2001:db8::5"]
[[listen.listeners]]
listen = "10.0.0.5:5070"
advertise = "198.51.100.5"
[media]
address = ["127.0.0.1", "::1"]
[ultravox]
base_url = "embedded"
[sip]
domain = "localhost"
allowed_cidr_ranges = ["127.0.0.0/8"]
allow_all_agents = true
[admin]
api_key = "k"
"#;

    #[test]
    fn each_family_and_each_listener_gives_out_its_own_address() {
        let machine = Machine { ephemeral: None, ..Machine::this() };
        let (config, report) = config::read("f.toml", CONFIG, Path::new(""), &machine);
        let config = config.unwrap_or_else(|| panic!("{report}"));
        let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        let bound = ["0.0.0.0:5060", "[::]:5060", "10.0.0.5:5070"]
            .map(|text| (Transport::Udp, address(text)));
        let settings = of(&config, &bound);
        for (local, contact) in [
            ("192.0.2.1:5060", "203.0.113.5:5060"),
            ("[2001:db8::1]:5060", "[2001:db8::5]:5060"),
            ("10.0.0.5:5070", "198.51.100.5:5070"),
            ("10.0.0.5:40000", "203.0.113.5:40000"),
        ] {
            let local = address(local);
            let flow = Flow { id: FlowId(1), transport: Transport::Udp, local, peer: local };
            assert_eq!(settings.ua.advertised(&flow), contact);
        }
        let media = |bind, advertise| Some(MediaAddress { bind, advertise });
        assert_eq!(settings.media_v4, media(ip("127.0.0.1"), ip("203.0.113.5")));
        assert_eq!(settings.media_v6, media(ip("::1"), ip("2001:db8::5")));
        assert_eq!(settings.advertised, [(address("10.0.0.5:5070"), ip("198.51.100.5"))]);
    }

    /// A machine in several networks, or without a way to the internet: what it calls its main address
    /// is not where a PBX of its own network finds it.
    #[test]
    fn without_a_word_of_the_operator_media_is_where_sip_is_heard() {
        let text = CONFIG.replace("advertise", "#").replace("[[listen.listeners]]\nlisten", "#");
        let text = text.replace("address = [\"127.0.0.1\", \"::1\"]", "");
        let machine = Machine { ephemeral: None, ..Machine::this() };
        let (config, report) = config::read("f.toml", &text, Path::new(""), &machine);
        let config = config.unwrap_or_else(|| panic!("{report}"));
        let main = primary_address(true).to_string();
        let cases: [(&[&str], &str, &[&str]); 4] = [
            (&["10.0.0.5:5060"], "10.0.0.5", &["10.0.0.5"]),
            (&["127.0.0.1:5060", "10.0.0.5:5060"], "10.0.0.5", &["127.0.0.1", "10.0.0.5"]),
            (&["0.0.0.0:5060", "10.0.0.5:5070"], &main, &["10.0.0.5"]),
            (&["127.0.0.1:5060"], "127.0.0.1", &["127.0.0.1"]),
        ];
        for (listeners, general, own) in cases {
            let bound = listeners.iter().map(|text| text.parse().expect("an address"));
            let bound: Vec<_> = bound.map(|at: SocketAddr| (Transport::Udp, at)).collect();
            let settings = of(&config, &bound);
            let media = settings.media_v4.expect("IPv4 has media");
            assert_eq!(media.advertise.to_string(), general, "{listeners:?}");
            let given: Vec<_> = settings.advertised.iter().map(|(_, ip)| ip.to_string()).collect();
            assert_eq!(given, own, "{listeners:?}");
        }
    }
}
