//! Seeded mutations of the message fixtures against a daemon in a process of its own, 100,000 for
//! each transport: it lives, an OPTIONS after each batch is answered, all that it sends can be read,
//! and memory and tables settle.

use crate::rig::{self, Caller, EVERY_USER, Heard, Process, SOON};
use crate::sip_mutations::mutate;
use crate::torture_parse::{own, rows, test_data};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use voxedge::ground::{Entropy, Transport};

const LIMIT: Duration = Duration::from_secs(280);
const MUTATIONS: u64 = 100_000;
/// Messages between two OPTIONS over packets: what a socket's buffer surely takes.
const PACKETS: u64 = 40;
/// Messages on one connection: most mutations break its framing, and what follows is lost. Over TLS
/// a few, for the sake of the handshakes.
const ON_TCP: u64 = 1;
const ON_TLS: u64 = 4;
const AT_ONCE: usize = 8;
/// Mutations of the run with agents, and how many of them must become calls at least.
const CALLS: u64 = 10_000;
const CALLS_MIN: f64 = 20.0;
/// Short timers: else each source would soon hold as many transactions as it may.
const T1: [(&str, &str); 1] = [("VOXEDGE_TEST_T1_MS", "5")];
/// Nobody is found, so that this is about messages and not about thousands of agent calls.
const NOBODY: (&str, &str) = ("allow_all_agents = true", "allow_all_agents = false");
/// Growth of resident memory that allocators may cause between the tenth part and the end.
const GROWTH_KIB_MAX: u64 = 16 * 1_024;

fn corpus() -> Arc<Vec<Bytes>> {
    let mut folders = vec![own("sip"), own("sip_syntax")];
    folders.extend(test_data("torture"));
    let messages = folders.iter().flat_map(|folder| rows(folder)).map(|(_, bytes)| bytes);
    Arc::new(messages.collect())
}

fn mutated(corpus: &[Bytes], seed: u64) -> Vec<u8> {
    let mut entropy = Entropy::from_number(seed);
    let mut bytes = corpus[entropy.below(corpus.len() as u64) as usize].to_vec();
    mutate(&mut bytes, &mut entropy);
    bytes
}

#[test]
fn mutated_packets_harm_nobody() {
    check(Transport::Udp, PACKETS, &[NOBODY], MUTATIONS);
}

#[test]
fn mutated_messages_over_tcp_harm_nobody() {
    check(Transport::Tcp, ON_TCP, &[NOBODY], MUTATIONS);
}

#[test]
fn mutated_messages_over_tls_harm_nobody() {
    check(Transport::Tls, ON_TLS, &[NOBODY], MUTATIONS);
}

/// Fewer, and each INVITE that can be read becomes a call to an agent.
#[test]
fn mutated_calls_harm_nobody() {
    check(Transport::Udp, 10, &[EVERY_USER], CALLS);
}

fn check(transport: Transport, batch: u64, changes: &[(&str, &str)], mutations: u64) {
    let corpus = corpus();
    rig::run(LIMIT, async move {
        let mut process = Process::spawn(changes, &T1);
        let tenth = mutations / 10;
        all(&process, transport, batch, &corpus, 0..tenth).await;
        process.doors.await_idle();
        let before = process.footprint();
        all(&process, transport, batch, &corpus, tenth..mutations).await;
        process.doors.await_idle();
        let after = process.footprint();
        // On a connection at least the first message is read, unless its end is cut off.
        let enough =
            mutations as f64 / if transport == Transport::Udp { 2.0 } else { batch as f64 * 4.0 };
        let (read, bad) = rig::await_some(SOON, "the messages arrive", || {
            let read = process.doors.metric("sip_received_total")?;
            let bad = process.doors.metric("sip_malformed_total")?;
            (read + bad > enough).then_some((read, bad))
        });
        eprintln!("{transport:?}: {read} read, {bad} malformed; {before:?} → {after:?}");
        assert!(process.child.try_wait().expect("our child").is_none(), "it lives");
        assert!(!process.log().contains("panicked"), "{}", process.log());
        if changes.contains(&EVERY_USER) {
            let answered = process.doors.metric("calls_answered_total").unwrap_or_default();
            eprintln!("{answered} calls were answered");
            assert!(answered > CALLS_MIN, "mutated INVITEs reach agents");
        }
        // Threads that looked a name up stay for ten seconds.
        rig::await_some(SOON, "the threads ended", || {
            (process.footprint().threads <= before.threads).then_some(())
        });
        let growth = after.rss_kib.saturating_sub(before.rss_kib);
        assert!(growth < GROWTH_KIB_MAX, "memory grew by {growth} KiB");
        assert!(after.files <= before.files + 40, "{} files, {}", before.files, after.files);
    });
}

async fn all(
    process: &Process,
    transport: Transport,
    batch: u64,
    corpus: &Arc<Vec<Bytes>>,
    seeds: std::ops::Range<u64>,
) {
    let mut running = JoinSet::new();
    let mut first = seeds.start;
    while first < seeds.end {
        if running.len() >= AT_ONCE
            && let Some(ended) = running.join_next().await
        {
            ended.expect("no panic");
        }
        let caller = process.caller(transport).await;
        let seeds = first..(first + batch).min(seeds.end);
        first = seeds.end;
        running.spawn(one_batch(caller, Arc::clone(corpus), seeds));
    }
    while let Some(ended) = running.join_next().await {
        ended.expect("no panic");
    }
}

/// Sends a batch and an OPTIONS; over packets it must be answered, a connection must be answered or
/// closed once we said that nothing more comes.
async fn one_batch(mut caller: Caller, corpus: Arc<Vec<Bytes>>, seeds: std::ops::Range<u64>) {
    let (first, last) = (seeds.start, seeds.end);
    if caller.transport == Transport::Udp {
        for seed in seeds {
            // A packet of no bytes, or one that is refused at once, is no matter.
            caller.send(&mutated(&corpus, seed)).await;
        }
        caller.fence().await.expect("packets do not close");
        return;
    }
    let mut bytes: Vec<u8> = seeds.flat_map(|seed| mutated(&corpus, seed)).collect();
    bytes.extend(&caller.request("OPTIONS", "probe", &rig::unique("fence"), "", "")[..]);
    // It may be closed before all is written.
    caller.send(&bytes).await;
    caller.end_writing().await;
    loop {
        match caller.receive(SOON).await {
            Heard::Message(_) => {}
            Heard::Closed => return,
            Heard::Nothing => panic!("seeds {first}..{last}: neither answered nor closed"),
        }
    }
}
