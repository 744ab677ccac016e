//! A small HTTP client for our own admin listener, so that the commands of this program can ask the
//! daemon that runs. One blocking request, bounded in time and size; it speaks to nobody else.

use crate::ground::Secret;
use crate::shell::tls::{Pem, pinned};
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

/// One request.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    pub method: &'a str,
    pub path: &'a str,
    pub api_key: Option<&'a Secret>,
    /// JSON.
    pub body: Option<&'a str>,
    /// The listener speaks TLS with this certificate.
    pub certificate: Option<&'a Pem>,
}

/// An answer: status, head and body.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    pub status: u16,
    /// The status line and the header lines.
    pub head: String,
    pub body: String,
}

impl Answer {
    /// The first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }
}

/// `method path` over plain HTTP, without a body; see [`send`].
///
/// # Errors
/// As [`send`].
pub fn request(
    method: &str,
    listen: SocketAddr,
    path: &str,
    api_key: Option<&Secret>,
) -> Result<Answer, ClientFault> {
    send(listen, &Ask { method, path, api_key, body: None, certificate: None })
}

/// Asks the listener at `listen` (a wildcard address is asked on loopback).
///
/// # Errors
/// When nobody listens there, or what answers is not our listener.
pub fn send(listen: SocketAddr, ask: &Ask<'_>) -> Result<Answer, ClientFault> {
    let address = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => (Ipv4Addr::LOCALHOST, listen.port()).into(),
        IpAddr::V6(ip) if ip.is_unspecified() => (Ipv6Addr::LOCALHOST, listen.port()).into(),
        _ => listen,
    };
    let stream = TcpStream::connect_timeout(&address, WAIT).map_err(|_| ClientFault::NotRunning)?;
    stream.set_read_timeout(Some(WAIT)).map_err(ClientFault::Broken)?;
    let bytes = match ask.certificate {
        None => exchange(stream, address, ask),
        Some(certificate) => {
            let secured = pinned::connect(stream, certificate);
            let fault =
                |fault: crate::shell::tls::TlsFault| std::io::Error::other(fault.to_string());
            secured.map_err(fault).and_then(|stream| exchange(stream, address, ask))
        }
    };
    parse(&bytes.map_err(ClientFault::Broken)?).ok_or(ClientFault::BadAnswer)
}

fn exchange(
    mut stream: impl Read + Write,
    address: SocketAddr,
    ask: &Ask<'_>,
) -> std::io::Result<Vec<u8>> {
    let Ask { method, path, .. } = ask;
    let key = ask.api_key.map_or(String::new(), |key| format!("X-API-Key: {}\r\n", key.reveal()));
    let kind = ask.body.map_or(String::new(), |body| {
        format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len())
    });
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\n{key}{kind}Connection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(ask.body.unwrap_or_default().as_bytes())?;
    stream.flush()?;
    let mut bytes = Vec::new();
    match stream.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes) {
        Err(error) if !pinned::is_rough_end(&error) => Err(error),
        Ok(_) | Err(_) => Ok(bytes),
    }
}

/// Our listener tells the length of its body, or sends it in chunks, and closes.
fn parse(bytes: &[u8]) -> Option<Answer> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let (head, body) = bytes.split_at_checked(end)?;
    let (head, body) = (std::str::from_utf8(head).ok()?.to_owned(), body.get(4..)?);
    let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let body = match header(&head, "content-length") {
        Some(length) => body.get(..length.parse::<usize>().ok()?)?.to_vec(),
        None if header(&head, "transfer-encoding") == Some("chunked") => unchunk(body)?,
        // These have no body (RFC 9110 §6.4.1).
        None if status == 204 || status == 304 => Vec::new(),
        None => return None,
    };
    Some(Answer { status, head, body: String::from_utf8(body).ok()? })
}

fn header<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    head.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then_some(value.trim())
    })
}

/// The body of RFC 9112 §7.1 chunks; `None` when the last one did not come.
fn unchunk(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = bytes.windows(2).position(|window| window == b"\r\n")?;
        let size = std::str::from_utf8(bytes.get(..end)?).ok()?;
        let size = usize::from_str_radix(size.split(';').next()?.trim(), 16).ok()?;
        bytes = bytes.get(end + 2..)?;
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(bytes.get(..size)?);
        bytes = bytes.get(size.checked_add(2)?..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_answer_counts() {
        let body = |bytes: &[u8]| parse(bytes).map(|answer| (answer.status, answer.body));
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
        assert_eq!(body(whole), Some((200, "{}".into())));
        assert_eq!(parse(whole).expect("whole").header("content-length"), Some("2"));
        let chunked =
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\n{\r\n1;a=b\r\n}\r\n0\r\n\r\n";
        assert_eq!(body(chunked), Some((200, "{}".into())));
        assert_eq!(body(b"HTTP/1.1 204 No Content\r\n\r\n"), Some((204, String::new())));
        for broken in [
            &b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n{}"[..],
            b"HTTP/1.1 200 OK\r\n\r\n{}",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff\r\n{}\r\n",
            b"SSH-2.0-x\r\n\r\n",
            b"HTTP/1.1 2\r\ncontent-length: 0\r\n\r\n",
            b"",
        ] {
            assert_eq!(parse(broken), None);
        }
    }
}
