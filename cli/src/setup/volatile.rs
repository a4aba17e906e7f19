//! Builds that need not sync each file: an answer that Podman before 4.6 does not find by itself.
//!
//! Podman mounts the overlays of a build, and of `run --rm`, as `volatile` where the kernel can,
//! so that nothing that may be thrown away is synced. Whether it can it tries once, and keeps the
//! answer as an empty file in its run directory. Before 4.6 (containers/storage 1.47) the trial
//! mount has no `userxattr`, and the kernel refuses that to users on every FUSE mount. The answer
//! is put there for it. It is gone with the run directory, at the user's last logout.
//!
//! Source: `drivers/overlay/check.go` and `overlay.go` of containers/storage 1.43.

use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Serialize;
use toml_edit::{DocumentMut, Item};

use super::storage;
use crate::doctor::run;

/// Asks rightly, since this version.
const PODMAN_ASKS: (u32, u32) = (4, 6);
/// Overlay mounts of users, and `volatile`, since this kernel.
const KERNEL_MIN: (u32, u32) = (5, 11);
/// For all users: their login shells give the answer.
const PROFILE: &str = "/etc/profile.d/yadokari-podman.sh";
const PROFILE_TEXT: &str = r#"# Written by `yadokari setup podman --system`. Podman before 4.6 does not find out that overlays
# in a home can be `volatile`, and its builds then sync each file that they copy. This is the
# answer, where Podman keeps it.
if [ -d "${XDG_RUNTIME_DIR:-}" ] && [ -O "$XDG_RUNTIME_DIR" ] && [ "$(id -u)" != 0 ]; then
    (umask 077 && mkdir -p "$XDG_RUNTIME_DIR/containers/overlay" &&
        : > "$XDG_RUNTIME_DIR/containers/overlay/volatile-true") 2> /dev/null || :
fi
"#;

/// What lets builds be volatile.
#[derive(Debug, Serialize)]
pub struct Answer {
    /// The file.
    pub file: PathBuf,
    /// It is there already.
    pub there: bool,
    /// It was written.
    pub written: bool,
}

/// Gives the answer for the user whose home is `home`, or has logins give it; nothing where
/// Podman asks rightly, the kernel is too old, or the user has no directory for a session.
///
/// # Errors
/// I/O.
pub fn set(home: &Path, system: bool, dry_run: bool) -> anyhow::Result<Option<Answer>> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let podman = run::ask("podman", &["--version"]).ok().filter(|said| said.success);
    let asks = podman.is_some_and(|said| run::version(&said.out) >= PODMAN_ASKS);
    if asks || run::version(&release) < KERNEL_MIN {
        return Ok(None);
    }
    let (file, text) = if system {
        (PathBuf::from(PROFILE), PROFILE_TEXT)
    } else if rustix::process::geteuid().is_root() {
        return Ok(None);
    } else {
        let Some(runs) = run_root(home) else { return Ok(None) };
        (runs.join("overlay/volatile-true"), "")
    };
    let there = std::fs::read_to_string(&file).is_ok_and(|old| old == text);
    let written = !there && !dry_run;
    if written {
        write(&file, text, system).with_context(|| format!("writing {}", file.display()))?;
    }
    Ok(Some(Answer { file, there, written }))
}

/// Where Podman keeps what ends with the session; nothing where that is not known.
fn run_root(home: &Path) -> Option<PathBuf> {
    let text = std::fs::read_to_string(storage::user_file(home)).unwrap_or_default();
    if let Some(said) = text.parse().ok().and_then(|doc| said_run_root(&doc)) {
        return Some(said);
    }
    let uid = rustix::process::geteuid().as_raw();
    let said = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|p| p.is_absolute());
    let session = said.unwrap_or_else(|| PathBuf::from(format!("/run/user/{uid}")));
    let is_theirs = std::fs::metadata(&session).is_ok_and(|m| m.is_dir() && m.uid() == uid);
    is_theirs.then(|| session.join("containers"))
}

fn said_run_root(doc: &DocumentMut) -> Option<PathBuf> {
    let said = doc.get("storage")?.get("runroot").and_then(Item::as_str)?;
    Some(PathBuf::from(said)).filter(|path| path.is_absolute())
}

fn write(file: &Path, text: &str, for_all: bool) -> std::io::Result<()> {
    let dir = file.parent().unwrap_or(Path::new("/"));
    let mode = if for_all { 0o755 } else { 0o700 };
    std::fs::DirBuilder::new().recursive(true).mode(mode).create(dir)?;
    std::fs::write(file, text)
}

/// The answer for people.
pub fn show(answer: &Answer) -> String {
    let file = answer.file.display();
    let verb = match (answer.there, answer.written) {
        (true, _) => "is there already",
        (false, true) => "written",
        (false, false) => "would be written",
    };
    let until = if answer.file == Path::new(PROFILE) {
        "for everybody who logs in from now on"
    } else {
        "until the last logout (for good: sudo yadokari setup podman --system)"
    };
    format!("{file}: {verb}, so that builds need not sync each file, {until}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_root_is_taken_where_it_is_a_path() {
        let of = |text: &str| said_run_root(&text.parse().expect("TOML"));
        assert_eq!(of("[storage]\nrunroot = \"/r\"\n"), Some(PathBuf::from("/r")));
        assert_eq!(of("[storage]\nrunroot = \"\"\n"), None);
        assert_eq!(of("[storage]\n"), None);
        assert_eq!(of(""), None);
    }

    #[test]
    fn an_answer_is_written_with_its_directories_for_its_owner_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("containers/overlay/volatile-true");
        write(&file, "", false).expect("written");
        write(&file, "", false).expect("written again");
        let mode = std::fs::metadata(dir.path().join("containers")).expect("there").mode();
        assert_eq!(mode & 0o777, 0o700);
    }
}
