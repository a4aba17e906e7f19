//! TLS from PEM files, read again when they change.
//!
//! Certificates are renewed by others (certbot, an administrator's cron) while the gateway runs:
//! the files are looked at every few seconds, and new connections get the new certificate. Files
//! that are wrong at the start keep the gateway from starting; files that become wrong later are
//! reported, and the certificate read last stays in use. A key that does not belong to its
//! certificate is wrong.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::RwLock;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Where certificate and key are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server's certificate, followed by those that lead to its root.
    pub certificate: PathBuf,
    /// Its private key: PKCS#8, PKCS#1 or SEC1.
    pub key: PathBuf,
}

/// What is wrong with the files, with the one that it is wrong with.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// It cannot be read.
    #[error("{file}: {source}")]
    Read {
        /// Which file.
        file: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// What is in it is not what should be.
    #[error("{file}: {problem}")]
    Content {
        /// Which file.
        file: PathBuf,
        /// What should be there.
        problem: String,
    },
}

/// Accepts TLS with whatever the files say at that moment.
#[derive(Clone)]
pub struct Tls {
    acceptor: TlsAcceptor,
    current: Arc<Current>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("files", &self.current.files).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Current {
    files: TlsFiles,
    key: RwLock<Arc<CertifiedKey>>,
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.key.read()))
    }
}

impl Tls {
    /// Reads the files and, inside a runtime, looks at them again for as long as this lives.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let seen = stamps(&files);
        let key = RwLock::new(Arc::new(read(&files)?));
        let current = Arc::new(Current { files, key });
        let resolver: Arc<dyn ResolvesServerCert> = Arc::<Current>::clone(&current);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring has the usual cipher suites")
            .with_no_client_auth()
            .with_cert_resolver(resolver);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let this = Self { acceptor: TlsAcceptor::from(Arc::new(config)), current };
        this.watch(seen);
        Ok(this)
    }

    /// For connections of TCP.
    #[must_use]
    pub fn acceptor(&self) -> &TlsAcceptor {
        &self.acceptor
    }

    fn watch(&self, mut seen: [Option<Stamp>; 2]) {
        let weak = Arc::downgrade(&self.current);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(LOOK_EVERY).await;
                let Some(current) = weak.upgrade() else { return };
                seen = current.look_again(seen);
            }
        });
    }
}

impl Current {
    /// Reads what has changed since; both files must fit together, so a half-done renewal is
    /// tried again when the other file changes.
    fn look_again(&self, seen: [Option<Stamp>; 2]) -> [Option<Stamp>; 2] {
        let now = stamps(&self.files);
        if now == seen {
            return seen;
        }
        match read(&self.files) {
            Ok(key) => {
                *self.key.write() = Arc::new(key);
                let file = self.files.certificate.display();
                tracing::info!(%file, "a new certificate is in use");
            }
            Err(error) => {
                tracing::error!(%error, "the certificate read last stays in use");
            }
        }
        now
    }
}

/// Tells one state of a file from another.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp(Option<SystemTime>, u64, u64);

fn stamps(files: &TlsFiles) -> [Option<Stamp>; 2] {
    use std::os::unix::fs::MetadataExt;
    [&files.certificate, &files.key].map(|file| {
        let meta = std::fs::metadata(file).ok()?;
        Some(Stamp(meta.modified().ok(), meta.ino(), meta.len()))
    })
}

fn read(files: &TlsFiles) -> Result<CertifiedKey, TlsError> {
    let content = |file: &Path, problem: String| TlsError::Content { file: file.into(), problem };
    let open = |file: &Path| {
        std::fs::read(file).map_err(|source| TlsError::Read { file: file.into(), source })
    };
    let pem = open(&files.certificate)?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|error| content(&files.certificate, format!("not PEM: {error}")))?;
    if chain.is_empty() {
        let problem = "holds no `BEGIN CERTIFICATE`: is it the key, or in DER?".to_owned();
        return Err(content(&files.certificate, problem));
    }
    let pem = zeroize::Zeroizing::new(open(&files.key)?);
    let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| {
        let encrypted = pem.windows(9).any(|window| window == b"ENCRYPTED");
        let problem = if encrypted {
            "the key is encrypted: store it in the clear, readable by the gateway alone".to_owned()
        } else {
            format!("holds no usable private key: {error}")
        };
        content(&files.key, problem)
    })?;
    let provider = rustls::crypto::ring::default_provider();
    CertifiedKey::from_der(chain, key, &provider).map_err(|error| {
        let problem = match error {
            rustls::Error::InconsistentKeys(_) => {
                format!("does not belong to the certificate in {}", files.certificate.display())
            }
            other => other.to_string(),
        };
        content(&files.key, problem)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertifiedKey as Made, generate_simple_self_signed};
    use tempfile::TempDir;

    fn write(dir: &TempDir) -> (TlsFiles, CertificateDer<'static>) {
        let Made { cert, signing_key } =
            generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let files =
            TlsFiles { certificate: dir.path().join("cert.pem"), key: dir.path().join("key.pem") };
        std::fs::write(&files.certificate, cert.pem()).unwrap();
        std::fs::write(&files.key, signing_key.serialize_pem()).unwrap();
        (files, cert.der().clone())
    }

    /// The certificate that a client is shown.
    async fn shown(tls: &Tls) -> CertificateDer<'static> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        for certificate in &tls.current.key.read().cert {
            roots.add(certificate.clone()).unwrap();
        }
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let (near, far) = tokio::io::duplex(64 << 10);
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let (client, server) = tokio::join!(
            connector.connect("localhost".try_into().unwrap(), near),
            tls.acceptor().accept(far),
        );
        server.unwrap();
        let client = client.unwrap();
        client.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
    }

    #[tokio::test]
    async fn a_renewed_certificate_is_shown_and_a_broken_one_is_not() {
        let dir = TempDir::new().unwrap();
        let (files, first) = write(&dir);
        let tls = Tls::load(files.clone()).unwrap();
        assert_eq!(shown(&tls).await, first);
        let seen = stamps(&files);
        let (_, second) = write(&dir);
        let seen = tls.current.look_again(seen);
        assert_eq!(shown(&tls).await, second);
        std::fs::write(&files.certificate, "nonsense").unwrap();
        let seen = tls.current.look_again(seen);
        assert_eq!(shown(&tls).await, second);
        assert_eq!(tls.current.look_again(seen.clone()), seen);
    }

    #[tokio::test]
    async fn wrong_files_are_named_with_what_is_wrong() {
        let dir = TempDir::new().unwrap();
        let (files, _) = write(&dir);
        let missing = TlsFiles { key: dir.path().join("none.pem"), ..files.clone() };
        assert!(Tls::load(missing).unwrap_err().to_string().contains("none.pem"));
        let swapped = TlsFiles { certificate: files.key.clone(), key: files.certificate.clone() };
        assert!(Tls::load(swapped).unwrap_err().to_string().contains("BEGIN CERTIFICATE"));
        let no_key = TlsFiles { key: files.certificate.clone(), ..files.clone() };
        assert!(Tls::load(no_key).unwrap_err().to_string().contains("private key"));
        let other = TempDir::new().unwrap();
        let (foreign, _) = write(&other);
        let mixed = TlsFiles { key: foreign.key, ..files };
        let error = Tls::load(mixed).unwrap_err().to_string();
        assert!(error.contains("does not belong"), "{error}");
    }
}
