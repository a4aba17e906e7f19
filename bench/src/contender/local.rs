//! File systems of the kernel's own: ext4 and tmpfs.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use yadokari_tests::process;

use super::Contender;

/// Room for everything that workloads write.
const LOOP_BYTES: &str = "24G";

/// A directory on a local file system.
#[derive(Debug)]
pub struct Local {
    name: &'static str,
    homes: PathBuf,
    mounted: bool,
}

impl Local {
    /// A directory of the machine's ext4; a loop file with an ext4 in it where it has another.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub fn ext4(dir: &Path) -> Result<Self> {
        let homes = dir.join("homes");
        std::fs::create_dir_all(&homes)?;
        let fstype = process::sh(&format!("stat -f -c %T {}", homes.display()))?;
        let mounted = !fstype.trim().starts_with("ext");
        if mounted {
            process::sh(&format!(
                "truncate -s {LOOP_BYTES} {0}/ext4; mkfs.ext4 -q -F {0}/ext4; \
                 mount -o loop {0}/ext4 {0}/homes",
                dir.display()
            ))
            .context("an ext4 in a loop file")?;
        }
        Ok(Self { name: "ext4", homes, mounted })
    }

    /// A tmpfs.
    ///
    /// # Errors
    /// Where it cannot be mounted.
    pub fn tmpfs(dir: &Path) -> Result<Self> {
        let homes = dir.join("homes");
        std::fs::create_dir_all(&homes)?;
        process::sh(&format!("mount -t tmpfs -o size=80% tmpfs {}", homes.display()))?;
        Ok(Self { name: "tmpfs", homes, mounted: true })
    }
}

impl Contender for Local {
    fn name(&self) -> &str {
        self.name
    }

    fn homes(&self) -> &Path {
        &self.homes
    }

    fn pids(&self) -> Vec<u32> {
        Vec::new()
    }

    fn settle(&mut self) -> Result<()> {
        let dir = std::fs::File::open(&self.homes)?;
        rustix::fs::syncfs(&dir).context("syncfs")
    }

    fn restart(&mut self) -> Result<()> {
        Ok(())
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        if self.mounted {
            let _ = process::sh(&format!("umount -l {}", self.homes.display()));
        }
    }
}
