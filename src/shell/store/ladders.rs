//! The ladders of ended calls: the last [`super::LADDERS_MAX`] of them, older ones make place.

use crate::call::ladder::Ladder;
use crate::ground::CallKey;
use rusqlite::{Connection, OptionalExtension, params};

/// The table, as a step of the schema.
pub(super) const TABLE: &str = "
    CREATE TABLE ladders (
        key     INTEGER PRIMARY KEY,
        ladder  TEXT NOT NULL
    ) STRICT;
";

/// Keeps one ladder; a later one of the same call replaces it.
pub(super) fn keep(connection: &Connection, key: CallKey, ladder: &str) -> rusqlite::Result<()> {
    let sentence = "INSERT INTO ladders (key, ladder) VALUES (?1, ?2)
                    ON CONFLICT (key) DO UPDATE SET ladder = excluded.ladder";
    connection.prepare_cached(sentence)?.execute(params![key.0.cast_signed(), ladder])?;
    Ok(())
}

/// Forgets all but the newest `most`.
pub(super) fn trim(connection: &Connection, most: usize) -> rusqlite::Result<()> {
    let sentence = "DELETE FROM ladders WHERE key <=
                    (SELECT key FROM ladders ORDER BY key DESC LIMIT 1 OFFSET ?1)";
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    connection.prepare_cached(sentence)?.execute([most])?;
    Ok(())
}

/// The ladder of a call, when it is still kept.
pub(super) fn find(connection: &Connection, key: CallKey) -> rusqlite::Result<Option<Ladder>> {
    let sentence = "SELECT ladder FROM ladders WHERE key = ?1";
    let row = connection.prepare_cached(sentence)?.query_row([key.0.cast_signed()], |row| {
        let text = row.get_ref(0)?.as_str()?;
        serde_json::from_str(text).map_err(|error| {
            let kind = rusqlite::types::Type::Text;
            rusqlite::Error::FromSqlConversionFailure(0, kind, Box::new(error))
        })
    });
    row.optional()
}
