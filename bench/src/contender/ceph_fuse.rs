//! ceph-fuse on CephFS of the cluster that keeps our objects too.
//!
//! With the kernel's own permission check: ceph-fuse's knows no user namespaces, and rootless
//! containers fail on it outright.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::Contender;
use super::daemon::{Daemon, Ready};

/// A mount that is served.
#[derive(Debug)]
pub struct CephFuse {
    dir: PathBuf,
    homes: PathBuf,
    conf: PathBuf,
    daemon: Option<Daemon>,
}

impl CephFuse {
    /// Mounts the cluster's file system.
    ///
    /// # Errors
    /// With what ceph-fuse said.
    pub fn start(dir: &Path, conf: &Path) -> Result<Self> {
        let homes = dir.join("homes");
        std::fs::create_dir_all(&homes)?;
        let mut this = Self { dir: dir.into(), homes, conf: conf.into(), daemon: None };
        this.run()?;
        std::fs::set_permissions(&this.homes, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        Ok(this)
    }

    fn run(&mut self) -> Result<()> {
        let mut command = Command::new("ceph-fuse");
        command.args(["-f", "--id", "admin", "-c"]).arg(&self.conf);
        command.args(["--client_permissions=false", "--fuse_default_permissions=true"]);
        command.arg(&self.homes);
        let log = self.dir.join("log");
        self.daemon = Some(Daemon::start(command, &self.homes, &log, Ready::Mounted)?);
        Ok(())
    }
}

impl Contender for CephFuse {
    fn name(&self) -> &str {
        "ceph-fuse"
    }

    fn homes(&self) -> &Path {
        &self.homes
    }

    fn pids(&self) -> Vec<u32> {
        self.daemon.iter().map(Daemon::pid).collect()
    }

    fn settle(&mut self) -> Result<()> {
        let dir = std::fs::File::open(&self.homes)?;
        rustix::fs::syncfs(&dir).context("syncfs")
    }

    fn restart(&mut self) -> Result<()> {
        self.daemon.take().context("the daemon runs")?.stop(true)?;
        self.run()
    }
}
