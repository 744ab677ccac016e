//! The agent's side of a stream, written apart from the product's own framing: a blocking TLS (or
//! plain) server on loopback that runs one script for each connection, on its own thread.

use rustls::{ServerConnection, StreamOwned};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;
use voxedge::shell::tls::{self, Pem};

/// No wait of a test is longer.
pub const PATIENCE: Duration = Duration::from_secs(10);

pub struct FarEnd {
    pub address: SocketAddr,
    /// Root that vouches for it.
    pub root: Pem,
}

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// A connection after the request's head was read.
pub struct FarSocket {
    stream: Box<dyn Stream>,
    pub request: String,
}

/// A frame as it came: opcode and unmasked payload.
pub type Frame = (u8, Vec<u8>);

impl FarEnd {
    /// Serves TLS with a certificate for `name`.
    pub fn tls(name: &str, script: impl Fn(FarSocket) + Send + Sync + 'static) -> FarEnd {
        let (certificate, key) = tls::self_signed(&[name]).expect("a name");
        let root = Pem::from_text("root", &certificate);
        let config = tls::server_config(&root, &Pem::from_text("key", &key), None).expect("a pair");
        FarEnd::serve(root, move |tcp| {
            let tls = ServerConnection::new(config.clone()).expect("a connection");
            if let Some(socket) = FarSocket::new(Box::new(StreamOwned::new(tls, tcp))) {
                script(socket);
            }
        })
    }

    /// Serves plain TCP.
    pub fn plain(script: impl Fn(FarSocket) + Send + Sync + 'static) -> FarEnd {
        FarEnd::serve(Pem::from_text("none", ""), move |tcp| {
            if let Some(socket) = FarSocket::new(Box::new(tcp)) {
                script(socket);
            }
        })
    }

    /// Hands each TCP connection to `script` as it is.
    pub fn serve(root: Pem, script: impl Fn(TcpStream) + Send + Sync + 'static) -> FarEnd {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        // Little room to receive, so that a script that does not read is noticed soon.
        socket2::SockRef::from(&listener).set_recv_buffer_size(4_096).expect("a size");
        let address = listener.local_addr().expect("an address");
        let script = Arc::new(script);
        std::thread::spawn(move || {
            for tcp in listener.incoming().flatten() {
                tcp.set_read_timeout(Some(PATIENCE)).expect("a timeout");
                tcp.set_nodelay(true).expect("an option");
                let script = script.clone();
                std::thread::spawn(move || script(tcp));
            }
        });
        FarEnd { address, root }
    }
}

impl FarSocket {
    /// Reads the request's head; `None` when the client went away before it was whole.
    fn new(mut stream: Box<dyn Stream>) -> Option<FarSocket> {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).ok()?;
            head.extend(byte);
        }
        Some(FarSocket { stream, request: String::from_utf8(head).expect("ASCII") })
    }

    /// Answers the upgrade as RFC 6455 asks.
    pub fn accept(&mut self) {
        use base64::Engine;
        use sha1::Digest;
        let key = self.request.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: "));
        let salted = format!("{}258EAFA5-E914-47DA-95CA-C5AB0DC85B11", key.expect("a key"));
        let accept = base64::engine::general_purpose::STANDARD.encode(sha1::Sha1::digest(salted));
        self.send(
            format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
                 Connection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
            )
            .as_bytes(),
        );
    }

    /// Sends bytes as they are. The client may be gone already; the test's events tell.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).and_then(|()| self.stream.flush());
    }

    /// Sends one unmasked frame.
    pub fn frame(&mut self, opcode: u8, payload: &[u8]) {
        let mut bytes = vec![0x80 | opcode, 127];
        bytes.extend((payload.len() as u64).to_be_bytes());
        if payload.len() < 126 {
            bytes = vec![0x80 | opcode, payload.len() as u8];
        }
        bytes.extend(payload);
        self.send(&bytes);
    }

    /// The next frame; `None` when the client closed the connection.
    pub fn next(&mut self) -> Option<Frame> {
        let [first, second] = self.bytes::<2>()?;
        assert_eq!(first & 0xf0, 0x80, "whole, and without reserved bits");
        assert_eq!(second & 0x80, 0x80, "masked");
        let length = match second & 0x7f {
            126 => u16::from_be_bytes(self.bytes()?).into(),
            127 => u64::from_be_bytes(self.bytes()?) as usize,
            short => usize::from(short),
        };
        let mask = self.bytes::<4>()?;
        let mut payload = vec![0; length];
        self.stream.read_exact(&mut payload).ok()?;
        for (index, byte) in payload.iter_mut().enumerate() {
            *byte ^= mask[index % 4];
        }
        Some((first & 0x0f, payload))
    }

    /// The length of what one read gives: over plain TCP what was sent at once, or more.
    pub fn chunk(&mut self) -> Option<usize> {
        self.stream.read(&mut [0; 8_192]).ok().filter(|length| *length > 0)
    }

    /// The next frame that is not audio.
    pub fn next_but_audio(&mut self) -> Option<Frame> {
        loop {
            let frame = self.next()?;
            if frame.0 != BINARY {
                return Some(frame);
            }
        }
    }

    fn bytes<const COUNT: usize>(&mut self) -> Option<[u8; COUNT]> {
        let mut bytes = [0; COUNT];
        self.stream.read_exact(&mut bytes).ok()?;
        Some(bytes)
    }
}

pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;
