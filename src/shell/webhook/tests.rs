//! A handler that misbehaves in each way, on real sockets.

use super::*;
use crate::account::FallbackHandler;
use crate::fallback::Question;
use crate::ground::{Secret, WallTime};
use crate::shell::tls::{self, Pem};
use crate::sip::msg::{Framing, Message};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const REJECT: &str = r#"{"reject":{"sipRejectCode":486}}"#;

/// A handler that counts its connections and answers each as it is told.
struct Handler {
    url: String,
    connects: Arc<AtomicUsize>,
    heard: Arc<Mutex<String>>,
}

#[derive(Clone)]
enum Manner {
    /// These bytes at once, and the connection closes.
    Says(Vec<u8>),
    /// The head, and then a byte now and then.
    Drips,
    /// The head of a huge body, and then as much as is taken.
    Floods,
    /// Nothing.
    Mute,
}

fn answer(status: &str, body: &str) -> Manner {
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    Manner::Says([head.as_bytes(), body.as_bytes()].concat())
}

impl Handler {
    async fn start(ip: &str, manner: Manner) -> Handler {
        let listener = TcpListener::bind((ip, 0)).await.expect("loopback is ours");
        let url = format!("http://{}/hook?token=t", listener.local_addr().expect("bound"));
        let (connects, heard) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::default()));
        let handler = Handler { url, connects: Arc::clone(&connects), heard: Arc::clone(&heard) };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                connects.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(stream, manner.clone(), Arc::clone(&heard)));
            }
        });
        handler
    }

    fn connects(&self) -> usize {
        self.connects.load(Ordering::SeqCst)
    }
}

async fn serve(mut stream: tokio::net::TcpStream, manner: Manner, heard: Arc<Mutex<String>>) {
    let mut request = vec![0; 16 * 1024];
    let read = stream.read(&mut request).await.unwrap_or(0);
    *heard.lock().expect("no holder panics") =
        String::from_utf8_lossy(&request[..read]).into_owned();
    let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    match manner {
        Manner::Says(bytes) => drop(stream.write_all(&bytes).await),
        Manner::Drips => {
            let _ = stream.write_all(head).await;
            while stream.write_all(b"1\r\n \r\n").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Manner::Floods => {
            let _ = stream.write_all(head).await;
            let chunk = [b"10000\r\n".as_slice(), &[b' '; 0x10000], b"\r\n"].concat();
            // A gigabyte, if anybody takes it.
            for _ in 0..16_384 {
                if stream.write_all(&chunk).await.is_err() {
                    break;
                }
            }
        }
        Manner::Mute => drop(stream.read(&mut request).await),
    }
}

fn post(url: &str) -> Post {
    let text = "INVITE sip:x@edge.example SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\n\
                From: <sip:a@b>;tag=1\r\nTo: <sip:x@edge.example>\r\nCall-ID: 1\r\n\
                CSeq: 1 INVITE\r\nX-A: 1\r\n\r\n";
    let message = Message::parse(Bytes::from(text), Framing::Datagram).expect("well-formed");
    let Message::Request(request) = message else { panic!("a request") };
    let question = Question::of(&request, &crate::context::Caller::of(&request));
    let handler = FallbackHandler { url: url.into(), secrets: Some(vec!["s3cret".into()]) };
    Post::new(&handler, &question, WallTime::from_unix_micros(0))
}

fn webhook(allowed: &[&str], resolve: Resolver) -> Webhook {
    let ranges = allowed.iter().map(|range| CidrRange::parse(range).expect("a range"));
    let settings = WebhookSettings {
        tls: tls::client_config(false, &[]).expect("no roots are fine"),
        allowed_private: ranges.collect(),
        plain_http: false,
        resolve,
    };
    Webhook::new(settings).expect("a sound configuration")
}

fn local() -> Webhook {
    webhook(&["127.0.0.0/8"], system_resolver())
}

async fn check(manner: Manner, budget_ms: u64, expected: Result<&str, FallbackFault>) {
    let handler = Handler::start("127.0.0.1", manner).await;
    let decided = local().ask(&post(&handler.url), Duration::from_millis(budget_ms)).await;
    let decided = decided.map(|decision| format!("{decision:?}"));
    assert_eq!(decided, expected.map(str::to_owned));
    assert_eq!(handler.connects(), 1, "asked once, and never again");
}

#[tokio::test]
async fn a_good_answer_is_read_and_the_request_is_signed() {
    let handler = Handler::start("127.0.0.1", answer("200 OK", REJECT)).await;
    let post = post(&handler.url);
    let decided = local().ask(&post, limits::FALLBACK).await;
    assert_eq!(decided, Ok(FallbackDecision::Reject { code: 486, message: None }));
    let heard = handler.heard.lock().expect("no holder panics").clone();
    let (head, body) = heard.split_once("\r\n\r\n").expect("a whole request");
    let head = head.to_ascii_lowercase();
    assert!(head.starts_with("post /hook?token=t http/1.1\r\n"), "{head}");
    for line in [
        "content-type: application/json".to_owned(),
        "x-ultravox-webhook-timestamp: 1970-01-01t00:00:00.000z".to_owned(),
        format!("x-ultravox-webhook-signature: {}", post.signature),
    ] {
        assert!(head.contains(&format!("\r\n{line}")), "{line} in {head}");
    }
    let secrets = ["s3cret".to_owned()];
    let expected = fallback::signature(&secrets, body.as_bytes(), "1970-01-01T00:00:00.000Z");
    assert_eq!(post.signature, expected);
    assert!(!heard.contains(Secret::new("s3cret").reveal()));
}

#[tokio::test]
async fn every_2xx_counts_and_nothing_else() {
    check(answer("201 Created", REJECT), 5_000, Ok("Reject(486)")).await;
    for (status, code) in [
        ("302 Found\r\nLocation: http://127.0.0.1:1/", 302),
        ("307 Temporary Redirect\r\nLocation: http://169.254.169.254/", 307),
        ("400 Bad Request", 400),
        ("404 Not Found", 404),
        ("500 Internal Server Error", 500),
    ] {
        check(answer(status, REJECT), 5_000, Err(FallbackFault::Status(code))).await;
    }
}

#[tokio::test]
async fn an_answer_that_cannot_be_used() {
    use FallbackFault as F;
    let ok = |body: &str| answer("200 OK", body);
    check(ok("<html>"), 5_000, Err(F::NotJson)).await;
    check(ok(""), 5_000, Err(F::NotJson)).await;
    check(ok("{}"), 5_000, Err(F::NotOneOfThree { found: 0 })).await;
    let two = r#"{"reject":{},"startCall":{}}"#;
    check(ok(two), 5_000, Err(F::NotOneOfThree { found: 2 })).await;
    check(ok(r#"{"reject":"no"}"#), 5_000, Err(F::Member("reject"))).await;
    check(ok(&"[".repeat(100_000)), 5_000, Err(F::NotJson)).await;
    let long = format!("{REJECT}{}", " ".repeat(limits::FALLBACK_ANSWER_BYTES_MAX));
    check(ok(&long), 5_000, Err(F::TooLong)).await;
    check(Manner::Floods, 5_000, Err(F::TooLong)).await;
    let cut = Manner::Says(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{".to_vec());
    check(cut, 5_000, Err(F::Unreachable)).await;
    check(Manner::Says(b"SSH-2.0-hello\r\n".to_vec()), 5_000, Err(F::Unreachable)).await;
    check(Manner::Says(Vec::new()), 5_000, Err(F::Unreachable)).await;
}

#[tokio::test]
async fn the_budget_holds_for_the_whole_exchange() {
    check(Manner::Mute, 300, Err(FallbackFault::TimedOut)).await;
    check(Manner::Drips, 300, Err(FallbackFault::TimedOut)).await;
    let never: Resolver = Arc::new(|_| Box::pin(std::future::pending()));
    let webhook = webhook(&[], never);
    let decided = webhook.ask(&post("https://hooks.example/"), Duration::from_millis(200)).await;
    assert_eq!(decided, Err(FallbackFault::TimedOut));
}

#[tokio::test]
async fn nobody_listens() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback is ours");
    let url = format!("http://{}/", listener.local_addr().expect("bound"));
    drop(listener);
    assert_eq!(local().ask(&post(&url), limits::FALLBACK).await, Err(FallbackFault::Unreachable));
    let failing: Resolver = Arc::new(|_| Box::pin(async { Err(io::ErrorKind::NotFound.into()) }));
    let decided =
        webhook(&[], failing).ask(&post("https://hooks.example/"), limits::FALLBACK).await;
    assert_eq!(decided, Err(FallbackFault::Unreachable));
}

/// No way of writing a private address leads there.
#[tokio::test]
async fn private_addresses_are_not_asked() {
    let handler = Handler::start("127.0.0.1", answer("200 OK", REJECT)).await;
    let port = handler.url.rsplit(':').next().and_then(|rest| rest.split('/').next());
    let port = port.expect("a port");
    let webhook = webhook(&["10.0.0.0/8"], system_resolver());
    for host in ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "127.1", "[::ffff:127.0.0.1]"] {
        let decided =
            webhook.ask(&post(&format!("https://{host}:{port}/")), limits::FALLBACK).await;
        let refused =
            matches!(decided, Err(FallbackFault::PrivateAddress | FallbackFault::Unreachable));
        assert!(refused, "{host}: {decided:?}");
    }
    let decided = webhook.ask(&post("http://hooks.example/"), limits::FALLBACK).await;
    assert_eq!(decided, Err(FallbackFault::BadUrl));
    assert_eq!(handler.connects(), 0);
}

/// The name's first answer passes, the second is 127.0.0.1: nothing ever connects there.
#[tokio::test]
async fn a_name_that_changes_its_mind_leads_nowhere() {
    let good = Handler::start("127.0.0.2", answer("200 OK", REJECT)).await;
    let port = good.url.rsplit(':').next().and_then(|rest| rest.split('/').next());
    let port: u16 = port.and_then(|port| port.parse().ok()).expect("a port");
    let trap = TcpListener::bind(("127.0.0.1", port)).await.expect("loopback is ours");
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let flipping: Resolver = Arc::new(move |host| {
        assert_eq!(host, "hooks.example");
        let first = counter.fetch_add(1, Ordering::SeqCst) == 0;
        let ip = if first { [127, 0, 0, 2] } else { [127, 0, 0, 1] };
        Box::pin(async move { Ok(vec![SocketAddr::from((ip, 0))]) })
    });
    let settings = WebhookSettings {
        tls: tls::client_config(false, &[]).expect("no roots are fine"),
        allowed_private: vec![CidrRange::parse("127.0.0.2/32").expect("a range")],
        plain_http: true,
        resolve: flipping,
    };
    let webhook = Webhook::new(settings).expect("a sound configuration");
    let url = format!("http://hooks.example:{port}/");
    assert!(webhook.ask(&post(&url), limits::FALLBACK).await.is_ok());
    for _ in 0..3 {
        let decided = webhook.ask(&post(&url), limits::FALLBACK).await;
        assert_eq!(decided, Err(FallbackFault::PrivateAddress));
    }
    assert_eq!((good.connects(), asked.load(Ordering::SeqCst)), (1, 4));
    let nobody = tokio::time::timeout(Duration::from_millis(50), trap.accept()).await;
    assert!(nobody.is_err(), "somebody connected to 127.0.0.1");
}

/// A handler over TLS: its certificate must be trusted and made out to the name in the URL.
#[tokio::test]
async fn a_certificate_is_checked_against_the_name_in_the_url() {
    let (certificate, key) = tls::self_signed(&["hooks.example"]).expect("a good name");
    let own = Pem::from_text("the handler's", &certificate);
    let server = tls::server_config(&own, &Pem::from_text("its key", &key), None).expect("a pair");
    let acceptor = tokio_rustls::TlsAcceptor::from(server);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback is ours");
    let port = listener.local_addr().expect("bound").port();
    let heard = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&heard);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut request = vec![0; 16 * 1024];
            if stream.read(&mut request).await.unwrap_or(0) > 0 {
                counter.fetch_add(1, Ordering::SeqCst);
            }
            let Manner::Says(bytes) = answer("200 OK", REJECT) else { unreachable!() };
            let _ = stream.write_all(&bytes).await;
            let _ = stream.shutdown().await;
        }
    });
    let anywhere: Resolver =
        Arc::new(|_| Box::pin(async { Ok(vec![SocketAddr::from(([127, 0, 0, 1], 0))]) }));
    let trusting = |roots: &[Pem]| {
        let settings = WebhookSettings {
            tls: tls::client_config(false, roots).expect("good roots"),
            allowed_private: vec![CidrRange::parse("127.0.0.0/8").expect("a range")],
            plain_http: false,
            resolve: Arc::clone(&anywhere),
        };
        Webhook::new(settings).expect("a sound configuration")
    };
    let url = |host: &str| format!("https://{host}:{port}/");
    let trusted = trusting(std::slice::from_ref(&own));
    let decided = trusted.ask(&post(&url("hooks.example")), limits::FALLBACK).await;
    assert_eq!(decided, Ok(FallbackDecision::Reject { code: 486, message: None }));
    let impostor = trusted.ask(&post(&url("other.example")), limits::FALLBACK).await;
    assert_eq!(impostor, Err(FallbackFault::Unreachable));
    let stranger = trusting(&[]).ask(&post(&url("hooks.example")), limits::FALLBACK).await;
    assert_eq!(stranger, Err(FallbackFault::Unreachable));
    assert_eq!(heard.load(Ordering::SeqCst), 1, "nothing was told to a stranger");
}

#[test]
fn music_that_began_with_tls_is_not_led_out_of_it() {
    let hook = webhook(&[], system_resolver());
    let next = |from: &str, location: &'static str| {
        let headers = HeaderMap::from_iter([(LOCATION, HeaderValue::from_static(location))]);
        let from = Url::parse(from).expect("a URL");
        hook.redirected(&from, &headers).map(|url| url.to_string())
    };
    let (secure, plain) = ("https://music.example/a/b", "http://music.example/a/b");
    for (from, location, expected) in [
        (secure, "c", Ok("https://music.example/a/c")),
        (secure, "//cdn.example/c", Ok("https://cdn.example/c")),
        (secure, "http://music.example/c", Err(SoundFault::Redirected)),
        (plain, "http://music.example/c", Ok("http://music.example/c")),
        (plain, "https://cdn.example/c", Ok("https://cdn.example/c")),
        (plain, "", Ok(plain)),
        (plain, "data:audio/wav,x", Err(SoundFault::Redirected)),
        (secure, "https://192.168.0.1/c", Err(SoundFault::PrivateAddress)),
    ] {
        assert_eq!(next(from, location), expected.map(str::to_owned), "{from} {location}");
    }
}
