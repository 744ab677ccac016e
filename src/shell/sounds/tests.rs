//! Hold music over real sockets: what is played, what is refused and why, and how often its server is
//! asked; and the shelf that keeps it.

use super::*;
use crate::account::CidrRange;
use crate::codec::g711::Law;
use crate::shell::tls;
use crate::shell::webhook::WebhookSettings;
use std::f64::consts::TAU;
use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Long enough for anything that comes, on a machine that is busy.
const SOON: Duration = Duration::from_secs(30);
/// For what never comes.
const BRIEF: Duration = Duration::from_secs(1);

/// A web server: what it says to each connection, the last of it again and again.
struct Server {
    at: String,
    heard: Arc<Mutex<Vec<String>>>,
}

#[derive(Clone)]
enum Says {
    /// These bytes, and the connection closes.
    Bytes(Vec<u8>),
    /// These bytes, and then nothing.
    Holds(Vec<u8>),
    /// A body without an end.
    Floods,
}

fn file(extra: &str, body: &[u8]) -> Says {
    let head = format!("HTTP/1.1 200 OK\r\n{extra}Content-Length: {}\r\n\r\n", body.len());
    Says::Bytes([head.as_bytes(), body].concat())
}

fn status(line: &str) -> Says {
    Says::Bytes(format!("HTTP/1.1 {line}\r\nContent-Length: 0\r\n\r\n").into_bytes())
}

fn redirect(location: &str) -> Says {
    status(&format!("302 Found\r\nLocation: {location}"))
}

impl Server {
    async fn start(says: Vec<Says>) -> Server {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("loopback is ours");
        let at = format!("http://{}", listener.local_addr().expect("it is bound"));
        let heard: Arc<Mutex<Vec<String>>> = Arc::default();
        let server = Server { at, heard: Arc::clone(&heard) };
        tokio::spawn(async move {
            let mut next = 0;
            while let Ok((stream, _)) = listener.accept().await {
                let say = says[next.min(says.len() - 1)].clone();
                next += 1;
                tokio::spawn(serve(stream, say, Arc::clone(&heard)));
            }
        });
        server
    }

    fn url(&self) -> String {
        format!("{}/hold?token=secret", self.at)
    }

    /// How often it was asked.
    fn asked(&self) -> usize {
        self.heard.lock().expect("no holder panics").len()
    }

    /// What the last request said.
    fn last(&self) -> String {
        let heard = self.heard.lock().expect("no holder panics");
        heard.last().cloned().unwrap_or_default().to_ascii_lowercase()
    }
}

async fn serve(mut stream: TcpStream, say: Says, heard: Arc<Mutex<Vec<String>>>) {
    let mut request = vec![0; 16 * 1024];
    let read = stream.read(&mut request).await.unwrap_or(0);
    let text = String::from_utf8_lossy(&request[..read]).into_owned();
    heard.lock().expect("no holder panics").push(text);
    match say {
        Says::Bytes(bytes) => drop(stream.write_all(&bytes).await),
        Says::Holds(bytes) => {
            let _ = stream.write_all(&bytes).await;
            // Until the other end closes.
            while stream.read(&mut request).await.is_ok_and(|read| read > 0) {}
        }
        Says::Floods => {
            let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
            let _ = stream.write_all(head).await;
            let chunk = [b"10000\r\n".as_slice(), &[0; 0x10000], b"\r\n"].concat();
            while stream.write_all(&chunk).await.is_ok() {}
        }
    }
}

/// Addresses of these ranges may be asked though they are private; `music.example` is this machine.
fn library(allowed: &[&str]) -> SoundLibrary {
    let ranges = allowed.iter().map(|range| CidrRange::parse(range).expect("a range"));
    let settings = WebhookSettings {
        tls: tls::client_config(false, &[]).expect("no roots are fine"),
        allowed_private: ranges.collect(),
        plain_http: false,
        resolve: Arc::new(|host| {
            Box::pin(async move {
                match host.as_str() {
                    "music.example" | "localhost" => Ok(vec![([127, 0, 0, 1], 0).into()]),
                    _ => Err(io::Error::other("no such name")),
                }
            })
        }),
    };
    SoundLibrary::new(Webhook::new(settings).expect("a sound configuration"))
}

fn at_home() -> SoundLibrary {
    library(&["127.0.0.1/32"])
}

/// A library that asks again each time.
fn forgetful() -> SoundLibrary {
    SoundLibrary { fresh: Duration::ZERO, ..at_home() }
}

fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    runtime.block_on(async { tokio::time::timeout(SOON * 2, test).await.expect("it hangs") })
}

/// A second of 440 Hz at half scale.
fn tone(hz: u32) -> Vec<i16> {
    let step = TAU * 440.0 / f64::from(hz);
    (0..hz).map(|n| (16_384.0 * (f64::from(n) * step).sin()) as i16).collect()
}

fn wav(tag: u16, bits: u16, channels: u16, hz: u32, data: &[u8]) -> Vec<u8> {
    let mut file = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0".to_vec();
    file.extend([tag.to_le_bytes(), channels.to_le_bytes()].concat());
    file.extend(hz.to_le_bytes());
    file.extend([0; 6]);
    file.extend(bits.to_le_bytes());
    file.extend(b"data");
    file.extend((data.len() as u32).to_le_bytes());
    file.extend(data);
    file
}

fn pcm16(samples: &[i16]) -> Vec<u8> {
    samples.iter().flat_map(|sample| sample.to_le_bytes()).collect()
}

/// A short WAV file that can be played.
fn short() -> Vec<u8> {
    wav(1, 16, 1, 16_000, &pcm16(&[1, 2, 3, 4]))
}

/// How often a second the sound rises through zero, and its loudest sample.
fn measured(sound: &Sound) -> (f64, i32) {
    let rises = sound.pcm.windows(2).filter(|pair| pair[0] < 0 && pair[1] >= 0).count();
    let seconds = sound.pcm.len() as f64 / f64::from(sound.hz);
    let peak = sound.pcm.iter().map(|sample| i32::from(*sample).abs()).max();
    (rises as f64 / seconds, peak.unwrap_or(0))
}

#[test]
fn every_usual_form_comes_over_http_as_the_same_tone() {
    let narrow = tone(8_000);
    let stereo: Vec<i16> = tone(44_100).iter().flat_map(|sample| [*sample, *sample]).collect();
    let law = |law: Law| {
        let mut bytes = vec![0; narrow.len()];
        law.encode(&narrow, &mut bytes).expect("there is room");
        bytes
    };
    let eight: Vec<u8> = narrow.iter().map(|sample| ((sample >> 8) + 128) as u8).collect();
    let mp3 = include_bytes!("../../../fixtures/sound/tone-440hz.mp3");
    run(async {
        for (name, body) in [
            ("PCM16, 16 kHz", wav(1, 16, 1, 16_000, &pcm16(&tone(16_000)))),
            ("PCM16, 8 kHz", wav(1, 16, 1, 8_000, &pcm16(&narrow))),
            ("PCM16, 44.1 kHz, stereo", wav(1, 16, 2, 44_100, &pcm16(&stereo))),
            ("8 bits", wav(1, 8, 1, 8_000, &eight)),
            ("mu-law", wav(7, 8, 1, 8_000, &law(Law::Mu))),
            ("A-law", wav(6, 8, 1, 8_000, &law(Law::A))),
            ("MP3", mp3.to_vec()),
        ] {
            // What the server says of its kind is not trusted, and may be wrong.
            let server = Server::start(vec![file("Content-Type: text/plain\r\n", &body)]).await;
            let sound = at_home().fetch(&server.url(), SOON).await.expect(name);
            assert!(sound.repeats && sound.hz == 16_000, "{name}");
            let (hz, peak) = measured(&sound);
            let seconds = if name == "MP3" { 0.6..0.75 } else { 0.999..1.001 };
            assert!(seconds.contains(&(sound.pcm.len() as f64 / 16_000.0)), "{name}");
            let loud = if name == "MP3" { 2_000..6_000 } else { 16_000..17_000 };
            assert!(loud.contains(&peak), "{name}: {peak}");
            assert!((hz - 440.0).abs() < if name == "MP3" { 60.0 } else { 2.0 }, "{name}: {hz}");
        }
    });
}

#[test]
fn what_cannot_be_had_says_why() {
    let html = b"<html><body>Please log in</body></html>";
    let head = |length: usize| format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
    let begun = |length| [head(length).as_bytes(), &short()[..40]].concat();
    let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\nRIFF";
    let unplayable = |why: &str| SoundFault::Unplayable(why.to_owned());
    let largest = limits::SOUND_FILE_BYTES_MAX;
    run(async {
        for (name, says, budget, fault) in [
            ("404", status("404 Not Found"), SOON, SoundFault::Status(404)),
            ("500", status("500 Oh"), SOON, SoundFault::Status(500)),
            ("204", status("204 No Content"), SOON, SoundFault::Status(204)),
            ("304 unasked", status("304 Not Modified"), SOON, SoundFault::Status(304)),
            ("html", file("", html), SOON, unplayable("it is neither WAV nor MP3")),
            ("empty", file("", b""), SOON, unplayable("it is neither WAV nor MP3")),
            ("half a WAV", file("", &short()[..30]), SOON, unplayable("the WAV file is broken")),
            // The length is enough: not a byte of the body came.
            ("too long", Says::Holds(head(largest + 1).into()), SOON, SoundFault::TooLong),
            ("without an end", Says::Floods, SOON, SoundFault::TooLong),
            ("cut off", Says::Bytes(begun(52)), SOON, SoundFault::BrokenOff),
            ("cut in a chunk", Says::Bytes(chunked.to_vec()), SOON, SoundFault::BrokenOff),
            ("slow", Says::Holds(begun(52)), BRIEF, SoundFault::TimedOut),
            ("mute", Says::Holds(Vec::new()), BRIEF, SoundFault::TimedOut),
            ("no HTTP", Says::Bytes(b"220 mail\r\n".to_vec()), SOON, SoundFault::Unreachable),
        ] {
            let server = Server::start(vec![says, file("", &short())]).await;
            let library = at_home();
            assert_eq!(library.fetch(&server.url(), budget).await, Err(fault), "{name}");
            // A fault is not kept: the next caller may have the music.
            let again = library.fetch(&server.url(), SOON).await;
            assert_eq!(again.map(|sound| sound.pcm.len()), Ok(4), "{name}");
        }
        let closed = TcpListener::bind(("127.0.0.1", 0)).await.expect("loopback");
        let url = format!("http://{}/a.wav", closed.local_addr().expect("it is bound"));
        drop(closed);
        assert_eq!(at_home().fetch(&url, SOON).await, Err(SoundFault::Unreachable));
        for url in ["music", "file:///etc/passwd", "ftp://127.0.0.1/a.wav", "http://a:b@127.0.0.1/"]
        {
            assert_eq!(at_home().fetch(url, SOON).await, Err(SoundFault::BadUrl), "{url}");
        }
    });
}

#[test]
fn no_agents_settings_lead_into_our_own_network() {
    run(async {
        let server = Server::start(vec![file("", &short())]).await;
        let port = server.at.rsplit(':').next().expect("a port");
        for host in
            ["127.0.0.1", "localhost", "[::1]", "0x7f000001", "2130706433", "[::ffff:127.0.0.1]"]
        {
            let url = format!("http://{host}:{port}/a.wav");
            let fetched = library(&[]).fetch(&url, SOON).await;
            assert_eq!(fetched, Err(SoundFault::PrivateAddress), "{host}");
        }
        for url in
            ["http://169.254.169.254/latest/meta-data", "https://10.0.0.1/", "http://[fd00::1]/"]
        {
            let fetched = library(&[]).fetch(url, SOON).await;
            assert_eq!(fetched, Err(SoundFault::PrivateAddress), "{url}");
        }
        assert_eq!(server.asked(), 0);
        // Listed by the operator, by address or by name, it may be asked.
        for host in ["127.0.0.1", "music.example"] {
            let url = format!("http://{host}:{port}/a.wav");
            assert!(at_home().fetch(&url, SOON).await.is_ok(), "{host}");
        }
        assert_eq!(server.asked(), 2);
    });
}

#[test]
fn a_redirect_is_followed_and_judged_as_the_first_url_was() {
    run(async {
        let moved = vec![redirect("/b"), redirect("b/c.wav"), redirect("/d"), file("", &short())];
        let server = Server::start(moved).await;
        assert!(at_home().fetch(&server.url(), SOON).await.is_ok());
        assert_eq!((server.asked(), server.last().contains("get /d ")), (4, true));
        let inside = Server::start(vec![file("", &short())]).await;
        let port = inside.at.rsplit(':').next().expect("a port");
        let inside_url = format!("http://127.0.0.2:{port}/");
        for (location, fault) in [
            ("/again", SoundFault::Redirected),
            ("ftp://127.0.0.1/a.wav", SoundFault::Redirected),
            ("http://a:b@127.0.0.1/", SoundFault::Redirected),
            (inside_url.as_str(), SoundFault::PrivateAddress),
            ("http://169.254.169.254/", SoundFault::PrivateAddress),
        ] {
            let server = Server::start(vec![redirect(location)]).await;
            let fetched = at_home().fetch(&server.url(), SOON).await;
            assert_eq!(fetched, Err(fault), "{location}");
            assert_eq!(server.asked(), if location == "/again" { 4 } else { 1 }, "{location}");
        }
        let nowhere = Server::start(vec![status("302 Found")]).await;
        let fetched = at_home().fetch(&nowhere.url(), SOON).await;
        assert_eq!((fetched, inside.asked()), (Err(SoundFault::Redirected), 0));
    });
}

#[test]
fn a_file_is_fetched_once_however_many_want_it() {
    run(async {
        let server = Server::start(vec![file("", &short())]).await;
        let (library, url) = (at_home(), server.url());
        let (one, other, third) = tokio::join!(
            library.fetch(&url, SOON),
            library.fetch(&url, SOON),
            library.fetch(&url, SOON)
        );
        let one = one.expect("it came");
        assert!([other, third].iter().all(|sound| sound.as_ref() == Ok(&one)));
        assert_eq!(server.asked(), 1);
        let later = library.clone().fetch(&url, SOON).await.expect("it is kept");
        assert!(Arc::ptr_eq(&one, &later));
        assert_eq!(server.asked(), 1);
        // Another URL is another file.
        assert!(library.fetch(&format!("{url}&other"), SOON).await.is_ok());
        assert_eq!(server.asked(), 2);
        assert!(library.shelf().turn(&url).try_lock().is_ok(), "nobody's turn is kept");
        assert_eq!(library.shelf().asked.len(), 1, "the one of this question");
    });
}

#[test]
fn one_who_gives_up_does_not_keep_the_next_from_it() {
    run(async {
        let server = Server::start(vec![Says::Holds(Vec::new()), file("", &short())]).await;
        let (library, url) = (at_home(), server.url());
        let (one, other) = tokio::join!(library.fetch(&url, BRIEF), library.fetch(&url, SOON));
        assert_eq!(one, Err(SoundFault::TimedOut));
        assert!(other.is_ok() && server.asked() == 2);
    });
}

#[test]
fn an_old_file_is_asked_for_again_by_its_tag() {
    run(async {
        let new = wav(1, 16, 1, 16_000, &pcm16(&[9; 6]));
        let server = Server::start(vec![
            file("ETag: \"v1\"\r\n", &short()),
            status("304 Not Modified"),
            status("503 Busy"),
            file("ETag: \"v2\"\r\n", &new),
            Says::Bytes(Vec::new()),
        ])
        .await;
        let (library, url) = (forgetful(), server.url());
        let first = library.fetch(&url, SOON).await.expect("it came");
        assert!(!server.last().contains("if-none-match"));
        let same = library.fetch(&url, SOON).await.expect("it is as it was");
        assert!(server.last().contains("if-none-match: \"v1\""), "{}", server.last());
        let kept = library.fetch(&url, SOON).await.expect("an old one is better than none");
        assert!(Arc::ptr_eq(&first, &same) && Arc::ptr_eq(&first, &kept));
        let changed = library.fetch(&url, SOON).await.expect("it came");
        assert_eq!((changed.pcm.len(), server.asked()), (6, 4));
        assert!(library.fetch(&url, SOON).await.is_ok_and(|kept| Arc::ptr_eq(&kept, &changed)));
        assert!(server.last().contains("if-none-match: \"v2\""));
    });
}

fn kept(samples: usize) -> Kept {
    let pcm = vec![0; samples].into_boxed_slice();
    Kept::new(Arc::new(Sound { hz: decode::HZ, pcm, repeats: true }), None)
}

#[test]
fn what_was_wanted_longest_ago_makes_place() {
    let mut shelf = Shelf::default();
    for number in 0..KEPT_MAX {
        shelf.put(&number.to_string(), kept(1));
    }
    assert!(shelf.look("0").is_some());
    shelf.put("new", kept(1));
    assert_eq!((shelf.kept.len(), shelf.bytes), (KEPT_MAX, 2 * KEPT_MAX));
    assert!(shelf.look("0").is_some() && shelf.look("1").is_none());
}

#[test]
fn bytes_are_bounded_on_both_sides_and_one_sound_always_has_place() {
    let most = limits::SOUNDS_KEPT_BYTES_MAX / 2;
    let mut shelf = Shelf::default();
    shelf.put("a", kept(most - 10));
    shelf.put("b", kept(10));
    assert_eq!((shelf.kept.len(), shelf.bytes), (2, 2 * most));
    shelf.put("b", kept(11));
    assert_eq!((shelf.kept.len(), shelf.bytes), (1, 22));
    shelf.put("huge", kept(most + 1));
    assert_eq!((shelf.kept.len(), shelf.bytes), (1, 2 * most + 2));
}

#[test]
fn only_the_host_of_a_url_is_told() {
    for (url, host) in [
        ("https://a.example/secret?token=1", "a.example"),
        ("http://user:pass@b:81#x", "b:81"),
        ("nonsense", "nonsense"),
    ] {
        assert_eq!(host_of(url), host);
    }
}
