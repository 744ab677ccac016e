//! `voxedge unlisted`: who knocked at the daemon that runs without being in an allowed range.

use super::ask;
use super::calls::align;
use crate::shell::config::Config;
use serde_json::Value;
use std::process::ExitCode;

const HEADS: [&str; 4] = ["ADDRESS", "OVER", "TIMES", "LAST SEEN (UTC)"];
/// The column that stands to the right.
const TIMES: std::ops::Range<usize> = 2..3;

/// Prints the table, and how the first of them would be let in.
pub fn unlisted(config: &Config) -> ExitCode {
    let answer = match ask::daemon(config, "GET", "/edge/unlisted") {
        Ok(answer) => answer,
        Err(silence) => {
            eprintln!("voxedge unlisted: {}", silence.words());
            return ExitCode::FAILURE;
        }
    };
    let body: Value = serde_json::from_str(&answer.body).unwrap_or_default();
    let Some(sources) = body.get("sources").and_then(Value::as_array) else {
        eprintln!("voxedge unlisted: the daemon's answer cannot be read");
        return ExitCode::FAILURE;
    };
    print!("{}", table(sources));
    ExitCode::SUCCESS
}

fn table(sources: &[Value]) -> String {
    let Some(last) = sources.first() else {
        return "nobody knocked who is not in sip.allowed_cidr_ranges\n".to_owned();
    };
    let mut rows = vec![HEADS.map(str::to_owned)];
    rows.extend(sources.iter().map(row));
    let address = text(last, "address");
    let bits = if address.contains(':') { 128 } else { 32 };
    align(&rows, TIMES)
        + &format!(
            "Is one of them your PBX? Add it to sip.allowed_cidr_ranges, as in \
             \"{address}/{bits}\", then: voxedge reload\n"
        )
}

fn row(source: &Value) -> [String; HEADS.len()] {
    let seen = text(source, "lastSeen");
    let seen = seen.get(..19).map_or(seen.clone(), |seen| seen.replace('T', " "));
    let count = source.get("count").and_then(Value::as_u64).unwrap_or_default();
    [text(source, "address"), text(source, "transport"), count.to_string(), seen]
}

fn text(source: &Value, name: &str) -> String {
    source.get(name).and_then(Value::as_str).unwrap_or("-").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_table_says_how_one_is_let_in() {
        let sources = [
            json!({"address": "198.51.100.9", "transport": "udp", "count": 12,
                   "lastSeen": "2026-11-21T11:08:11.000Z"}),
            json!({"address": "2001:db8::9", "transport": "tls", "count": 3,
                   "lastSeen": "2026-11-21T11:08:01.000Z"}),
        ];
        let expected = "\
ADDRESS       OVER  TIMES  LAST SEEN (UTC)
198.51.100.9  udp      12  2026-11-21 11:08:11
2001:db8::9   tls       3  2026-11-21 11:08:01
Is one of them your PBX? Add it to sip.allowed_cidr_ranges, as in \"198.51.100.9/32\", then: voxedge reload
";
        assert_eq!(table(&sources), expected);
        assert!(table(&sources[1..]).contains("\"2001:db8::9/128\""));
        assert_eq!(table(&[]), "nobody knocked who is not in sip.allowed_cidr_ranges\n");
    }
}
