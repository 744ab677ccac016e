//! The far end: an agent service with the least that it takes, on one thread. REST creation of
//! calls and media streams over TLS; every stream echoes the stamped frames that it hears. With a codec
//! that loses bits it says its sentence instead, and listens to a few streams.
//!
//! - `eager`: a stream is read when something came, and each frame goes back at once;
//! - `burst`: a stream is read every 100 ms and answers in one message. One stream in 32 is eager
//!   all the same, as the sample of the delay.
//!
//! It is driven by lines on its standard input: `mark` begins a measurement, `report` tells it as
//! one line of JSON, the end of input ends the process.

use crate::stamp::{FRAME, Sorted, Stamp, now};
use crate::voice::{AHEAD_FRAMES, JUDGED, Loudness, Voice, Words, sentence};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};
use serde_json::json;
use sha1::{Digest, Sha1};
use std::io::{self, BufRead, Read, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;
use voxedge::media::plan::AgentRates;
use voxedge::shell::tls::{self, Pem, ServerConfig, ServerConnection};

/// One stream in so many is eager in burst mode.
pub const SAMPLE: usize = 32;
/// Time between two reads of a burst stream, in milliseconds.
const BURST_MS: usize = 100;
const FRAME_NS: u64 = 20_000_000;
/// Frames between the words of two streams.
const SHIFT_FRAMES: u64 = 37;
const LISTENER: Token = Token(usize::MAX);
const WAKER: Token = Token(usize::MAX - 1);
const KEY_SUFFIX: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

struct Connection {
    tcp: TcpStream,
    tls: ServerConnection,
    /// Decrypted bytes that are not understood yet.
    input: Vec<u8>,
    stream: Option<Stream>,
}

/// A connection that was upgraded.
struct Stream {
    eager: bool,
    /// Audio that is to go back.
    echo: Vec<u8>,
    next_number: Option<u16>,
    /// Number of the stream, from 0.
    number: usize,
    /// When the first word was said, in nanoseconds, and the number of the next frame.
    began: u64,
    next_frame: u64,
}

/// What is said and heard.
#[derive(Clone)]
pub struct Part {
    pub voice: Voice,
    pub eager: bool,
    pub silence_percent: u64,
}

#[derive(Default)]
struct Measured {
    frames: u64,
    lost: u64,
    /// Frames without a stamp: the daemon's own silence or concealment.
    unstamped: u64,
    /// Nanoseconds from the caller's send to here, of eager streams.
    delays: Vec<u64>,
    /// What the judged streams heard.
    sound: Vec<Loudness>,
}

struct FarEnd {
    poll: Poll,
    listener: TcpListener,
    port: u16,
    config: Arc<ServerConfig>,
    part: Part,
    /// `None` where each frame is echoed.
    words: Option<Words>,
    connections: Vec<Option<Box<Connection>>>,
    /// Burst streams by the millisecond of their turn.
    turns: Vec<Vec<usize>>,
    created: usize,
    streams: usize,
    measured: Measured,
}

/// Serves until standard input ends; first prints its port and its certificate as a line of JSON.
pub fn run(part: Part) -> io::Result<()> {
    let (certificate, key) = tls::self_signed(&["127.0.0.1"]).map_err(io::Error::other)?;
    let pem = |text: &str| Pem::from_text("the far end's", text);
    let config =
        tls::server_config(&pem(&certificate), &pem(&key), None).map_err(io::Error::other)?;
    let poll = Poll::new()?;
    let mut listener = TcpListener::bind(([127, 0, 0, 1], 0).into())?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let port = listener.local_addr()?.port();
    let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
    // One that is dropped takes its wake with it.
    let _waker = waker.clone();
    println!("{}", json!({"port": port, "certificate": certificate}));
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            if sender.send(line).is_err() || waker.wake().is_err() {
                return;
            }
        }
        drop(sender);
        // The loop that would see this is gone if it fails.
        let _ = waker.wake();
    });
    let turns = vec![Vec::new(); BURST_MS];
    let words = (!part.voice.is_exact()).then(|| Words::new(part.voice, part.silence_percent));
    let measured = Measured::new(part.voice);
    FarEnd {
        poll,
        listener,
        port,
        config,
        part,
        words,
        connections: Vec::new(),
        turns,
        created: 0,
        streams: 0,
        measured,
    }
    .serve(&lines)
}

impl FarEnd {
    fn serve(&mut self, lines: &Receiver<String>) -> io::Result<()> {
        let mut events = Events::with_capacity(1_024);
        let mut turn = now() / 1_000_000;
        loop {
            let burst = self.turns.iter().any(|turn| !turn.is_empty());
            let wait = if burst { Duration::from_millis(1) } else { Duration::from_secs(1) };
            match self.poll.poll(&mut events, Some(wait)) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                Ok(()) | Err(_) => {}
            }
            for event in &events {
                match event.token() {
                    LISTENER => self.accept()?,
                    WAKER => loop {
                        match lines.try_recv() {
                            Ok(line) => self.obey(&line),
                            Err(std::sync::mpsc::TryRecvError::Empty) => break,
                            Err(std::sync::mpsc::TryRecvError::Disconnected) => return Ok(()),
                        }
                    },
                    Token(index) => self.attend(index),
                }
            }
            let until = now() / 1_000_000;
            // A stream that was passed over is read in its next turn.
            for turn in turn.max(until.saturating_sub(BURST_MS as u64)) + 1..=until {
                for index in self.turns[turn as usize % BURST_MS].clone() {
                    self.attend(index);
                }
            }
            turn = until;
        }
    }

    fn obey(&mut self, line: &str) {
        if line == "mark" {
            self.measured = Measured::new(self.part.voice);
        } else if line == "report" {
            let voice = self.part.voice;
            let measured = std::mem::replace(&mut self.measured, Measured::new(voice));
            let hz = voice.rates().input_hz;
            let whole = Loudness::of(hz, &sentence(hz));
            let judged = measured.sound.iter().take(self.created);
            let likeness = judged.map(|heard| heard.likeness(&whole)).fold(1.0, f64::min);
            let delays = Sorted::new(measured.delays);
            println!(
                "{}",
                json!({
                    "frames": measured.frames, "lost": measured.lost,
                    "unstamped": measured.unstamped, "streams": self.streams,
                    "likeness": likeness,
                    "samples": delays.count(), "p50_ms": delays.ms(0.5), "p99_ms": delays.ms(0.99),
                    "p999_ms": delays.ms(0.999), "max_ms": delays.ms(1.0),
                })
            );
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let (mut tcp, _) = match self.listener.accept() {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(_) => continue,
            };
            tcp.set_nodelay(true)?;
            let free = self.connections.iter().position(Option::is_none);
            let index = free.unwrap_or_else(|| {
                self.connections.push(None);
                self.connections.len() - 1
            });
            let interest = Interest::READABLE;
            self.poll.registry().register(&mut tcp, Token(index), interest)?;
            let tls = ServerConnection::new(self.config.clone()).map_err(io::Error::other)?;
            let connection = Connection { tcp, tls, input: Vec::new(), stream: None };
            self.connections[index] = Some(Box::new(connection));
            self.attend(index);
        }
    }

    /// Reads what a connection has, and answers.
    fn attend(&mut self, index: usize) {
        let taken = self.connections.get_mut(index).and_then(Option::take);
        let Some(mut connection) = taken else { return };
        let alive = match connection.read() {
            Ok(open) => self.understand(index, &mut connection) && connection.write() && open,
            Err(_) => false,
        };
        if alive {
            self.connections[index] = Some(connection);
            return;
        }
        // Dropping the socket takes it out of the loop.
        if connection.stream.is_some() {
            self.streams -= 1;
            for turn in &mut self.turns {
                turn.retain(|other| *other != index);
            }
        }
    }

    fn understand(&mut self, index: usize, connection: &mut Connection) -> bool {
        while connection.stream.is_none() {
            let Some((request, body, length)) = split_request(&connection.input) else {
                return true;
            };
            let (answer, stream) = self.answer(&request, &body);
            connection.input.drain(..length);
            if connection.tls.writer().write_all(answer.as_bytes()).is_err() {
                return false;
            }
            if let Some(number) = stream {
                self.streams += 1;
                let eager = self.part.eager || number.is_multiple_of(SAMPLE);
                let (echo, next_number) = (Vec::new(), None);
                let (began, next_frame) = (now(), 0);
                connection.stream =
                    Some(Stream { eager, echo, next_number, number, began, next_frame });
                if !eager {
                    self.turns[number % BURST_MS].push(index);
                    if self.poll.registry().deregister(&mut connection.tcp).is_err() {
                        return false;
                    }
                }
            }
        }
        self.hear(connection)
    }

    /// The answer to a request, and the number of the call when it was its upgrade.
    fn answer(&mut self, request: &str, body: &str) -> (String, Option<usize>) {
        let http = |status: &str, body: String| {
            let length = body.len();
            format!(
                "HTTP/1.1 {status}\r\nContent-Type: application/json\r\n\
                 Content-Length: {length}\r\n\r\n{body}"
            )
        };
        let path = request.split(' ').nth(1).unwrap_or_default();
        if request.starts_with("POST /api/agents/") && path.ends_with("/calls") {
            let AgentRates { input_hz, output_hz } = self.part.voice.rates();
            let wanted = [("inputSampleRate", input_hz), ("outputSampleRate", output_hz)];
            if wanted.iter().any(|(name, hz)| !body.contains(&format!("\"{name}\":{hz}"))) {
                let words = format!("not {input_hz} Hz in and {output_hz} Hz out");
                return (http("400 Bad Request", json!({"detail": words}).to_string()), None);
            }
            let number = self.created;
            self.created += 1;
            let join_url = format!("wss://127.0.0.1:{}/calls/{number}", self.port);
            let call = json!({"callId": format!("load-{number}"), "joinUrl": join_url});
            return (http("201 Created", call.to_string()), None);
        }
        if let Some(agent_id) = path.strip_prefix("/api/agents/") {
            let agent = json!({"agentId": agent_id, "callTemplate": {}});
            return (http("200 OK", agent.to_string()), None);
        }
        let number = path.strip_prefix("/calls/").and_then(|number| number.parse().ok());
        let key = request.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("Sec-WebSocket-Key").then(|| value.trim().to_owned())
        });
        match (number, key) {
            (Some(number), Some(key)) => {
                let accept = STANDARD.encode(Sha1::digest(key + KEY_SUFFIX));
                let answer = format!(
                    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
                     Connection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
                );
                (answer, Some(number))
            }
            _ => (http("404 Not Found", json!({"detail": "Not found."}).to_string()), None),
        }
    }

    /// Takes the frames that are whole and sends the audio back; false at the close.
    fn hear(&mut self, connection: &mut Connection) -> bool {
        let Connection { input, stream: Some(stream), tls, .. } = connection else { return true };
        let arrived = now();
        let mut used = 0;
        while let Some((opcode, payload, length)) = split_frame(&mut input[used..]) {
            match opcode {
                BINARY => {
                    if self.words.is_some() {
                        self.measured.listen(stream.number, payload);
                    } else {
                        // What nobody spoke is no echo; so frames go back as they came.
                        for frame in payload.chunks(FRAME * 2) {
                            if self.measured.take(stream, arrived, frame) {
                                stream.echo.extend_from_slice(frame);
                            }
                        }
                    }
                }
                PING if write_frame(tls, PONG, payload).is_err() => return false,
                CLOSE => {
                    // The stream ends either way.
                    let _ = write_frame(tls, CLOSE, payload);
                    tls.send_close_notify();
                    connection.write();
                    return false;
                }
                _ => {}
            }
            used += length;
        }
        input.drain(..used);
        if let Some(words) = &self.words {
            stream.speak(words, arrived);
        }
        if !stream.echo.is_empty() {
            let sent = write_frame(tls, BINARY, &stream.echo);
            stream.echo.clear();
            return sent.is_ok();
        }
        true
    }
}

impl Stream {
    /// Says what is due. The streams begin at different words.
    fn speak(&mut self, words: &Words, now: u64) {
        let due = now.saturating_sub(self.began) / FRAME_NS + AHEAD_FRAMES;
        for number in self.next_frame..due {
            let frame = words.frame(number + self.number as u64 * SHIFT_FRAMES);
            self.echo.extend_from_slice(frame.unwrap_or_default());
        }
        self.next_frame = self.next_frame.max(due);
    }
}

impl Measured {
    fn new(voice: Voice) -> Measured {
        let mut measured = Measured::default();
        if !voice.is_exact() {
            measured.sound.resize_with(JUDGED, || Loudness::new(voice.rates().input_hz));
        }
        measured
    }

    /// Listens to what one of the judged streams hears.
    fn listen(&mut self, number: usize, bytes: &[u8]) {
        self.frames += 1;
        let Some(loudness) = self.sound.get_mut(number) else { return };
        let pcm: Vec<i16> =
            bytes.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect();
        loudness.push(&pcm);
    }

    /// True for a whole frame of the caller's.
    fn take(&mut self, stream: &mut Stream, arrived: u64, frame: &[u8]) -> bool {
        let stamp = Stamp::read_linear(frame).filter(|_| frame.len() == FRAME * 2);
        let Some(stamp) = stamp else {
            self.unstamped += 1;
            return false;
        };
        self.frames += 1;
        if let Some(next) = stream.next_number {
            self.lost += u64::from(stamp.number.wrapping_sub(next));
        }
        stream.next_number = Some(stamp.number.wrapping_add(1));
        if stream.eager {
            self.delays.push(arrived.saturating_sub(stamp.sent));
        }
        true
    }
}

impl Connection {
    /// Everything that came, decrypted, to `input`; false at the end of the stream.
    fn read(&mut self) -> io::Result<bool> {
        let mut buffer = [0; 16 * 1_024];
        loop {
            match self.tls.read_tls(&mut self.tcp) {
                Ok(0) => return Ok(false),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) => return Err(error),
            }
            self.tls.process_new_packets().map_err(io::Error::other)?;
            while let Ok(count) = self.tls.reader().read(&mut buffer) {
                if count == 0 {
                    return Ok(false);
                }
                self.input.extend_from_slice(&buffer[..count]);
            }
        }
    }

    /// False when the connection broke.
    fn write(&mut self) -> bool {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut self.tcp) {
                Ok(_) => {}
                // What is left goes with the next.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(_) => return false,
            }
        }
        true
    }
}

/// A whole request's head, its body, and the bytes of both.
fn split_request(input: &[u8]) -> Option<(String, String, usize)> {
    let head = input.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&input[..head]).into_owned();
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("Content-Length").then(|| value.trim().parse::<usize>().ok())?
    });
    let end = head + length.unwrap_or(0);
    let body = String::from_utf8_lossy(input.get(head..end)?).into_owned();
    Some((text, body, end))
}

const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// The first frame of a client (RFC 6455 §5.2), unmasked in place: opcode, payload, bytes in all.
fn split_frame(input: &mut [u8]) -> Option<(u8, &[u8], usize)> {
    let (opcode, short) = (input.first()? & 0xF, input.get(1)? & 0x7F);
    let (length, head) = match short {
        126 => (usize::from(u16::from_be_bytes([*input.get(2)?, *input.get(3)?])), 4),
        127 => return None,
        short => (usize::from(short), 2),
    };
    let (start, end) = (head + 4, head + 4 + length);
    if input.len() < end {
        return None;
    }
    let key = [input[head], input[head + 1], input[head + 2], input[head + 3]];
    let payload = &mut input[start..end];
    let word = u32::from_ne_bytes(key);
    let mut words = payload.chunks_exact_mut(4);
    for four in &mut words {
        let plain = u32::from_ne_bytes([four[0], four[1], four[2], four[3]]) ^ word;
        four.copy_from_slice(&plain.to_ne_bytes());
    }
    for (byte, key) in words.into_remainder().iter_mut().zip(key) {
        *byte ^= key;
    }
    Some((opcode, &input[start..end], end))
}

fn write_frame(tls: &mut ServerConnection, opcode: u8, payload: &[u8]) -> io::Result<()> {
    let mut head = [0x80 | opcode, 0, 0, 0];
    let head = match u16::try_from(payload.len()) {
        Ok(length) if length < 126 => {
            head[1] = length as u8;
            &head[..2]
        }
        Ok(length) => {
            head[1] = 126;
            head[2..].copy_from_slice(&length.to_be_bytes());
            &head[..]
        }
        Err(_) => return Err(io::ErrorKind::InvalidInput.into()),
    };
    let mut writer = tls.writer();
    writer.write_all(head)?;
    writer.write_all(payload)
}
