//! The kernel side: FUSE over `/dev/fuse`.
//!
//! This folder is the only place that knows the protocol. It decodes requests, runs them against a
//! [`crate::view::View`] and replies; everything else lies behind that border. Within it, only
//! [`device`] and [`event_loop`] know how requests travel: another transport (FUSE over io_uring)
//! makes the same [`call::Call`]s, gives them to the same adapter, and sends what a
//! [`reply::Reply`] says. Why there is no library under it: `fs/decisions/own-request-loop.md`.

mod abi;
mod adapter;
mod attr;
mod awake;
mod call;
mod device;
mod errno;
mod event_loop;
mod init;
mod interrupts;
mod listing;
mod mount;
mod mountinfo;
mod reply;
mod serve;
mod session;

pub use init::{BACKGROUND_MAX, WRITE_BYTES_MAX, wanted};
pub use mount::{
    Access, FSTYPE, MountError, MountPoint, ours_at, raise_read_ahead, receive_fd, unmount,
};
pub use mountinfo::{Mounted, resolve};
pub use serve::Runner;
pub use session::{Invalidations, Loops, Session};
