//! The byte stream to an agent's host: TLS over TCP, or TCP alone to loopback where the settings
//! allow it. Nonblocking both ways. What was written and not taken by the kernel waits here; the
//! stream above writes nothing new while something waits, so little ever does.
//!
//! Reading stops at a read of the socket that gave less than it might have: the socket was empty
//! then, and what comes later is reported anew. Only an end that was reported already is read for.

use crate::shell::tls::{ClientConnection, ServerName};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

/// Bytes that may wait in TLS: the largest data message of ours in its records, and control frames.
const WAITING_BYTES_MAX: usize = 512 * 1024;
/// Reads of the socket for one [`Connection::read`].
const SOCKET_READS_MAX: usize = 4;

/// A TCP connection with or without TLS.
pub struct Connection {
    socket: Socket,
    layer: Layer,
}

/// The TCP socket, and whether it has more.
struct Socket {
    tcp: TcpStream,
    /// The last read emptied it.
    drained: bool,
    /// The far end's end was reported; it lies behind whatever there is to read.
    ended: bool,
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.drained {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = self.tcp.read(buffer)?;
        self.drained = !self.ended && count < buffer.len();
        Ok(count)
    }
}

enum Layer {
    Plain { waiting: Vec<u8>, written: usize },
    Tls(Box<ClientConnection>),
}

/// What a read gave.
#[derive(PartialEq, Eq, Debug)]
pub enum Received {
    Bytes(usize),
    /// The socket is empty: wait until it is readable.
    Nothing,
    /// Bytes were read that hold nothing for us yet; there may be more.
    Again,
    /// The far end closed.
    End,
}

impl Connection {
    /// Plain TCP.
    pub fn plain(tcp: TcpStream) -> Connection {
        let layer = Layer::Plain { waiting: Vec::new(), written: 0 };
        Connection { socket: Socket { tcp, drained: false, ended: false }, layer }
    }

    /// TLS as a client of `host`; the handshake goes on with `flush` and `read`.
    ///
    /// # Errors
    /// `host` cannot stand in a certificate.
    pub fn tls(
        tcp: TcpStream,
        config: &Arc<crate::shell::tls::ClientConfig>,
        host: &str,
    ) -> Result<Connection, String> {
        let name = ServerName::try_from(host.trim_end_matches('.').to_owned())
            .map_err(|error| error.to_string())?;
        let mut tls =
            ClientConnection::new(config.clone(), name).map_err(|error| error.to_string())?;
        tls.set_buffer_limit(Some(WAITING_BYTES_MAX));
        let socket = Socket { tcp, drained: false, ended: false };
        Ok(Connection { socket, layer: Layer::Tls(Box::new(tls)) })
    }

    /// The socket was reported: it may have something to read. `ended`: its end among it.
    pub fn note_ready(&mut self, ended: bool) {
        self.socket.drained = false;
        self.socket.ended |= ended;
    }

    /// The TLS handshake is not over.
    pub fn is_handshaking(&self) -> bool {
        match &self.layer {
            Layer::Plain { .. } => false,
            Layer::Tls(tls) => tls.is_handshaking(),
        }
    }

    /// Takes `bytes` for the next `flush`.
    ///
    /// # Errors
    /// Too much waits already; the connection is of no more use, since a frame may be cut.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.layer {
            Layer::Plain { waiting, .. } if waiting.len() + bytes.len() > WAITING_BYTES_MAX => {
                Err(io::ErrorKind::WriteZero.into())
            }
            Layer::Plain { waiting, .. } => {
                waiting.extend_from_slice(bytes);
                Ok(())
            }
            Layer::Tls(tls) => tls.writer().write_all(bytes),
        }
    }

    /// Writes what waits; true when nothing waits any more.
    ///
    /// # Errors
    /// The connection broke.
    pub fn flush(&mut self) -> io::Result<bool> {
        loop {
            let wrote = match &mut self.layer {
                Layer::Plain { waiting, written } if *written >= waiting.len() => {
                    waiting.clear();
                    *written = 0;
                    return Ok(true);
                }
                Layer::Plain { waiting, written } => {
                    self.socket.tcp.write(&waiting[*written..]).map(|count| *written += count)
                }
                Layer::Tls(tls) if !tls.wants_write() => return Ok(true),
                Layer::Tls(tls) => tls.write_tls(&mut self.socket.tcp).map(|_| ()),
            };
            match wrote {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads what is there, into `buffer`.
    ///
    /// # Errors
    /// The connection broke, or what came is no TLS, or the certificate is not to be trusted.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<Received> {
        let Layer::Tls(tls) = &mut self.layer else {
            return match self.socket.read(buffer) {
                Ok(0) => Ok(Received::End),
                Ok(count) => Ok(Received::Bytes(count)),
                Err(error) => quiet(error),
            };
        };
        for _ in 0..SOCKET_READS_MAX {
            match tls.reader().read(buffer) {
                Ok(0) => return Ok(Received::End),
                Ok(count) => return Ok(Received::Bytes(count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Ok(Received::End);
                }
                Err(error) => return Err(error),
            }
            match tls.read_tls(&mut self.socket) {
                Ok(0) => return Ok(Received::End),
                Ok(_) => {}
                Err(error) => return quiet(error),
            }
            if let Err(error) = tls.process_new_packets() {
                // The alert that tells the far end why; if it does not go out, so be it.
                let _ = tls.write_tls(&mut self.socket.tcp);
                return Err(io::Error::other(error));
            }
            if tls.wants_write() && tls.is_handshaking() {
                break;
            }
        }
        Ok(Received::Again)
    }

    /// Says that nothing more comes from us: `close_notify`, then the end of our direction.
    pub fn finish(&mut self) {
        if let Layer::Tls(tls) = &mut self.layer {
            tls.send_close_notify();
        }
        // Best effort: the far end learns of the end from the socket in any case.
        if matches!(self.flush(), Ok(true)) {
            let _ = self.socket.tcp.shutdown(std::net::Shutdown::Write);
        }
    }
}

fn quiet(error: io::Error) -> io::Result<Received> {
    match error.kind() {
        io::ErrorKind::WouldBlock => Ok(Received::Nothing),
        io::ErrorKind::Interrupted => Ok(Received::Again),
        _ => Err(error),
    }
}
