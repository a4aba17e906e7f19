//! The entry in registries.conf.d that lets Podman speak plain HTTP to the registry on loopback.
//!
//! Only loopback addresses are ever written: there nobody can listen in, and there the kernel
//! says who calls, so that `podman push 127.0.0.1:5000/ada/app` needs neither TLS nor login. The
//! file names the instance that wrote it; `yadokari up` takes it away again when it ends.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// For all users of this machine.
const SYSTEM_DIR: &str = "/etc/containers/registries.conf.d";
const SYSTEM_FILE: &str = "/etc/containers/registries.conf";
/// Under the data directory: the address of the registry that runs.
const RUNNING: &str = "run/registry";
const NAME_PREFIX: &str = "yadokari-";
/// Entries of instances that run; those of `setup podman` stay until somebody removes them.
const UP_PREFIX: &str = "yadokari-up-";
const BEFORE_DATA: &str = "# Written by yadokari for the registry of ";
const AFTER_DATA: &str = ": plain HTTP, on this machine only.";

/// The folder of all users, or of the one whose home that is.
pub fn folder(home: &Path, system: bool) -> PathBuf {
    if system {
        return PathBuf::from(SYSTEM_DIR);
    }
    let config = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).filter(|p| p.is_absolute());
    config.unwrap_or_else(|| home.join(".config")).join("containers/registries.conf.d")
}

/// The file for an address in a folder.
pub fn file(folder: &Path, address: SocketAddr) -> PathBuf {
    named(folder, NAME_PREFIX, address)
}

fn named(folder: &Path, prefix: &str, address: SocketAddr) -> PathBuf {
    let plain = address.to_string().replace(['[', ']'], "").replace(':', "-");
    folder.join(format!("{prefix}{plain}.conf"))
}

/// Takes away what instances left that ended too abruptly for it.
fn remove_stale(folder: &Path) {
    for file in configs(folder) {
        let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        let data = text.strip_prefix(BEFORE_DATA).and_then(|rest| rest.split_once(AFTER_DATA));
        let Some((data, entry)) = data.filter(|_| name.starts_with(UP_PREFIX)) else { continue };
        let runs = running(Path::new(data));
        if !runs.is_some_and(|at| entry.contains(&format!("\"{at}\""))) {
            let _gone = std::fs::remove_file(&file);
        }
    }
}

/// What the file says; `data` is the instance's directory.
pub fn text(address: SocketAddr, data: &Path) -> String {
    format!(
        "{BEFORE_DATA}{}{AFTER_DATA}\n\
         [[registry]]\nlocation = \"{address}\"\ninsecure = true\n",
        data.display()
    )
}

/// Writes the entry; false if it was there already.
///
/// # Errors
/// I/O.
pub fn write(file: &Path, text: &str) -> anyhow::Result<bool> {
    if std::fs::read_to_string(file).is_ok_and(|there| there == text) {
        return Ok(false);
    }
    super::file::replace(file, text, true)?;
    Ok(true)
}

/// The registry that an instance runs, as it noted it.
pub fn running(data: &Path) -> Option<String> {
    let text = std::fs::read_to_string(data.join(RUNNING)).ok()?;
    text.trim().parse::<SocketAddr>().ok().map(|address| address.to_string())
}

/// What `up` leaves for others while its registry runs; taken away when dropped.
#[derive(Debug)]
pub struct Announced {
    files: Vec<PathBuf>,
}

impl Announced {
    /// Notes the address, and as root tells Podman. What cannot be written is a warning: the
    /// registry works without.
    pub fn new(data: &Path, address: SocketAddr) -> Self {
        let mut files = Vec::new();
        let mut leave = |file: PathBuf, text: &str| match write(&file, text) {
            Ok(_) => files.push(file),
            Err(error) => {
                let file = file.display();
                tracing::warn!(%file, %error, "others are not told where the registry is");
            }
        };
        leave(data.join(RUNNING), &format!("{address}\n"));
        let has_podman = Path::new("/etc/containers").is_dir();
        if rustix::process::geteuid().is_root() && has_podman && address.ip().is_loopback() {
            let folder = Path::new(SYSTEM_DIR);
            remove_stale(folder);
            leave(named(folder, UP_PREFIX, address), &text(address, data));
        }
        Self { files }
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        for file in &self.files {
            let _gone = std::fs::remove_file(file);
        }
    }
}

/// Entries that Yadokari wrote, the user's first.
pub fn files_of_ours() -> Vec<PathBuf> {
    let ours = |file: &PathBuf| {
        let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with(NAME_PREFIX)
    };
    all_files().into_iter().filter(ours).collect()
}

/// Every file that tells Podman of registries, the user's first.
pub fn all_files() -> Vec<PathBuf> {
    let home = std::env::home_dir().unwrap_or_default();
    let own = folder(&home, false);
    let mut files: Vec<PathBuf> =
        own.parent().map(|dir| dir.join("registries.conf")).into_iter().collect();
    files.extend(configs(&own));
    files.extend(configs(Path::new(SYSTEM_DIR)));
    files.push(PathBuf::from(SYSTEM_FILE));
    files
}

fn configs(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|file| file.extension().is_some_and(|extension| extension == "conf"))
        .collect();
    files.sort();
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_written_once_and_names_its_instance() {
        let dir = tempfile::tempdir().expect("a directory");
        let address: SocketAddr = "127.0.0.1:5000".parse().expect("an address");
        let file = file(dir.path(), address);
        assert!(file.ends_with("yadokari-127.0.0.1-5000.conf"));
        let text = text(address, Path::new("/srv/data"));
        assert!(text.contains("/srv/data"));
        let doc: toml_edit::DocumentMut = text.parse().expect("TOML");
        let entry = doc["registry"].as_array_of_tables().and_then(|all| all.get(0));
        assert_eq!(entry.and_then(|e| e["location"].as_str()), Some("127.0.0.1:5000"));
        assert!(write(&file, &text).expect("written"));
        assert!(!write(&file, &text).expect("is there"));
        assert_eq!(configs(dir.path()), [file]);
    }

    #[test]
    fn what_a_killed_instance_left_is_taken_away_and_what_setup_wrote_is_not() {
        let dir = tempfile::tempdir().expect("a directory");
        let (lives, dead) = (dir.path().join("lives"), dir.path().join("dead"));
        let address: SocketAddr = "127.0.0.1:5000".parse().expect("an address");
        let other: SocketAddr = "127.0.0.1:5001".parse().expect("an address");
        write(&lives.join(RUNNING), &format!("{address}\n")).expect("written");
        for (file, data) in [
            (named(dir.path(), UP_PREFIX, address), &lives),
            (named(dir.path(), UP_PREFIX, other), &dead),
            (file(dir.path(), other), &dead),
        ] {
            let at = if data == &lives { address } else { other };
            write(&file, &text(at, data)).expect("written");
        }
        remove_stale(dir.path());
        let left = [file(dir.path(), other), named(dir.path(), UP_PREFIX, address)];
        assert_eq!(configs(dir.path()), left);
    }

    #[test]
    fn what_was_announced_is_gone_with_the_instance() {
        let dir = tempfile::tempdir().expect("a directory");
        // A public address is never told to Podman.
        let announced = Announced::new(dir.path(), "192.0.2.1:5000".parse().expect("is one"));
        assert_eq!(running(dir.path()).as_deref(), Some("192.0.2.1:5000"));
        assert_eq!(announced.files.len(), 1);
        drop(announced);
        assert_eq!(running(dir.path()), None);
    }
}
