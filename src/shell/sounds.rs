//! Hold music from where an agent's settings say (`holdMusicUrl`): a WAV or MP3 file of at most 5 MB,
//! fetched without credentials by the rules of the fallback handler's requests, so that no agent's
//! settings make the daemon ask its own network; one that several callers want at once is fetched once. Files are decoded off the signalling thread, cut after
//! five minutes and kept for the next caller, within a bound. Logs carry the host, never a path.

mod decode;

use crate::call::sound::SoundFault;
use crate::ground::{Instant, limits};
use crate::media::plan::Sound;
use crate::shell::clock::Clock;
use crate::shell::webhook::{Download, Webhook};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::Semaphore;

/// A file is asked for again after this long; its server may say that it has not changed.
const FRESH: Duration = Duration::from_secs(600);
/// Files that are fetched or decoded at once.
const PLACES: usize = 4;
/// Sounds that are kept.
const KEPT_MAX: usize = 128;

/// Fetches sounds and keeps them. Cheap to clone; all clones share what is kept.
#[derive(Clone)]
pub struct SoundLibrary {
    webhook: Webhook,
    places: Arc<Semaphore>,
    shelf: Arc<Mutex<Shelf>>,
    /// What is younger is not asked for again.
    fresh: Duration,
}

impl SoundLibrary {
    pub fn new(webhook: Webhook) -> SoundLibrary {
        let shelf = Arc::new(Mutex::new(Shelf::default()));
        SoundLibrary { webhook, places: Arc::new(Semaphore::new(PLACES)), shelf, fresh: FRESH }
    }

    /// The sound of this URL, within `budget`: one that is kept, else fetched and decoded. One that is
    /// kept and out of date is given all the same when its server does not answer well.
    ///
    /// # Errors
    /// [`SoundFault`].
    pub async fn fetch(&self, url: &str, budget: Duration) -> Result<Arc<Sound>, SoundFault> {
        let begun = Clock::instant();
        let fetched = tokio::time::timeout(budget, self.look_or_ask(url)).await;
        let fetched = fetched.unwrap_or(Err(SoundFault::TimedOut));
        let elapsed_ms = Clock::instant().since(begun).as_millis() as u64;
        let Err(fault) = fetched else { return fetched };
        tracing::warn!(elapsed_ms, host = host_of(url), %fault, "hold music");
        self.shelf().look(url).map(|kept| Arc::clone(&kept.sound)).ok_or(fault)
    }

    async fn look_or_ask(&self, url: &str) -> Result<Arc<Sound>, SoundFault> {
        if let Some(sound) = self.fresh(url) {
            return Ok(sound);
        }
        let turn = self.shelf().turn(url);
        let held = turn.lock().await;
        let place = self.places.acquire().await;
        // Somebody else may have fetched it meanwhile.
        if let Some(sound) = self.fresh(url) {
            return Ok(sound);
        }
        let kept = self.shelf().look(url).map(|kept| (Arc::clone(&kept.sound), kept.etag.clone()));
        let etag = kept.as_ref().and_then(|(_, etag)| etag.as_deref());
        let answer = self.webhook.download(url, etag, limits::SOUND_FILE_BYTES_MAX).await?;
        let sound = match (answer, kept) {
            (Download::Unchanged, Some((sound, etag))) => {
                self.shelf().put(url, Kept::new(Arc::clone(&sound), etag));
                sound
            }
            (Download::Unchanged, None) => return Err(SoundFault::Status(304)),
            (Download::File { body, etag }, _) => self.decode(url, body, etag).await?,
        };
        drop((place, held));
        Ok(sound)
    }

    fn fresh(&self, url: &str) -> Option<Arc<Sound>> {
        let mut shelf = self.shelf();
        let kept = shelf.look(url)?;
        (Clock::instant().since(kept.at) < self.fresh).then(|| Arc::clone(&kept.sound))
    }

    /// What is decoded is kept even when its caller waits no more.
    async fn decode(
        &self,
        url: &str,
        body: Vec<u8>,
        etag: Option<String>,
    ) -> Result<Arc<Sound>, SoundFault> {
        let (shelf, url) = (Arc::clone(&self.shelf), url.to_owned());
        let work = move || {
            let pcm = decode::decode(&body, limits::SOUND_LENGTH_MAX)
                .map_err(|fault| SoundFault::Unplayable(fault.to_string()))?;
            let sound = Sound { hz: decode::HZ, pcm: pcm.into_boxed_slice(), repeats: true };
            let sound = Arc::new(sound);
            lock(&shelf).put(&url, Kept::new(Arc::clone(&sound), etag));
            Ok(sound)
        };
        let done = tokio::task::spawn_blocking(work).await;
        done.unwrap_or_else(|_| Err(SoundFault::Unplayable("the decoder failed".to_owned())))
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        lock(&self.shelf)
    }
}

impl fmt::Debug for SoundLibrary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SoundLibrary")
            .field("kept", &self.shelf().kept.len())
            .finish_non_exhaustive()
    }
}

/// Whoever panicked with the shelf in hand left it whole: it is changed by single steps.
fn lock(shelf: &Mutex<Shelf>) -> MutexGuard<'_, Shelf> {
    shelf.lock().unwrap_or_else(PoisonError::into_inner)
}

fn host_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    authority.rsplit('@').next().unwrap_or_default()
}

/// A sound that was fetched.
#[derive(Clone)]
struct Kept {
    sound: Arc<Sound>,
    etag: Option<String>,
    at: Instant,
    /// Larger for what was wanted later.
    used: u64,
}

impl Kept {
    fn new(sound: Arc<Sound>, etag: Option<String>) -> Kept {
        Kept { sound, etag, at: Clock::instant(), used: 0 }
    }

    fn bytes(&self) -> usize {
        self.sound.pcm.len() * 2
    }
}

/// Sounds by URL: at most [`KEPT_MAX`], and so many bytes; what was wanted longest ago makes place.
#[derive(Default)]
struct Shelf {
    kept: BTreeMap<String, Kept>,
    bytes: usize,
    uses: u64,
    /// Files that are being asked for: whoever wants one too waits for it.
    asked: BTreeMap<String, Weak<Turn>>,
}

/// Held by who asks a server for one file.
type Turn = tokio::sync::Mutex<()>;

impl Shelf {
    fn look(&mut self, url: &str) -> Option<&Kept> {
        self.uses += 1;
        let kept = self.kept.get_mut(url)?;
        kept.used = self.uses;
        Some(kept)
    }

    fn turn(&mut self, url: &str) -> Arc<Turn> {
        self.asked.retain(|_, turn| turn.strong_count() > 0);
        if let Some(turn) = self.asked.get(url).and_then(Weak::upgrade) {
            return turn;
        }
        let turn = Arc::new(Turn::default());
        self.asked.insert(url.to_owned(), Arc::downgrade(&turn));
        turn
    }

    fn put(&mut self, url: &str, kept: Kept) {
        self.remove(url);
        self.uses += 1;
        self.bytes += kept.bytes();
        self.kept.insert(url.to_owned(), Kept { used: self.uses, ..kept });
        while self.kept.len() > KEPT_MAX
            || self.bytes > limits::SOUNDS_KEPT_BYTES_MAX && self.kept.len() > 1
        {
            let oldest = self.kept.iter().min_by_key(|(_, kept)| kept.used);
            let Some(url) = oldest.map(|(url, _)| url.clone()) else { return };
            self.remove(&url);
        }
    }

    fn remove(&mut self, url: &str) {
        if let Some(kept) = self.kept.remove(url) {
            self.bytes -= kept.bytes();
        }
    }
}

#[cfg(test)]
mod tests;
