//! The machine itself: kernel, clock, limits, the data directory.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use super::{Finding, Subject};
use crate::program;
use crate::size::{show_bytes, show_count};

/// Overlay mounts in a user namespace with `user.*` marks, since this kernel.
pub const KERNEL_FOR_NATIVE_OVERLAY: (u32, u32) = (5, 13);
/// RENAME_WHITEOUT over FUSE, max_pages and what else the mount asks for, since this kernel.
const KERNEL_MIN: (u32, u32) = (5, 4);
/// Kernel that answers statx, killpriv v2 and no-opendir the way the fast paths use them.
const OPEN_FILES_MIN: u64 = 16_384;
/// 2024-01-01; a clock before it was never set.
const CLOCK_MIN_S: u64 = 1_704_067_200;
/// Less free space than this is worth a word.
const FREE_BYTES_MIN: u64 = 1 << 30;

/// Is the kernel new enough?
pub fn kernel() -> Finding {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let version = program::version(&release);
    let namespaces = read_number("/proc/sys/user/max_user_namespaces").unwrap_or(0);
    let unprivileged = read_number("/proc/sys/kernel/unprivileged_userns_clone").unwrap_or(1);
    if version < KERNEL_MIN {
        return Finding::fail("kernel", format!("Linux {release}"), "install Linux 5.4 or newer");
    }
    if version < KERNEL_FOR_NATIVE_OVERLAY {
        let remedy = "install Linux 5.13 or newer: rootless Podman cannot mount overlay before";
        return Finding::warn("kernel", format!("Linux {release}"), remedy);
    }
    if namespaces == 0 || unprivileged == 0 {
        let remedy = "as root: sysctl -w user.max_user_namespaces=15000 \
                      kernel.unprivileged_userns_clone=1 (and in /etc/sysctl.d)";
        let detail = format!("Linux {release}, but users may not make user namespaces");
        return Finding::warn("kernel", detail, remedy);
    }
    Finding::ok("kernel", format!("Linux {release}"))
}

/// Is the clock set?
pub fn clock() -> Finding {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    if now < CLOCK_MIN_S {
        let remedy = "set the clock, and install chrony or enable systemd-timesyncd";
        return Finding::fail("clock", "the clock was never set", remedy);
    }
    let synchronized = program::ask("timedatectl", &["show", "-p", "NTPSynchronized", "--value"]);
    match synchronized {
        Ok(said) if said.success && said.out == "yes" => Finding::ok("clock", "synchronized"),
        Ok(said) if said.success && said.out == "no" => Finding::warn(
            "clock",
            "not synchronized: nodes would disagree about times of files and owners",
            "install chrony or enable systemd-timesyncd",
        ),
        _ => Finding::ok("clock", "plausible (nobody here knows whether it is synchronized)"),
    }
}

/// May the daemon open enough files?
pub fn open_files() -> Finding {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let most = limit.maximum.unwrap_or(u64::MAX);
    if most < OPEN_FILES_MIN {
        let remedy = "raise it: LimitNOFILE=65536 in the unit, or nofile in limits.conf";
        let detail = format!("at most {} open files", show_count(most));
        return Finding::warn("open files", detail, remedy);
    }
    Finding::ok("open files", format!("at most {}", show_count(most)))
}

/// Can state be kept, and is there room?
pub fn data_directory(subject: &Subject) -> Finding {
    let data = &subject.settings.data;
    let shown = data.display();
    let Some(there) = data.ancestors().find(|dir| dir.exists()) else {
        return Finding::fail("data directory", format!("{shown}: no such path"), "use --data DIR");
    };
    if rustix::fs::access(there, rustix::fs::Access::WRITE_OK).is_err() {
        let who = subject.user.as_deref().unwrap_or("this user");
        let detail = format!("{}: not writable by {who}", there.display());
        return Finding::fail("data directory", detail, "run as its owner, or use --data DIR");
    }
    let free = rustix::fs::statvfs(there).map_or(0, |s| s.f_bavail.saturating_mul(s.f_frsize));
    let detail = format!("{shown}, {} free{}", show_bytes(free), served(subject));
    if free < FREE_BYTES_MIN {
        return Finding::warn("data directory", detail, "make room, or use --data DIR");
    }
    Finding::ok("data directory", detail)
}

/// Who holds it.
fn served(subject: &Subject) -> String {
    match crate::instance::holder(&subject.settings) {
        Some(pid) => format!(", held by the running instance (process {pid})"),
        None => String::new(),
    }
}

fn read_number(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}
