//! Rootless Podman, Buildah and Skopeo as a plain user, and an image to start from.
//!
//! The machine's own settings are used as they are, except where a machine for tests differs from
//! a usual one: `runc`, `cgroupfs` and builds in a chroot, since `crun` and systemd's cgroups do
//! not work on every layout of cgroups that tests meet. All that a user leaves outside of the home
//! goes when the [`Podman`] is dropped.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::instance::{Instance, is_plain};
use crate::process::{self, Said};
use crate::user::User;
use crate::{cache, wait};

/// Programs that are asked for, and Debian's packages that have them.
const PROGRAMS: [(&str, &str); 9] = [
    ("podman", "podman"),
    ("runc", "runc"),
    ("conmon", "conmon"),
    ("slirp4netns", "slirp4netns"),
    ("newuidmap", "uidmap"),
    ("buildah", "buildah"),
    ("skopeo", "skopeo"),
    ("debootstrap", "debootstrap"),
    ("setpriv", "util-linux"),
];
/// Devices that plain users must be able to open for reading and writing.
const DEVICES: [&str; 2] = ["/dev/fuse", "/dev/net/tun"];
/// debootstrap on a slow line.
const BASE_TIME_MAX: Duration = Duration::from_secs(1800);
/// `kill` returns before the processes are gone.
const GONE_MAX: Duration = Duration::from_secs(10);

/// Names that every script has: the programs with what a machine for tests needs.
const FUNCTIONS: &str = "
podman() { command podman --runtime runc --cgroup-manager=cgroupfs \"$@\"; }
build() { podman build --isolation=chroot \"$@\"; }
bud() { command buildah bud --isolation=chroot \"$@\"; }
";

/// A user's Podman.
#[derive(Debug)]
pub struct Podman<'a> {
    user: &'a User,
}

impl<'a> Podman<'a> {
    /// Checks what is needed and has `yadokari setup podman` write the user's storage.conf.
    ///
    /// # Errors
    /// What is missing, with the package that has it; what the setup said.
    pub fn set_up(instance: &Instance, user: &'a User) -> Result<Self> {
        require()?;
        let podman = Self { user };
        if is_plain() {
            user.sh(
                "mkdir -p .config/containers && printf '[storage]\\ndriver = \"overlay\"\\n' \
                 > .config/containers/storage.conf",
            )?;
            return Ok(podman);
        }
        let program = instance.users_program()?;
        process::ok(user.command(&program.display().to_string()).args(["setup", "podman"]))?;
        Ok(podman)
    }

    /// Runs a script as the user; `podman`, `build` and `bud` are functions with what the machine
    /// needs. Gives standard output.
    ///
    /// # Errors
    /// Any exit code but 0.
    pub fn sh(&self, script: &str) -> Result<String> {
        self.user.sh(&format!("{FUNCTIONS}{script}"))
    }

    /// As [`Self::sh`], whatever it says.
    ///
    /// # Errors
    /// When it does not end.
    pub fn try_sh(&self, script: &str) -> Result<Said> {
        self.user.try_sh(&format!("{FUNCTIONS}{script}"))
    }

    /// Imports [`base`] as `localhost/base`; gives how long that took.
    ///
    /// # Errors
    /// What Podman said.
    pub fn import_base(&self) -> Result<Duration> {
        let base = base()?;
        let started = Instant::now();
        self.sh(&format!("podman import -q {} localhost/base", base.display()))?;
        Ok(started.elapsed())
    }
}

impl Drop for Podman<'_> {
    fn drop(&mut self) {
        // The process that holds the user's namespaces keeps the mounts in them, and the home, busy.
        let uid = self.user.uid;
        let _ = wait::until("the end of the user's processes", GONE_MAX, || {
            self.user.end_processes();
            process::sh(&format!("! pgrep -U {uid}")).ok()
        });
        let _ = std::fs::remove_file(format!("/dev/shm/libpod_rootless_lock_{uid}"));
        for dir in ["/tmp", "/var/tmp"] {
            let _ = process::sh(&format!(
                "find {dir} -maxdepth 1 -xdev -uid {uid} ! -name 'run-*' -exec rm -rf {{}} +"
            ));
        }
    }
}

/// A tar of a minimal Debian, made once.
///
/// # Errors
/// When debootstrap cannot make it; it needs a Debian mirror.
pub fn base() -> Result<PathBuf> {
    cache::entry("debian-bookworm-minbase.tar", make_base)
}

fn make_base(tar: &Path) -> Result<()> {
    eprintln!("making a base image with debootstrap, once: some minutes");
    let beside = tar.parent().context("lies in the cache")?;
    let tree = tempfile::Builder::new().prefix(".bookworm-").tempdir_in(beside)?;
    let root = tree.path().join("root");
    let mut command = Command::new("debootstrap");
    command.args(["--variant=minbase", "bookworm"]).arg(&root);
    let said = process::run_within(&mut command, BASE_TIME_MAX)?;
    if said.code != 0 {
        bail!("debootstrap ended with {}:\n{}{}", said.code, process::tail(&said.out), said.err);
    }
    let mut command = Command::new("tar");
    command.arg("-C").arg(&root).args(["--numeric-owner", "--exclude=./dev/*"]);
    command.args(["--exclude=./var/cache/apt/archives/*.deb", "-cf"]).arg(tar).arg(".");
    process::ok(&mut command)?;
    Ok(std::fs::set_permissions(tar, std::fs::Permissions::from_mode(0o644))?)
}

fn require() -> Result<()> {
    for (program, package) in PROGRAMS {
        // conmon and others may lie beside Podman's own helpers.
        let found = process::sh(&format!(
            "PATH=$PATH:/usr/sbin:/usr/lib/podman:/usr/libexec/podman command -v {program}"
        ));
        ensure!(found.is_ok(), "{program} is missing: install the package {package}");
    }
    for device in DEVICES {
        let meta = std::fs::metadata(device)
            .with_context(|| format!("{device} is missing: modprobe its module (fuse, tun)"))?;
        ensure!(
            meta.permissions().mode() & 0o666 == 0o666,
            "plain users cannot open {device}: chmod 666 {device}"
        );
    }
    Ok(())
}
