//! Who manages the account, over restarts.

use super::*;
use crate::account::{AgentAllowance, FallbackHandler};
use crate::shell::config::{Fallback, UnlistedUdp};
use crate::shell::store::StoreThread;
use serde_json::json;
use std::path::PathBuf;

const AGENT: &str = "6f1d3c52-0b1e-4f51-9a53-2d1f6a0d9c11";

/// A directory of its own for one test, removed at its end.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Place {
        let name = format!("voxedge-account-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).expect("a temporary directory");
        Place(path)
    }

    fn store(&self) -> (Store, StoreThread) {
        Store::open(&self.0.join("calls.sqlite")).expect("our own directory")
    }

    /// Starts, acts, and stops as a daemon would.
    fn run<T>(&self, sip: &Sip, act: impl AsyncFnOnce(&Account) -> T) -> Result<T, String> {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let (store, thread) = self.store();
        let (signalling, mut inbox) = mpsc::channel(8);
        runtime.spawn(async move {
            while let Some(Request::Reconfigure { done, .. }) = inbox.recv().await {
                let _ = done.send(());
            }
        });
        let entropy = crate::shell::entropy::from_os().expect("there is randomness");
        let account =
            Account::open(sip, &Fallback::default(), store, signalling.downgrade(), entropy);
        let acted = account.map_err(|fault| fault.to_string());
        let acted = acted.map(|account| runtime.block_on(act(&account)));
        thread.stop();
        acted
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn sip(managed_by: ManagedBy, pattern: &str, secrets: Option<Vec<String>>) -> Sip {
    let document = SipConfigDocument {
        allowed_agents: vec![AgentAllowance {
            agent_id: AGENT.into(),
            to_user_pattern: Some(pattern.into()),
        }],
        fallback_handler: Some(FallbackHandler { url: "https://hooks.example/".into(), secrets }),
        domain: "file.example".into(),
        ..SipConfigDocument::default()
    };
    let account = Arc::new(compile(&document).expect("good rules").0);
    Sip {
        managed_by,
        registrations: vec![],
        account,
        no_match_status: 404,
        unlisted_udp: UnlistedUdp::Silence,
    }
}

fn patterns(account: &Account) -> Vec<String> {
    let in_force = account.in_force();
    let agents = in_force.document.allowed_agents.iter();
    agents.filter_map(|agent| agent.to_user_pattern.clone()).collect()
}

fn secrets(account: &Account) -> Vec<String> {
    let handler = account.in_force().document.fallback_handler.clone().expect("there is one");
    handler.secrets.expect("a handler in force has secrets")
}

#[test]
fn the_file_seeds_the_api_once_and_changes_survive_a_restart() {
    let place = Place::new("seed");
    let first = place.run(&sip(ManagedBy::Api, "^first$", None), async |account| {
        assert_eq!((patterns(account), account.in_force().revision), (vec!["^first$".into()], 1));
        let body = json!({"allowedAgents": [{"agentId": AGENT, "toUserPattern": "^api$"}]});
        let changed = account.change(&body).await.expect("a good change");
        assert_eq!((changed.changed, changed.in_force.revision), (vec!["allowedAgents"], 2));
        assert_eq!(patterns(account), ["^api$"]);
        let reloaded = account.reload(&sip(ManagedBy::Api, "^other$", None)).await;
        assert!(matches!(reloaded, Err(ChangeFault::ManagedBy(ManagedBy::Api))));
        secrets(account)
    });
    let first = first.expect("it starts");
    let again = place.run(&sip(ManagedBy::Api, "^second$", None), async |account| {
        assert_eq!((patterns(account), account.in_force().revision), (vec!["^api$".into()], 2));
        assert_eq!(account.in_force().document.domain, "file.example");
        secrets(account)
    });
    assert_eq!(again, Ok(first), "signatures stay valid over a restart");
}

#[test]
fn a_file_managed_account_is_reloaded_and_its_made_secret_stays() {
    let place = Place::new("file");
    let first = place.run(&sip(ManagedBy::File, "^a$", None), async |account| {
        let refused = account.change(&json!({"allowAllAgents": true})).await;
        assert!(matches!(refused, Err(ChangeFault::ManagedBy(ManagedBy::File))));
        let same = account.reload(&sip(ManagedBy::File, "^a$", None)).await.expect("nothing new");
        assert_eq!(same, Vec::<String>::new());
        let words = account.reload(&sip(ManagedBy::File, "^b$", None)).await.expect("good");
        assert_eq!(words, ["allowed_agents: changed, 1 as before"]);
        assert_eq!((patterns(account), account.in_force().revision), (vec!["^b$".into()], 0));
        secrets(account)
    });
    let first = first.expect("it starts");
    assert_eq!(first[0].len(), 64);
    let again = place.run(&sip(ManagedBy::File, "^c$", None), async |account| {
        assert_eq!(patterns(account), ["^c$"], "the file counts");
        secrets(account)
    });
    assert_eq!(again, Ok(first));
}

#[test]
fn what_was_kept_and_cannot_be_used_is_told_with_its_fix() {
    for (kept, words) in [
        ("{", "it is no document of this version"),
        (r#"{"allowedCidrRanges": ["10.0.0.0/33"]}"#, "allowedCidrRanges[0]"),
        (r#"{"unknown": 1}"#, "unknown"),
    ] {
        let place = Place::new(&format!("broken-{}", kept.len()));
        let (store, thread) = place.store();
        store.keep_account(kept.to_owned()).expect("our own directory");
        thread.stop();
        let told = place.run(&sip(ManagedBy::Api, "^a$", None), async |_| ()).expect_err("broken");
        for part in [words, "revision 1", "sip.managed_by = \"file\""] {
            assert!(told.contains(part), "{part} in {told}");
        }
        place.run(&sip(ManagedBy::File, "^a$", None), async |_| ()).expect("the file counts");
    }
}
