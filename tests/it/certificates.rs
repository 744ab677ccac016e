//! Certificates renewed while the daemon runs: SIGHUP, and the next handshake shows the new one. A
//! file that cannot be used changes nothing.

use crate::rig::{self, Place, Process, SOON};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use voxedge::ground::Transport;
use voxedge::shell::connect;
use voxedge::shell::tls::{self, ClientConfig, Pem};

/// Puts a fresh certificate into the place of the daemon's, and gives the trust in it alone.
fn renew(place: &Place) -> Arc<ClientConfig> {
    let (certificate, key) = tls::self_signed(&["localhost", "127.0.0.1"]).expect("good names");
    std::fs::write(place.path("edge.crt"), &certificate).expect("our own directory");
    std::fs::write(place.path("edge.key"), &key).expect("our own directory");
    tls::client_config(false, &[Pem::from_text("new", &certificate)]).expect("a certificate")
}

async fn trusts(process: &Process, trust: &Arc<ClientConfig>) -> bool {
    let socket = TcpStream::connect(process.doors.tls).await.expect("it listens");
    connect::tls(socket, "localhost", Arc::clone(trust)).await.is_ok()
}

/// Waits until the log has `count` lines with these words.
fn await_said(process: &Process, words: &str, count: usize) {
    rig::await_some(SOON, words, || {
        let log = process.log();
        (log.lines().filter(|line| line.contains(words)).count() >= count).then_some(())
    });
}

#[test]
fn a_renewed_certificate_is_shown_after_sighup_and_a_broken_one_is_not() {
    rig::run(Duration::from_secs(120), async {
        let process = Process::spawn(&[], &[]);
        let old = Arc::clone(&process.trust);
        let mut caller = process.caller(Transport::Tls).await;
        assert!(trusts(&process, &old).await);

        let new = renew(&process.place);
        assert!(trusts(&process, &old).await, "nobody told it yet");
        process.signal("HUP");
        await_said(&process, "certificates of [tls] were read again", 1);
        assert!(trusts(&process, &new).await);
        assert!(!trusts(&process, &old).await);
        let answer = caller.call("echo", 40_010).await;
        assert_eq!(answer.code(), 200, "a connection that was up goes on");
        assert_eq!(caller.hang_up(&answer).await, 200);

        std::fs::write(process.place.path("edge.key"), "no key").expect("our own directory");
        process.signal("HUP");
        await_said(&process, "nothing was reloaded", 1);
        assert!(trusts(&process, &new).await, "the last good one stays");
    });
}
