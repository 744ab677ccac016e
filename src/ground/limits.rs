//! Every bound of the product in one table: what is counted, how many, and why. Values that an
//! operator may change are defaults here and settings in the configuration.

use std::time::Duration;

/// Largest SIP datagram that is read (security S19).
pub const UDP_MESSAGE_BYTES_MAX: usize = 16 * 1024;
/// Largest SIP message on a stream, head and body together (security S19).
pub const STREAM_MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// Header lines of one message (security S19).
pub const HEADERS_MAX: usize = 256;
/// Via values of one message (security S19).
pub const VIAS_MAX: usize = 32;
/// Bytes of one URI (security S19).
pub const URI_BYTES_MAX: usize = 4 * 1024;

/// Challenges of one header in one answer (security S7).
pub const CHALLENGES_MAX: usize = 8;
/// Parameters of one challenge.
pub const CHALLENGE_PARAMS_MAX: usize = 32;
/// Bytes of one value of a challenge: nonce, opaque, realm.
pub const CHALLENGE_VALUE_BYTES_MAX: usize = 1024;

/// What a registration asks for (RFC 3261 §10.2.1.1): short, so that a registrar that lost its table
/// is not without us for long.
pub const REGISTRATION_EXPIRES: Duration = Duration::from_secs(300);
/// The longest binding that is asked for after a 423.
pub const REGISTRATION_EXPIRES_MAX: Duration = Duration::from_secs(86_400);
/// A binding is refreshed at least this long before it ends: longer than a try may take.
pub const REFRESH_MARGIN: Duration = Duration::from_secs(40);
/// Between the first REGISTERs that go to one registrar: 20 in a second, which bans of too many
/// failures in a short time leave alone.
pub const REGISTER_INTERVAL: Duration = Duration::from_millis(50);
/// Between removals of bindings of one registrar.
pub const UNREGISTER_INTERVAL: Duration = Duration::from_millis(5);
/// How long a removal waits for its answer.
pub const UNREGISTER: Duration = Duration::from_secs(5);
/// Bounds of the first and of the longest wait after a failed registration (RFC 5626 §4.5).
pub const BACK_OFF_START: Duration = Duration::from_secs(5);
pub const BACK_OFF_MAX: Duration = Duration::from_secs(60);
/// The same after a refusal: fewer than five tries in ten minutes, which is where bans begin.
pub const REFUSED_BACK_OFF_START: Duration = Duration::from_secs(180);
pub const REFUSED_BACK_OFF_MAX: Duration = Duration::from_secs(1_800);
/// The longest `Retry-After` of a registrar that is obeyed.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(3_600);
/// Contacts of a registrar's answer that are looked at.
pub const REGISTERED_CONTACTS_MAX: usize = 64;
/// Addresses of one registrar that its calls may come from.
pub const REGISTRAR_ADDRESSES_MAX: usize = 32;
/// 3xx answers of a registrar that one try follows.
pub const REDIRECTS_MAX: u8 = 2;

/// Running calls that are shown at once, with their legs.
pub const LIVE_MAX: usize = 10_000;

/// Bytes of one session description; a SIP message of the largest size holds less.
pub const SDP_BYTES_MAX: usize = 64 * 1024;
/// Media sections of one session description: more is no call of a telephone.
pub const SDP_MEDIA_MAX: usize = 32;
/// Lines of one session description that mean something to us.
pub const SDP_LINES_MAX: usize = 1_024;

/// SIP connections that may be open at once (security S5).
pub const CONNECTIONS_MAX: usize = 1_024;
/// SIP connections from one source address (security S5).
pub const CONNECTIONS_PER_SOURCE_MAX: usize = 32;
/// Name servers that are configured.
pub const NAME_SERVERS_MAX: usize = 8;
/// SIP connections of ours to peers.
pub const OUTGOING_CONNECTIONS_MAX: usize = 1_024;
/// How long a TCP connection to a peer may take: three tries of the kernel. Who has other hops left
/// does not wait so long.
pub const TCP_CONNECT: Duration = Duration::from_secs(5);
/// How long an unlisted hop may speak after we last sent to it: longer than any callee rings.
pub const HOP_ADMITTED: Duration = Duration::from_secs(300);
/// Addresses that may speak although no range lists them: hops, registrars, peers of calls.
pub const ADMITTED_MAX: usize = 8_192;
/// How long a peer that closed its side waits for the answers that it is owed (Timer F).
pub const HALF_CLOSED: Duration = Duration::from_secs(32);
/// Packets a second that one listed source may send; a burst may be twice as large.
pub const PACKETS_PER_SOURCE: u32 = 20_000;
/// Packets a second of one unlisted source; one that sends more is muted in the kernel.
pub const UNLISTED_PACKETS_PER_SOURCE: u32 = 1_000;
/// How long an unlisted source that floods is muted.
pub const MUTED: Duration = Duration::from_secs(10);
/// TLS handshakes a second that one source may begin; a burst may hold all its connections.
pub const HANDSHAKES_PER_SOURCE: u32 = 10;
/// How long a TLS handshake may take (security S5).
pub const TLS_HANDSHAKE: Duration = Duration::from_secs(5);
/// How long the first, and every begun, message on a stream may take to come whole (security S5).
pub const STREAM_MESSAGE: Duration = Duration::from_secs(10);
/// How long a stream connection may be idle without a call on it.
pub const STREAM_IDLE: Duration = Duration::from_secs(120);
/// Bytes that may wait to be written to one SIP connection; more closes it.
pub const STREAM_WRITE_BACKLOG_BYTES_MAX: usize = 256 * 1024;

/// Transactions that one source address may hold (security S19).
pub const TRANSACTIONS_PER_SOURCE_MAX: usize = 200;
/// Transactions that one source address may hold, finished ones included: they absorb copies for 32 s,
/// and a busy trunk makes two for each call.
pub const TRANSACTIONS_HELD_PER_SOURCE_MAX: usize = 20_000;
/// Transactions in all.
pub const TRANSACTIONS_MAX: usize = 50_000;
/// Calls from one source address that are not answered yet (security S19).
pub const EARLY_CALLS_PER_SOURCE_MAX: usize = 50;
/// Silence of an INVITE over UDP after which the next hop is tried.
pub const INVITE_SILENCE: Duration = Duration::from_millis(1_200);
/// How long a next hop that failed is passed over (RFC 3263 §4.3).
pub const DEAD_HOP: Duration = Duration::from_secs(30);
/// Next hops that are remembered as dead.
pub const DEAD_HOPS_MAX: usize = 1_024;
/// The search for the next hops of a request (RFC 3263).
pub const LOCATE: Duration = Duration::from_secs(10);
/// A connection to the last hop that is left, TLS included.
pub const CONNECT: Duration = Duration::from_secs(10);
/// A connection to a hop while others are left.
pub const CONNECT_WITH_OTHERS: Duration = Duration::from_secs(2);
/// Forks of one INVITE of ours that are acknowledged; what more proxies answer is ignored.
pub const FORKS_MAX: usize = 32;
/// Requests of the call layer's in one dialog that may be under way: keys are sent as INFO.
pub const DIALOG_REQUESTS_MAX: usize = 32;
/// The session interval that is asked for (RFC 4028 §4 recommends it).
pub const SESSION_INTERVAL: Duration = Duration::from_secs(1_800);
/// Dialogs that ended, of which who wants to replace them is told so.
pub const ENDED_DIALOGS_MAX: usize = 256;
/// How long a re-INVITE of ours may ring: no person is asked for it.
pub const REOFFER: Duration = Duration::from_secs(32);
/// An answer to a request of ours is waited for at most so long: 64 × T1 (RFC 3261 §17.1.2.2).
pub const TRANSACTION: Duration = Duration::from_secs(32);
/// Calls that may be up at once, unless the configuration says otherwise.
pub const CALLS_MAX: usize = 1_000;

/// The whole set-up of a call, from INVITE to the answer (house §3).
pub const SETUP: Duration = Duration::from_secs(30);
/// `joinTimeout` of an incoming call's agent call: an orphan lapses after it (house §4).
pub const JOIN_TIMEOUT: Duration = Duration::from_secs(15);
/// Creation of the agent call over REST, one try.
pub const CREATE_CALL: Duration = Duration::from_secs(10);
/// The fallback handler's whole answer: resolution, connection, TLS and body (security S13).
pub const FALLBACK: Duration = Duration::from_secs(5);
/// Bytes of a fallback handler's answer (security S13).
pub const FALLBACK_ANSWER_BYTES_MAX: usize = 256 * 1024;
/// Nesting of a fallback handler's answer.
pub const FALLBACK_DEPTH_MAX: usize = 32;
/// What is kept of a call's set-up for the creation of the agent call and the joining of its stream:
/// a caller waits for a turn no longer than until then.
pub const CREATION_RESERVE: Duration = Duration::from_secs(5);
/// Callers that may wait, ringing, for the creation of their agent calls.
pub const CREATIONS_WAITING_MAX: usize = 100;
/// How long nothing is created after a 429 or 503 that names no time.
pub const CREATION_PAUSE: Duration = Duration::from_secs(2);
/// Refusals for lack of capacity after which one call's creation is given up.
pub const CREATION_REFUSALS_MAX: u8 = 5;
/// Upgrade of the agent stream, from `Join` to the 101.
pub const JOIN: Duration = Duration::from_secs(5);
/// No RTP from the caller for this long ends the call, unless it is on hold.
pub const RTP_TIMEOUT: Duration = Duration::from_secs(30);
/// No RTP for this long ends it though RTCP comes, unless it is on hold: a muted peer is alive for
/// longer than a dead one.
pub const RTCP_ONLY_MAX: Duration = Duration::from_secs(600);
/// A call on hold whose peer sends nothing for this long is ended.
pub const HOLD_MAX: Duration = Duration::from_secs(30 * 60);
/// Bounds of how much later than the fastest packets may come and still be waited for.
pub const JITTER_MIN: Duration = Duration::from_millis(20);
pub const JITTER_MAX: Duration = Duration::from_millis(200);
/// How long the agent's first word waits for the caller's first packet.
pub const PATH_CONFIRM: Duration = Duration::from_millis(400);
/// When it is judged whether media comes from the peer of a leg that is up.
pub const ONE_WAY_VERDICT: Duration = Duration::from_secs(2);
/// Drain after the agent hung up: queued speech is played for at most this long before our BYE.
pub const FAREWELL: Duration = Duration::from_secs(30);
/// How long running calls may go on after SIGTERM.
pub const GRACE: Duration = Duration::from_secs(60);

/// `X-` headers that go into the template context (security S6).
pub const X_HEADERS_MAX: usize = 64;
/// Bytes of one `X-` header value (security S6).
pub const X_HEADER_BYTES_MAX: usize = 2 * 1024;
/// Bytes of all `X-` headers together, names and values: prompts are made of them.
pub const X_HEADERS_BYTES_MAX: usize = 8 * 1024;
/// Nesting of a JSON header value (security S6).
pub const JSON_DEPTH_MAX: usize = 16;

/// How long the peer of a call is heard after its end when no range admits it any more: its BYE may
/// come again for 64 * T1 (RFC 3261 §17.1.2.2).
pub const GUEST_LINGER: Duration = Duration::from_secs(40);

/// `allowedAgents` of an account (seed: maxItems).
pub const ALLOWED_AGENTS_MAX: usize = 20;
/// Characters of a `toUserPattern` (seed: maxLength).
pub const TO_USER_PATTERN_CHARS_MAX: usize = 200;
/// Bytes of a compiled `toUserPattern` (security S16).
pub const PATTERN_COMPILED_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of a To user that are matched (security S16).
pub const TO_USER_BYTES_MAX: usize = 256;
/// CIDR ranges of an account.
pub const CIDR_RANGES_MAX: usize = 1_000;

/// Largest WebSocket frame from the agent (security S18).
pub const AGENT_FRAME_BYTES_MAX: usize = 256 * 1024;
/// Largest WebSocket message from the agent (security S18).
pub const AGENT_MESSAGE_BYTES_MAX: usize = 1024 * 1024;
/// A file of hold music, as Ultravox bounds it.
pub const SOUND_FILE_BYTES_MAX: usize = 5 * 1000 * 1000;
/// Hold music is cut after this long.
pub const SOUND_LENGTH_MAX: Duration = Duration::from_secs(300);
/// Decoded hold music that is kept.
pub const SOUNDS_KEPT_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Queued agent audio of one call (house §5).
pub const PLAYOUT_BYTES_MAX: usize = 256 * 1024;
/// PCM frames that wait for the agent's socket before the oldest is dropped (house §5).
pub const UPLINK_FRAMES_MAX: usize = 25;
/// Keys that wait to be pressed towards one leg; what goes beyond is left out.
pub const KEYS_WAITING_MAX: usize = 256;
/// Legs that one call has at once: its first, and two beside it.
pub const LEGS_MAX: usize = 3;
/// Agent streams that one call has at once.
pub const STREAMS_MAX: usize = 2;
/// `clientBufferSizeMs` that is asked of Ultravox.
pub const CLIENT_BUFFER_MS: u32 = 30_000;
/// `mediaIdleTimeout` that is asked of Ultravox.
pub const MEDIA_IDLE: Duration = Duration::from_secs(40);

/// Share of a shard's time, in percent, from which it takes no new call, unless the configuration says
/// otherwise (house §5).
pub const REFUSE_BUSY_PERCENT: u8 = 85;
/// Milliseconds that a shard's frames leave late, as their 99th percentile, from which it takes no new
/// call, unless the configuration says otherwise.
pub const REFUSE_LATENESS_MS: u16 = 10;

/// Calls whose early media is kept, 80 kB each at most; older ones make place.
pub const EARLY_MEDIA_KEPT_MAX: usize = 32;
/// Transfers that one call may try.
pub const TRANSFERS_MAX: usize = 16;
/// Legs and dialogs of one call that may be on their way out at once.
pub const CLOSING_LEGS_MAX: usize = 4;
/// Lines of one call's ladder that are kept.
pub const LADDER_LINES_MAX: usize = 64;
/// Addresses in the table of unlisted sources; the longest unseen one makes place.
pub const UNLISTED_SOURCES_MAX: usize = 256;
/// Inputs that may wait for the signalling task; beyond it new INVITEs are shed.
pub const SIGNALLING_QUEUE_MAX: usize = 4_096;
/// A REST answer body.
pub const REST_BODY_BYTES_MAX: usize = 1024 * 1024;

/// Wrong keys that one source may show to the admin listener in [`KEY_FAILURES_WINDOW`]; more, and it
/// waits. All clients behind a proxy, and all on loopback, are one source.
pub const KEY_FAILURES_MAX: u32 = 20;
pub const KEY_FAILURES_WINDOW: Duration = Duration::from_secs(60);
/// Sources whose wrong keys are counted; the one that began longest ago makes place.
pub const KEY_FAILURE_SOURCES_MAX: usize = 1_024;
/// Body of a request to the admin API (security S12).
pub const ADMIN_BODY_BYTES_MAX: usize = 1024 * 1024;
/// Body of a request that is passed through to Ultravox: voices and documents are uploaded there.
pub const PASSED_BODY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Requests that are passed through at once.
pub const PASSED_MAX: usize = 64;
/// How long a passed request may take, its answer's body included: recordings are downloaded.
pub const PASSED: Duration = Duration::from_secs(600);
/// Registrations of an account.
pub const REGISTRATIONS_MAX: usize = 10_000;
