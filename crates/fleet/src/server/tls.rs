//! The server's certificate, and the pin by which its clients know it.

use super::state_dir::{StateError, read_private, write_private};
use crate::documents::Hash;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::ResolvesServerCert;
use rustls::sign::CertifiedKey;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Error of the certificate: a lowercase clause with the next step.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file of the state directory failed.
    #[error(transparent)]
    State(#[from] StateError),
    /// The user's own files are not usable.
    #[error("{} is not usable as certificate and key ({why}); check --tls-cert and --tls-key", path.display())]
    Own {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// No certificate can be made.
    #[error("cannot make a certificate ({0}); give one with --tls-cert and --tls-key")]
    Make(String),
}

/// The server's side of TLS.
#[derive(Clone, Debug)]
pub struct ServerTls {
    /// For the acceptor.
    pub config: Arc<rustls::ServerConfig>,
    /// SHA-256 of the certificate's SubjectPublicKeyInfo.
    pub pin: Hash,
}

/// The user's certificate chain and key, as PEM files.
#[derive(Clone, Debug)]
pub struct OwnCertificate {
    /// The chain, the server's certificate first.
    pub chain: PathBuf,
    /// The key.
    pub key: PathBuf,
}

/// The certificate of the state directory, made for `names` at the first start; the user's own, if given.
///
/// # Errors
///
/// If a file cannot be read or written, or holds no certificate or key.
pub fn server_tls(dir: &Path, names: &[String], own: Option<&OwnCertificate>) -> Result<ServerTls, TlsError> {
    let (chain, key) = match own {
        Some(own) => read_own(own)?,
        None => made_once(dir, names)?,
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let unusable = |why: rustls::Error| match own {
        Some(own) => TlsError::Own { path: own.key.clone(), why: why.to_string() },
        None => TlsError::Make(why.to_string()),
    };
    let certified = CertifiedKey::from_der(chain, key, &provider).map_err(unusable)?;
    let spki =
        certified.key.public_key().ok_or_else(|| TlsError::Make("the key has no public half".into()))?;
    let pin = Hash(Sha256::digest(spki.as_ref()).into());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::Make(error.to_string()))?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Always(Arc::new(certified))));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(ServerTls { config: Arc::new(config), pin })
}

/// The same certificate whatever name the client asks for: it is pinned, and clients may use an address.
#[derive(Debug)]
struct Always(Arc<CertifiedKey>);

impl ResolvesServerCert for Always {
    fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

type Pair = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn read_own(own: &OwnCertificate) -> Result<Pair, TlsError> {
    let wrong = |path: &Path, why: String| TlsError::Own { path: path.to_owned(), why };
    let chain = CertificateDer::pem_file_iter(&own.chain)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| wrong(&own.chain, error.to_string()))?;
    if chain.is_empty() {
        return Err(wrong(&own.chain, "it holds no certificate".into()));
    }
    let key = PrivateKeyDer::from_pem_file(&own.key).map_err(|error| wrong(&own.key, error.to_string()))?;
    Ok((chain, key))
}

fn made_once(dir: &Path, names: &[String]) -> Result<Pair, TlsError> {
    let (key_path, chain_path) = (dir.join("tls.key"), dir.join("tls.crt"));
    let make = |error: rcgen::Error| TlsError::Make(error.to_string());
    let key = match read_private(&key_path)? {
        Some(text) => {
            let text = str::from_utf8(&text).unwrap_or_default();
            rcgen::KeyPair::from_pem(text).map_err(|_| StateError::Damaged(key_path))?
        }
        None => {
            let key = rcgen::KeyPair::generate().map_err(make)?;
            write_private(&key_path, key.serialize_pem().as_bytes())?;
            key
        }
    };
    let chain = match read_private(&chain_path)? {
        Some(text) => CertificateDer::from_pem_slice(&text).map_err(|_| StateError::Damaged(chain_path))?,
        None => {
            let mut params = rcgen::CertificateParams::new(names).map_err(make)?;
            params.distinguished_name = rcgen::DistinguishedName::new();
            params.distinguished_name.push(rcgen::DnType::CommonName, "mcp serve");
            // Devices know the key by its pin; an end would only stop a fleet some day.
            params.not_before = rcgen::date_time_ymd(2020, 1, 1);
            params.not_after = rcgen::date_time_ymd(4096, 1, 1);
            let certificate = params.self_signed(&key).map_err(make)?;
            write_private(&chain_path, certificate.pem().as_bytes())?;
            certificate.der().clone()
        }
    };
    Ok((vec![chain], PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pin_stays_the_same() {
        let dir = tempfile::tempdir().expect("a directory");
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let first = server_tls(dir.path(), &names, None).expect("made");
        assert_eq!(server_tls(dir.path(), &names, None).expect("read").pin, first.pin);
        // The same files as the user's own.
        let own = OwnCertificate { chain: dir.path().join("tls.crt"), key: dir.path().join("tls.key") };
        assert_eq!(server_tls(dir.path(), &[], Some(&own)).expect("read").pin, first.pin);
        let wrong = OwnCertificate { chain: own.key.clone(), key: own.key };
        assert!(matches!(server_tls(dir.path(), &[], Some(&wrong)), Err(TlsError::Own { .. })));
        let other = tempfile::tempdir().expect("a directory");
        assert_ne!(server_tls(other.path(), &names, None).expect("made").pin, first.pin);
    }
}
