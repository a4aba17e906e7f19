//! The floor: a file system on a plain transport (the `fuser` crate, as most Rust file systems use
//! it: threads that sleep in `read`, each with a connection of its own), with the same requests of
//! the kernel's and the same options of the mount as a home, that answers from a hash map and does
//! nothing else. What the floor takes beyond a local disk is the cost of plain FUSE; what a home
//! takes beyond it is the home's own cost, less what the home's own request loop saves.

mod filesystem;
mod tree;

use std::path::Path;

use anyhow::{Context, Result};
use fuser::SessionACL;
use yadokari_fs::fuse::{self, Access, MountPoint};
use yadokari_fs::view::Form;

pub use filesystem::Floor;

/// Serves an empty file system at `point` until it is unmounted. Says `ready` on standard output.
///
/// # Errors
/// Where it cannot be mounted or served.
pub fn serve(point: &Path, form: Form, threads: usize) -> Result<()> {
    let point = MountPoint::prepare(point, false)?;
    let device = point.mount(Access::All)?;
    let floor = Floor::new(form);
    let mut config = fuser::Config::default();
    config.n_threads = Some(threads.max(1));
    config.clone_fd = true;
    let session = fuser::Session::from_fd(floor, device, SessionACL::All, config)?;
    let path = point.path().to_owned();
    let loops = std::thread::spawn(move || session.run());
    fuse::raise_read_ahead(&path);
    println!("ready {}", path.display());
    loops.join().ok().context("an event loop panicked")?.context("serving the floor")
}
