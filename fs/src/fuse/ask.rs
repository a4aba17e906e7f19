//! What a mount asks of the kernel, and how many event loops serve it. Public, so that what is
//! measured beside a home (the floor of `bench/`) can be served in exactly the same way.

use fuser::{InitFlags, KernelConfig};

use crate::view::Form;

/// Largest write, and with it largest read, of one request.
const WRITE_BYTES_MAX: u32 = 1 << 20;
/// Read-ahead, asynchronous and mmap writes that the kernel may have in flight on the whole
/// connection. As many as it can say: they are bounded per home, in the daemon.
const BACKGROUND_MAX: u16 = u16::MAX;
/// What every mount asks of the kernel, where the kernel can. Listings always bring attributes
/// along (no FUSE_READDIRPLUS_AUTO): they come out of a scan for a few microseconds each, and a
/// LOOKUP of each name later is a request. By itself the kernel would ask for attributes with the
/// first 32 KiB of a listing only.
const FLAGS: [InitFlags; 12] = [
    InitFlags::FUSE_ASYNC_READ,
    InitFlags::FUSE_ASYNC_DIO,
    InitFlags::FUSE_BIG_WRITES,
    InitFlags::FUSE_CACHE_SYMLINKS,
    InitFlags::FUSE_DONT_MASK,
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_EXPLICIT_INVAL_DATA,
    InitFlags::FUSE_EXPORT_SUPPORT,
    InitFlags::FUSE_HANDLE_KILLPRIV_V2,
    InitFlags::FUSE_MAX_PAGES,
    InitFlags::FUSE_PARALLEL_DIROPS,
    InitFlags::FUSE_POSIX_ACL,
];
/// What a mount of the local form asks besides.
const FLAGS_LOCAL: [InitFlags; 2] =
    [InitFlags::FUSE_NO_OPEN_SUPPORT, InitFlags::FUSE_NO_OPENDIR_SUPPORT];
/// What a mount of the shared form asks besides.
const FLAGS_SHARED: [InitFlags; 2] = [InitFlags::FUSE_POSIX_LOCKS, InitFlags::FUSE_FLOCK_LOCKS];

/// Asks for what a mount of `form` needs; what the kernel does not offer is left out.
pub fn ask_kernel(form: Form, config: &mut KernelConfig) {
    let besides = match form {
        Form::Local => FLAGS_LOCAL,
        Form::Shared => FLAGS_SHARED,
    };
    for flag in FLAGS.into_iter().chain(besides) {
        if config.add_capabilities(flag).is_err() {
            tracing::debug!(?flag, "the kernel does not offer this");
        }
    }
    let _ = config.set_max_write(WRITE_BYTES_MAX);
    let _ = config.set_max_background(BACKGROUND_MAX);
}

/// The event loops of a mount: each with a connection to the kernel of its own.
#[must_use]
pub fn session_config(threads: usize) -> fuser::Config {
    let mut config = fuser::Config::default();
    config.n_threads = Some(threads.max(1));
    config.clone_fd = true;
    config
}
