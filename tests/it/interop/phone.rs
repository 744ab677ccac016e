//! SIPp as a telephone: one run of a scenario of `fixtures/sipp`, beside the test, as the caller or as
//! whoever is called. Its exit code says that every message came as the scenario wants it.

use super::rig::{Folder, free_port};
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// SIPp in one call; ended when dropped.
pub struct Phone {
    child: Child,
    folder: Folder,
    scenario: String,
    pub port: u16,
}

impl Phone {
    /// Waits for one call. `transport` is `u1` or `t1`.
    pub fn start(scenario: &str, transport: &str) -> Phone {
        Phone::play(scenario, &["-t", transport])
    }

    /// Waits for one call, with its media at this port of somebody else.
    pub fn heard(scenario: &str, ear: u16) -> Phone {
        Phone::play(scenario, &["-t", "u1", "-key", "ear", &ear.to_string()])
    }

    /// The same; the scenario plays `early.ulaw`, which holds this µ-law.
    pub fn heard_early(scenario: &str, ear: u16, early: &[u8]) -> Phone {
        let folder = Folder::new();
        folder.write("early.ulaw", early);
        let (ear, media_port) = (ear.to_string(), media_port().to_string());
        let how = ["-t", "u1", "-mp", &media_port, "-key", "ear", &ear];
        Phone::play_in(folder, scenario, &how)
    }

    /// Calls this user at this port.
    pub fn call(scenario: &str, transport: &str, user: &str, port: u16) -> Phone {
        let server = format!("127.0.0.1:{port}");
        Phone::play(scenario, &["-t", transport, "-s", user, &server])
    }

    /// Calls with its media at this port of somebody else.
    pub fn heard_call(scenario: &str, transport: &str, ear: u16, user: &str, port: u16) -> Phone {
        let (ear, server) = (ear.to_string(), format!("127.0.0.1:{port}"));
        Phone::play(scenario, &["-t", transport, "-key", "ear", &ear, "-s", user, &server])
    }

    /// Calls, and wants whoever answers to go over to this port.
    pub fn refers(scenario: &str, target: u16, user: &str, port: u16) -> Phone {
        let (target, server) = (target.to_string(), format!("127.0.0.1:{port}"));
        let keys = ["-key", "target", &target, "-key", "ear", "9"];
        Phone::play(scenario, &[&["-t", "u1", "-s", user], &keys[..], &[&server]].concat())
    }

    /// Calls this user at this port, and sends everything to the proxy.
    pub fn call_by(scenario: &str, proxy: &str, user: &str, port: u16) -> Phone {
        let server = format!("127.0.0.1:{port}");
        Phone::play(scenario, &["-t", "u1", "-rsa", proxy, "-s", user, &server])
    }

    /// Calls and plays a capture, with SIPp's own media port and more words for the scenario.
    pub fn plays(
        scenario: &str,
        keys: &[(&str, &str)],
        media_port: u16,
        capture: &[u8],
        (user, port): (&str, u16),
    ) -> Phone {
        let folder = Folder::new();
        folder.write("speech.pcap", capture);
        let (media_port, server) = (media_port.to_string(), format!("127.0.0.1:{port}"));
        let mut how = vec!["-t", "u1", "-s", user, "-mp", &media_port];
        how.extend(keys.iter().flat_map(|(name, value)| ["-key", name, value]));
        how.push(&server);
        Phone::play_in(folder, scenario, &how)
    }

    fn play(scenario: &str, how: &[&str]) -> Phone {
        let media_port = media_port().to_string();
        Phone::play_in(Folder::new(), scenario, &[&["-mp", &media_port], how].concat())
    }

    fn play_in(folder: Folder, scenario: &str, how: &[&str]) -> Phone {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/sipp");
        let port = free_port();
        let child = Command::new("sipp")
            .current_dir(&folder.0)
            .arg("-sf")
            .arg(fixtures.join(scenario).with_extension("xml"))
            .args(["-i", "127.0.0.1", "-m", "1", "-p", &port.to_string()])
            .args(["-nostdin", "-trace_err", "-error_file", "errors.log"])
            .args(["-timeout", "40", "-timeout_error"])
            .args(how)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it is installed");
        Phone { child, folder, scenario: scenario.to_owned(), port }
    }

    pub fn scenario(&self) -> String {
        self.scenario.clone()
    }

    /// Its scenario came to its end as it wants it.
    pub fn assert_content(mut self) {
        let status = self.child.wait().expect("it runs");
        let errors = std::fs::read(self.folder.0.join("errors.log")).unwrap_or_default();
        let errors = String::from_utf8_lossy(&errors);
        assert!(status.success(), "{}: {status}\n{errors}", self.scenario);
    }
}

/// A port for SIPp's audio, with the next ones free, which it takes for RTCP and video.
fn media_port() -> u16 {
    loop {
        let port = free_port();
        let is_free = |offset| {
            let next = port.checked_add(offset);
            next.is_some_and(|next| UdpSocket::bind(("127.0.0.1", next)).is_ok())
        };
        if [1, 2, 3].into_iter().all(is_free) {
            return port;
        }
    }
}

impl Drop for Phone {
    fn drop(&mut self) {
        // One that has ended already cannot be killed, which is as well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
