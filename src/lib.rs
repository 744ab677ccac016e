//! voxedge: a native SIP edge for Ultravox voice agents. This page is the map.
//!
//! # Floors
//!
//! A module uses floors below its own and never one above (`tests/it/tidy.rs` holds this).
//!
//! ```text
//! 6  main  cli            the life of the process; the commands a person types
//! 5  shell  standin       sockets, TLS, HTTP, WebSocket, files, SQLite, clock, entropy, tasks ·
//!                         the embedded agent service
//! 4  switchboard  call  refusal            what a call does
//! 3  account  admission  routing  context  fallback  outgoing  billing   the customer's rules
//! 2  sip::{transaction, dialog, session, session_timer, refer, digest, registration, locator, ua}
//!    sdp::offer_answer  media
//! 1  sip::{msg, status}  sdp::{text, payload}  rtp  codec  ultravox    what bytes mean
//! 0  ground               time, entropy, ports, ids, timers, limits, secrets
//! ```
//!
//! Floors 0 to 4 are pure: no socket, clock, task, lock, log or random source but the `Entropy`
//! that they were built with. `media` and `call` do not see each other; they share the plain values
//! of `media::plan`. `sip` knows nothing of Ultravox, `billing` nothing of SIP.
//!
//! # Machines
//!
//! Two root machines: [`switchboard::Switchboard`] (signalling, one for each process) and
//! [`media::MediaSession`] (media, one for each call). Their contract, and that of every machine
//! inside them:
//!
//! 1. `handle_*(now, …)` takes what happened; `poll_*` gives what to do; commands from above are
//!    plain verbs; getters take `&self`. There is no fifth kind. Leaf machines keep no queue: they
//!    push into an `out` argument.
//! 2. After each `handle_*`, drain `poll_*` until empty, then sleep until `poll_timeout`.
//! 3. `now` is the only clock and never goes backwards. It carries the monotonic instant that
//!    decides and the wall time that labels. `handle_timeout(now)` is always allowed.
//! 4. Randomness comes only from the `Entropy` that a machine was built with.
//! 5. Same seed, same inputs: same commands, byte for byte.
//!
//! # Invariants
//!
//! - Every INVITE gets exactly one final answer; answers go to the packet's source, always.
//! - A call is answered only after its agent stream was joined (101, then 200).
//! - A leg's clock runs from its answer to its end; ringing never enters it. Rounding to
//!   deciminutes happens once for each call, in [`billing`].
//! - `Call::finish` is the only teardown. When all calls have ended, no dialog, transaction, timer,
//!   job or port is left.
//! - One second of call is one second of audio towards the agent, whatever the network does.
//! - Where SRTP is agreed, nothing plain is sent or accepted, and a packet that does not verify changes
//!   nothing.
//! - Secrets (keys, join URLs) live in [`ground::Secret`] and reach no log and no record.
//!
//! # Walks
//!
//! An INVITE: [`shell::flow`] admits the source, frames and parses → [`switchboard`] → [`sip::ua`]
//! → [`admission`] → [`routing`] → [`sdp`] → [`call::inbound`], which rings and opens media →
//! [`call::creation`], which asks the [`fallback`] handler where no rule matched ([`shell::webhook`]),
//! reads the agent, waits for its turn and creates the agent call ([`shell::agent`]) → the media
//! shard prepares and joins the stream → 101 → 200.
//!
//! A request of ours: [`sip::ua`] wants its target located → [`shell::resolver`] asks what
//! [`sip::locator`] wants to know → hops → [`sip::ua`] tries one after the other → [`shell::flow`]
//! gives the listening socket or a connection of ours whose certificate is made out to the target.
//!
//! An outgoing call: [`shell::admin`] → [`switchboard`] → [`outgoing`] (who may be called) →
//! [`call::outbound`], which creates the agent call, dials ([`sip::ua`]: next hops, challenges, forks,
//! CANCEL) and joins the stream when the callee has answered.
//!
//! A transfer: the agent's tool ([`call::tool`]) or a REFER of the peer → [`call::handover`], which begins a
//! [`call::transfer`] (a leaf machine) and carries out its steps: a second leg with its own port and
//! INVITE, REFER, the scene of who hears whom, a second agent call or stage for the operator.
//!
//! A tool of the agent: at the creation [`ultravox::tool`] puts client tools in the places of the built-in
//! ones → an invocation comes over the stream → [`call::tool`] reads it, asks the policy, answers with a
//! placeholder → keys, or a transfer → the outcome goes back as a message. Hold music comes from
//! [`shell::sounds`].
//!
//! A key of the caller: RTP ([`media`]) or INFO → [`call::keys`], which knows a key that comes both ways
//! and tells those of one pause together.
//!
//! A lost agent: the stream ends as none should → [`call::lost`] → a prompt, another agent call with
//! `priorCallId` on a new stream → or the fail-over target.
//!
//! A registration: [`switchboard`] keeps one [`sip::registration`] client for each, which says when
//! and what → [`sip::ua`] (next hops, [`sip::digest`]) → the binding's flow is kept open, pinged and
//! heard, and the binding goes to the [`shell::store`] for the next start. A call that comes over it is
//! admitted by it.
//!
//! A change of the account: [`shell::admin`] (or a reload of the file) → [`account::change`], checked
//! whole → [`shell::store`] → [`shell::signalling`], which puts it in force for [`shell::sources`] and
//! the [`switchboard`] at once. Calls that are up go on with what they began with.
//!
//! An RTP packet: [`shell::media`] (a shard, one thread for each core) → [`media::MediaSession`]
//! (SRTP, latch, jitter buffer, [`codec`]) → WebSocket frame → one TLS record. Back: binary message →
//! playout queue → deadline → encode → `send_to`. Signalling is not involved.
//! Where a scene lets legs hear each other, or an agent hear several, their audio meets in the
//! session's bridge; packets of two legs of one codec that are alone go on as they are (`media::relay`).

pub mod ground;

pub mod codec;
pub mod rtp;
pub mod sdp;
pub mod sip;
pub mod ultravox;

pub mod media;

pub mod account;
pub mod admission;
pub mod billing;
pub mod context;
pub mod fallback;
pub mod outgoing;
pub mod routing;

pub mod call;
pub mod refusal;
pub mod switchboard;

pub mod shell;
pub mod standin;

pub mod cli;
