//! ceph-fuse on CephFS of the cluster that keeps our objects too.
//!
//! With the kernel's own permission check: ceph-fuse's knows no user namespaces, and rootless
//! containers fail on it outright.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::Result;

use super::Contender;
use super::foreign::Foreign;

/// Mounts the cluster's file system.
///
/// # Errors
/// With what ceph-fuse said.
pub fn start(dir: &Path, conf: &Path) -> Result<Foreign> {
    let conf = conf.display().to_string();
    let words = ["ceph-fuse", "-f", "--id", "admin", "-c", &conf]
        .into_iter()
        .chain(["--client_permissions=false", "--fuse_default_permissions=true"])
        .map(str::to_owned)
        .collect();
    let this = Foreign::start("ceph-fuse", dir, words, None)?;
    std::fs::set_permissions(this.homes(), PermissionsExt::from_mode(0o755))?;
    Ok(this)
}
