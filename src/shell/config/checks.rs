//! Checks that need more than one key: sections against each other, and against this machine. Each
//! says what would go wrong in service, and the fix.

use super::problem::Report;
use super::reader::Found;
use super::sections::Draft;
use crate::billing::cdr::rfc3339;
use crate::codec::CodecKind;
use crate::ground::WallTime;
use crate::shell::clock::Clock;
use crate::shell::tls::{self, Pem};
use std::net::SocketAddr;
use std::ops::RangeInclusive;

/// What the checks need to know of the machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Machine {
    /// Ports that the kernel gives to outgoing connections, unless reserved.
    pub ephemeral: Option<RangeInclusive<u16>>,
    /// Ports that the kernel leaves alone (`ip_local_reserved_ports`).
    pub reserved: Vec<RangeInclusive<u16>>,
    /// Codecs that can be coded here: AMR-WB is one where its libraries are installed.
    pub codecs: Vec<CodecKind>,
    /// The wall time of the check.
    pub today: WallTime,
}

impl Machine {
    /// The machine that we run on.
    pub fn this() -> Machine {
        let read = |name: &str| {
            std::fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).unwrap_or_default()
        };
        let ephemeral = read("ip_local_port_range");
        let mut bounds = ephemeral.split_whitespace().map(str::parse);
        let ephemeral = match (bounds.next(), bounds.next()) {
            (Some(Ok(first)), Some(Ok(last))) => Some(first..=last),
            _ => None,
        };
        let reserved = read("ip_local_reserved_ports");
        let reserved = reserved.trim().split(',').filter_map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            Some(first.parse().ok()?..=last.parse().ok()?)
        });
        let codecs = CodecKind::ALL.into_iter().filter(|kind| kind.is_available()).collect();
        Machine { ephemeral, reserved: reserved.collect(), codecs, today: Clock::now().wall }
    }

    /// Ports of `wanted` that an outgoing connection may take from us, first and last.
    fn contested(&self, wanted: &RangeInclusive<u16>) -> Option<RangeInclusive<u16>> {
        let ephemeral = self.ephemeral.as_ref()?;
        let free = |port: &u16| !self.reserved.iter().any(|range| range.contains(port));
        let mut contested =
            wanted.clone().filter(|port| ephemeral.contains(port)).filter(|port| free(port));
        let first = contested.next()?;
        Some(first..=contested.next_back().unwrap_or(first))
    }
}

/// Adds to `report` what the sections say only together.
pub fn check(draft: &mut Draft, machine: &Machine, report: &mut Report) {
    check_advertise(draft, report);
    check_examples(draft, report);
    check_ports(draft, machine, report);
    check_codecs(draft, machine, report);
    check_listeners(draft, report);
    check_admin(draft, report);
    check_expiry(draft, machine, report);
}

fn check_advertise(draft: &Draft, report: &mut Report) {
    let (config, places) = (&draft.config, &draft.places);
    let all = places.udp.iter().chain(&places.tcp).chain(&places.tls);
    let mut wildcard = all.into_iter().filter(|found| found.value.ip().is_unspecified());
    let given = |found: &&Found<SocketAddr>| {
        let own = config.listen.listeners.iter().any(|listener| listener.listen == found.value);
        own || config.listen.advertise.host(found.value.is_ipv4()).is_some()
    };
    let told = report.problems().iter().any(|problem| problem.key == "listen.advertise");
    if let Some(found) = wildcard.find(|found| !told && !given(found)) {
        let what = format!("is missing while {} listens on every address", found.value);
        let fix = "add advertise = \"<the address that your PBX reaches>\" under [listen]; \
                   without it this machine's main address is named, which is wrong behind NAT"
            .to_owned();
        report.warning(&found.span, "listen.advertise", what, fix);
    }
}

/// Addresses that stand in config/voxedge.toml to be replaced: a daemon that names them reaches nobody.
const EXAMPLE_EDGE: &str = "203.0.113.5";
const EXAMPLE_PBX: &str = "198.51.100.7/32";

fn check_examples(draft: &Draft, report: &mut Report) {
    let (config, places) = (&draft.config, &draft.places);
    let ours = config.listen.advertise.host(true);
    if let (Some(EXAMPLE_EDGE), Some(span)) = (ours.as_deref(), &places.advertise) {
        let what = format!("{EXAMPLE_EDGE} is the example's address: callers will hear nothing");
        let fix = "give the address by which your PBX reaches this machine".to_owned();
        report.warning(span, "listen.advertise", what, fix);
    }
    let ranges = config.sip.account.allowed_cidr_ranges().iter().zip(&places.cidr_range);
    for (index, (range, span)) in ranges.enumerate() {
        if range.to_string() == EXAMPLE_PBX {
            let what = format!("{EXAMPLE_PBX} is the example's PBX: yours is a stranger");
            let fix = "give the address that your PBX sends from".to_owned();
            report.warning(span, &format!("sip.allowed_cidr_ranges[{index}]"), what, fix);
        }
    }
}

/// A codec that cannot be coded here is left out: the operator should know it of one that the file
/// names, and may of one that it does not. With none left no call could be answered.
fn check_codecs(draft: &mut Draft, machine: &Machine, report: &mut Report) {
    let codecs = &mut draft.config.media.codecs;
    let wanted = codecs.clone();
    codecs.retain(|kind| machine.codecs.contains(kind));
    for kind in wanted.iter().filter(|kind| !machine.codecs.contains(kind)) {
        let Some(packages) = kind.packages() else { continue };
        let name = kind.encoding_name();
        let what = format!("{name} is neither offered nor answered: its libraries are missing");
        let fix = format!("apt-get install {packages}");
        match &draft.places.codecs {
            Some(span) if codecs.is_empty() => report.error(span, "media.codecs", what, fix),
            Some(span) => report.warning(span, "media.codecs", what, fix),
            None => report.note("media.codecs", what, fix),
        }
    }
}

fn check_ports(draft: &Draft, machine: &Machine, report: &mut Report) {
    let (config, places) = (&draft.config, &draft.places);
    let ports = &config.media.ports;
    if let Some(contested) = machine.contested(ports) {
        let (first, last) = (contested.start(), contested.end());
        let what = format!(
            "{}-{} overlaps the ports that the kernel gives to outgoing connections ({first}-{last})",
            ports.start(),
            ports.end()
        );
        let fix = format!(
            "choose ports below them, or reserve: sysctl -w \
             net.ipv4.ip_local_reserved_ports={first}-{last}"
        );
        report.warning(&places.ports, "media.ports", what, fix);
    }
    let pairs = usize::from(ports.end() - ports.start()).div_ceil(2);
    if pairs < config.limits.calls_max {
        let what = format!(
            "holds {pairs} pairs of ports for limits.calls_max = {}",
            config.limits.calls_max
        );
        let fix = "widen media.ports (two for each call) or lower limits.calls_max".to_owned();
        report.warning(&places.ports, "media.ports", what, fix);
    }
    for found in &places.udp {
        if ports.contains(&found.value.port()) {
            let what = format!("{} lies within media.ports", found.value);
            let fix = "move one of the two; 5060 with 10000-32767 is usual".to_owned();
            report.error(&found.span, "listen.udp", what, fix);
        }
    }
}

/// No two listeners of one protocol can share an address: those of one list, TCP and TLS, the admin
/// listener and any of theirs.
fn check_listeners(draft: &Draft, report: &mut Report) {
    let places = &draft.places;
    for (key, list) in
        [("listen.udp", &places.udp), ("listen.tcp", &places.tcp), ("listen.tls", &places.tls)]
    {
        for (index, found) in list.iter().enumerate() {
            let earlier = list.iter().take(index);
            let mut both = earlier.filter(|other| clash(&other.value, &found.value));
            if let Some(other) = both.next() {
                let what = format!("{} and {} cannot both be opened", other.value, found.value);
                let fix = "keep the wildcard, which hears every address of its family, or name \
                           each address"
                    .to_owned();
                report.error(&found.span, key, what, fix);
            }
        }
    }
    for tls in &places.tls {
        if places.tcp.iter().any(|tcp| clash(&tcp.value, &tls.value)) {
            let what = format!("{} is in listen.tcp too", tls.value);
            let fix = "remove it here: a TCP listener serves TLS clients as well when [tls] is \
                       set"
            .to_owned();
            report.error(&tls.span, "listen.tls", what, fix);
        }
    }
    let admin = draft.config.admin.listen;
    let taken = |address: &SocketAddr| {
        let mut streams = places.tcp.iter().chain(&places.tls);
        streams.any(|stream| clash(&stream.value, address))
    };
    if taken(&admin) {
        let what = format!("{admin} is used for SIP as well");
        let mut others = (8_080..).map(|port| SocketAddr::new(admin.ip(), port));
        let other = others.find(|other| !taken(other)).unwrap_or(admin);
        let fix = format!("give admin.listen a port of its own: \"{other}\"");
        report.error(&places.admin, "admin.listen", what, fix);
    }
}

/// Whether both cannot be bound at once: the same port and family, and the same address or a
/// wildcard.
fn clash(one: &SocketAddr, other: &SocketAddr) -> bool {
    one.port() == other.port()
        && one.port() != 0
        && one.is_ipv4() == other.is_ipv4()
        && (one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified())
}

fn check_admin(draft: &Draft, report: &mut Report) {
    let admin = draft.config.admin.listen;
    if !admin.ip().is_loopback() && draft.config.admin.tls.is_none() {
        let what = format!("{admin} can be reached from other machines, in clear text");
        let fix =
            "use \"127.0.0.1:8080\", or set admin.certificate and admin.private_key".to_owned();
        report.warning(&draft.places.admin, "admin.listen", what, fix);
    }
}

/// A certificate that has run out, or will within two weeks.
fn check_expiry(draft: &Draft, machine: &Machine, report: &mut Report) {
    const NOTICE_DAYS: i64 = 14;
    const DAY_MICROS: i64 = 86_400_000_000;
    let Some(files) = &draft.config.tls else { return };
    let expiry = Pem::read(&files.certificate).and_then(|pem| tls::expiry(&pem));
    let Ok(Some(expiry)) = expiry else { return };
    let left = expiry.unix_micros() - machine.today.unix_micros();
    let word = match left {
        ..0 => "ran out",
        left if left < NOTICE_DAYS * DAY_MICROS => "runs out",
        _ => return,
    };
    let what = format!("{} {word} at {}", files.certificate.display(), rfc3339(expiry));
    let fix = "renew it, then `voxedge reload`".to_owned();
    report.warning(&draft.places.tls_section, "tls.certificate", what, fix);
}
