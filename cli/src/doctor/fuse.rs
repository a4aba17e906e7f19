//! What a FUSE mount needs.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::{Finding, Subject, run};

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
    let Some(file) = run::find("fusermount3") else {
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
