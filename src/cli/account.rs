//! `voxedge reload` and `voxedge config show`: the account of the daemon that runs.

use super::ask::{self, Silence};
use crate::shell::config::{BaseUrl, Config, ManagedBy};
use crate::shell::store::Reader;
use serde_json::{Value, json};
use std::process::ExitCode;

/// Has the daemon read its file again, and prints what changed.
pub fn reload(config: &Config) -> ExitCode {
    let changes = ask::daemon(config, "POST", "/edge/reload").and_then(|answer| {
        let body: Value = serde_json::from_str(&answer.body).unwrap_or_default();
        let changes = body.get("changes").and_then(Value::as_array).cloned();
        changes.ok_or(Silence::Refused("the daemon's answer cannot be read".to_owned()))
    });
    match changes {
        Ok(changes) if changes.is_empty() => println!("nothing changed"),
        Ok(changes) => {
            for line in changes.iter().filter_map(Value::as_str) {
                println!("{line}");
            }
        }
        Err(silence) => {
            eprintln!("voxedge reload: nothing changed: {}", silence.words());
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// Prints who manages the account and what is in force: of the daemon when one runs, else what one
/// would start with. With `secrets`, those that sign the fallback handler's requests too.
pub fn show(config: &Config, as_json: bool, secrets: bool) -> ExitCode {
    let (shown, origin) = match in_force(config) {
        Ok(shown) => shown,
        Err(words) => {
            eprintln!("voxedge config: {words}");
            return ExitCode::FAILURE;
        }
    };
    if as_json {
        println!("{}", serde_json::to_string_pretty(&shown).unwrap_or_default());
    } else {
        print!("{}", table(config, &shown, &origin));
    }
    if secrets {
        match signing_secrets(config, &shown) {
            Ok(secrets) => secrets.iter().for_each(|secret| println!("signing secret: {secret}")),
            Err(words) => {
                eprintln!("voxedge config: {words}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

/// `{"managedBy", "revision", "sip"}` and whence it is.
fn in_force(config: &Config) -> Result<(Value, String), String> {
    match ask::daemon(config, "GET", "/edge/config") {
        Ok(answer) => {
            let shown = serde_json::from_str(&answer.body)
                .map_err(|error| format!("the daemon's answer cannot be read: {error}"))?;
            Ok((shown, format!("in force in the daemon at {}", config.admin.listen)))
        }
        Err(Silence::Refused(words)) => Err(words),
        Err(Silence::NotThere(words)) => {
            let (document, revision) = at_start(config)?;
            let managed_by = config.sip.managed_by.as_str();
            let shown = json!({ "managedBy": managed_by, "revision": revision, "sip": document });
            Ok((shown, format!("{words}; it would start with this")))
        }
    }
}

/// What a daemon would start with: the document without its secrets, and its revision.
fn at_start(config: &Config) -> Result<(Value, u64), String> {
    let kept = match config.sip.managed_by {
        ManagedBy::Api if config.store.path.exists() => {
            let reader = Reader::open(&config.store.path).map_err(|fault| fault.to_string())?;
            reader.account().map_err(|fault| fault.to_string())?
        }
        ManagedBy::Api | ManagedBy::File => None,
    };
    let (mut document, revision) = match kept {
        Some(kept) => {
            let document =
                serde_json::from_str(&kept.document).map_err(|error| error.to_string())?;
            (document, kept.revision)
        }
        None => (json!(config.sip.account.document()), 0),
    };
    document["domain"] = json!(config.sip.account.domain());
    let handler = document.get_mut("fallbackHandler").and_then(Value::as_object_mut);
    handler.map(|handler| handler.remove("secrets"));
    Ok((document, revision))
}

/// From the file or the database: the daemon itself tells them to nobody.
fn signing_secrets(config: &Config, shown: &Value) -> Result<Vec<String>, String> {
    let url = shown.pointer("/sip/fallbackHandler/url").and_then(Value::as_str);
    let Some(url) = url else { return Ok(Vec::new()) };
    let texts = |list: &Value| -> Vec<String> {
        let texts = list.as_array().into_iter().flatten();
        texts.filter_map(|text| text.as_str().map(str::to_owned)).collect()
    };
    let of_file = config.sip.account.fallback_handler().and_then(|handler| handler.secrets.clone());
    if config.sip.managed_by == ManagedBy::File
        && let Some(secrets) = of_file
    {
        return Ok(secrets);
    }
    let reader = Reader::open(&config.store.path).map_err(|fault| fault.to_string())?;
    if config.sip.managed_by == ManagedBy::Api {
        let kept = reader.account().map_err(|fault| fault.to_string())?;
        let kept = kept.and_then(|kept| serde_json::from_str::<Value>(&kept.document).ok());
        let list = kept.as_ref().and_then(|kept| kept.pointer("/fallbackHandler/secrets"));
        return Ok(list.map(texts).unwrap_or_default());
    }
    let made = reader.made_secret(url).map_err(|fault| fault.to_string())?;
    made.map(|secret| vec![secret])
        .ok_or_else(|| "no secret was made yet: the first start makes it".to_owned())
}

fn table(config: &Config, shown: &Value, origin: &str) -> String {
    let managed = match shown["managedBy"].as_str() {
        Some("api") => format!("the API (PATCH /api/sip), revision {}", shown["revision"]),
        _ => match &config.file {
            Some(file) => format!("the file {} (edit it, then voxedge reload)", file.display()),
            None => "the file".to_owned(),
        },
    };
    let sip = &shown["sip"];
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let list = |value: &Value| match value.as_array() {
        Some(items) if !items.is_empty() => items.iter().map(text).collect::<Vec<_>>().join(" "),
        _ => "nobody".to_owned(),
    };
    let mut lines = vec![
        origin.to_owned(),
        format!("managed by:          {managed}"),
        format!("domain:              {}", text(&sip["domain"])),
        format!("allowed_cidr_ranges: {}", list(&sip["allowedCidrRanges"])),
        format!("allow_all_agents:    {}", sip["allowAllAgents"]),
    ];
    for agent in sip["allowedAgents"].as_array().into_iter().flatten() {
        let (agent_id, pattern) = (text(&agent["agentId"]), text(&agent["toUserPattern"]));
        lines.push(format!("allowed_agents:      {agent_id}  {pattern}"));
    }
    lines.push(format!("fallback_handler:    {}", text(&sip["fallbackHandler"]["url"])));
    let service = match &config.ultravox.base_url {
        BaseUrl::Embedded => "the embedded stand-in",
        BaseUrl::Url(url) => url,
    };
    lines.push(format!("ultravox:            {service}"));
    lines.join("\n") + "\n"
}
