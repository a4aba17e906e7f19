//! What is measured side by side. Each serves a directory in which users have homes.

mod ceph_fuse;
mod daemon;
mod floor;
mod foreign;
mod juicefs;
mod local;
pub mod ours;

use std::path::Path;

use anyhow::{Result, bail};
use yadokari_fs::view::Form;
use yadokari_tests::ceph::Ceph;
use yadokari_tests::user::User;

pub use ours::program as our_program;

/// A file system that runs.
pub trait Contender {
    /// As in tables.
    fn name(&self) -> &str;

    /// Where homes lie.
    fn homes(&self) -> &Path;

    /// Processes that serve it; none of the kernel's own.
    fn pids(&self) -> Vec<u32>;

    /// A new user with a home.
    ///
    /// # Errors
    /// When it cannot be made.
    fn user(&self) -> Result<User> {
        let user = User::create(self.homes())?;
        user.make_plain_home()?;
        Ok(user)
    }

    /// Writes out everything that is left to be written.
    ///
    /// # Errors
    /// What the contender said.
    fn settle(&mut self) -> Result<()>;

    /// Stops the daemon in order and starts it again; nothing where there is none.
    ///
    /// # Errors
    /// What the contender said.
    fn restart(&mut self) -> Result<()>;
}

/// All that can be asked for, in the order of tables.
pub const NAMES: [&str; 10] = [
    "ext4",
    "tmpfs",
    "floor",
    "floor-node",
    "ours-file",
    "ours-rados",
    "ours-file-node",
    "ours-rados-node",
    "ceph-fuse",
    "juicefs",
];

/// Starts one. `None` where the machine has no such program, which is then said in the results.
///
/// # Errors
/// What went wrong.
pub fn start(name: &str, beside: &Path, ceph: Option<&Ceph>) -> Result<Option<Box<dyn Contender>>> {
    let dir = beside.join(name);
    std::fs::create_dir_all(&dir)?;
    let url = |space: &str| match ceph {
        Some(ceph) => Ok(ceph.url(space)),
        None => bail!("{space} needs the Ceph cluster"),
    };
    let file = || format!("file://{}", dir.join("store").display());
    Ok(Some(match name {
        "ext4" => Box::new(local::Local::ext4(&dir)?),
        "tmpfs" => Box::new(local::Local::tmpfs(&dir)?),
        "floor" => Box::new(floor::Floor::start(name, &dir, Form::Local)?),
        "floor-node" => Box::new(floor::Floor::start(name, &dir, Form::Shared)?),
        "ours-file" => Box::new(ours::Ours::start(name, &dir, file(), Form::Local)?),
        "ours-rados" => Box::new(ours::Ours::start(name, &dir, url(name)?, Form::Local)?),
        "ours-file-node" => Box::new(ours::Ours::start(name, &dir, file(), Form::Shared)?),
        "ours-rados-node" => Box::new(ours::Ours::start(name, &dir, url(name)?, Form::Shared)?),
        "ceph-fuse" => match ceph {
            Some(ceph) => Box::new(ceph_fuse::start(&dir, &ceph.conf())?),
            None => bail!("ceph-fuse needs the Ceph cluster"),
        },
        "juicefs" => match juicefs::start(&dir)? {
            Some(juicefs) => Box::new(juicefs),
            None => return Ok(None),
        },
        other => bail!("there is no contender {other:?}; there are {}", NAMES.join(", ")),
    }))
}

/// Whether one needs the Ceph cluster.
pub fn needs_ceph(name: &str) -> bool {
    name.contains("rados") || name.contains("ceph")
}
