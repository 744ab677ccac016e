//! A call over IPv6: signalling and media, while the configured media address is IPv4.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use voxedge::cli::demo::phone::{self, PhoneCall};
use voxedge::cli::demo::{measure, speech};
use voxedge::codec::CodecKind;
use voxedge::ground::Transport;
use voxedge::shell::config::{self, Machine};
use voxedge::shell::daemon::Daemon;
use voxedge::standin::script::ECHO;

const CONFIG: &str = r#"
[listen]
udp = ["127.0.0.1:5070", "[::1]:5070"]
tcp = ["[::1]:5070"]
[media]
address = "127.0.0.1"
ports = "20000-24999"
[ultravox]
base_url = "embedded"
[sip]
domain = "localhost"
allowed_cidr_ranges = ["127.0.0.0/8", "::1/128"]
allow_all_agents = true
[admin]
listen = "127.0.0.1:8080"
[store]
path = "calls.sqlite"
"#;

fn config(folder: &Path) -> config::Config {
    let (config, report) = config::read("ipv6.toml", CONFIG, folder, &Machine::this());
    let mut config = config.unwrap_or_else(|| panic!("{report}"));
    for address in config.listen.udp.iter_mut().chain(&mut config.listen.tcp) {
        address.set_port(0);
    }
    config.admin.listen.set_port(0);
    config
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_over_ipv6_hears_itself_over_ipv6() {
    let folder = std::env::temp_dir().join(format!("voxedge-ipv6-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let daemon = Daemon::start(&config(&folder)).await.expect("a daemon");
    for (seed, transport) in [(1, Transport::Udp), (2, Transport::Tcp)] {
        let listener = |(kind, at): &(Transport, SocketAddr)| *kind == transport && at.is_ipv6();
        let server = daemon.bound().iter().copied().find(listener).expect("a listener").1;
        let spoken = speech::sentence(8_000)[..8_000].to_vec();
        let report = phone::place(PhoneCall {
            server,
            transport,
            tls: None,
            to_user: format!("agent_{ECHO}"),
            domain: "localhost".to_owned(),
            codec: CodecKind::Pcmu,
            speech: spoken.clone(),
            talk: Duration::from_millis(1_800),
            headers: Vec::new(),
            seed,
        })
        .await
        .expect("a call");
        assert_eq!(report.status, 200, "{transport:?} {:?}", report.warning);
        // Piece by piece, since a machine that stalls moves the pieces apart.
        let heard = |piece: &[i16]| measure::align(piece, &report.heard, report.heard.len());
        let likeness = spoken.chunks_exact(2_000).filter_map(heard).map(|at| at.correlation);
        let best = likeness.fold(0.0, f64::max);
        assert!(best > 0.9, "{transport:?} {best}");
    }
    daemon.stop(Duration::ZERO).await;
    std::fs::remove_dir_all(&folder).expect("cleaned");
}
