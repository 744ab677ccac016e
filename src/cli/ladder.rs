//! `voxedge ladder`: what crossed the edge in one call, live or ended. The running daemon is asked
//! first; when none runs, its store is read.

use super::ask::{self, Silence};
use crate::ground::CallKey;
use crate::shell::config::Config;
use crate::shell::store::{Reader, StoreFault};
use serde_json::json;
use std::process::ExitCode;

/// Prints the ladder of the call with our key or Ultravox's call id `id`.
pub fn ladder(config: &Config, id: &str, as_json: bool) -> ExitCode {
    match fetch(config, id, as_json) {
        Ok(text) => {
            println!("{}", text.trim_end());
            ExitCode::SUCCESS
        }
        Err(words) => {
            eprintln!("voxedge ladder: {words}");
            ExitCode::FAILURE
        }
    }
}

fn fetch(config: &Config, id: &str, as_json: bool) -> Result<String, String> {
    if !crate::ultravox::is_identifier(id) {
        return Err("give the key of a call (voxedge calls), or Ultravox's call id".to_owned());
    }
    let format = if as_json { "json" } else { "text" };
    match ask::daemon(config, "GET", &format!("/edge/calls/{id}/ladder?format={format}")) {
        Ok(answer) => Ok(answer.body),
        Err(Silence::Refused(words)) => Err(words),
        Err(Silence::NotThere(words)) if !config.store.path.exists() => Err(words),
        Err(Silence::NotThere(_)) => {
            stored(config, id, as_json).unwrap_or_else(|fault| Err(fault.to_string()))
        }
    }
}

fn stored(config: &Config, id: &str, as_json: bool) -> Result<Result<String, String>, StoreFault> {
    let reader = Reader::open(&config.store.path)?;
    let record = match id.parse::<CallKey>() {
        Ok(key) => reader.get(key)?,
        Err(()) => reader.find_by_ultravox_call(id)?,
    };
    let Some(record) = record else { return Ok(Err("no call has this key".to_owned())) };
    let Some(ladder) = reader.ladder(record.key)? else {
        return Ok(Err("the ladder of this call is no longer kept".to_owned()));
    };
    Ok(Ok(match as_json {
        true => {
            let key = record.key.to_string();
            json!({ "key": key, "live": !record.is_closed(), "ladder": ladder }).to_string()
        }
        false => ladder.to_string(),
    }))
}
