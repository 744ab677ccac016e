//! The call records on disk: an embedded SQLite database, and the one door to it. One thread
//! writes; it gathers what comes within a few milliseconds into one transaction and syncs it
//! (`journal_mode = WAL`, `synchronous = FULL`), so that what was committed survives `kill -9` and
//! power loss. A call never waits for the disk: when the disk fails, records wait in memory up to a
//! bound, the oldest are dropped and counted, and calls go on.
//!
//! The account's document, its registrations and the ladders of ended calls lie in the same database;
//! a change of the account waits for the disk. The file is for its owner alone (mode 0600).
//!
//! At start, records that an earlier process left open are closed at their last heartbeat and
//! marked `node_lost`.

mod account;
mod ladders;
mod schema;
mod writer;

pub use account::{StoredAccount, StoredRegistration};

use crate::billing::Cdr;
use crate::call::ladder::Ladder;
use crate::ground::CallKey;
use rusqlite::{Connection, OpenFlags};
use std::fmt;
use std::fs::{File, OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, SyncSender, TrySendError};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often the record of a live call is to be written again (house §7).
pub const HEARTBEAT: Duration = Duration::from_secs(6);
/// Records that may wait for the disk.
pub const BACKLOG_MAX: usize = 10_000;
/// Ladders of ended calls that are kept.
pub const LADDERS_MAX: usize = 10_000;

/// Why the store cannot be used, with the fix.
#[derive(Debug)]
pub enum StoreFault {
    /// The directory is missing and cannot be made, or cannot be written.
    Directory { path: PathBuf, error: std::io::Error },
    /// The database cannot be opened, or is none.
    Database { path: PathBuf, detail: String },
    /// Another process writes it.
    InUse { path: PathBuf },
    /// A newer voxedge wrote it.
    Newer { path: PathBuf, version: i64 },
    /// The writer thread could not be started.
    Thread(std::io::Error),
    /// The writer thread is gone, or the disk refused the change.
    Unwritten { path: PathBuf, detail: String },
}

impl fmt::Display for StoreFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreFault::Directory { path, error } => write!(
                f,
                "the call records cannot be kept in {}: {}; correct that, or change store.path",
                path.display(),
                refusal_words(error)
            ),
            StoreFault::Database { path, detail } => write!(
                f,
                "the call records in {} cannot be opened: {detail}; repair the file, or move it \
                 away and a new one is made",
                path.display()
            ),
            StoreFault::InUse { path } => write!(
                f,
                "the call records in {} are being written by another voxedge; stop it, or change \
                 store.path",
                path.display()
            ),
            StoreFault::Newer { path, version } => write!(
                f,
                "the call records in {} were written by a newer voxedge (schema {version}, this \
                 one knows {}); install that version, or change store.path",
                path.display(),
                schema::VERSION
            ),
            StoreFault::Thread(error) => write!(f, "the record writer cannot start: {error}"),
            StoreFault::Unwritten { path, detail } => {
                write!(f, "{} cannot be written: {detail}; look at the disk", path.display())
            }
        }
    }
}

impl std::error::Error for StoreFault {}

/// Why a file or directory cannot be made, without the number that the system adds.
fn refusal_words(error: &std::io::Error) -> String {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::NotFound => "the directory is not there and cannot be made".to_owned(),
        ErrorKind::PermissionDenied => "this user may not write there".to_owned(),
        ErrorKind::ReadOnlyFilesystem => "the file system is read-only".to_owned(),
        ErrorKind::StorageFull => "the disk is full".to_owned(),
        _ => error.to_string(),
    }
}

/// What the writer did; read by the metrics.
#[derive(Debug, Default)]
pub struct StoreCounters {
    /// Records committed (a call counts each time that it was written).
    pub written: AtomicU64,
    /// Transactions.
    pub commits: AtomicU64,
    /// Transactions that failed: an alarm, someone should look at the disk.
    pub failures: AtomicU64,
    /// Records dropped since neither disk nor memory had room: money may be lost.
    pub dropped: AtomicU64,
    /// Records that wait in memory now.
    pub waiting: AtomicU64,
    /// True from a failed transaction to the next that succeeds.
    pub failing: AtomicBool,
    /// Records that this start closed as `node_lost`.
    pub node_lost: AtomicU64,
}

/// What the writer is told.
enum Order {
    Record(Box<Cdr>),
    /// The ladder of an ended call, as JSON.
    Ladder(CallKey, String),
    /// A change that somebody waits for.
    Change(ChangeOrder),
    /// Commit what waits, then answer.
    Flush(SyncSender<bool>),
    Stop,
}

type ChangeOrder = Box<dyn FnOnce(&mut Connection) + Send>;

/// The writing side: one for the process. Cheap to clone into who writes records.
#[derive(Clone)]
pub struct Store {
    orders: SyncSender<Order>,
    counters: Arc<StoreCounters>,
    path: Arc<PathBuf>,
}

/// Ends the writer: what waits is written first.
pub struct StoreThread {
    orders: SyncSender<Order>,
    thread: Option<JoinHandle<()>>,
}

impl Store {
    /// Opens or makes the database, brings its schema up to date, closes what an earlier process
    /// left open, and starts the writer.
    ///
    /// # Errors
    /// A clear sentence with the fix; the daemon does not start without its records.
    pub fn open(path: &Path) -> Result<(Store, StoreThread), StoreFault> {
        let (mut connection, lock) = open_writable(path)?;
        let counters = Arc::new(StoreCounters::default());
        let lost = schema::close_lost(&mut connection).map_err(|error| database(path, &error))?;
        counters.node_lost.store(lost, Ordering::Relaxed);
        let (orders, inbox) = mpsc::sync_channel(BACKLOG_MAX);
        let mut writer = writer::Writer::new(connection, counters.clone());
        let thread = std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || {
                writer.run(&inbox);
                drop(lock);
            })
            .map_err(StoreFault::Thread)?;
        let ends = StoreThread { orders: orders.clone(), thread: Some(thread) };
        Ok((Store { orders, counters, path: Arc::new(path.to_path_buf()) }, ends))
    }

    /// Writes a record as it is now: opened, updated (answer, heartbeat) or closed. Never waits;
    /// when no room is left the record is dropped and counted.
    pub fn write(&self, record: Cdr) {
        match self.orders.try_send(Order::Record(Box::new(record))) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.counters.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Keeps the ladder of a call that ended. Never waits; a ladder for which there is no room is
    /// lost, since it is for diagnosis only.
    pub fn keep_ladder(&self, key: CallKey, ladder: &Ladder) {
        if let Ok(text) = serde_json::to_string(ladder) {
            let _ = self.orders.try_send(Order::Ladder(key, text));
        }
    }

    /// Keeps the account's document (JSON) and gives its new revision, once it is on disk. Blocks.
    ///
    /// # Errors
    /// When the disk refuses it; nothing has changed then.
    pub fn keep_account(&self, document: String) -> Result<u64, StoreFault> {
        self.change(move |connection, now| account::keep(connection, &document, now))
    }

    /// The signing secret that was made for the handler at `url`, else `fresh`, which is kept for
    /// it. Blocks.
    ///
    /// # Errors
    /// When the disk refuses it.
    pub fn made_secret(&self, url: String, fresh: String) -> Result<String, StoreFault> {
        self.change(move |connection, _| account::made_secret(connection, &url, &fresh))
    }

    /// Keeps a registration, new or changed, once it is on disk; gives its place. Blocks.
    ///
    /// # Errors
    /// When the disk refuses it; nothing has changed then.
    pub fn keep_registration(&self, registration: StoredRegistration) -> Result<i64, StoreFault> {
        self.change(move |connection, _| account::keep_registration(connection, &registration))
    }

    /// Forgets a registration and its binding, once that is on disk. Blocks.
    ///
    /// # Errors
    /// When the disk refuses it; nothing has changed then.
    pub fn forget_registration(&self, id: String) -> Result<(), StoreFault> {
        self.change(move |connection, _| account::forget_registration(connection, &id))
    }

    /// Keeps what a restart needs to refresh a binding (JSON). Never waits: a binding that is lost
    /// costs a second one at the registrar until it expires.
    pub fn keep_binding(&self, id: String, binding: String) {
        let act = move |connection: &mut Connection| {
            if let Err(error) = account::keep_binding(connection, &id, &binding) {
                tracing::warn!(%error, "a registration's binding cannot be written");
            }
        };
        let _ = self.orders.try_send(Order::Change(Box::new(act)));
    }

    /// Has the writer make a change in a transaction of its own, and waits for it.
    fn change<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Connection, crate::ground::WallTime) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreFault> {
        let (done, wait) = mpsc::sync_channel(1);
        let order = move |connection: &mut Connection| {
            let now = crate::shell::clock::Clock::now().wall;
            let changed = connection.transaction().and_then(|transaction| {
                let value = act(&transaction, now)?;
                transaction.commit().map(|()| value)
            });
            // Whoever asked may have given up waiting.
            let _ = done.try_send(changed);
        };
        let unwritten =
            |detail: String| StoreFault::Unwritten { path: self.path.to_path_buf(), detail };
        self.orders
            .send(Order::Change(Box::new(order)))
            .map_err(|_| unwritten("the store is closed".to_owned()))?;
        match wait.recv() {
            Ok(changed) => changed.map_err(|error| unwritten(error.to_string())),
            Err(_) => Err(unwritten("the store is closed".to_owned())),
        }
    }

    /// Waits until everything written so far is on disk; false when the disk refused it.
    pub fn flush(&self) -> bool {
        let (done, wait) = mpsc::sync_channel(1);
        self.orders.send(Order::Flush(done)).is_ok() && wait.recv().unwrap_or(false)
    }

    pub fn counters(&self) -> &Arc<StoreCounters> {
        &self.counters
    }

    /// A reader of the same database; it sees what was committed.
    ///
    /// # Errors
    /// When the database cannot be opened any more.
    pub fn reader(&self) -> Result<Reader, StoreFault> {
        Reader::open(&self.path)
    }
}

impl StoreThread {
    /// Writes what waits and ends the thread. Blocks for as long as the disk takes.
    pub fn stop(mut self) {
        let told = self.orders.send(Order::Stop).is_ok();
        if let (true, Some(thread)) = (told, self.thread.take()) {
            // A panic of the writer was logged by the runtime; there is nothing left to write.
            let _ = thread.join();
        }
    }
}

/// Which records are wanted.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Filter {
    /// Only calls that are up (`true`) or over (`false`).
    pub live: Option<bool>,
    pub agent_id: Option<String>,
    /// Only calls older than this one: the last key of the page before.
    pub before: Option<CallKey>,
}

/// The reading side: `voxedge calls` and the admin API. Never writes.
pub struct Reader {
    connection: Connection,
    path: PathBuf,
}

impl Reader {
    /// Opens an existing database.
    ///
    /// # Errors
    /// When there is none, or it is no database of this daemon.
    pub fn open(path: &Path) -> Result<Reader, StoreFault> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection =
            Connection::open_with_flags(path, flags).map_err(|error| database(path, &error))?;
        connection.busy_timeout(Duration::from_secs(2)).map_err(|error| database(path, &error))?;
        schema::check_version(&connection, path)?;
        Ok(Reader { connection, path: path.to_path_buf() })
    }

    /// The newest calls first, at most `limit`.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn list(&self, filter: &Filter, limit: usize) -> Result<Vec<Cdr>, StoreFault> {
        schema::list(&self.connection, filter, limit).map_err(|error| database(&self.path, &error))
    }

    /// One call.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn get(&self, key: CallKey) -> Result<Option<Cdr>, StoreFault> {
        schema::get(&self.connection, key).map_err(|error| database(&self.path, &error))
    }

    /// The call that an agent call of Ultravox's belongs to.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn find_by_ultravox_call(&self, call_id: &str) -> Result<Option<Cdr>, StoreFault> {
        self.read(|connection| schema::find_by_ultravox_call(connection, call_id))
    }

    /// The ladder of an ended call, when it is still kept.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn ladder(&self, key: CallKey) -> Result<Option<Ladder>, StoreFault> {
        self.read(|connection| ladders::find(connection, key))
    }

    /// The account's document, when the API manages it.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn account(&self) -> Result<Option<StoredAccount>, StoreFault> {
        self.read(account::find)
    }

    /// The signing secret that was made for the handler at `url`.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn made_secret(&self, url: &str) -> Result<Option<String>, StoreFault> {
        self.read(|connection| account::find_made_secret(connection, url))
    }

    /// All registrations, in the order in which they were made.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn registrations(&self) -> Result<Vec<StoredRegistration>, StoreFault> {
        self.read(account::registrations)
    }

    /// All bindings: registration and JSON.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn bindings(&self) -> Result<Vec<(String, String)>, StoreFault> {
        self.read(account::bindings)
    }

    fn read<T>(
        &self,
        act: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreFault> {
        act(&self.connection).map_err(|error| database(&self.path, &error))
    }
}

/// Numbers of callers and passwords of registrations are in there.
const OWNER_ONLY: u32 = 0o600;

/// The database and the lock that keeps a second process from closing our records as lost.
fn open_writable(path: &Path) -> Result<(Connection, File), StoreFault> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(directory) = directory {
        std::fs::create_dir_all(directory)
            .map_err(|error| StoreFault::Directory { path: directory.to_path_buf(), error })?;
    }
    let mut lock_name = path.as_os_str().to_owned();
    lock_name.push(".lock");
    // Both opened without SQLite first, since the system's own words are the clearer ones. The
    // other files of SQLite take the mode of the database.
    let open = |path: &Path| {
        let file = OpenOptions::new().append(true).create(true).mode(OWNER_ONLY).open(path);
        file.and_then(|file| {
            file.set_permissions(Permissions::from_mode(OWNER_ONLY))?;
            Ok(file)
        })
        .map_err(|error| StoreFault::Directory { path: path.to_path_buf(), error })
    };
    let lock = open(Path::new(&lock_name))?;
    if lock.try_lock().is_err() {
        return Err(StoreFault::InUse { path: path.to_path_buf() });
    }
    open(path)?;
    let mut connection = Connection::open(path).map_err(|error| database(path, &error))?;
    schema::prepare(&mut connection, path)?;
    Ok((connection, lock))
}

fn database(path: &Path, error: &rusqlite::Error) -> StoreFault {
    StoreFault::Database { path: path.to_path_buf(), detail: error.to_string() }
}

#[cfg(test)]
mod tests;
