//! Rootless Podman of a test user: a base image without a registry, and one way to call it.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::instance::Instance;
use crate::user::User;
use crate::{cache, process};

/// A minimal Debian as a tar, made once by debootstrap.
///
/// # Errors
/// When debootstrap fails.
pub fn base_image() -> Result<PathBuf> {
    cache::entry("debian-bookworm-minbase.tar", |tar| {
        let tree = tar.with_extension("tree");
        let (tar, tree) = (tar.display(), tree.display());
        process::sh(&format!(
            "rm -rf --one-file-system {tree}; debootstrap --variant=minbase bookworm {tree}; \
             tar -C {tree} --exclude=./var/cache/apt/archives/*.deb -cf {tar} .; \
             chmod 644 {tar}; rm -rf --one-file-system {tree}"
        ))
        .map(drop)
    })
}

/// Makes Podman of `user` ready: `yadokari setup podman`, and a runtime that every cgroup layout
/// takes (crun refuses some hybrid ones).
///
/// # Errors
/// When the setup fails.
pub fn set_up(instance: &Instance, user: &User) -> Result<()> {
    let program = program_for_users(instance)?;
    user.sh(&format!(
        "{} setup podman\n\
         cat > ~/.config/containers/containers.conf <<'TOML'\n\
         [engine]\nruntime = \"runc\"\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"none\"\n\
         [containers]\nlog_driver = \"k8s-file\"\n\
         TOML\n\
         podman import --quiet {} base >/dev/null",
        program.display(),
        base_image()?.display()
    ))
    .map(drop)
}

/// A copy of the program under test that plain users can reach: the build directory may lie in
/// a directory of root's.
///
/// # Errors
/// When it cannot be copied.
pub fn program_for_users(instance: &Instance) -> Result<PathBuf> {
    let copy = instance.beside().join("yadokari");
    if !Path::exists(&copy) {
        std::fs::copy(crate::instance::binary(), &copy)?;
    }
    Ok(copy)
}
