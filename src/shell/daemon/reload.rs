//! Reading the configuration file again while the daemon runs. The account's rules are put in force as
//! a whole, and so is what the certificate files hold now; any other section takes a restart, and that
//! is said. A file with an error changes nothing.

use super::certificates::Certificates;
use crate::shell::account::Account;
use crate::shell::admin::ReloadFault;
use crate::shell::config::{self, Config};

/// Reads the file that `running` came from. Gives what changed, in words.
///
/// # Errors
/// The report of a file with errors, or why nothing changed.
pub async fn reload(
    running: &Config,
    account: &Account,
    certificates: &Certificates,
) -> Result<Vec<String>, ReloadFault> {
    let Some(path) = running.file.clone() else {
        let words = "this daemon was not started from a file";
        return Err(ReloadFault::Refused(words.to_owned()));
    };
    let read = tokio::task::spawn_blocking(move || config::load(&path)).await;
    let loaded = match read {
        Ok(Ok(loaded)) => loaded,
        Ok(Err(report)) => return Err(ReloadFault::Refused(report.to_string())),
        Err(error) => return Err(ReloadFault::Refused(error.to_string())),
    };
    let renewed = certificates.reload().map_err(|fault| ReloadFault::Refused(fault.to_string()))?;
    let mut words = account.reload(&loaded.config.sip).await.map_err(ReloadFault::Change)?;
    if renewed {
        words.push("the certificates of [tls] were read again".to_owned());
    }
    words.extend(waiting(running, &loaded.config));
    Ok(words)
}

/// Sections that differ from what runs and wait for a restart.
fn waiting(running: &Config, file: &Config) -> Vec<String> {
    let sip = |config: &Config| {
        let domain = config.sip.account.domain().to_owned();
        (config.sip.managed_by, config.sip.no_match_status, config.sip.unlisted_udp, domain)
    };
    let sections = [
        ("listen", running.listen != file.listen),
        ("tls", (&running.tls, &running.peers) != (&file.tls, &file.peers)),
        ("dns", running.dns != file.dns),
        ("media", running.media != file.media),
        ("ultravox", running.ultravox != file.ultravox),
        ("sip (managed_by, domain, no_match_status, unlisted_udp)", sip(running) != sip(file)),
        ("fallback", running.fallback != file.fallback),
        ("admin", running.admin != file.admin),
        ("store", running.store != file.store),
        ("limits", running.limits != file.limits),
        ("log", running.log != file.log),
    ];
    let changed = sections.iter().filter(|(_, differs)| *differs);
    changed.map(|(name, _)| format!("[{name}] differs and takes a restart")).collect()
}
