//! Names of agents' hosts become addresses here, on a few threads of their own, since the system's
//! resolver blocks. Answers are kept for a short while: nearly all join URLs name one host. When a
//! look-up fails, an older answer serves for some minutes more.

use super::shard::{Input, ShardSender};
use crate::ground::{CallKey, Instant, StreamId};
use crate::shell::clock::Clock;
use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

const THREADS: usize = 4;
/// Look-ups that may wait.
const QUEUE_MAX: usize = 1_024;
/// Hosts whose addresses are kept.
const HOSTS_MAX: usize = 64;
/// Addresses of one host that are tried.
const ADDRESSES_MAX: usize = 8;
/// How long an answer is used without asking again.
const FRESH: Duration = Duration::from_secs(30);
/// How long an answer serves when asking again fails.
const STALE: Duration = Duration::from_secs(600);

/// One name to look up, and who waits for it.
pub struct Question {
    pub host: String,
    pub port: u16,
    pub call: CallKey,
    pub stream: StreamId,
    /// Handed back, so that the call tells this answer from that to an earlier question.
    pub attempt: u32,
    pub reply: ShardSender,
}

type Kept = Mutex<BTreeMap<(String, u16), (Instant, Vec<SocketAddr>)>>;

/// Asks the resolver's threads. Clones ask the same threads.
#[derive(Clone)]
pub struct Resolver {
    questions: SyncSender<Question>,
}

impl Resolver {
    /// Starts the threads; they end when the last `Resolver` is gone.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start() -> std::io::Result<(Resolver, Vec<JoinHandle<()>>)> {
        let (questions, queue) = sync_channel(QUEUE_MAX);
        let queue = Arc::new(Mutex::new(queue));
        let kept = Arc::new(Kept::default());
        let threads = (0..THREADS).map(|number| {
            let (queue, kept) = (queue.clone(), kept.clone());
            std::thread::Builder::new()
                .name(format!("resolver-{number}"))
                .spawn(move || answer_all(&queue, &kept))
        });
        Ok((Resolver { questions }, threads.collect::<Result<_, _>>()?))
    }

    /// Asks; false when too many questions wait. The answer comes as [`Input::Resolved`].
    pub fn ask(&self, question: Question) -> bool {
        match self.questions.try_send(question) {
            Ok(()) => true,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
        }
    }
}

fn answer_all(queue: &Mutex<Receiver<Question>>, kept: &Kept) {
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Question { host, port, call, stream, attempt, reply }) = next else { return };
        let addresses = look_up(host, port, kept, |host, port| {
            (host, port).to_socket_addrs().map(Iterator::collect)
        });
        reply.send(Input::Resolved { call, stream, attempt, addresses });
    }
}

/// The addresses of `host`, families in turn, or the system's words for why there are none.
fn look_up(
    host: String,
    port: u16,
    kept: &Kept,
    ask_system: impl Fn(&str, u16) -> std::io::Result<Vec<SocketAddr>>,
) -> Result<Vec<SocketAddr>, String> {
    let key = (host, port);
    let known = kept.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
    let now = Clock::instant();
    if let Some((at, addresses)) = &known
        && now.since(*at) < FRESH
    {
        return Ok(addresses.clone());
    }
    let words = match ask_system(&key.0, port) {
        Ok(found) if !found.is_empty() => {
            let addresses = in_turn(&found);
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.len() >= HOSTS_MAX && !kept.contains_key(&key) {
                let oldest = kept.iter().min_by_key(|(_, (at, _))| *at).map(|(key, _)| key.clone());
                oldest.and_then(|oldest| kept.remove(&oldest));
            }
            kept.insert(key, (now, addresses.clone()));
            return Ok(addresses);
        }
        Ok(_) => "the name has no address".to_owned(),
        Err(error) => error.to_string(),
    };
    match known {
        Some((at, addresses)) if now.since(at) < STALE => Ok(addresses),
        Some(_) | None => Err(words),
    }
}

/// The system's order within a family, the families in turn, beginning with the first answer's: an
/// unreachable family then costs one attempt, not many (RFC 8305 §4).
fn in_turn(found: &[SocketAddr]) -> Vec<SocketAddr> {
    let first_is_v4 = found.first().is_some_and(SocketAddr::is_ipv4);
    let (first, second): (Vec<_>, Vec<_>) =
        found.iter().partition(|address| address.is_ipv4() == first_is_v4);
    let longest = first.len().max(second.len());
    (0..longest)
        .flat_map(|index| [first.get(index), second.get(index)])
        .flatten()
        .copied()
        .take(ADDRESSES_MAX)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn families_take_turns_in_the_systems_order() {
        let found: Vec<SocketAddr> =
            ["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1"].map(address).to_vec();
        let expected = ["[::1]:1", "1.1.1.1:1", "[::2]:1", "[::3]:1"].map(address);
        assert_eq!(in_turn(&found), expected);
        assert!(in_turn(&[]).is_empty());
        assert_eq!(in_turn(&[address("1.1.1.1:1"); 20]).len(), ADDRESSES_MAX);
    }

    #[test]
    fn answers_are_kept_and_failures_are_not() {
        let (kept, asked) = (Kept::default(), Cell::new(0));
        let works = |_: &str, port| {
            asked.set(asked.get() + 1);
            Ok(vec![SocketAddr::new([127, 0, 0, 1].into(), port)])
        };
        let fails = |_: &str, _| {
            asked.set(asked.get() + 1);
            Err(std::io::Error::other("no such name"))
        };
        assert_eq!(look_up("h".into(), 1, &kept, fails), Err("no such name".to_owned()));
        assert_eq!(look_up("h".into(), 1, &kept, works), Ok(vec![address("127.0.0.1:1")]));
        assert_eq!(look_up("h".into(), 1, &kept, fails), Ok(vec![address("127.0.0.1:1")]));
        assert_eq!(asked.get(), 2);
        assert!(look_up("h".into(), 2, &kept, |_, _| Ok(vec![])).is_err());
        for number in 0..2 * HOSTS_MAX {
            assert!(look_up(number.to_string(), 1, &kept, works).is_ok());
        }
        assert_eq!(kept.lock().expect("no panic").len(), HOSTS_MAX);
    }
}
