//! The account's rows: its document with a revision, and its registrations with the bindings that a
//! restart goes on with. Signing secrets and passwords stand here in clear text, since they are sent
//! or signed with: the file is for its owner alone.

use crate::ground::WallTime;
use rusqlite::{Connection, OptionalExtension, params};

/// The account's document as it was kept last.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredAccount {
    /// Counted up with each change, from 1.
    pub revision: u64,
    /// The document as JSON.
    pub document: String,
}

/// A registration as it was kept last.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredRegistration {
    /// Its place in the order in which registrations were made; 0 before it was kept.
    pub place: i64,
    pub id: String,
    pub created: WallTime,
    /// The registration as JSON, its password among it.
    pub document: String,
}

/// The tables, as a step of the schema.
pub(super) const TABLES: &str = "
    CREATE TABLE account (
        id          INTEGER PRIMARY KEY CHECK (id = 1),
        revision    INTEGER NOT NULL,
        changed_us  INTEGER NOT NULL,
        document    TEXT NOT NULL
    ) STRICT;
    CREATE TABLE registrations (
        place       INTEGER PRIMARY KEY AUTOINCREMENT,
        id          TEXT NOT NULL UNIQUE,
        created_us  INTEGER NOT NULL,
        document    TEXT NOT NULL
    ) STRICT;
    CREATE TABLE bindings (
        id          TEXT PRIMARY KEY,
        binding     TEXT NOT NULL
    ) STRICT;
    CREATE TABLE made_secrets (
        url         TEXT PRIMARY KEY,
        secret      TEXT NOT NULL
    ) STRICT;
";

/// Keeps the document; gives its revision.
pub(super) fn keep(
    connection: &Connection,
    document: &str,
    now: WallTime,
) -> rusqlite::Result<u64> {
    let sentence = "INSERT INTO account (id, revision, changed_us, document) VALUES (1, 1, ?1, ?2)
                    ON CONFLICT (id) DO UPDATE SET revision = revision + 1,
                       changed_us = excluded.changed_us, document = excluded.document
                    RETURNING revision";
    let revision: i64 = connection
        .prepare_cached(sentence)?
        .query_row(params![now.unix_micros(), document], |row| row.get(0))?;
    Ok(revision.unsigned_abs())
}

/// The document, when one was ever kept.
pub(super) fn find(connection: &Connection) -> rusqlite::Result<Option<StoredAccount>> {
    let sentence = "SELECT revision, document FROM account WHERE id = 1";
    let row = connection.prepare_cached(sentence)?.query_row([], |row| {
        let revision: i64 = row.get(0)?;
        Ok(StoredAccount { revision: revision.unsigned_abs(), document: row.get(1)? })
    });
    row.optional()
}

/// Keeps a registration: a new one, or a new document of a known one. Gives its place.
pub(super) fn keep_registration(
    connection: &Connection,
    registration: &StoredRegistration,
) -> rusqlite::Result<i64> {
    let sentence = "INSERT INTO registrations (id, created_us, document) VALUES (?1, ?2, ?3)
                    ON CONFLICT (id) DO UPDATE SET document = excluded.document
                    RETURNING place";
    let values =
        params![registration.id, registration.created.unix_micros(), registration.document];
    connection.prepare_cached(sentence)?.query_row(values, |row| row.get(0))
}

/// Forgets a registration and its binding.
pub(super) fn forget_registration(connection: &Connection, id: &str) -> rusqlite::Result<()> {
    connection.prepare_cached("DELETE FROM registrations WHERE id = ?1")?.execute([id])?;
    connection.prepare_cached("DELETE FROM bindings WHERE id = ?1")?.execute([id])?;
    Ok(())
}

/// All registrations, in the order in which they were made.
pub(super) fn registrations(connection: &Connection) -> rusqlite::Result<Vec<StoredRegistration>> {
    let sentence = "SELECT id, created_us, document, place FROM registrations ORDER BY place";
    let mut statement = connection.prepare_cached(sentence)?;
    let rows = statement.query_map([], |row| {
        let created = WallTime::from_unix_micros(row.get(1)?);
        let (id, document, place) = (row.get(0)?, row.get(2)?, row.get(3)?);
        Ok(StoredRegistration { place, id, created, document })
    })?;
    rows.collect()
}

/// Keeps the binding of a registration, as JSON.
pub(super) fn keep_binding(
    connection: &Connection,
    id: &str,
    binding: &str,
) -> rusqlite::Result<()> {
    let sentence = "INSERT INTO bindings (id, binding) VALUES (?1, ?2)
                    ON CONFLICT (id) DO UPDATE SET binding = excluded.binding";
    connection.prepare_cached(sentence)?.execute([id, binding])?;
    Ok(())
}

/// All bindings: registration and JSON.
pub(super) fn bindings(connection: &Connection) -> rusqlite::Result<Vec<(String, String)>> {
    let mut statement =
        connection.prepare_cached("SELECT id, binding FROM bindings ORDER BY id")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    rows.collect()
}

/// The signing secret that was made for the handler at `url`, else `fresh`, which is kept for it.
pub(super) fn made_secret(
    connection: &Connection,
    url: &str,
    fresh: &str,
) -> rusqlite::Result<String> {
    let sentence = "INSERT INTO made_secrets (url, secret) VALUES (?1, ?2)
                    ON CONFLICT (url) DO UPDATE SET secret = secret RETURNING secret";
    connection.prepare_cached(sentence)?.query_row([url, fresh], |row| row.get(0))
}

/// The signing secret that was made for the handler at `url`.
pub(super) fn find_made_secret(
    connection: &Connection,
    url: &str,
) -> rusqlite::Result<Option<String>> {
    let sentence = "SELECT secret FROM made_secrets WHERE url = ?1";
    connection.prepare_cached(sentence)?.query_row([url], |row| row.get(0)).optional()
}
