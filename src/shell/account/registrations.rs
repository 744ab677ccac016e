//! The account's registrations: those of the file, or those that the API keeps in the store. A change
//! is checked whole, kept on disk, then handed to the signalling task, which starts, restarts or ends
//! just those clients that are concerned.

use super::{Account, AccountFault, ChangeFault};
use crate::account::{FieldProblem, Registration, RegistrationDocument, RegistrationId, enrol};
use crate::ground::entropy::hyphenated;
use crate::ground::{WallTime, limits};
use crate::shell::clock::Clock;
use crate::shell::config::ManagedBy;
use crate::shell::signalling::Request;
use crate::shell::store::{Store, StoreFault, StoredRegistration};
use crate::sip::registration::Binding;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use tokio::sync::oneshot;

/// One registration of the account.
#[derive(Clone, Debug)]
pub struct Registered {
    /// Its place in the order in which they were made; what cursors of lists point to.
    pub place: i64,
    pub id: RegistrationId,
    pub created: WallTime,
    pub document: RegistrationDocument,
    compiled: Registration,
}

/// All of them, in their order.
pub type AllRegistered = Arc<Vec<Registered>>;

impl Account {
    /// All registrations, in the order in which they were made.
    pub fn registrations(&self) -> AllRegistered {
        Arc::clone(&self.registered.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// One registration by its id.
    pub fn registration(&self, id: &str) -> Option<Registered> {
        self.registrations().iter().find(|one| &*one.id.0 == id).cloned()
    }

    /// Makes a registration from a body of the API.
    ///
    /// # Errors
    /// [`ChangeFault`]; nothing has changed then.
    pub async fn register(&self, body: &Value) -> Result<Registered, ChangeFault> {
        let _one_at_a_time = self.begin_change().await?;
        let all = self.registrations();
        if all.len() >= limits::REGISTRATIONS_MAX {
            let words = format!("{} registrations are there already", all.len());
            return Err(ChangeFault::Invalid(vec![FieldProblem::plain("", words)]));
        }
        let id = RegistrationId(self.draw_uuid().into());
        let (document, compiled) = enrol::create(id.clone(), body).map_err(ChangeFault::Invalid)?;
        let made = Registered { place: 0, id, created: Clock::now().wall, document, compiled };
        let made = self.keep(made).await?;
        tracing::info!(id = %made.id, "the API added a registration");
        self.put_registrations(all.iter().cloned().chain([made.clone()]).collect()).await?;
        Ok(made)
    }

    /// Changes the members of a registration that a body of the API names; `None` when there is no
    /// such registration.
    ///
    /// # Errors
    /// [`ChangeFault`]; nothing has changed then.
    pub async fn change_registration(
        &self,
        id: &str,
        body: &Value,
    ) -> Result<Option<Registered>, ChangeFault> {
        let _one_at_a_time = self.begin_change().await?;
        let Some(known) = self.registration(id) else { return Ok(None) };
        let (document, compiled) =
            enrol::patch(known.id.clone(), &known.document, body).map_err(ChangeFault::Invalid)?;
        if document == known.document {
            return Ok(Some(known));
        }
        let changed = self.keep(Registered { document, compiled, ..known }).await?;
        tracing::info!(id = %changed.id, "the API changed a registration");
        let all = self.registrations();
        let other = |one: &Registered| match one.id == changed.id {
            true => changed.clone(),
            false => one.clone(),
        };
        self.put_registrations(all.iter().map(other).collect()).await?;
        Ok(Some(changed))
    }

    /// Ends a registration and forgets it; false when there is no such one.
    ///
    /// # Errors
    /// [`ChangeFault`]; nothing has changed then.
    pub async fn unregister(&self, id: &str) -> Result<bool, ChangeFault> {
        let _one_at_a_time = self.begin_change().await?;
        let Some(known) = self.registration(id) else { return Ok(false) };
        let (store, own) = (self.store.clone(), id.to_owned());
        let forgotten = tokio::task::spawn_blocking(move || store.forget_registration(own)).await;
        forgotten.map_err(|_| ChangeFault::Stopping)??;
        tracing::info!(id = %known.id, "the API removed a registration");
        let all = self.registrations();
        let others = all.iter().filter(|one| one.id != known.id);
        self.put_registrations(others.cloned().collect()).await?;
        Ok(true)
    }

    /// Hands all registrations to the signalling task with the bindings of the last process: once,
    /// at the start.
    ///
    /// # Errors
    /// [`AccountFault::Store`]; or nothing, when signalling is gone.
    pub async fn begin_registrations(&self) -> Result<(), AccountFault> {
        let bindings = bindings(&self.store).map_err(AccountFault::Store)?;
        // A daemon that ends while it starts has nothing to register.
        let _ = self.hand_over(self.registrations(), bindings).await;
        Ok(())
    }

    /// The file was read again: gives what changed, in words.
    pub(super) async fn reload_registrations(
        &self,
        documents: &[RegistrationDocument],
    ) -> Result<Vec<String>, ChangeFault> {
        let (old, new) = (self.registrations(), of_file(documents));
        let same = |one: &Registered, all: &[Registered]| {
            all.iter().any(|other| other.id == one.id && other.document == one.document)
        };
        let ended = old.iter().filter(|one| !same(one, &new)).count();
        let begun = new.iter().filter(|one| !same(one, &old)).count();
        if ended + begun == 0 {
            return Ok(Vec::new());
        }
        self.put_registrations(new).await?;
        Ok(vec![format!("registrations: {begun} begun, {ended} ended")])
    }

    async fn begin_change(&self) -> Result<tokio::sync::MutexGuard<'_, ()>, ChangeFault> {
        match self.managed_by {
            ManagedBy::File => Err(ChangeFault::ManagedBy(ManagedBy::File)),
            ManagedBy::Api => Ok(self.changing.lock().await),
        }
    }

    fn draw_uuid(&self) -> String {
        self.entropy.lock().unwrap_or_else(PoisonError::into_inner).uuid()
    }

    async fn keep(&self, one: Registered) -> Result<Registered, ChangeFault> {
        let (store, row) = (self.store.clone(), stored(&one));
        let kept = tokio::task::spawn_blocking(move || store.keep_registration(row)).await;
        let place = kept.map_err(|_| ChangeFault::Stopping)??;
        Ok(Registered { place, ..one })
    }

    async fn put_registrations(&self, all: Vec<Registered>) -> Result<(), ChangeFault> {
        let all = Arc::new(all);
        self.hand_over(Arc::clone(&all), BTreeMap::new()).await?;
        *self.registered.write().unwrap_or_else(PoisonError::into_inner) = all;
        Ok(())
    }

    async fn hand_over(
        &self,
        all: AllRegistered,
        bindings: BTreeMap<RegistrationId, Binding>,
    ) -> Result<(), ChangeFault> {
        let registrations = all.iter().map(|one| one.compiled.clone()).collect();
        let (done, begun) = oneshot::channel();
        let request = Request::ReplaceRegistrations { registrations, bindings, done };
        let signalling = self.signalling.upgrade().ok_or(ChangeFault::Stopping)?;
        signalling.send(request).await.map_err(|_| ChangeFault::Stopping)?;
        drop(signalling);
        begun.await.map_err(|_| ChangeFault::Stopping)
    }
}

/// The file's registrations. Their ids follow from who registers where, so that a restart finds the
/// binding of each again.
pub(super) fn of_file(documents: &[RegistrationDocument]) -> Vec<Registered> {
    let created = Clock::now().wall;
    let mut seen: BTreeMap<(String, String), u32> = BTreeMap::new();
    let mut all = Vec::with_capacity(documents.len());
    for (place, document) in (1..).zip(documents) {
        let times = seen.entry((document.username.clone(), document.proxy.clone())).or_default();
        *times += 1;
        let name = format!("{}\n{}\n{times}", document.username, document.proxy);
        let id = RegistrationId(name_uuid(&name).into());
        // The file's were compiled as it was read.
        let Ok(compiled) = Registration::compile(id.clone(), document) else { continue };
        let document = document.clone();
        all.push(Registered { place, id, created, document, compiled });
    }
    all
}

/// What the API kept. One that cannot be used any more is told and left out: the others register.
pub(super) fn of_store(store: &Store) -> Result<Vec<Registered>, StoreFault> {
    let mut all = Vec::new();
    for row in store.reader()?.registrations()? {
        let id = RegistrationId(row.id.as_str().into());
        let document = serde_json::from_str::<RegistrationDocument>(&row.document).ok();
        let compiled =
            document.as_ref().map(|document| Registration::compile(id.clone(), document));
        match (document, compiled) {
            (Some(document), Some(Ok(compiled))) => {
                let (place, created) = (row.place, row.created);
                all.push(Registered { place, id, created, document, compiled });
            }
            (_, Some(Err(problems))) => {
                let words = problems.iter().map(|one| format!("{}: {}", one.field, one.problem));
                let words = words.collect::<Vec<_>>().join("; ");
                tracing::error!(%id, "a registration in the store cannot be used: {words}");
            }
            (_, None) | (None, Some(Ok(_))) => {
                tracing::error!(%id, "a registration in the store cannot be read");
            }
        }
    }
    Ok(all)
}

/// Keeps the file's registrations as the API's start.
pub(super) fn seed(store: &Store, documents: &[RegistrationDocument]) -> Result<(), StoreFault> {
    for one in of_file(documents) {
        store.keep_registration(stored(&one))?;
    }
    Ok(())
}

/// The row of a registration. The only place where its password is written.
fn stored(one: &Registered) -> StoredRegistration {
    let document = json!({
        "username": one.document.username,
        "password": one.document.password.reveal(),
        "proxy": one.document.proxy,
        "outboundProxy": one.document.outbound_proxy,
        "authUser": one.document.auth_user,
    });
    let (id, created) = (one.id.to_string(), one.created);
    StoredRegistration { place: one.place, id, created, document: document.to_string() }
}

/// A binding as the store keeps it.
pub fn binding_json(binding: &Binding) -> String {
    let Binding { call_id, cseq, contact } = binding;
    json!({ "callId": call_id, "cseq": cseq, "contact": contact }).to_string()
}

/// The bindings of the last process. One that cannot be read costs a second binding, no more.
fn bindings(store: &Store) -> Result<BTreeMap<RegistrationId, Binding>, StoreFault> {
    let rows = store.reader()?.bindings()?;
    let read = |text: &str| -> Option<Binding> {
        let value: Value = serde_json::from_str(text).ok()?;
        Some(Binding {
            call_id: value.get("callId")?.as_str()?.to_owned(),
            cseq: value.get("cseq")?.as_u64()?.try_into().ok()?,
            contact: value.get("contact")?.as_str()?.to_owned(),
        })
    };
    let known = rows.iter().filter_map(|(id, text)| Some((id, read(text)?)));
    Ok(known.map(|(id, binding)| (RegistrationId(id.as_str().into()), binding)).collect())
}

/// A UUID (version 8, RFC 9562 §5.8) that follows from a name: its FNV-1a hash of 128 bits.
fn name_uuid(name: &str) -> String {
    const BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    let mix = |hash: u128, byte: u8| (hash ^ u128::from(byte)).wrapping_mul(PRIME);
    let hash = name.bytes().fold(BASIS, mix);
    hyphenated((hash & !(0xf000 << 64) & !(0xc << 60)) | (0x8000 << 64) | (0x8 << 60))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ground::Secret;
    use crate::ultravox::schema::is_uuid;

    fn document(username: &str) -> RegistrationDocument {
        RegistrationDocument {
            username: username.into(),
            password: Secret::new("canary"),
            proxy: "pbx.example".into(),
            ..RegistrationDocument::default()
        }
    }

    #[test]
    fn the_ids_of_the_file_follow_from_who_registers_where() {
        let ids = |users: &[&str]| -> Vec<String> {
            let documents: Vec<_> = users.iter().map(|user| document(user)).collect();
            of_file(&documents).iter().map(|one| one.id.to_string()).collect()
        };
        let all = ids(&["a", "b", "a"]);
        assert!(all.iter().all(|id| is_uuid(id) && id.as_bytes()[14] == b'8'), "{all:?}");
        assert!(all[0] != all[1] && all[0] != all[2]);
        assert_eq!(ids(&["b", "a"]), [all[1].clone(), all[0].clone()], "the order does not count");
        let mut other = document("a");
        other.password = Secret::new("new");
        assert_eq!(of_file(&[other])[0].id.to_string(), all[0], "nor does the password");
        assert!(!format!("{:?}", of_file(&[document("a")])).contains("canary"));
    }

    #[test]
    fn a_row_reads_back() {
        let mut full = document("a");
        full.outbound_proxy = Some("proxy.example".into());
        full.auth_user = Some("auth".into());
        for document in [document("a"), full] {
            let one = of_file(std::slice::from_ref(&document)).remove(0);
            let read: RegistrationDocument =
                serde_json::from_str(&stored(&one).document).expect("it was written here");
            assert_eq!(read, document);
        }
    }
}
