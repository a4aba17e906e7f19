//! Users in a file, as `htpasswd -B` writes it: `NAME:$2y$05$…` per line.
//!
//! bcrypt only: a line with any other hash is reported with its number and counts as locked. The
//! file is looked at whenever a login is verified, and read again when it changed; one that has
//! become unreadable or wrong leaves what was read last in force.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use parking_lot::Mutex;

use super::{Account, Authority, Outage, Verdict};
use crate::auth::config::HtpasswdConfig;
use crate::auth::secret::Secret;

/// A file of users that is larger is something else.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// bcrypt sees no more of a password than this.
const PASSWORD_BYTES_MAX: usize = 72;
/// A higher cost takes longer than a minute and would hold a place in the pool as long.
const COST_MAX: u32 = 16;

/// The authority.
#[derive(Debug)]
pub struct Htpasswd {
    file: PathBuf,
    realm: String,
    read: Mutex<Option<Read>>,
}

#[derive(Debug)]
struct Read {
    stamp: Stamp,
    users: Arc<HashMap<String, Line>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Line {
    Bcrypt(String),
    Locked,
}

/// Tells one state of a file from another.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    changed: (i64, i64),
    inode: u64,
    bytes: u64,
}

impl Htpasswd {
    /// Reads the file for the first time.
    ///
    /// # Errors
    /// What is wrong with it: a gateway should not start with a file it cannot use.
    pub fn open(config: &HtpasswdConfig) -> Result<Self, String> {
        let (file, realm) = (config.file.clone(), config.realm.clone());
        let this = Self { file, realm, read: Mutex::default() };
        let read = read(&this.file)?;
        *this.read.lock() = Some(read);
        Ok(this)
    }

    fn users(&self) -> Arc<HashMap<String, Line>> {
        let mut kept = self.read.lock();
        let stamp = std::fs::metadata(&self.file).map(|meta| stamp(&meta));
        if let (Some(kept), Ok(stamp)) = (kept.as_ref(), &stamp)
            && kept.stamp == *stamp
        {
            return Arc::clone(&kept.users);
        }
        match read(&self.file) {
            Ok(fresh) => {
                let users = Arc::clone(&fresh.users);
                tracing::info!(file = %self.file.display(), users = users.len(), "users read");
                *kept = Some(fresh);
                users
            }
            Err(why) => {
                tracing::error!(%why, "the users read last stay in force");
                kept.as_ref().map(|kept| Arc::clone(&kept.users)).unwrap_or_default()
            }
        }
    }
}

#[async_trait]
impl Authority for Htpasswd {
    fn kind(&self) -> &'static str {
        "htpasswd"
    }

    fn realm(&self) -> &str {
        &self.realm
    }

    async fn verify(
        &self,
        login: &str,
        password: &Secret,
        _from: IpAddr,
    ) -> Result<Verdict, Outage> {
        let line = self.users().get(login).cloned();
        let hash = match line {
            None => return Ok(Verdict::Unknown),
            Some(Line::Locked) => return Ok(Verdict::Wrong),
            Some(Line::Bcrypt(hash)) => hash,
        };
        let account = account(login, &hash);
        let right = matches(password, hash).await;
        Ok(if right { Verdict::Right(account) } else { Verdict::Wrong })
    }

    async fn account(&self, login: &str) -> Result<Option<Account>, Outage> {
        Ok(match self.users().get(login) {
            Some(Line::Bcrypt(hash)) => Some(account(login, hash)),
            Some(Line::Locked) | None => None,
        })
    }
}

/// Checks a password off the async threads. Longer ones than bcrypt sees are wrong, not cut.
async fn matches(password: &Secret, hash: String) -> bool {
    if password.expose().len() > PASSWORD_BYTES_MAX {
        return false;
    }
    let password = password.clone();
    let check = move || bcrypt::verify(password.expose(), &hash).unwrap_or(false);
    tokio::task::spawn_blocking(check).await.unwrap_or(false)
}

/// Takes as long as a wrong password, for names that nobody knows.
pub async fn waste_time(password: &Secret) {
    const HASH: &str = "$2y$10$wHkSGnhyWzCFgvSZ3N0hEuGGYvCoqmTOzGVWWZ0zN8QMhCcTUm4pC";
    matches(password, HASH.to_owned()).await;
}

fn account(login: &str, hash: &str) -> Account {
    let fingerprint = blake3::derive_key("yadokari htpasswd fingerprint 1", hash.as_bytes());
    Account {
        login: login.to_owned(),
        uid: None,
        groups: BTreeSet::new(),
        fingerprint: blake3::Hash::from_bytes(fingerprint).to_hex()[..16].to_owned(),
    }
}

fn read(file: &Path) -> Result<Read, String> {
    let show = file.display();
    let failed = |error: std::io::Error| format!("htpasswd file {show}: {error}");
    let meta = std::fs::metadata(file).map_err(failed)?;
    if meta.len() > FILE_BYTES_MAX {
        return Err(format!("htpasswd file {show}: larger than {FILE_BYTES_MAX} bytes"));
    }
    let text = std::fs::read_to_string(file).map_err(failed)?;
    warn_if_open(file, &meta);
    Ok(Read { stamp: stamp(&meta), users: Arc::new(parse(&text, &show.to_string())) })
}

fn parse(text: &str, file: &str) -> HashMap<String, Line> {
    let mut users = HashMap::new();
    for (n, line) in text.lines().enumerate() {
        let line = line.trim_end();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some((name, hash)) = line.split_once(':').filter(|(name, _)| !name.is_empty()) else {
            tracing::warn!(file, line = n + 1, "no `NAME:HASH`: left out");
            continue;
        };
        let hash = hash.split(':').next().unwrap_or_default();
        let entry = if is_bcrypt(hash) {
            Line::Bcrypt(hash.to_owned())
        } else {
            tracing::warn!(
                file,
                line = n + 1,
                name,
                "no bcrypt hash of a usual cost, so nobody can log in with it: use htpasswd -B"
            );
            Line::Locked
        };
        // As other readers of such files do: the first line of a name counts.
        users.entry(name.to_owned()).or_insert(entry);
    }
    users
}

fn is_bcrypt(hash: &str) -> bool {
    let known = ["$2a$", "$2b$", "$2x$", "$2y$"].iter().any(|prefix| hash.starts_with(prefix));
    let parsed = hash.parse::<bcrypt::HashParts>();
    known && parsed.is_ok_and(|parts| (4..=COST_MAX).contains(&parts.get_cost()))
}

fn stamp(meta: &std::fs::Metadata) -> Stamp {
    use std::os::unix::fs::MetadataExt;
    Stamp {
        modified: meta.modified().ok(),
        changed: (meta.ctime(), meta.ctime_nsec()),
        inode: meta.ino(),
        bytes: meta.len(),
    }
}

fn warn_if_open(file: &Path, meta: &std::fs::Metadata) {
    use std::os::unix::fs::PermissionsExt;
    if meta.permissions().mode() & 0o004 != 0 {
        let file = file.display();
        tracing::warn!(%file, "everybody on this machine can read the hashes: chmod o-r");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn file(lines: &str) -> (tempfile::NamedTempFile, Htpasswd) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(lines.as_bytes()).unwrap();
        let config = HtpasswdConfig { file: file.path().to_owned(), realm: "htpasswd".to_owned() };
        let htpasswd = Htpasswd::open(&config).unwrap();
        (file, htpasswd)
    }

    fn line(name: &str, password: &str) -> String {
        format!("{name}:{}\n", bcrypt::hash(password, 4).unwrap())
    }

    async fn verdict(htpasswd: &Htpasswd, login: &str, password: &str) -> Verdict {
        htpasswd.verify(login, &Secret::new(password.to_owned()), HERE).await.unwrap()
    }

    #[tokio::test]
    async fn a_password_is_right_wrong_or_of_nobody() {
        let (_file, htpasswd) = file(&format!("# users\n\n{}", line("ada", "secret")));
        assert!(matches!(verdict(&htpasswd, "ada", "secret").await, Verdict::Right(_)));
        assert_eq!(verdict(&htpasswd, "ada", "Secret").await, Verdict::Wrong);
        assert_eq!(verdict(&htpasswd, "ada", "").await, Verdict::Wrong);
        assert_eq!(verdict(&htpasswd, "Ada", "secret").await, Verdict::Unknown);
        assert_eq!(verdict(&htpasswd, "", "").await, Verdict::Unknown);
    }

    #[tokio::test]
    async fn what_bcrypt_would_cut_is_wrong() {
        let long = "x".repeat(80);
        let (_file, htpasswd) = file(&line("ada", &long[..72]));
        assert!(matches!(verdict(&htpasswd, "ada", &long[..72]).await, Verdict::Right(_)));
        assert_eq!(verdict(&htpasswd, "ada", &long).await, Verdict::Wrong);
    }

    #[tokio::test]
    async fn hashes_that_are_not_bcrypt_let_nobody_in() {
        let text = "md5:$apr1$abcdefgh$Sb1GMnmlqVxKWfEJMCQQS0\nsha:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\n\
                    plain:secret\nempty:\nslow:$2y$31$abcdefghijklmnopqrstuuN3yQmbW7NmhGpSC6iw6dLsZtWvLV4Ze\n";
        let (_file, htpasswd) = file(text);
        for name in ["md5", "sha", "plain", "empty", "slow"] {
            assert_eq!(verdict(&htpasswd, name, "secret").await, Verdict::Wrong, "{name}");
            assert_eq!(htpasswd.account(name).await, Ok(None));
        }
    }

    #[tokio::test]
    async fn a_file_that_changes_is_read_again_and_one_that_vanishes_stays_in_force() {
        let (file, htpasswd) = file(&line("ada", "secret"));
        let before = htpasswd.account("ada").await.unwrap().unwrap().fingerprint;
        std::fs::write(file.path(), line("ada", "other") + &line("bob", "b")).unwrap();
        assert_eq!(verdict(&htpasswd, "ada", "secret").await, Verdict::Wrong);
        assert!(matches!(verdict(&htpasswd, "bob", "b").await, Verdict::Right(_)));
        assert_ne!(htpasswd.account("ada").await.unwrap().unwrap().fingerprint, before);
        std::fs::remove_file(file.path()).unwrap();
        assert!(matches!(verdict(&htpasswd, "bob", "b").await, Verdict::Right(_)));
        std::fs::write(file.path(), "").unwrap();
        assert_eq!(verdict(&htpasswd, "bob", "b").await, Verdict::Unknown);
    }
}
