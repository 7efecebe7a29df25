//! The server's side of TLS, from files that may change while it runs.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

use crate::config::{ClientCertificates, TlsConfig, TlsVersion};

/// Files are looked at this often.
pub(crate) const WATCH_INTERVAL: Duration = Duration::from_secs(30);

/// Why the files make no TLS server.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error("cannot read {what} in {}", path.display())]
    Read { what: &'static str, path: PathBuf, source: rustls::pki_types::pem::Error },
    #[error("there is no {what} in {}", path.display())]
    Empty { what: &'static str, path: PathBuf },
    #[error("the authority in {} cannot be used", path.display())]
    Authority { path: PathBuf, source: rustls::Error },
    #[error("the authorities of client certificates cannot be used with the lists of revoked ones")]
    ClientVerifier(#[from] rustls::client::VerifierBuilderError),
    #[error("the certificate {} and the key {} are no pair, or one of them can't be used", certificate.display(), key.display())]
    Pair { certificate: PathBuf, key: PathBuf, source: rustls::Error },
    #[error("TLS cannot be set up")]
    SetUp(#[source] rustls::Error),
}

/// The TLS set-up in force, and the files that it was made from.
#[derive(Debug)]
pub(crate) struct TlsFiles {
    state: RwLock<State>,
}

#[derive(Debug)]
struct State {
    config: TlsConfig,
    current: Arc<ServerConfig>,
    /// When the files were changed that `current` was made from, or was tried to be made from.
    seen: Vec<Option<(SystemTime, u64)>>,
}

impl TlsFiles {
    /// # Errors
    /// The files can't be read or don't fit together.
    pub(crate) fn open(config: &TlsConfig) -> Result<Self, TlsError> {
        Ok(Self { state: RwLock::new(State::read(config)?) })
    }

    /// What the next handshake goes by.
    pub(crate) fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.state.read().unwrap_or_else(PoisonError::into_inner).current)
    }

    /// Reads the files anew, without putting them in force.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(crate) fn read(config: &TlsConfig) -> Result<ReadTls, TlsError> {
        State::read(config).map(ReadTls)
    }

    /// Puts what was read in force: handshakes from now on go by it.
    pub(crate) fn replace(&self, read: ReadTls) {
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = read.0;
    }

    /// Reads the files again if one of them has changed since they were last looked at. What is wrong leaves the old
    /// set-up in force: in the middle of a rotation the certificate is new and the key still old.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(crate) fn reload_if_changed(&self) -> Result<bool, TlsError> {
        let (config, seen) = {
            let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
            (state.config.clone(), state.seen.clone())
        };
        let now = stamps(&config);
        if now == seen {
            return Ok(false);
        }
        let read = State::read(&config);
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        match read {
            Ok(read) => {
                *state = read;
                Ok(true)
            }
            Err(error) => {
                // Said once, and again when a file changes.
                state.seen = now;
                Err(error)
            }
        }
    }
}

/// TLS files that were read and aren't in force yet.
#[derive(Debug)]
pub(crate) struct ReadTls(State);

impl State {
    fn read(config: &TlsConfig) -> Result<Self, TlsError> {
        // Before the contents: a change in between is seen as one later.
        let seen = stamps(config);
        Ok(Self { current: Arc::new(server_config(config)?), seen, config: config.clone() })
    }
}

/// Time of change and size of each file. A symbolic link counts as what it points to, as Kubernetes swaps them.
fn stamps(config: &TlsConfig) -> Vec<Option<(SystemTime, u64)>> {
    let files = [Some(&config.certificate), Some(&config.private_key), config.client_ca.as_ref(), config.crl.as_ref()];
    let stamp = |path: &PathBuf| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    };
    files.into_iter().map(|path| path.and_then(stamp)).collect()
}

fn server_config(config: &TlsConfig) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let chain: Vec<CertificateDer<'static>> = read_all("certificate", &config.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&config.private_key).map_err(|source| TlsError::Read {
        what: "the private key",
        path: config.private_key.clone(),
        source,
    })?;
    let versions: &[&rustls::SupportedProtocolVersion] = match config.min_version {
        TlsVersion::V1_2 => &[&rustls::version::TLS13, &rustls::version::TLS12],
        TlsVersion::V1_3 => &[&rustls::version::TLS13],
    };
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_protocol_versions(versions).map_err(TlsError::SetUp)?;
    let builder = match (&config.client_ca, config.client_certificates) {
        (Some(path), ClientCertificates::Optional | ClientCertificates::Required) => {
            let mut roots = RootCertStore::empty();
            for authority in read_all::<CertificateDer<'static>>("authority", path)? {
                roots.add(authority).map_err(|source| TlsError::Authority { path: path.clone(), source })?;
            }
            let mut verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            if let Some(path) = &config.crl {
                // Authorities in between need no lists of their own, but a certificate whose authority has none here is
                // refused: whether it was revoked isn't known.
                let lists: Vec<CertificateRevocationListDer<'static>> = read_all("list of revoked certificates", path)?;
                verifier = verifier.with_crls(lists).only_check_end_entity_revocation();
            }
            if config.client_certificates == ClientCertificates::Optional {
                verifier = verifier.allow_unauthenticated();
            }
            builder.with_client_cert_verifier(verifier.build()?)
        }
        (None, _) | (_, ClientCertificates::None) => builder.with_no_client_auth(),
    };
    let mut server = builder.with_single_cert(chain, key).map_err(|source| TlsError::Pair {
        certificate: config.certificate.clone(),
        key: config.private_key.clone(),
        source,
    })?;
    server.alpn_protocols = vec![b"h2".to_vec()];
    Ok(server)
}

fn read_all<T: PemObject>(what: &'static str, path: &Path) -> Result<Vec<T>, TlsError> {
    let unreadable = |source| TlsError::Read { what, path: path.to_owned(), source };
    let found: Vec<T> = T::pem_file_iter(path).map_err(unreadable)?.collect::<Result<_, _>>().map_err(unreadable)?;
    if found.is_empty() {
        return Err(TlsError::Empty { what, path: path.to_owned() });
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
