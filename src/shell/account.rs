//! The account in force: its document, who manages it (the file or the API, never both), and the way
//! of a change: checked whole, kept on disk, then put in force by the signalling task. One change at a
//! time. Calls that are up go on with what they began with.

mod registrations;

pub use registrations::{AllRegistered, Registered, binding_json};

use crate::account::change::{self, Change};
use crate::account::{FieldProblem, Severity, SipConfig, SipConfigDocument, compile};
use crate::fallback::address;
use crate::ground::Entropy;
use crate::shell::config::{Fallback, ManagedBy, Sip};
use crate::shell::signalling::Request;
use crate::shell::store::{Store, StoreFault};
use serde_json::Value;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use tokio::sync::{mpsc, oneshot};

/// Why the account cannot be had at the start.
#[derive(Debug)]
pub enum AccountFault {
    Store(StoreFault),
    /// What the API kept cannot be used any more.
    Broken {
        revision: u64,
        problems: Vec<String>,
    },
}

impl fmt::Display for AccountFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AccountFault::Store(fault) => write!(f, "{fault}"),
            AccountFault::Broken { revision, problems } => write!(
                f,
                "the account that the API manages (revision {revision} in store.path) cannot be \
                 used: {}; set sip.managed_by = \"file\" to start with the file's rules, or restore \
                 the database from a copy",
                problems.join("; ")
            ),
        }
    }
}

/// Why a change was not made.
#[derive(Debug)]
pub enum ChangeFault {
    /// The other side manages the account.
    ManagedBy(ManagedBy),
    /// Every problem of the body.
    Invalid(Vec<FieldProblem>),
    /// The disk refused it.
    Store(StoreFault),
    /// The daemon ends.
    Stopping,
}

impl fmt::Display for ChangeFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ChangeFault::ManagedBy(ManagedBy::File) => f.write_str(
                "this account is managed by the configuration file: edit [sip] there, run \
                 `voxedge check`, then `voxedge reload`; or set sip.managed_by = \"api\" and \
                 restart the daemon",
            ),
            ChangeFault::ManagedBy(ManagedBy::Api) => f.write_str(
                "this account is managed by the API: change it with PATCH /api/sip; the file gave \
                 its start and is not read for it again",
            ),
            ChangeFault::Invalid(problems) => {
                let words = problems.iter().map(|told| format!("{}: {}", told.path, told.problem));
                f.write_str(&words.collect::<Vec<_>>().join("; "))
            }
            ChangeFault::Store(fault) => write!(f, "{fault}"),
            ChangeFault::Stopping => f.write_str("the daemon is stopping"),
        }
    }
}

impl From<StoreFault> for ChangeFault {
    fn from(fault: StoreFault) -> ChangeFault {
        ChangeFault::Store(fault)
    }
}

/// What is in force at one moment.
#[derive(Debug)]
pub struct InForce {
    pub document: SipConfigDocument,
    pub config: Arc<SipConfig>,
    /// Counts the changes over the API; 0 when the file manages the account.
    pub revision: u64,
}

/// A change that was made.
#[derive(Debug)]
pub struct Changed {
    pub in_force: Arc<InForce>,
    /// The members that differ now, by their names in the API.
    pub changed: Vec<&'static str>,
    /// The handler's secrets were made by this change: told once, in its answer.
    pub made_secrets: bool,
}

/// The account. Shared by the admin listener and whoever reloads the file.
pub struct Account {
    managed_by: ManagedBy,
    /// Where a handler may be.
    fallback: Fallback,
    store: Store,
    /// Weak: the daemon alone decides when signalling ends.
    signalling: mpsc::WeakSender<Request>,
    entropy: Mutex<Entropy>,
    in_force: RwLock<Arc<InForce>>,
    registered: RwLock<AllRegistered>,
    changing: tokio::sync::Mutex<()>,
}

impl Account {
    /// Takes the account from the file, or from the store when the API manages it; the first time
    /// the file gives the API its start.
    ///
    /// # Errors
    /// [`AccountFault`].
    pub fn open(
        sip: &Sip,
        fallback: &Fallback,
        store: Store,
        signalling: mpsc::WeakSender<Request>,
        mut entropy: Entropy,
    ) -> Result<Account, AccountFault> {
        let (in_force, registered) = match sip.managed_by {
            ManagedBy::File => {
                let in_force = of_file(&sip.account, &store, &mut entropy)?;
                (in_force, registrations::of_file(&sip.registrations))
            }
            ManagedBy::Api => {
                let in_force = of_store(sip, &store, &mut entropy)?;
                (in_force, registrations::of_store(&store).map_err(AccountFault::Store)?)
            }
        };
        Ok(Account {
            managed_by: sip.managed_by,
            fallback: fallback.clone(),
            store,
            signalling,
            entropy: Mutex::new(entropy),
            in_force: RwLock::new(Arc::new(in_force)),
            registered: RwLock::new(Arc::new(registered)),
            changing: tokio::sync::Mutex::default(),
        })
    }

    pub fn managed_by(&self) -> ManagedBy {
        self.managed_by
    }

    pub fn in_force(&self) -> Arc<InForce> {
        Arc::clone(&self.in_force.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// A change over the API. When it returns, it is on disk and in force.
    ///
    /// # Errors
    /// [`ChangeFault`]; nothing has changed then.
    pub async fn change(&self, body: &Value) -> Result<Changed, ChangeFault> {
        if self.managed_by == ManagedBy::File {
            return Err(ChangeFault::ManagedBy(ManagedBy::File));
        }
        let _one_at_a_time = self.changing.lock().await;
        let now = self.in_force();
        let Change { document, config, changed, made_secrets, warnings } = {
            let mut entropy = self.entropy.lock().unwrap_or_else(PoisonError::into_inner);
            change::patch(&now.document, body, &mut entropy).map_err(ChangeFault::Invalid)?
        };
        if changed.is_empty() {
            return Ok(Changed { in_force: now, changed, made_secrets });
        }
        self.check_handler(&document)?;
        for warning in warnings {
            tracing::warn!(path = warning.path, fix = warning.fix, "{}", warning.problem);
        }
        let (store, text) = (self.store.clone(), json(&document));
        let kept = tokio::task::spawn_blocking(move || store.keep_account(text)).await;
        let revision = kept.map_err(|_| ChangeFault::Stopping)??;
        tracing::info!(revision, changed = changed.join(", "), "the API changed the account");
        let in_force = InForce { document, config: Arc::new(config), revision };
        let in_force = self.put_in_force(in_force).await?;
        Ok(Changed { in_force, changed, made_secrets })
    }

    /// A handler that would never be asked is refused when it is configured.
    fn check_handler(&self, document: &SipConfigDocument) -> Result<(), ChangeFault> {
        let Some(handler) = &document.fallback_handler else { return Ok(()) };
        let Fallback { plain_http, allowed_private, ca: _ } = &self.fallback;
        let (problem, fix) = match address::check_url(&handler.url, *plain_http) {
            Err(fault) => (fault.problem, fault.fix),
            Ok(()) if address::is_refused_literal(&handler.url, allowed_private) => (
                "points at a private address, which is not asked",
                "the operator can list it in the configuration file: [fallback] allowed_private",
            ),
            Ok(()) => return Ok(()),
        };
        let path = "fallbackHandler.url".to_owned();
        let (problem, fix) = (problem.to_owned(), fix.to_owned());
        Err(ChangeFault::Invalid(vec![FieldProblem { path, problem, fix }]))
    }

    /// The file was read again. Gives what changed, in words.
    ///
    /// # Errors
    /// [`ChangeFault`]; nothing has changed then.
    pub async fn reload(&self, sip: &Sip) -> Result<Vec<String>, ChangeFault> {
        if self.managed_by == ManagedBy::Api {
            return Err(ChangeFault::ManagedBy(ManagedBy::Api));
        }
        let _one_at_a_time = self.changing.lock().await;
        let now = self.in_force();
        let mut entropy = self.entropy.lock().unwrap_or_else(PoisonError::into_inner).fork();
        let (store, account) = (self.store.clone(), Arc::clone(&sip.account));
        let read = tokio::task::spawn_blocking(move || of_file(&account, &store, &mut entropy));
        let new = match read.await {
            Ok(Ok(new)) => new,
            Ok(Err(AccountFault::Store(fault))) => return Err(ChangeFault::Store(fault)),
            Ok(Err(AccountFault::Broken { .. })) | Err(_) => return Err(ChangeFault::Stopping),
        };
        let mut words = change::describe(&now.document, &new.document);
        if !words.is_empty() {
            self.put_in_force(new).await?;
        }
        words.extend(self.reload_registrations(&sip.registrations).await?);
        Ok(words)
    }

    /// Returns when the signalling task and the flows go by it.
    async fn put_in_force(&self, new: InForce) -> Result<Arc<InForce>, ChangeFault> {
        let (done, in_force) = oneshot::channel();
        let request = Request::Reconfigure { config: Arc::clone(&new.config), done };
        let signalling = self.signalling.upgrade().ok_or(ChangeFault::Stopping)?;
        signalling.send(request).await.map_err(|_| ChangeFault::Stopping)?;
        drop(signalling);
        in_force.await.map_err(|_| ChangeFault::Stopping)?;
        let new = Arc::new(new);
        *self.in_force.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&new);
        Ok(new)
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account").field("managed_by", &self.managed_by).finish_non_exhaustive()
    }
}

/// The file's rules. A handler without secrets gets one that stays the same over restarts.
fn of_file(
    account: &SipConfig,
    store: &Store,
    entropy: &mut Entropy,
) -> Result<InForce, AccountFault> {
    let mut document = account.document();
    if change::complete_secrets(&mut document, entropy)
        && let Some(handler) = &mut document.fallback_handler
    {
        let fresh = handler.secrets.take().unwrap_or_default().join("");
        let secret = store.made_secret(handler.url.clone(), fresh).map_err(AccountFault::Store)?;
        handler.secrets = Some(vec![secret]);
    }
    compiled(document, 0)
}

/// What the API kept; at the first time the file's rules, which are kept then.
fn of_store(sip: &Sip, store: &Store, entropy: &mut Entropy) -> Result<InForce, AccountFault> {
    let account = &sip.account;
    let reader = store.reader().map_err(AccountFault::Store)?;
    let Some(stored) = reader.account().map_err(AccountFault::Store)? else {
        let mut document = account.document();
        change::complete_secrets(&mut document, entropy);
        // Before the document, whose row says that there was a start.
        registrations::seed(store, &sip.registrations).map_err(AccountFault::Store)?;
        let revision = store.keep_account(json(&document)).map_err(AccountFault::Store)?;
        tracing::info!("the API manages the account from now on; the file gave its start");
        return compiled(document, revision);
    };
    let revision = stored.revision;
    let mut document: SipConfigDocument =
        serde_json::from_str(&stored.document).map_err(|error| AccountFault::Broken {
            revision,
            problems: vec![format!("it is no document of this version ({error})")],
        })?;
    // Read-only over the API: where calls are sent to is the machine's matter.
    account.domain().clone_into(&mut document.domain);
    change::complete_secrets(&mut document, entropy);
    compiled(document, revision)
}

fn compiled(document: SipConfigDocument, revision: u64) -> Result<InForce, AccountFault> {
    match compile(&document) {
        Ok((config, _)) => Ok(InForce { document, config: Arc::new(config), revision }),
        Err(problems) => {
            let errors = problems.iter().filter(|problem| problem.severity == Severity::Error);
            let problems = errors.map(ToString::to_string).collect();
            Err(AccountFault::Broken { revision, problems })
        }
    }
}

/// The document as it is kept, with its secrets.
fn json(document: &SipConfigDocument) -> String {
    serde_json::to_string(document).expect("a document of texts and flags can be written")
}

#[cfg(test)]
mod tests;
