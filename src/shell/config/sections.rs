//! Each section of the file, read into its struct with the defaults filled in. What is missing or
//! wrong goes into the report, and a harmless value takes its place so that reading goes on; such a
//! configuration is never handed out.

use super::problem::{Report, io_words};
use super::reader::{Found, Section};
use super::*;
use crate::ground::limits;
use crate::shell::tls::{self, Pem};
use std::net::Ipv4Addr;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// A configuration with the places that the cross checks speak of.
pub struct Draft {
    pub config: Config,
    pub places: Places,
}

/// Spans of keys (or of their sections, when a key is absent).
#[derive(Default)]
pub struct Places {
    pub listen: Range<usize>,
    pub advertise: Option<Range<usize>>,
    pub udp: Vec<Found<SocketAddr>>,
    pub tcp: Vec<Found<SocketAddr>>,
    pub tls: Vec<Found<SocketAddr>>,
    pub tls_section: Range<usize>,
    pub media_address: Range<usize>,
    pub ports: Range<usize>,
    pub codecs: Option<Range<usize>>,
    pub admin: Range<usize>,
    pub cidr_ranges: Range<usize>,
    pub cidr_range: Vec<Range<usize>>,
    pub domain: Range<usize>,
    pub agents: Range<usize>,
    pub agents_named: bool,
    pub agent_id: Vec<Range<usize>>,
    pub agent_pattern: Vec<Range<usize>>,
    pub handler_url: Range<usize>,
    pub handler_secrets: Range<usize>,
    pub handler_secret: Vec<Range<usize>>,
}

/// Reads every section of the root.
pub fn read(root: &mut Section<'_>, base: &Path, report: &mut Report) -> Draft {
    let mut places = Places::default();
    let listen = read_listen(&mut root.section("listen", report), &mut places, report);
    let mut tls_section = root.section("tls", report);
    let peers = peers::read(&mut tls_section, base, report);
    let tls = read_tls(&mut tls_section, &listen, &mut places, base, report);
    let dns = peers::read_dns(&mut root.section("dns", report), report);
    let media = read_media(&mut root.section("media", report), &listen, &mut places, report);
    let srtp = super::srtp::read(&mut root.section("srtp", report), &listen, report);
    let ultravox = read_ultravox(&mut root.section("ultravox", report), base, report);
    let sip =
        super::sip::read(&mut root.section("sip", report), &listen, &mut places, base, report);
    let fallback = super::fallback::read(&mut root.section("fallback", report), base, report);
    super::fallback::check_url(&sip, &fallback, &places, report);
    let admin = read_admin(&mut root.section("admin", report), &mut places, base, report);
    let store = read_store(&mut root.section("store", report), base, report);
    let limits = read_limits(&mut root.section("limits", report), report);
    let outgoing = super::outgoing::read(&mut root.section("outgoing", report), report);
    let hands = super::hands::read(root, &outgoing, base, report);
    let log = read_log(&mut root.section("log", report), report);
    let file = None;
    let config = Config {
        file,
        listen,
        tls,
        peers,
        dns,
        media,
        srtp,
        ultravox,
        sip,
        fallback,
        admin,
        store,
        limits,
        outgoing,
        hands,
        log,
    };
    Draft { config, places }
}

fn read_listen(section: &mut Section<'_>, places: &mut Places, report: &mut Report) -> Listen {
    places.listen = section.span().clone();
    places.advertise = section.key_span("advertise");
    places.udp = addresses(section, "udp", report);
    places.tcp = addresses(section, "tcp", report);
    places.tls = addresses(section, "tls", report);
    let named = ["udp", "tcp", "tls"].iter().any(|key| section.key_span(key).is_some());
    if places.udp.is_empty() && places.tcp.is_empty() && places.tls.is_empty() && !named {
        let fix = "add udp = [\"0.0.0.0:5060\"] under [listen]".to_owned();
        report.error(section.span(), "listen", "names no address to hear SIP on".into(), fix);
    }
    let advertise = advertise::read(section, true, report);
    let plain = |found: &[Found<SocketAddr>]| found.iter().map(|one| one.value).collect();
    let (udp, tcp, tls): (Vec<_>, Vec<_>, Vec<_>) =
        (plain(&places.udp), plain(&places.tcp), plain(&places.tls));
    let heard = [udp.as_slice(), &tcp, &tls].concat();
    let listeners = advertise::read_listeners(section, &heard, report);
    section.finish(report);
    Listen { udp, tcp, tls, advertise, listeners }
}

/// A list of `address:port` texts.
fn addresses(
    section: &mut Section<'_>,
    key: &'static str,
    report: &mut Report,
) -> Vec<Found<SocketAddr>> {
    let path = section.path(key);
    let texts = section.texts(key, report).unwrap_or_default();
    let mut addresses: Vec<Found<SocketAddr>> = Vec::new();
    for text in texts {
        match address(&text, &path, report) {
            Some(found) if addresses.iter().any(|other| other.value == found.value) => {
                let what = format!("names {} twice", found.value);
                report.error(&found.span, &path, what, "remove one of the two".into());
            }
            Some(found) => addresses.push(found),
            None => {}
        }
    }
    addresses
}

fn address(text: &Found<String>, path: &str, report: &mut Report) -> Option<Found<SocketAddr>> {
    match text.value.parse::<SocketAddr>() {
        Ok(address) if address.port() != 0 || path.starts_with("admin") => {
            Some(Found { value: address, span: text.span.clone() })
        }
        Ok(_) | Err(_) => {
            let what = format!("\"{}\" is not address:port", text.value);
            let fix = "write for example \"0.0.0.0:5060\" or \"[::]:5060\"".to_owned();
            report.error(&text.span, path, what, fix);
            None
        }
    }
}

fn read_tls(
    section: &mut Section<'_>,
    listen: &Listen,
    places: &mut Places,
    base: &Path,
    report: &mut Report,
) -> Option<Tls> {
    places.tls_section = section.span().clone();
    let certificate = pem(section, "certificate", "CERTIFICATE", base, report);
    let private_key = pem(section, "private_key", "PRIVATE KEY", base, report);
    let client_ca = pem(section, "client_ca", "CERTIFICATE", base, report);
    section.finish(report);
    let own = ["certificate", "private_key", "client_ca"];
    if own.iter().all(|key| section.key_span(key).is_none()) && listen.tls.is_empty() {
        return None;
    }
    for (key, file) in [("certificate", &certificate), ("private_key", &private_key)] {
        if file.is_none() && section.key_span(key).is_none() {
            let what = match listen.tls.is_empty() {
                true => "is missing".to_owned(),
                false => "is missing, and listen.tls needs it".to_owned(),
            };
            let fix = format!("add {key} = \"/etc/voxedge/tls/….pem\" under [tls]");
            let place = match section.is_present() {
                true => section.span(),
                false => places.tls.first().map_or(section.span(), |found| &found.span),
            };
            report.error(place, &section.path(key), what, fix);
        }
    }
    let tls = Tls { certificate: certificate?, private_key: private_key?, client_ca };
    check_chain(&tls, section.span(), report);
    Some(tls)
}

/// The certificate, its key and the CA as a TLS server will use them.
fn check_chain(tls: &Tls, span: &Range<usize>, report: &mut Report) {
    let server_config = || {
        let certificate = Pem::read(&tls.certificate)?;
        let client_ca = tls.client_ca.as_deref().map(Pem::read).transpose()?;
        tls::server_config(&certificate, &Pem::read(&tls.private_key)?, client_ca.as_ref())
    };
    if let Err(fault) = server_config() {
        let fix = "give a certificate chain and the private key that belongs to it, as PEM".into();
        report.error(span, "tls", fault.to_string(), fix);
    }
}

/// A PEM file that exists, can be read and holds a block of the kind `marker`.
pub(super) fn pem(
    section: &mut Section<'_>,
    key: &'static str,
    marker: &str,
    base: &Path,
    report: &mut Report,
) -> Option<PathBuf> {
    let found = section.text(key, report)?;
    let path = base.join(&found.value);
    let name = section.path(key);
    match files::text(&path, files::PEM_BYTES_MAX) {
        Ok(text) if marker == "PRIVATE KEY" && text.contains("ENCRYPTED") => {
            let what = format!("{} is locked with a passphrase", path.display());
            let fix = format!("openssl pkey -in {} -out <unlocked>.pem, mode 0600", path.display());
            report.error(&found.span, &name, what, fix);
        }
        Ok(text) if text.contains(&format!("{marker}-----")) && text.contains("-----BEGIN ") => {
            if marker == "PRIVATE KEY" {
                warn_of_mode(&path, &name, &found.span, report);
            }
            return Some(path);
        }
        Ok(_) => {
            let what = format!("{} holds no PEM block \"{marker}\"", path.display());
            let fix = format!("give a PEM file with a line that ends in {marker}-----");
            report.error(&found.span, &name, what, fix);
        }
        Err(error) => {
            let what = format!("{} cannot be read: {}", path.display(), io_words(&error));
            let fix = "correct the path (it is relative to this file), or let this user read it";
            report.error(&found.span, &name, what, fix.to_owned());
        }
    }
    None
}

/// Key files are for their owner alone. systemd's credentials are guarded by their directory.
pub fn warn_of_mode(path: &Path, name: &str, span: &Range<usize>, report: &mut Report) {
    use std::os::unix::fs::PermissionsExt;
    let Ok(metadata) = std::fs::metadata(path) else { return };
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 == 0 || path.starts_with(CREDENTIALS) {
        return;
    }
    let what = format!("{} may be read by others (mode {mode:04o})", path.display());
    report.warning(span, name, what, format!("chmod 0600 {}", path.display()));
}

const EXTENDED_REPORTS: [(&str, ExtendedReports); 3] = [
    ("off", ExtendedReports::Off),
    ("answered", ExtendedReports::Answered),
    ("offered", ExtendedReports::Offered),
];

fn read_media(
    section: &mut Section<'_>,
    listen: &Listen,
    places: &mut Places,
    report: &mut Report,
) -> Media {
    let bind = read_bind(section, report);
    let own = advertise::read(section, false, report);
    places.media_address = section.key_span("address").unwrap_or(section.span().clone());
    let ports = read_ports(section, report);
    places.ports = section.key_span("ports").unwrap_or(section.span().clone());
    let shards = section.integer("shards", 1..=256, report).map(|found| found.value as usize);
    let refuse_busy_percent = section
        .integer("refuse_busy_percent", 10..=100, report)
        .map_or(limits::REFUSE_BUSY_PERCENT, |found| found.value as u8);
    let refuse_lateness_ms = section
        .integer("refuse_lateness_ms", 1..=1_000, report)
        .map_or(limits::REFUSE_LATENESS_MS, |found| found.value as u16);
    let codecs = read_codecs(section, report);
    places.codecs = section.key_span("codecs");
    let rates = [8_000, 12_000, 16_000, 24_000, 48_000];
    let opus_output_hz = match section.integer("opus_output_hz", 8_000..=48_000, report) {
        Some(found) if !rates.contains(&found.value) => {
            let fix = "use 16000, 24000 or 48000 (8000 and 12000 work as well)".to_owned();
            let what = format!("{} is no rate that Opus decodes to", found.value);
            report.error(&found.span, "media.opus_output_hz", what, fix);
            24_000
        }
        Some(found) => found.value as u32,
        None => 24_000,
    };
    let ptime_ms = match section.integer("ptime_ms", 10..=60, report) {
        Some(found) if found.value % 10 != 0 => {
            let fix = "use 10, 20, 30, 40, 50 or 60".to_owned();
            report.error(&found.span, "media.ptime_ms", "must be whole tens".into(), fix);
            20
        }
        Some(found) => found.value as u16,
        None => 20,
    };
    let rtcp_xr = section.word("rtcp_xr", &EXTENDED_REPORTS, report).unwrap_or_default();
    let words = [("off", false), ("on", true)];
    let silence_suppression = section.word("silence_suppression", &words, report).unwrap_or(false);
    let jitter = read_jitter(section, report);
    section.finish(report);
    let of_family = |v4: bool| {
        let bound = if v4 { bind.v4 } else { bind.v6 }.filter(|address| !address.is_unspecified());
        own.address(v4).or(listen.advertise.address(v4)).or(bound)
    };
    let advertise = Advertised { name: None, v4: of_family(true), v6: of_family(false) };
    Media {
        bind,
        advertise,
        ports,
        shards,
        refuse_busy_percent,
        refuse_lateness_ms,
        codecs,
        opus_output_hz,
        ptime_ms,
        rtcp_xr,
        silence_suppression,
        jitter,
    }
}

/// How much later than others packets may come: the least and the most that is waited for.
fn read_jitter(section: &mut Section<'_>, report: &mut Report) -> DelayBounds {
    let mut bound = |key, default: Duration| {
        let found = section.integer(key, 0..=500, report);
        (found.as_ref().map(|found| found.span.clone()), found.map_or(default, milliseconds))
    };
    let (least_at, min) = bound("jitter_min_ms", limits::JITTER_MIN);
    let (most_at, max) = bound("jitter_max_ms", limits::JITTER_MAX);
    if min <= max {
        return DelayBounds { min, max };
    }
    if let Some(span) = most_at.or(least_at) {
        let (least, most) = (min.as_millis(), max.as_millis());
        let what = format!("{least} ms at least, but jitter_max_ms is {most} ms at most");
        let fix = format!("set jitter_max_ms = {least} or more, or jitter_min_ms to less");
        report.error(&span, "media.jitter_min_ms", what, fix);
    }
    DelayBounds::default()
}

fn milliseconds(found: Found<u64>) -> Duration {
    Duration::from_millis(found.value)
}

/// `address`: one, or one for each family. Without any it is all of IPv4's.
fn read_bind(section: &mut Section<'_>, report: &mut Report) -> Bind {
    let mut bind = Bind::default();
    let path = section.path("address");
    for found in section.text_or_texts("address", report) {
        let fix = "write address = \"192.0.2.10\", or one for each family: \
                   [\"192.0.2.10\", \"2001:db8::10\"]; names and ports do not go here";
        let Ok(address) = found.value.parse::<IpAddr>() else {
            let what = format!("\"{}\" is no IP address", found.value);
            report.error(&found.span, &path, what, fix.to_owned());
            continue;
        };
        let (place, family) = match address {
            IpAddr::V4(_) => (&mut bind.v4, "IPv4"),
            IpAddr::V6(_) => (&mut bind.v6, "IPv6"),
        };
        if place.replace(address).is_some() {
            let what = format!("has a second {family} address");
            report.error(&found.span, &path, what, fix.to_owned());
        }
    }
    if bind == Bind::default() {
        bind.v4 = Some(Ipv4Addr::UNSPECIFIED.into());
    }
    bind
}

fn read_ports(section: &mut Section<'_>, report: &mut Report) -> RangeInclusive<u16> {
    const DEFAULT: RangeInclusive<u16> = 10_000..=32_767;
    let Some(found) = section.text("ports", report) else { return DEFAULT };
    let range = found.value.split_once('-').and_then(|(first, last)| {
        let (first, last) = (first.trim().parse().ok()?, last.trim().parse::<u16>().ok()?);
        (first >= 1_024 && u32::from(last) > u32::from(first) + 1).then_some(first..=last)
    });
    range.unwrap_or_else(|| {
        let what = format!("\"{}\" is no range of ports", found.value);
        let fix = "write ports = \"10000-32767\": first, dash, last, from 1024 up, three at least";
        let fix = fix.to_owned();
        report.error(&found.span, "media.ports", what, fix);
        DEFAULT
    })
}

fn read_codecs(section: &mut Section<'_>, report: &mut Report) -> Vec<CodecKind> {
    let all = || CodecKind::ALL.to_vec();
    let Some(names) = section.texts("codecs", report) else { return all() };
    let known = CodecKind::ALL.map(CodecKind::encoding_name).join(", ");
    let mut codecs: Vec<CodecKind> = Vec::new();
    for name in &names {
        let is_named = |kind: &CodecKind| kind.encoding_name().eq_ignore_ascii_case(&name.value);
        match CodecKind::ALL.into_iter().find(is_named) {
            Some(kind) if !codecs.contains(&kind) => codecs.push(kind),
            Some(_) => {
                let what = format!("names {} twice", name.value);
                report.error(&name.span, "media.codecs", what, "remove one of the two".into());
            }
            None => {
                let what = format!("\"{}\" is no codec of this daemon", name.value);
                report.error(&name.span, "media.codecs", what, format!("use some of {known}"));
            }
        }
    }
    if names.is_empty() {
        let span = section.key_span("codecs").unwrap_or(section.span().clone());
        let fix = format!("name at least one of {known}, or leave the key out");
        report.error(&span, "media.codecs", "is empty: every call would be refused".into(), fix);
    }
    if codecs.is_empty() { all() } else { codecs }
}

fn read_ultravox(section: &mut Section<'_>, base: &Path, report: &mut Report) -> Ultravox {
    let base_url = read_base_url(section, report);
    let api_key = read_key(section, base, report);
    if api_key.is_none() && base_url != BaseUrl::Embedded && !has_key(section) {
        let what = "has neither api_key_file nor api_key".to_owned();
        let fix = "add api_key_file = \"/etc/voxedge/ultravox_api_key\" under [ultravox], or \
                   base_url = \"embedded\" to try without an account"
            .to_owned();
        report.error(section.span(), "ultravox", what, fix);
    }
    let join_domains = match section.texts("join_domains", report) {
        Some(found) => found.into_iter().map(|one| one.value).collect(),
        None => vec!["ultravox.ai".to_owned()],
    };
    let creations = super::fallback::read_creations(section, report);
    section.finish(report);
    Ultravox { base_url, api_key: api_key.unwrap_or_default(), join_domains, creations }
}

fn read_base_url(section: &mut Section<'_>, report: &mut Report) -> BaseUrl {
    let Some(found) = section.text("base_url", report) else {
        return BaseUrl::Url("https://api.ultravox.ai".to_owned());
    };
    let url = found.value.trim_end_matches('/');
    if url == "embedded" {
        return BaseUrl::Embedded;
    }
    let rest = url.strip_prefix("https://").or(url.strip_prefix("http://")).unwrap_or("");
    let host = rest.split(['/', ':']).next().unwrap_or("");
    if host.is_empty() || url.contains(char::is_whitespace) || url.contains('?') {
        let what = format!("\"{}\" is no base URL", found.value);
        let fix = "use \"https://api.ultravox.ai\", or \"embedded\" for the stand-in".to_owned();
        report.error(&found.span, "ultravox.base_url", what, fix);
    } else if url.starts_with("http://") && !is_loopback_host(host) {
        let what = "would send the API key in clear text".to_owned();
        let fix = "use https://; http:// is for loopback only".to_owned();
        report.error(&found.span, "ultravox.base_url", what, fix);
    }
    BaseUrl::Url(url.to_owned())
}

fn is_loopback_host(host: &str) -> bool {
    host == "localhost" || host.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
}

fn has_key(section: &Section<'_>) -> bool {
    section.key_span("api_key").is_some() || section.key_span("api_key_file").is_some()
}

/// `api_key` or `api_key_file`, not both.
fn read_key(section: &mut Section<'_>, base: &Path, report: &mut Report) -> Option<Secret> {
    let inline = section.text("api_key", report);
    let file = section.text("api_key_file", report);
    let name = section.path("api_key_file");
    if let (Some(_), Some(file)) = (&inline, &file) {
        let what = "stands beside api_key; only one of the two may".to_owned();
        report.error(&file.span, &name, what, "remove api_key".to_owned());
    }
    let Some(file) = file else { return inline.map(|found| Secret::new(found.value)) };
    let path = base.join(&file.value);
    match files::text(&path, files::KEY_BYTES_MAX) {
        Ok(text) => {
            warn_of_mode(&path, &name, &file.span, report);
            let key = text.trim();
            let printable = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_graphic());
            if !printable {
                let what = format!("{} does not hold one key", path.display());
                let fix = "put the key on one line, and nothing else into the file".to_owned();
                report.error(&file.span, &name, what, fix);
            }
            printable.then(|| Secret::new(key))
        }
        Err(error) if path.starts_with(CREDENTIALS) => {
            let what = format!("{} cannot be read: {}", path.display(), io_words(&error));
            let fix = "nothing, outside the service: systemd makes this file for the service \
                       alone, from LoadCredential= in its unit; to run without systemd, name a \
                       key file of your own"
                .to_owned();
            report.warning(&file.span, &name, what, fix);
            None
        }
        Err(error) => {
            let what = format!("{} cannot be read: {}", path.display(), io_words(&error));
            let fix = format!("put the key into {} with mode 0600", path.display());
            report.error(&file.span, &name, what, fix);
            None
        }
    }
}

/// Where systemd puts a service's credentials, for as long as the service runs.
const CREDENTIALS: &str = "/run/credentials";

fn read_admin(
    section: &mut Section<'_>,
    places: &mut Places,
    base: &Path,
    report: &mut Report,
) -> Admin {
    let listen = section.text("listen", report);
    let listen = listen.and_then(|text| address(&text, "admin.listen", report));
    places.admin = section.key_span("listen").unwrap_or(section.span().clone());
    let api_key = read_key(section, base, report);
    if api_key.is_none() && !has_key(section) {
        let what = "has no api_key_file: /edge and /api/sip will open to the Ultravox key alone, \
                    and the commands of this program cannot ask the daemon"
            .to_owned();
        let fix = "head -c 32 /dev/urandom | base64 > admin_api_key, chmod 0600 it, and name it \
                   in admin.api_key_file"
            .to_owned();
        report.warning(section.span(), "admin", what, fix);
    }
    let tls = read_admin_tls(section, base, report);
    section.finish(report);
    let default = SocketAddr::from((Ipv4Addr::LOCALHOST, 8_080));
    Admin { listen: listen.map_or(default, |found| found.value), api_key, tls }
}

/// `certificate` and `private_key`: both, or plain HTTP.
fn read_admin_tls(section: &mut Section<'_>, base: &Path, report: &mut Report) -> Option<Tls> {
    let certificate = pem(section, "certificate", "CERTIFICATE", base, report);
    let private_key = pem(section, "private_key", "PRIVATE KEY", base, report);
    let named = |key| section.key_span(key).is_some();
    for (key, other) in [("certificate", "private_key"), ("private_key", "certificate")] {
        if named(other) && !named(key) {
            let what = format!("is missing beside {other}");
            let fix = format!("add {key} = \"/etc/voxedge/tls/….pem\", or remove {other}");
            report.error(section.span(), &section.path(key), what, fix);
        }
    }
    let tls = Tls { certificate: certificate?, private_key: private_key?, client_ca: None };
    check_chain(&tls, section.span(), report);
    Some(tls)
}

fn read_store(section: &mut Section<'_>, base: &Path, report: &mut Report) -> Store {
    let found = section.text("path", report);
    let path = found.as_ref().map(|found| base.join(&found.value));
    section.finish(report);
    if let (Some(found), Some(path)) = (&found, &path) {
        check_store(path, found, report);
    }
    Store { path: path.unwrap_or_else(|| PathBuf::from("/var/lib/voxedge/calls.sqlite")) }
}

/// The file may be absent, and its folder too: the daemon makes both. What is there must not be
/// something else.
fn check_store(path: &Path, found: &Found<String>, report: &mut Report) {
    let above = path.ancestors().skip(1).find(|folder| folder.exists());
    let blocking = above.filter(|folder| !folder.as_os_str().is_empty() && !folder.is_dir());
    let what = match blocking {
        _ if path.is_dir() => format!("{} is a directory", path.display()),
        Some(file) => format!("{} is a file, not a directory", file.display()),
        None => return,
    };
    let fix = "name a file: path = \"/var/lib/voxedge/calls.sqlite\"".to_owned();
    report.error(&found.span, "store.path", what, fix);
}

fn read_limits(section: &mut Section<'_>, report: &mut Report) -> Limits {
    let mut number = |key, bounds: RangeInclusive<u64>, default: u64| {
        section.integer(key, bounds, report).map_or(default, |found| found.value)
    };
    let seconds = |duration: Duration| duration.as_secs();
    let limits = Limits {
        calls_max: number("calls_max", 1..=20_000, limits::CALLS_MAX as u64) as usize,
        early_calls_per_source_max: number(
            "early_calls_per_source_max",
            1..=20_000,
            limits::EARLY_CALLS_PER_SOURCE_MAX as u64,
        ) as usize,
        rtp_timeout: Duration::from_secs(number(
            "rtp_timeout_s",
            5..=3_600,
            seconds(limits::RTP_TIMEOUT),
        )),
        rtcp_only_max: Duration::from_secs(number(
            "rtcp_only_max_s",
            5..=86_400,
            seconds(limits::RTCP_ONLY_MAX),
        )),
        hold_max: Duration::from_secs(number("hold_max_s", 30..=86_400, seconds(limits::HOLD_MAX))),
        session_interval: Duration::from_secs(number(
            "session_interval_s",
            0..=86_400,
            seconds(limits::SESSION_INTERVAL),
        )),
        grace: Duration::from_secs(number("grace_s", 0..=86_400, seconds(limits::GRACE))),
    };
    section.finish(report);
    limits
}

fn read_log(section: &mut Section<'_>, report: &mut Report) -> Log {
    let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    let format = section.word("format", &formats, report).unwrap_or(LogFormat::Text);
    let levels =
        [LogLevel::Error, LogLevel::Warn, LogLevel::Info, LogLevel::Debug, LogLevel::Trace];
    let levels = levels.map(|level| (level.as_str(), level));
    let level = section.word("level", &levels, report).unwrap_or(LogLevel::Info);
    section.finish(report);
    Log { format, level }
}

/// A host as it may stand in a SIP URI: an address or a name of letters, digits, `-`, `_` and `.`.
pub(super) fn is_host(text: &str) -> bool {
    if text.parse::<IpAddr>().is_ok() {
        return true;
    }
    let name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    text.len() <= 253 && !text.starts_with(['.', '-']) && text.bytes().all(name)
}
