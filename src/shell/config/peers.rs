//! `[dns]` and the part of `[tls]` that is about peers which we connect to: name servers, trust, and
//! our certificates for them.

use super::problem::Report;
use super::reader::{Found, Section};
use super::sections::{is_host, pem};
use super::{Dns, PeerFiles, Peers};
use crate::ground::limits;
use crate::shell::tls::{PeerTarget, PeerTls, PeerTlsSettings, Pem, TlsFault};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

/// Reads `[dns]`.
pub(super) fn read_dns(section: &mut Section<'_>, report: &mut Report) -> Dns {
    let texts = section.texts("servers", report).unwrap_or_default();
    let servers: Vec<SocketAddr> =
        texts.iter().filter_map(|text| name_server(text, report)).collect();
    if texts.len() > limits::NAME_SERVERS_MAX {
        let what = format!("names {} servers", texts.len());
        let fix =
            format!("name {} at most: the first that answers is asked", limits::NAME_SERVERS_MAX);
        let span = section.key_span("servers").unwrap_or(section.span().clone());
        report.error(&span, "dns.servers", what, fix);
    }
    section.finish(report);
    Dns { servers }
}

fn name_server(text: &Found<String>, report: &mut Report) -> Option<SocketAddr> {
    const PORT: u16 = 53;
    let address = text.value.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, PORT));
    let server = address.or_else(|_| text.value.parse()).ok();
    if server.is_none() {
        let what = format!("\"{}\" is no address of a name server", text.value);
        let fix = "write for example \"192.0.2.53\" or \"[2001:db8::53]:5353\"".to_owned();
        report.error(&text.span, "dns.servers", what, fix);
    }
    server
}

/// Reads what `[tls]` says of peers; the section is finished by who reads the rest of it.
pub(super) fn read(section: &mut Section<'_>, base: &Path, report: &mut Report) -> Peers {
    let ca = pem(section, "ca", "CERTIFICATE", base, report);
    let wildcards = section.boolean("wildcards", report).unwrap_or(false);
    let mut targets: Vec<PeerFiles> = Vec::new();
    for mut entry in section.sections("targets", report) {
        let Some(target) = read_target(&mut entry, base, report) else { continue };
        if targets.iter().any(|other| other.host == target.host) {
            let what = format!("names {} a second time", target.host);
            let fix = "put both into one [[tls.targets]]".to_owned();
            report.error(entry.span(), &entry.path("host"), what, fix);
        }
        targets.push(target);
    }
    let peers = Peers { ca, wildcards, targets };
    if let Err(fault) = settings(&peers, false).and_then(|settings| PeerTls::new(&settings)) {
        let fix = "give certificates, and private keys that belong to them, as PEM".to_owned();
        report.error(section.span(), "tls", fault.to_string(), fix);
    }
    peers
}

fn read_target(entry: &mut Section<'_>, base: &Path, report: &mut Report) -> Option<PeerFiles> {
    let host = entry.text("host", report);
    let certificate = pem(entry, "certificate", "CERTIFICATE", base, report);
    let private_key = pem(entry, "private_key", "PRIVATE KEY", base, report);
    let ca = pem(entry, "ca", "CERTIFICATE", base, report);
    for (key, other) in [("certificate", "private_key"), ("private_key", "certificate")] {
        if entry.key_span(key).is_some() && entry.key_span(other).is_none() {
            let what = format!("is missing while {key} is given");
            let fix = format!("add {other} = \"/etc/voxedge/tls/….pem\" beside it");
            report.error(entry.span(), &entry.path(other), what, fix);
        }
    }
    let host = match host {
        Some(found) if is_host(&found.value) => found.value,
        Some(found) => {
            let what = format!("\"{}\" is no host", found.value);
            let fix = "give the host as it stands in the SIP address, without a port".to_owned();
            report.error(&found.span, &entry.path("host"), what, fix);
            return None;
        }
        None => {
            if entry.key_span("host").is_none() {
                let fix = "add host = \"pbx.example.com\"".to_owned();
                report.error(entry.span(), &entry.path("host"), "is missing".to_owned(), fix);
            }
            entry.finish(report);
            return None;
        }
    };
    entry.finish(report);
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    Some(PeerFiles { host, certificate: certificate.zip(private_key), ca })
}

/// The files that `peers` names, read.
///
/// # Errors
/// The first file that cannot be read.
pub fn settings(peers: &Peers, system_roots: bool) -> Result<PeerTlsSettings, TlsFault> {
    let read = |path: &Option<PathBuf>| path.as_deref().map(Pem::read).transpose();
    let mut targets = Vec::new();
    for target in &peers.targets {
        let certificate = match &target.certificate {
            Some((certificate, key)) => Some((Pem::read(certificate)?, Pem::read(key)?)),
            None => None,
        };
        let (host, ca) = (target.host.clone(), read(&target.ca)?);
        targets.push(PeerTarget { host, certificate, ca });
    }
    let (ca, wildcards) = (read(&peers.ca)?, peers.wildcards);
    Ok(PeerTlsSettings { system_roots, ca, wildcards, targets })
}

#[cfg(test)]
mod tests {
    use super::super::{Config, Machine, read as read_file};
    use super::*;
    use crate::codec::CodecKind;
    use crate::shell::tls;

    const GOOD: &str = "[listen]\nudp = [\"127.0.0.1:5060\"]\n[ultravox]\nbase_url = \"embedded\"\n\
        [sip]\nallowed_cidr_ranges = [\"127.0.0.0/8\"]\nallow_all_agents = true\n\
        [admin]\napi_key = \"k\"\n";

    /// A folder with two pairs of certificate and key, removed at its end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let name = format!("voxedge-peers-{}-{name}", std::process::id());
            let path = std::env::temp_dir().join(name);
            std::fs::create_dir_all(&path).expect("a temporary directory");
            for name in ["one", "two"] {
                let (certificate, key) = tls::self_signed(&["pbx.test"]).expect("a name");
                let file = |end: &str| path.join(format!("{name}.{end}"));
                std::fs::write(file("crt"), certificate).expect("our own directory");
                std::fs::write(file("key"), key).expect("our own directory");
            }
            Folder(path)
        }

        fn read(&self, text: &str) -> (Option<Config>, String) {
            let machine =
                Machine { ephemeral: None, codecs: CodecKind::ALL.to_vec(), ..Machine::this() };
            let text = format!("{GOOD}{text}");
            let (config, report) = read_file("f.toml", &text, &self.0, &machine);
            (config, report.to_string())
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn peers_and_name_servers_are_read_without_a_certificate_for_listeners() {
        let folder = Folder::new("good");
        let (config, report) = folder.read(
            "[tls]\nca = \"one.crt\"\nwildcards = true\n[[tls.targets]]\nhost = \"PBX.test.\"\n\
             certificate = \"one.crt\"\nprivate_key = \"one.key\"\n[[tls.targets]]\nhost = \"192.0.2.7\"\n\
             ca = \"two.crt\"\n[dns]\nservers = [\"192.0.2.53\", \"[2001:db8::53]:5353\"]\n",
        );
        let config = config.unwrap_or_else(|| panic!("{report}"));
        assert_eq!(config.tls, None);
        assert!(config.peers.wildcards);
        let hosts: Vec<&str> = config.peers.targets.iter().map(|one| one.host.as_str()).collect();
        assert_eq!(hosts, ["pbx.test", "192.0.2.7"]);
        let servers = ["192.0.2.53:53", "[2001:db8::53]:5353"].map(|at| at.parse().expect("one"));
        assert_eq!(config.dns.servers, servers);
        let settings = settings(&config.peers, false).expect("the files are there");
        assert!(settings.targets[0].certificate.is_some() && settings.targets[1].ca.is_some());
    }

    #[test]
    fn each_problem_is_told() {
        let folder = Folder::new("bad");
        for (text, words) in [
            ("[dns]\nservers = [\"ns.example\"]", "\"ns.example\" is no address of a name server"),
            ("[dns]\nserver = []", "did you mean servers?"),
            ("[[tls.targets]]\nca = \"one.crt\"", "tls.targets[0].host: is missing"),
            ("[[tls.targets]]\nhost = \"a b\"", "\"a b\" is no host"),
            (
                "[[tls.targets]]\nhost = \"h\"\ncertificate = \"one.crt\"",
                "tls.targets[0].private_key: is missing while certificate is given",
            ),
            (
                "[[tls.targets]]\nhost = \"h\"\n[[tls.targets]]\nhost = \"H\"",
                "names h a second time",
            ),
            (
                "[[tls.targets]]\nhost = \"h\"\ncertificate = \"one.crt\"\nprivate_key = \"two.key\"",
                "the private key does not belong to the certificate",
            ),
            ("[tls]\nca = \"one.key\"", "holds no PEM block \"CERTIFICATE\""),
            ("[tls]\ncertificate = \"one.crt\"", "tls.private_key: is missing"),
        ] {
            let (config, report) = folder.read(text);
            assert!(config.is_none() && report.contains(words), "{words} in\n{report}");
        }
        let nine = "\"192.0.2.53\",".repeat(limits::NAME_SERVERS_MAX + 1);
        let (_, report) = folder.read(&format!("[dns]\nservers = [{nine}]"));
        assert!(report.contains("names 9 servers"), "{report}");
    }
}
