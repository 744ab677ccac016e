//! The byte stream to an agent's host: TLS over TCP, or TCP alone to loopback where the settings
//! allow it. Nonblocking both ways. What was written and not taken by the kernel waits here; the
//! stream above writes nothing new while something waits, so little ever does.
//!
//! TLS works in buffers that all calls of a shard share ([`Buffers`]). A connection keeps bytes of its
//! own only while a record has come in part, or the kernel takes no more: so a call that runs well
//! keeps none.
//!
//! Reading stops at a read of the socket that gave less than it might have: the socket was empty
//! then, and what comes later is reported anew. Only an end that was reported already is read for.

use crate::shell::tls::unbuffered::{
    AppDataRecord, ConnectionState, EncodeError, EncodeTlsData, UnbufferedStatus, WriteTraffic,
};
use crate::shell::tls::{ClientConnectionData, ServerName, UnbufferedClientConnection};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

/// Bytes that may wait for the kernel: the largest data message of ours in its records, and control
/// frames.
const WAITING_BYTES_MAX: usize = 512 * 1024;
/// Bytes of one read of the socket: a whole record and more (RFC 8446 §5.2).
const READ_BYTES: usize = 20 * 1024;
/// Bytes that one [`Connection::read`] gives at most. So many bytes of TLS may also wait for the rest
/// of a record or of a message of the handshake, with what is read next: they are more than what they
/// say.
pub const PLAIN_BYTES: usize = 64 * 1024;
/// What sealing adds to the bytes of one record, and more than that.
const RECORD_OVERHEAD: usize = 64;
/// A TLS record's largest plaintext (RFC 8446 §5.1).
const RECORD_BYTES: usize = 16 * 1024;
/// Reads of the socket for one [`Connection::read`].
const SOCKET_READS_MAX: usize = 4;

/// Room for TLS that the connections of one thread share.
pub struct Buffers {
    /// As read from a socket.
    read: Box<[u8; READ_BYTES]>,
    /// Records on their way to a socket; as long as the longest were.
    sealed: Vec<u8>,
}

impl Default for Buffers {
    fn default() -> Buffers {
        Buffers { read: Box::new([0; READ_BYTES]), sealed: Vec::new() }
    }
}

/// A TCP connection with or without TLS.
pub struct Connection {
    socket: Socket,
    tls: Option<Box<Tls>>,
    /// Bytes that the kernel did not take yet.
    waiting: Vec<u8>,
    /// Of them, those that it took meanwhile.
    written: usize,
}

/// The TCP socket, and whether it has more.
struct Socket {
    tcp: TcpStream,
    /// The last read emptied it.
    drained: bool,
    /// The far end's end was reported; it lies behind whatever there is to read.
    ended: bool,
}

impl Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.drained {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = self.tcp.read(buffer)?;
        self.drained = !self.ended && count < buffer.len();
        Ok(count)
    }
}

/// The layer of TLS.
struct Tls {
    machine: UnbufferedClientConnection,
    /// Records, or handshake messages, that have come in part.
    unread: Vec<u8>,
    /// The far end said that nothing more comes.
    closed: bool,
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
        let socket = Socket { tcp, drained: false, ended: false };
        Connection { socket, tls: None, waiting: Vec::new(), written: 0 }
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
        let machine = UnbufferedClientConnection::new(config.clone(), name)
            .map_err(|error| error.to_string())?;
        let mut tls = Box::new(Tls { machine, unread: Vec::new(), closed: false });
        let mut connection = Connection::plain(tcp);
        // The ClientHello.
        tls.advance(&mut [], &mut [], &mut connection.waiting, |_| {})
            .map_err(|error| error.to_string())?;
        connection.tls = Some(tls);
        Ok(connection)
    }

    /// The socket was reported: it may have something to read. `ended`: its end among it.
    pub fn note_ready(&mut self, ended: bool) {
        self.socket.drained = false;
        self.socket.ended |= ended;
    }

    /// The TLS handshake is not over.
    pub fn is_handshaking(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.machine.is_handshaking())
    }

    /// Gives `bytes` to the kernel; what it does not take waits for the next `flush`.
    ///
    /// # Errors
    /// The connection broke, or too much waits already; it is of no more use, since a frame may be
    /// cut.
    pub fn write(&mut self, bytes: &[u8], buffers: &mut Buffers) -> io::Result<()> {
        let Buffers { sealed, .. } = buffers;
        let Some(tls) = &mut self.tls else { return self.send(bytes) };
        let count = tls.seal(bytes, sealed, &mut self.waiting)?;
        self.send(&sealed[..count])
    }

    /// Writes what waits; true when nothing waits any more.
    ///
    /// # Errors
    /// The connection broke.
    pub fn flush(&mut self) -> io::Result<bool> {
        self.socket.flush(&mut self.waiting, &mut self.written)
    }

    /// Reads what is there, into `buffer`.
    ///
    /// # Errors
    /// The connection broke, or what came is no TLS, or the certificate is not to be trusted.
    pub fn read(
        &mut self,
        buffer: &mut [u8; PLAIN_BYTES],
        buffers: &mut Buffers,
    ) -> io::Result<Received> {
        let Some(tls) = &mut self.tls else {
            return match self.socket.read(buffer) {
                Ok(0) => Ok(Received::End),
                Ok(count) => Ok(Received::Bytes(count)),
                Err(error) => quiet(error),
            };
        };
        for _ in 0..SOCKET_READS_MAX {
            if tls.closed {
                return Ok(Received::End);
            }
            let count = match self.socket.read(&mut buffers.read[..]) {
                Ok(0) => return Ok(Received::End),
                Ok(count) => count,
                Err(error) => return quiet(error),
            };
            let opened = tls.open(&mut buffers.read[..count], buffer, &mut self.waiting);
            if !self.waiting.is_empty() {
                // Our part of the handshake, or the alert that tells the far end why. A connection that
                // broke is seen at its next read.
                let _ = self.socket.flush(&mut self.waiting, &mut self.written);
            }
            match opened? {
                0 => {}
                count => return Ok(Received::Bytes(count)),
            }
        }
        Ok(Received::Again)
    }

    /// Says that nothing more comes from us: `close_notify`, then the end of our direction.
    pub fn finish(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.say_close(&mut self.waiting);
        }
        // Best effort: the far end learns of the end from the socket in any case.
        if matches!(self.flush(), Ok(true)) {
            let _ = self.socket.tcp.shutdown(std::net::Shutdown::Write);
        }
    }

    /// Writes after what waits.
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        if self.flush()? {
            while !rest.is_empty() {
                let Some(count) = self.socket.write(rest)? else { break };
                rest = &rest[count..];
            }
        }
        if self.waiting.len() + rest.len() > WAITING_BYTES_MAX {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.waiting.extend_from_slice(rest);
        Ok(())
    }
}

impl Socket {
    /// Writes `waiting` from `written` on; true when nothing waits any more.
    fn flush(&mut self, waiting: &mut Vec<u8>, written: &mut usize) -> io::Result<bool> {
        while *written < waiting.len() {
            let Some(count) = self.write(&waiting[*written..])? else { return Ok(false) };
            *written += count;
        }
        (*waiting, *written) = (Vec::new(), 0);
        Ok(true)
    }

    /// Writes some of `bytes`; `None` when the kernel takes no more.
    fn write(&mut self, bytes: &[u8]) -> io::Result<Option<usize>> {
        loop {
            match self.tcp.write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => return Ok(Some(count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl Tls {
    /// Takes bytes of the socket; writes what they say to the front of `plain`, and what is to be
    /// answered to the end of `waiting`. Gives the length of the plaintext.
    fn open(
        &mut self,
        bytes: &mut [u8],
        plain: &mut [u8],
        waiting: &mut Vec<u8>,
    ) -> io::Result<usize> {
        if self.unread.is_empty() {
            let (used, count) = self.advance(bytes, plain, waiting, |_| {})?;
            self.unread.extend_from_slice(&bytes[used..]);
            return Ok(count);
        }
        if self.unread.len() + bytes.len() > PLAIN_BYTES {
            return Err(io::Error::other("a message of the handshake is too long"));
        }
        let mut unread = std::mem::take(&mut self.unread);
        unread.extend_from_slice(bytes);
        let (used, count) = self.advance(&mut unread, plain, waiting, |_| {})?;
        self.keep(unread, used);
        Ok(count)
    }

    /// Seals `bytes` at the front of `sealed`; gives how many bytes they became.
    fn seal(
        &mut self,
        bytes: &[u8],
        sealed: &mut Vec<u8>,
        waiting: &mut Vec<u8>,
    ) -> io::Result<usize> {
        let room = bytes.len() + (bytes.len() / RECORD_BYTES + 4) * RECORD_OVERHEAD;
        if sealed.len() < room {
            sealed.resize(room, 0);
        }
        let mut count = Err(io::ErrorKind::NotConnected.into());
        self.at_rest(waiting, |mut traffic| {
            count = traffic.encrypt(bytes, sealed).map_err(io::Error::other);
        })?;
        count
    }

    fn say_close(&mut self, waiting: &mut Vec<u8>) {
        let mut alert = [0; RECORD_OVERHEAD];
        let mut count = 0;
        // Without it the end of the connection tells the same.
        let _ = self.at_rest(waiting, |mut traffic| {
            count = traffic.queue_close_notify(&mut alert).unwrap_or(0);
        });
        waiting.extend_from_slice(&alert[..count]);
    }

    /// Does `act` when the handshake is over.
    fn at_rest(
        &mut self,
        waiting: &mut Vec<u8>,
        act: impl FnOnce(WriteTraffic<'_, ClientConnectionData>),
    ) -> io::Result<()> {
        let mut unread = std::mem::take(&mut self.unread);
        // There is no room for plaintext, and none can come: what is whole was read.
        let (used, _) = self.advance(&mut unread, &mut [], waiting, act)?;
        self.keep(unread, used);
        Ok(())
    }

    fn keep(&mut self, mut unread: Vec<u8>, used: usize) {
        if used < unread.len() {
            unread.drain(..used);
            self.unread = unread;
        }
    }

    /// Works on until nothing is left to do with `bytes`; then does `act`, when the handshake is over.
    /// Gives how many bytes were used up, and the length of the plaintext.
    fn advance(
        &mut self,
        bytes: &mut [u8],
        plain: &mut [u8],
        waiting: &mut Vec<u8>,
        act: impl FnOnce(WriteTraffic<'_, ClientConnectionData>),
    ) -> io::Result<(usize, usize)> {
        let (mut used, mut count) = (0, 0);
        loop {
            let UnbufferedStatus { mut discard, state } =
                self.machine.process_tls_records(&mut bytes[used..]);
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let AppDataRecord { discard: more, payload } =
                            record.map_err(io::Error::other)?;
                        discard += more;
                        let room = plain.get_mut(count..count + payload.len());
                        room.ok_or(io::ErrorKind::StorageFull)?.copy_from_slice(payload);
                        count += payload.len();
                    }
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => encode(&mut data, waiting)?,
                // It lies in `waiting`.
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => self.closed = true,
                Ok(ConnectionState::BlockedHandshake) => return Ok((used + discard, count)),
                Ok(ConnectionState::WriteTraffic(traffic)) => {
                    act(traffic);
                    return Ok((used + discard, count));
                }
                Ok(_) => {
                    self.closed = true;
                    return Ok((used + discard, count));
                }
                Err(error) => {
                    let rest = &mut bytes[used + discard..];
                    let UnbufferedStatus { state, .. } = self.machine.process_tls_records(rest);
                    if let Ok(ConnectionState::EncodeTlsData(mut alert)) = state {
                        encode(&mut alert, waiting)?;
                    }
                    return Err(io::Error::other(error));
                }
            }
            used += discard;
        }
    }
}

/// Appends what TLS itself has to say.
fn encode(
    data: &mut EncodeTlsData<'_, ClientConnectionData>,
    waiting: &mut Vec<u8>,
) -> io::Result<()> {
    let end = waiting.len();
    let room = match data.encode(&mut []) {
        Err(EncodeError::InsufficientSize(size)) => size.required_size,
        Ok(_) | Err(EncodeError::AlreadyEncoded) => return Ok(()),
    };
    waiting.resize(end + room, 0);
    data.encode(&mut waiting[end..]).map(drop).map_err(io::Error::other)
}

fn quiet(error: io::Error) -> io::Result<Received> {
    match error.kind() {
        io::ErrorKind::WouldBlock => Ok(Received::Nothing),
        io::ErrorKind::Interrupted => Ok(Received::Again),
        _ => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::tls;
    use std::net::TcpListener;

    /// A client's connection whose far end says this in place of a ServerHello.
    fn answered(pieces: &[&[u8]]) -> Result<Received, String> {
        tls::install_provider();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let tcp = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
        let (mut far_end, _) = listener.accept().expect("it came");
        let config = tls::client_config(true, &[]).expect("roots");
        let mut connection = Connection::tls(tcp, &config, "agent.example").expect("a name");
        let (mut buffers, mut plain) = (Buffers::default(), [0; PLAIN_BYTES]);
        let mut read = Ok(Received::Again);
        for piece in pieces {
            far_end.write_all(piece).expect("loopback");
            connection.note_ready(false);
            read = connection.read(&mut plain, &mut buffers).map_err(|error| error.to_string());
            if read.is_err() {
                break;
            }
        }
        read
    }

    #[test]
    fn what_is_no_tls_is_an_error_and_no_panic() {
        // A record that is whole, and begins a message of a mebibyte.
        let huge = [0x16, 3, 3, 0, 4, 2, 0x10, 0, 0];
        // A message of the handshake that another record cuts.
        let cut = [0x16, 3, 3, 0, 4, 2, 0, 0, 9, 0x15, 3, 3, 0, 2, 1, 0];
        for bytes in [&huge[..], &cut, b"HTTP/1.1 400 Bad Request\r\n\r\n"] {
            for split in 0..bytes.len() {
                let (head, rest) = bytes.split_at(split);
                let pieces = [head, rest];
                let pieces = if split == 0 { &pieces[1..] } else { &pieces };
                assert!(answered(pieces).is_err(), "{bytes:02x?} cut at {split}");
            }
        }
    }
}
