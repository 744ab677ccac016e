//! The log: text or JSON lines on standard error, and the one door to `tracing-subscriber`. Phone
//! numbers, addresses and SDP are written at debug and below only (style 31); secrets and join URLs
//! print as `***` at every level. Control characters in text that a peer sent are escaped by the
//! formatter.

use super::config::{Log, LogFormat};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Starts logging for the process. A second call changes nothing (tests start more than one daemon
/// in a process).
pub fn start(log: &Log) {
    // The error says that a subscriber is set already.
    let _ = tracing::subscriber::set_global_default(subscriber(log, std::io::stderr));
}

/// What [`start`] installs, on any writer.
fn subscriber<W>(log: &Log, writer: W) -> Box<dyn tracing::Subscriber + Send + Sync>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter(log))
        .with_writer(writer)
        .with_ansi(false)
        .with_target(true);
    match log.format {
        LogFormat::Text => Box::new(builder.finish()),
        LogFormat::Json => Box::new(builder.json().flatten_event(true).finish()),
    }
}

/// Our own lines at the configured level; those of the packages below us from `warn` up, since at
/// debug they would print what we hide (request heads with their keys).
fn filter(log: &Log) -> EnvFilter {
    EnvFilter::new(format!("warn,voxedge={}", log.level.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ground::Secret;
    use crate::shell::config::LogLevel;
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("one writer").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn written(format: LogFormat, level: LogLevel, act: impl FnOnce()) -> String {
        let kept = Kept::default();
        let writer = kept.clone();
        let subscriber = subscriber(&Log { format, level }, move || writer.clone());
        tracing::subscriber::with_default(subscriber, act);
        let bytes = kept.0.lock().expect("one writer").clone();
        String::from_utf8(bytes).expect("logs are UTF-8")
    }

    #[test]
    fn json_lines_are_json_and_hide_secrets() {
        let lines = written(LogFormat::Json, LogLevel::Trace, || {
            let secret = Secret::new("canary");
            tracing::info!(call = "68f01234-2a", key = %secret, "answered");
            tracing::debug!(from = "+15550001111", key = ?secret, "invited");
        });
        let parsed: Vec<serde_json::Value> =
            lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(parsed.len(), 2);
        assert_eq!(parsed[0]["message"], "answered");
        assert_eq!(parsed[0]["call"], "68f01234-2a");
        assert!(!lines.contains("canary"));
    }

    #[test]
    fn the_level_holds_for_us_and_warn_for_the_packages_below() {
        let lines = written(LogFormat::Text, LogLevel::Info, || {
            tracing::debug!("ours, too fine");
            tracing::info!("ours");
            tracing::info!(target: "hyper", "theirs, too fine");
            tracing::warn!(target: "hyper", "theirs");
        });
        assert!(lines.contains("ours") && lines.contains("theirs"), "{lines}");
        assert!(!lines.contains("too fine"), "{lines}");
    }

    #[test]
    fn control_characters_of_a_peer_do_not_reach_the_terminal() {
        let lines = written(LogFormat::Text, LogLevel::Info, || {
            let name = "Bob\u{1b}[2J\r\nfake line";
            tracing::info!(display = ?name, "invited");
        });
        assert!(!lines.contains('\u{1b}') && lines.lines().count() == 1, "{lines}");
    }
}
