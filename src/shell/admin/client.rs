//! A small HTTP client for our own admin listener, so that `voxedge calls` can ask the daemon that
//! runs. One blocking GET, bounded in time and size; it speaks to nobody else.

use crate::ground::Secret;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// Time for connecting, and for each read.
const WAIT: Duration = Duration::from_secs(5);
/// Bytes of an answer.
const ANSWER_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Why there is no answer.
#[derive(Debug)]
pub enum ClientFault {
    /// Nobody listens: no daemon runs with this configuration.
    NotRunning,
    Broken(std::io::Error),
    /// The answer is no HTTP of ours.
    BadAnswer,
}

/// An answer: status and body.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    pub status: u16,
    pub body: String,
}

/// `method path` on the listener at `listen` (a wildcard address is asked on loopback).
///
/// # Errors
/// When nobody listens there, or what answers is not our listener.
pub fn request(
    method: &str,
    listen: SocketAddr,
    path: &str,
    api_key: Option<&Secret>,
) -> Result<Answer, ClientFault> {
    let address = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => (Ipv4Addr::LOCALHOST, listen.port()).into(),
        IpAddr::V6(ip) if ip.is_unspecified() => (Ipv6Addr::LOCALHOST, listen.port()).into(),
        _ => listen,
    };
    let mut stream =
        TcpStream::connect_timeout(&address, WAIT).map_err(|_| ClientFault::NotRunning)?;
    stream.set_read_timeout(Some(WAIT)).map_err(ClientFault::Broken)?;
    let key = api_key.map_or(String::new(), |key| format!("X-API-Key: {}\r\n", key.reveal()));
    let head =
        format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\n{key}Connection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).map_err(ClientFault::Broken)?;
    let mut bytes = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes).map_err(ClientFault::Broken)?;
    parse(&bytes).ok_or(ClientFault::BadAnswer)
}

/// Our listener answers with a Content-Length and closes.
fn parse(bytes: &[u8]) -> Option<Answer> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    let body = body.get(..length?)?.to_owned();
    Some(Answer { status, body })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_answer_counts() {
        let whole = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
        assert_eq!(parse(whole), Some(Answer { status: 200, body: "{}".into() }));
        for broken in [
            &b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n{}"[..],
            b"HTTP/1.1 200 OK\r\n\r\n{}",
            b"SSH-2.0-x\r\n\r\n",
            b"HTTP/1.1 2\r\ncontent-length: 0\r\n\r\n",
            b"",
        ] {
            assert_eq!(parse(broken), None);
        }
    }
}
