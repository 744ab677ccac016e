//! `voxedge registrations`: the state of each registration of the daemon that runs, with the reason of
//! its last outcome.

use super::ask;
use crate::shell::config::Config;
use serde_json::Value;
use std::process::ExitCode;

const HEADS: [&str; 5] = ["USER", "REGISTRAR", "STATE", "UNTIL (UTC)", "REASON"];

/// Prints the table.
pub fn registrations(config: &Config) -> ExitCode {
    let answer = match ask::daemon(config, "GET", "/edge/registrations") {
        Ok(answer) => answer,
        Err(silence) => {
            eprintln!("voxedge registrations: {}", silence.words());
            return ExitCode::FAILURE;
        }
    };
    let body: Value = serde_json::from_str(&answer.body).unwrap_or_default();
    let Some(all) = body.get("registrations").and_then(Value::as_array) else {
        eprintln!("voxedge registrations: the daemon's answer cannot be read");
        return ExitCode::FAILURE;
    };
    print!("{}", table(all));
    ExitCode::SUCCESS
}

fn table(all: &[Value]) -> String {
    if all.is_empty() {
        return "no registrations\n".to_owned();
    }
    let mut rows = vec![HEADS.map(str::to_owned)];
    rows.extend(all.iter().map(row));
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..HEADS.len()).map(|column| width(column).unwrap_or(0)).collect();
    let line = |row: &[String; HEADS.len()]| {
        let padded = row.iter().zip(&widths).map(|(cell, width)| {
            let pad = " ".repeat(width.saturating_sub(cell.chars().count()));
            format!("{cell}{pad}")
        });
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

fn row(one: &Value) -> [String; HEADS.len()] {
    let text = |name: &str| {
        let text = one.get(name).and_then(Value::as_str).unwrap_or("-");
        text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect::<String>()
    };
    let state = match one.get("successful").and_then(Value::as_bool) {
        Some(true) => "registered",
        Some(false) => "failed",
        None => "not known yet",
    };
    let until = text("expiresAt");
    let until = until.get(..19).map_or(until.clone(), |until| until.replace('T', " "));
    [text("username"), text("proxy"), state.to_owned(), until, text("reason")]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_table_tells_the_state_and_its_reason() {
        let all = [
            json!({"username": "sales", "proxy": "pbx.example", "successful": true,
                   "reason": "200 OK", "expiresAt": "2026-11-21T11:08:11.000Z"}),
            json!({"username": "x", "proxy": "p", "successful": false, "reason": "403 Forbidden",
                   "expiresAt": null}),
            json!({"username": "y\n", "proxy": "p", "successful": null, "reason": null}),
        ];
        let expected = "\
USER   REGISTRAR    STATE          UNTIL (UTC)          REASON
sales  pbx.example  registered     2026-11-21 11:08:11  200 OK
x      p            failed         -                    403 Forbidden
y\u{fffd}     p            not known yet  -                    -
";
        assert_eq!(table(&all), expected);
        assert_eq!(table(&[]), "no registrations\n");
    }
}
