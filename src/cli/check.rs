//! `voxedge check`: every problem of a configuration at once. Starts nothing, changes nothing.

use crate::shell::config::{self, Config, Report, Severity};
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::process::ExitCode;

/// Prints the problems and a verdict; with `bind`, tries the addresses too.
pub fn check(path: &Path, bind: bool) -> ExitCode {
    let name = path.display();
    let (report, config) = match config::load(path) {
        Ok(loaded) => (loaded.report, Some(loaded.config)),
        Err(report) => (report, None),
    };
    print!("{report}");
    let busy: Vec<String> = match &config {
        Some(config) if bind => addresses(config).iter().filter_map(try_bind).collect(),
        _ => Vec::new(),
    };
    for problem in &busy {
        println!("{name}: error: {problem}");
    }
    let good = config.is_some() && busy.is_empty();
    println!("{name}: {}", verdict(&report, busy.len()));
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn verdict(report: &Report, busy: usize) -> String {
    let count = |number: usize, word: &str| match number {
        1 => format!("1 {word}"),
        _ => format!("{number} {word}s"),
    };
    let errors = report.count(Severity::Error) + busy;
    let warnings = count(report.count(Severity::Warning), "warning");
    match errors {
        0 => format!("good, {warnings}"),
        _ => format!("{}, {warnings}", count(errors, "error")),
    }
}

/// An address as the daemon binds it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Address {
    key: &'static str,
    datagram: bool,
    address: SocketAddr,
}

fn addresses(config: &Config) -> Vec<Address> {
    let listed = |key, datagram, addresses: &[SocketAddr]| {
        let of = move |address: &SocketAddr| Address { key, datagram, address: *address };
        addresses.iter().map(of).collect::<Vec<_>>()
    };
    let mut all = listed("listen.udp", true, &config.listen.udp);
    all.extend(listed("listen.tcp", false, &config.listen.tcp));
    all.extend(listed("listen.tls", false, &config.listen.tls));
    all.extend(listed("admin.listen", false, &[config.admin.listen]));
    // Calls take their ports when they come; any port shows whether the address is ours.
    let media = [config.media.bind.v4, config.media.bind.v6].into_iter().flatten();
    let media: Vec<SocketAddr> = media.map(|address| SocketAddr::new(address, 0)).collect();
    all.extend(listed("media.address", true, &media));
    all
}

/// What keeps the address from being bound, in words.
fn try_bind(wanted: &Address) -> Option<String> {
    let Address { key, datagram, address } = wanted;
    let bound = match datagram {
        true => UdpSocket::bind(address).map(drop),
        false => TcpListener::bind(address).map(drop),
    };
    let protocol = if *datagram { "udp" } else { "tcp" };
    let port = address.port();
    let (what, fix) = match bound.err()?.kind() {
        ErrorKind::AddrInUse => (
            "is in use by another program".to_owned(),
            format!("see which: ss -l{}np 'sport = :{port}'", &protocol[..1]),
        ),
        ErrorKind::AddrNotAvailable => {
            ("is no address of this machine".to_owned(), "list them: ip address".to_owned())
        }
        ErrorKind::PermissionDenied => {
            ("may not be bound by this user".to_owned(), "use a port from 1024 up".to_owned())
        }
        kind => (format!("cannot be bound: {kind}"), "choose another address".to_owned()),
    };
    Some(format!("{key}: {address}/{protocol} {what}\n    fix: {fix}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_address_is_told_with_the_way_to_find_its_owner() {
        let taken = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let address = taken.local_addr().expect("it is bound");
        let wanted = Address { key: "listen.udp", datagram: true, address };
        let port = address.port();
        let expected = format!(
            "listen.udp: 127.0.0.1:{port}/udp is in use by another program\n    fix: see which: \
             ss -lunp 'sport = :{port}'"
        );
        assert_eq!(try_bind(&wanted), Some(expected));
        drop(taken);
        assert_eq!(try_bind(&wanted), None);
    }

    #[test]
    fn a_foreign_address_is_told() {
        let address = SocketAddr::from(([203, 0, 113, 1], 5060));
        let wanted = Address { key: "listen.tcp", datagram: false, address };
        let told = try_bind(&wanted).expect("it is for documentation only");
        assert!(told.contains("203.0.113.1:5060/tcp is no address of this machine"), "{told}");
    }
}
