//! The kernel side: FUSE over `/dev/fuse`, by the `fuser` crate.
//!
//! This folder is the only place that names `fuser`. It decodes requests, runs them against a
//! [`crate::view::View`] and replies; everything else lies behind that border, so that another
//! transport (FUSE over io_uring) can take its place.

mod adapter;
mod ask;
mod attr;
mod errno;
mod mount;
mod mountinfo;
mod serve;
mod session;

pub use ask::{ask_kernel, session_config};
pub use mount::{
    Access, FSTYPE, MountError, MountPoint, ours_at, raise_read_ahead, receive_fd, unmount,
};
pub use mountinfo::{Mounted, resolve};
pub use serve::Runner;
pub use session::{Invalidations, Session};
