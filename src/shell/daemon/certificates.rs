//! The certificates in use, and their renewal while the daemon runs: the files are read again, and
//! connections that are made from then on use what they hold. When one of them cannot be used, all
//! stay as they were. Connections that are up go on with what they began with.

use crate::shell::config::{self, Config, Peers, Tls};
use crate::shell::flow::{PeerTlsSource, TlsSource};
use crate::shell::tls::{self, PeerTls, Pem, ServerConfig, TlsFault};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// The files, and who is told of new ones.
pub struct Certificates {
    own: Option<Own>,
    peer_files: Peers,
    peers: watch::Sender<Arc<PeerTls>>,
    /// What the files held when they were read.
    seen: Mutex<Vec<Vec<u8>>>,
}

/// What our listeners show.
struct Own {
    files: Tls,
    config: watch::Sender<Arc<ServerConfig>>,
}

impl Certificates {
    /// Reads the files that the configuration names.
    ///
    /// # Errors
    /// The first file that cannot be used.
    pub fn open(config: &Config) -> Result<Certificates, TlsFault> {
        let own = match &config.tls {
            Some(files) => {
                let files = files.clone();
                Some(Own { config: watch::Sender::new(server(&files)?), files })
            }
            None => None,
        };
        let peers = watch::Sender::new(peers(&config.peers)?);
        let (peer_files, seen) = (config.peers.clone(), Mutex::default());
        let certificates = Certificates { own, peer_files, peers, seen };
        *certificates.seen() = certificates.contents();
        Ok(certificates)
    }

    /// For the listeners; `None` when there is no certificate of ours.
    pub fn own(&self) -> Option<TlsSource> {
        self.own.as_ref().map(|own| own.config.subscribe())
    }

    /// For connections of ours.
    pub fn peers(&self) -> PeerTlsSource {
        self.peers.subscribe()
    }

    /// Reads the same files again; true when one of them has changed since it was read last.
    ///
    /// # Errors
    /// The first file that cannot be used; nothing has changed then.
    pub fn reload(&self) -> Result<bool, TlsFault> {
        let contents = self.contents();
        if *self.seen() == contents {
            return Ok(false);
        }
        let server = self.own.as_ref().map(|own| server(&own.files)).transpose()?;
        let peers = peers(&self.peer_files)?;
        if let Some((own, server)) = self.own.as_ref().zip(server) {
            own.config.send_replace(server);
        }
        self.peers.send_replace(peers);
        *self.seen() = contents;
        Ok(true)
    }

    /// What all files hold; nothing for one that cannot be read.
    fn contents(&self) -> Vec<Vec<u8>> {
        let own = self.own.iter().flat_map(|own| {
            let Tls { certificate, private_key, client_ca } = &own.files;
            [certificate, private_key].into_iter().chain(client_ca)
        });
        let targets = self.peer_files.targets.iter().flat_map(|target| {
            let pair = target.certificate.iter().flat_map(|(certificate, key)| [certificate, key]);
            pair.chain(&target.ca)
        });
        let all = own.chain(&self.peer_files.ca).chain(targets);
        all.map(|path| std::fs::read(path).unwrap_or_default()).collect()
    }

    fn seen(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a listener with these files shows.
///
/// # Errors
/// The first file that cannot be used.
pub fn server(files: &Tls) -> Result<Arc<ServerConfig>, TlsFault> {
    let certificate = Pem::read(&files.certificate)?;
    let key = Pem::read(&files.private_key)?;
    let client_ca = files.client_ca.as_deref().map(Pem::read).transpose()?;
    tls::server_config(&certificate, &key, client_ca.as_ref())
}

fn peers(files: &Peers) -> Result<Arc<PeerTls>, TlsFault> {
    let settings = config::peers::settings(files, true)?;
    PeerTls::new(&settings).map(Arc::new)
}
