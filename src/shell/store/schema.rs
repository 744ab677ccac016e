//! The tables, their versions, and the sentences of SQL. Each record is kept whole as JSON beside a
//! few columns for who reads the database with other tools.

use super::{Filter, LADDERS_MAX, StoreFault, account, database, ladders};
use crate::billing::{Cdr, EndedBy};
use crate::ground::{CallKey, WallTime};
use rusqlite::{Connection, OptionalExtension, Row, params};
use std::path::Path;
use std::time::Duration;

/// `user_version` of a database that this daemon writes.
pub const VERSION: i64 = 3;

/// Steps from each version to the next; a step is never changed once it was released.
const STEPS: [&[&str]; VERSION as usize] =
    [&[CALLS], &[CALLS_BY_ULTRAVOX_CALL, account::TABLES, ladders::TABLE], &[AGENT_CALLS]];

const CALLS: &str = "
    CREATE TABLE calls (
        key          INTEGER PRIMARY KEY,
        opened_us    INTEGER NOT NULL,
        seen_us      INTEGER NOT NULL,  -- the last heartbeat
        ended_us     INTEGER,           -- NULL while the call is up
        sip_call_id  TEXT NOT NULL,
        from_uri     TEXT NOT NULL,
        to_uri       TEXT NOT NULL,
        agent_id     TEXT,
        status       INTEGER,
        sip_time_ms  INTEGER NOT NULL,
        deciminutes  INTEGER NOT NULL,
        record       TEXT NOT NULL      -- the whole record as JSON
    ) STRICT;
    CREATE INDEX calls_live ON calls (key) WHERE ended_us IS NULL;
    CREATE INDEX calls_by_agent ON calls (agent_id, key);
";

const CALLS_BY_ULTRAVOX_CALL: &str = "
    ALTER TABLE calls ADD COLUMN ultravox_call_id TEXT;
    UPDATE calls SET ultravox_call_id = json_extract(record, '$.ultravox_call_id');
    CREATE INDEX calls_by_ultravox_call ON calls (ultravox_call_id)
        WHERE ultravox_call_id IS NOT NULL;
";

/// The agent calls of a call beyond its first: those that went on for a lost one, and operators'.
const AGENT_CALLS: &str = "
    CREATE TABLE agent_calls (
        ultravox_call_id TEXT PRIMARY KEY,
        key              INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    INSERT OR IGNORE INTO agent_calls
        SELECT later.value, calls.key
        FROM calls, json_each(calls.record, '$.continued_as') AS later;
    INSERT OR IGNORE INTO agent_calls
        SELECT json_extract(transfer.value, '$.operator_call_id'), calls.key
        FROM calls, json_each(calls.record, '$.transfers') AS transfer
        WHERE json_extract(transfer.value, '$.operator_call_id') IS NOT NULL;
";

/// Sets the pragmas and brings the schema up to date.
pub fn prepare(connection: &mut Connection, path: &Path) -> Result<(), StoreFault> {
    prepare_version(connection, path, STEPS.len())
}

/// The same up to a version; an older one than ours is for tests.
pub(super) fn prepare_version(
    connection: &mut Connection,
    path: &Path,
    wanted: usize,
) -> Result<(), StoreFault> {
    let version = check_version(connection, path)?;
    let steps = STEPS.iter().enumerate().take(wanted);
    let steps = steps.skip(usize::try_from(version).unwrap_or(0));
    let done = pragmas(connection).and_then(|()| {
        for (index, step) in steps {
            let transaction = connection.transaction()?;
            for sentences in *step {
                transaction.execute_batch(sentences)?;
            }
            transaction.pragma_update(None, "user_version", index as i64 + 1)?;
            transaction.commit()?;
        }
        Ok(())
    });
    done.map_err(|error| database(path, &error))
}

fn pragmas(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(Duration::from_secs(2))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    // Records are written once and read rarely: 2 MB, the default, would be filled and be of no use.
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    connection.pragma_update(None, "trusted_schema", "OFF")
}

/// KiB of the database that a connection keeps in memory.
const CACHE_KIB: i32 = 256;

/// The version of the database; an error when it is newer than this daemon.
pub fn check_version(connection: &Connection, path: &Path) -> Result<i64, StoreFault> {
    let version = connection.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0));
    match version {
        Ok(version) if version > VERSION => {
            Err(StoreFault::Newer { path: path.to_path_buf(), version })
        }
        Ok(version) => Ok(version),
        Err(error) => Err(database(path, &error)),
    }
}

/// Writes records and ladders in one transaction; the last state of each call wins.
pub fn write(
    connection: &mut Connection,
    records: &[Box<Cdr>],
    ended: &[(CallKey, String)],
    now: WallTime,
) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    {
        // A record that was closed stays closed, whatever comes late; its media figures come after
        // the end and complete it.
        let mut insert = transaction.prepare_cached(
            "INSERT INTO calls (key, opened_us, seen_us, ended_us, sip_call_id, from_uri, to_uri,
                                agent_id, status, sip_time_ms, deciminutes, record,
                                ultravox_call_id)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)
             ON CONFLICT (key) DO UPDATE SET
                seen_us = excluded.seen_us, ended_us = excluded.ended_us,
                from_uri = excluded.from_uri, to_uri = excluded.to_uri,
                agent_id = excluded.agent_id, status = excluded.status,
                sip_time_ms = excluded.sip_time_ms, deciminutes = excluded.deciminutes,
                record = excluded.record, ultravox_call_id = excluded.ultravox_call_id
             WHERE calls.ended_us IS NULL OR excluded.ended_us IS NOT NULL",
        )?;
        let mut belongs = transaction.prepare_cached(
            "INSERT OR IGNORE INTO agent_calls (ultravox_call_id, key) VALUES (?1, ?2)",
        )?;
        for record in records {
            for id in record.further_agent_calls() {
                belongs.execute(params![id, number(record.key)])?;
            }
            insert.execute(params![
                number(record.key),
                record.opened_at.unix_micros(),
                now.unix_micros(),
                record.ended_at.map(WallTime::unix_micros),
                record.sip_call_id,
                record.from_uri,
                record.to_uri,
                record.agent_id,
                record.status,
                i64::try_from(record.sip_time.as_millis()).unwrap_or(i64::MAX),
                i64::try_from(record.deciminutes.count()).unwrap_or(i64::MAX),
                json(record)?,
                record.ultravox_call_id,
            ])?;
        }
        for (key, ladder) in ended {
            ladders::keep(&transaction, *key, ladder)?;
        }
        if !ended.is_empty() {
            ladders::trim(&transaction, LADDERS_MAX)?;
        }
    }
    transaction.commit()
}

/// Closes the records that no process will close any more, at their last heartbeat. Their times
/// are those of that heartbeat. Gives their number.
pub fn close_lost(connection: &mut Connection) -> rusqlite::Result<u64> {
    let transaction = connection.transaction()?;
    let open: Vec<(i64, Cdr)> = transaction
        .prepare("SELECT record, seen_us FROM calls WHERE ended_us IS NULL")?
        .query_map([], |row| Ok((row.get(1)?, parse(row)?)))?
        .collect::<rusqlite::Result<_>>()?;
    for (seen_us, record) in &open {
        let mut record = record.clone();
        record.ended_at = Some(WallTime::from_unix_micros(*seen_us));
        record.ended_by = Some(EndedBy::NodeLost);
        record.end_reason = Some("node_lost".to_owned());
        transaction.execute(
            "UPDATE calls SET ended_us = ?2, record = ?3 WHERE key = ?1",
            params![number(record.key), seen_us, json(&record)?],
        )?;
    }
    transaction.commit()?;
    Ok(open.len() as u64)
}

/// The newest calls that pass `filter`.
pub fn list(connection: &Connection, filter: &Filter, limit: usize) -> rusqlite::Result<Vec<Cdr>> {
    let mut statement = connection.prepare_cached(
        "SELECT record FROM calls
         WHERE (?1 IS NULL OR (ended_us IS NULL) = ?1)
           AND (?2 IS NULL OR agent_id = ?2)
           AND (?3 IS NULL OR key < ?3)
         ORDER BY key DESC LIMIT ?4",
    )?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = statement.query_map(
        params![filter.live, filter.agent_id, filter.before.map(number), limit],
        parse,
    )?;
    rows.collect()
}

/// One call.
pub fn get(connection: &Connection, key: CallKey) -> rusqlite::Result<Option<Cdr>> {
    let sentence = "SELECT record FROM calls WHERE key = ?1";
    connection.prepare_cached(sentence)?.query_row([number(key)], parse).optional()
}

/// The call that an agent call of Ultravox's belongs to; the newest, should there be several.
pub fn find_by_ultravox_call(
    connection: &Connection,
    call_id: &str,
) -> rusqlite::Result<Option<Cdr>> {
    let sentence = match connection.table_exists(None, "agent_calls")? {
        true => {
            "SELECT record FROM calls
             WHERE ultravox_call_id = ?1
                OR key = (SELECT key FROM agent_calls WHERE ultravox_call_id = ?1)
             ORDER BY key DESC LIMIT 1"
        }
        // A database that no daemon of this version has opened yet.
        false => "SELECT record FROM calls WHERE ultravox_call_id = ?1 ORDER BY key DESC LIMIT 1",
    };
    connection.prepare_cached(sentence)?.query_row([call_id], parse).optional()
}

/// Call keys hold Unix seconds in their high half: they fit until the year 2038 in an `i64` and
/// keep their order; later ones would only sort wrongly.
fn number(key: CallKey) -> i64 {
    key.0.cast_signed()
}

fn json(record: &Cdr) -> rusqlite::Result<String> {
    serde_json::to_string(record)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}

fn parse(row: &Row<'_>) -> rusqlite::Result<Cdr> {
    let text = row.get_ref(0)?.as_str()?;
    serde_json::from_str(text).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(error))
    })
}
