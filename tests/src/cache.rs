//! What is costly to make (a base image, wheels, a toolchain) is made once and kept.
//!
//! It lies outside the build directory, under `/var/cache/yadokari-tests` or
//! `$YADOKARI_TEST_CACHE`, readable for all users, and is made whole or not at all.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{FlockOperation, flock};

/// The directory.
#[must_use]
pub fn dir() -> PathBuf {
    std::env::var_os("YADOKARI_TEST_CACHE")
        .map_or_else(|| PathBuf::from("/var/cache/yadokari-tests"), PathBuf::from)
}

/// The entry `name`; `make` fills the path that it is given when there is none yet.
///
/// # Errors
/// What `make` gave; nothing is kept then.
pub fn entry(name: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let dir = dir();
    std::fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o755))?;
    let lock = std::fs::File::create(dir.join(format!(".{name}.lock")))?;
    flock(&lock, FlockOperation::LockExclusive)?;
    let path = dir.join(name);
    if !path.exists() {
        let fresh = dir.join(format!(".{name}.new"));
        remove(&fresh)?;
        make(&fresh).with_context(|| format!("making {} for the tests", path.display()))?;
        std::fs::rename(&fresh, &path)?;
    }
    Ok(path)
}

fn remove(path: &Path) -> Result<()> {
    let Ok(meta) = path.symlink_metadata() else { return Ok(()) };
    let removed =
        if meta.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    Ok(removed?)
}
