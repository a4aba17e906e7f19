//! Builds that need not sync each file: an answer that Podman before 4.6 does not find by itself.
//!
//! Podman mounts the overlays of a build, and of `run --rm`, as `volatile` where the kernel can,
//! so that nothing that may be thrown away is synced. Whether it can it tries once, and keeps the
//! answer as an empty file in its run directory. Before 4.6 (containers/storage 1.47) the trial
//! mount has no `userxattr`, and the kernel refuses that to users on every FUSE mount. The answer
//! is put there for it. It is gone with the run directory, mostly at the user's last logout.
//!
//! Source: `drivers/overlay/check.go` and `overlay.go` of containers/storage 1.43.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::file;
use crate::doctor::KERNEL_FOR_NATIVE_OVERLAY;
use crate::program;

/// Asks rightly, since this version.
const PODMAN_ASKS: (u32, u32) = (4, 6);
/// In Podman's run directory.
const FILE: &str = "overlay/volatile-true";
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
#[derive(Debug, Default, Serialize)]
pub struct Answer {
    /// The file; nothing where Podman was not asked for it, or did not say.
    pub file: Option<PathBuf>,
    /// It is there already.
    pub there: bool,
    /// It was written.
    pub written: bool,
    /// Why it could not be written.
    pub error: Option<String>,
}

/// Gives the answer for the caller, or has logins give it; nothing where Podman asks rightly or
/// is not there, the kernel is too old, or root calls for itself. To be called when storage.conf is written: Podman
/// makes its directories when it is asked for one. For a `dry_run` it is therefore not asked.
pub fn set(system: bool, dry_run: bool) -> Option<Answer> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let podman = program::ask("podman", &["--version"]).ok().filter(|said| said.success)?;
    let asks = program::version(&podman.out) >= PODMAN_ASKS;
    if asks || program::version(&release) < KERNEL_FOR_NATIVE_OVERLAY {
        return None;
    }
    if system {
        return Some(put(Path::new(PROFILE), PROFILE_TEXT, dry_run));
    }
    if rustix::process::geteuid().is_root() {
        return None;
    }
    if dry_run {
        return Some(Answer::default());
    }
    Some(match run_root() {
        Ok(root) => put(&root.join(FILE), "", false),
        Err(why) => Answer { error: Some(why), ..Answer::default() },
    })
}

/// Where Podman keeps what ends with the session: settings, its database and the environment have
/// a say in that, so it is asked.
fn run_root() -> Result<PathBuf, String> {
    let said = program::ask("podman", &["info", "--format", "{{.Store.RunRoot}}"])?;
    let root = PathBuf::from(&said.out);
    if said.success && root.is_absolute() {
        return Ok(root);
    }
    Err(format!("podman info: {}", said.err.lines().last().unwrap_or("no directory")))
}

fn put(file: &Path, text: &str, dry_run: bool) -> Answer {
    let there = std::fs::read_to_string(file).is_ok_and(|old| old == text);
    let done = if there || dry_run { None } else { Some(file::replace(file, text, true)) };
    Answer {
        file: Some(file.to_owned()),
        there,
        written: matches!(done, Some(Ok(()))),
        error: done.and_then(Result::err).map(|error| format!("{error:#}")),
    }
}

/// The answer for people.
pub fn show(answer: &Answer) -> String {
    if let Some(why) = &answer.error {
        return format!("builds will sync each file, which takes longer: {why}\n");
    }
    let verb = match (answer.there, answer.written) {
        (true, _) => "is there already",
        (false, true) => "written",
        (false, false) => "would be written",
    };
    let Some(file) = &answer.file else {
        return format!(
            "{FILE} in Podman's run directory: {verb}, so that builds need not sync each file\n"
        );
    };
    let until = if file == Path::new(PROFILE) {
        "in sessions that begin with a login shell"
    } else {
        "until your last logout (at every login: sudo yadokari setup podman --system)"
    };
    format!("{}: {verb}, so that builds need not sync each file, {until}\n", file.display())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    use super::*;

    #[test]
    fn an_answer_is_written_once_and_a_failure_is_told() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("containers").join(FILE);
        assert!(!put(&file, "", true).written);
        assert!(!file.exists());
        assert!(put(&file, "", false).written);
        let again = put(&file, "", false);
        assert!(again.there && !again.written);

        let under_a_file = put(&file.join("x"), "", false);
        assert!(!under_a_file.written);
        assert!(show(&under_a_file).contains("volatile-true"), "{}", show(&under_a_file));
    }

    /// In a user namespace where the caller is nobody; then as who calls, whom it leaves alone if
    /// that is root.
    #[test]
    fn the_script_of_logins_gives_the_answer_to_users() {
        let dir = tempfile::tempdir().expect("a directory");
        let script = dir.path().join("script.sh");
        std::fs::write(&script, PROFILE_TEXT).expect("written");
        let session = dir.path().join("session");
        std::fs::create_dir(&session).expect("made");
        let run = |program: &[&str], session: &Path| {
            let mut command = Command::new(program[0]);
            command.args(&program[1..]).arg(&script).env("XDG_RUNTIME_DIR", session);
            let said = command.output().expect("it runs");
            assert!(said.status.success() && said.stderr.is_empty(), "{said:?}");
        };
        let is_root = rustix::process::geteuid().is_root();
        run(&["sh", "-eu"], &session);
        assert_eq!(session.join("containers").join(FILE).exists(), !is_root);
        run(&["unshare", "--user", "sh", "-eu"], &dir.path().join("none"));
        run(&["unshare", "--user", "sh", "-eu"], &session);
        assert!(session.join("containers").join(FILE).exists());
        let mode = session.join("containers").metadata().expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }
}
