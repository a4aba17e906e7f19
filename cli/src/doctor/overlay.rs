//! Mounts a native overlay in a user namespace, as rootless Podman does, and deletes through it.

use std::path::{Path, PathBuf};

use super::{Finding, Subject};
use crate::program;

/// What runs inside the namespace: `$1` is the scratch directory.
const SCRIPT: &str = "set -e; cd \"$1\"; mkdir lower upper work merged; echo x > lower/file; \
    mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work,userxattr merged; \
    rm merged/file; test -c upper/file; echo y > merged/file; umount merged";

/// Does it work where the caller's files are?
pub fn native(subject: &Subject) -> Finding {
    let check = "native overlay";
    let place = place(subject);
    let scratch = place.join(format!(".yadokari-doctor-{}", std::process::id()));
    if let Err(error) = std::fs::create_dir(&scratch) {
        let detail = format!("not tried, {} takes no directory: {error}", place.display());
        return Finding::warn(check, detail, "run doctor as a user, in a directory of theirs");
    }
    let dir = scratch.to_string_lossy().into_owned();
    let arguments =
        ["--user", "--map-root-user", "--mount", "sh", "-c", SCRIPT, "sh", dir.as_str()];
    let said = program::ask("unshare", &arguments);
    let removed = std::fs::remove_dir_all(&scratch);
    let shown = place.display();
    let remedy = "needs Linux 5.13 and user namespaces for users; in a home on this mount, please \
                  report it with the last lines of `dmesg`";
    match (said, removed) {
        (Ok(said), _) if !said.success => {
            let last = said.err.lines().last().unwrap_or("no message").to_owned();
            Finding::warn(check, format!("in {shown}: {last}"), remedy)
        }
        (Err(why), _) => Finding::warn(check, format!("not tried: {why}"), "install util-linux"),
        (Ok(_), Err(error)) => {
            let detail = format!("works in {shown}, but {dir} is left over: {error}");
            Finding::warn(check, detail, format!("rm -rf {dir}"))
        }
        (Ok(_), Ok(())) => Finding::ok(check, format!("works in {shown}")),
    }
}

/// A user's home; root has no containers in a home of their own, so the nearest data directory.
fn place(subject: &Subject) -> PathBuf {
    if !subject.is_root() {
        return subject.home.clone();
    }
    let mut up = subject.settings.data.ancestors();
    up.find(|dir| dir.is_dir()).unwrap_or_else(|| Path::new("/tmp")).to_owned()
}
