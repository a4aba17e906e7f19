//! What a FUSE mount needs.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::{Finding, Subject};
use crate::program;

const DEVICE: &str = "/dev/fuse";

/// Can the device be opened, by those who will?
pub fn device(subject: &Subject) -> Finding {
    let check = "/dev/fuse";
    let opened = fs::OpenOptions::new().read(true).write(true).open(DEVICE);
    if let Err(error) = opened {
        let remedy = match error.kind() {
            std::io::ErrorKind::NotFound => {
                "as root: modprobe fuse (in a container: --device /dev/fuse)"
            }
            std::io::ErrorKind::PermissionDenied => "as root: chmod 666 /dev/fuse",
            _ => "as root: modprobe fuse",
        };
        return Finding::fail(check, error.to_string(), remedy);
    }
    let mode = fs::metadata(DEVICE).map_or(0, |meta| meta.permissions().mode());
    if subject.is_root() && mode & 0o006 != 0o006 {
        let remedy = "as root: chmod 666 /dev/fuse";
        return Finding::warn(check, "usable by root, not by users (`yadokari mount`)", remedy);
    }
    Finding::ok(check, "usable")
}

/// Is the helper there that lets users mount?
pub fn fusermount(subject: &Subject) -> Finding {
    let check = "fusermount3";
    let install = "install the package fuse3";
    let Some(file) = program::find("fusermount3") else {
        let detail = "not installed: users cannot mount";
        return if subject.is_root() {
            Finding::warn(check, detail, install)
        } else {
            Finding::fail(check, detail, install)
        };
    };
    let setuid = fs::metadata(&file).is_ok_and(|m| m.uid() == 0 && m.mode() & 0o4000 != 0);
    if setuid {
        return Finding::ok(check, file.display().to_string());
    }
    let remedy = format!("as root: chmod u+s {}", file.display());
    Finding::warn(check, format!("{} is not set-uid root", file.display()), remedy)
}

/// May a user's mount be shown to others, subordinate ids included?
pub fn allow_other(subject: &Subject) -> Finding {
    let check = "user_allow_other";
    let text = fs::read_to_string("/etc/fuse.conf").unwrap_or_default();
    if text.lines().any(|line| line.trim() == "user_allow_other") {
        return Finding::ok(check, "set in /etc/fuse.conf");
    }
    let remedy = "as root: echo user_allow_other >> /etc/fuse.conf";
    if subject.is_root() {
        let detail = "not set: mounts made by users hide their files from their containers";
        return Finding::warn(check, detail, remedy);
    }
    let detail = "not set: a home that you mount yourself is hidden from your containers";
    Finding::warn(check, detail, remedy)
}

/// Do mounts that change here change for containers that run already?
pub fn propagation() -> Finding {
    let check = "mount propagation";
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    if is_root_shared(&mounts) {
        return Finding::ok(check, "/ is shared");
    }
    let detail = "/ is not shared: containers and Podman sessions that run while the daemon starts \
                  anew keep the mount of the one before";
    let remedy = "as root: mount --make-rshared / (systemd does it at boot)\n\
                  or after a start of the daemon, as each user: podman system migrate";
    Finding::warn(check, detail, remedy)
}

/// The optional fields of mountinfo (proc(5)) stand between the options and a dash.
fn is_root_shared(mounts: &str) -> bool {
    let fields = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let root = mounts.lines().map(fields).rfind(|f| f.get(4).is_some_and(|point| point == "/"));
    let optional = root.iter().flat_map(|f| f.iter().skip(6)).take_while(|f| *f != "-");
    optional.into_iter().any(|field| field.starts_with("shared:"))
}

#[cfg(test)]
mod tests {
    use super::is_root_shared;

    #[test]
    fn only_a_shared_root_is_shared() {
        let shared = "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
                      30 22 0:25 / /run rw shared:5 - tmpfs tmpfs rw";
        assert!(is_root_shared(shared));
        assert!(!is_root_shared(&shared.replace(" shared:1", "")));
        assert!(!is_root_shared(&shared.replace("shared:1", "master:1")));
        assert!(!is_root_shared(""));
    }
}
