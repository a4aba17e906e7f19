//! What a mount asks of the kernel, and the first exchange with it. What is asked is public, so
//! that what is measured beside a home (the floor of `bench/`) can ask for the same.

use std::io;
use std::sync::Arc;

use zerocopy::FromBytes;

use super::abi::{self, InHeader, InitIn, InitOut, init, op};
use super::call::Call;
use super::device::{Device, Received};
use crate::view::Form;

/// Largest write, and with it largest read, of one request.
pub const WRITE_BYTES_MAX: u32 = 1 << 20;
/// Read-ahead, asynchronous and mmap writes that the kernel may have in flight on the whole
/// connection. As many as it can say: they are bounded per home, in the daemon.
pub const BACKGROUND_MAX: u16 = u16::MAX;
/// From how many of them on the kernel calls the connection congested.
const CONGESTION_THRESHOLD: u16 = BACKGROUND_MAX / 4 * 3;
/// What is not data of a write: its header and arguments, or those of any other request.
const HEAD_BYTES_MAX: usize = 4096;
/// The largest request.
pub const REQUEST_BYTES_MAX: usize = WRITE_BYTES_MAX as usize + HEAD_BYTES_MAX;
/// What the kernel counts requests in.
const PAGE_BYTES: u32 = 4096;

/// What every mount asks of the kernel, where the kernel can. Listings always bring attributes
/// along (no `READDIRPLUS_AUTO`): they come out of a scan for a few microseconds each, and a
/// LOOKUP of each name later is a request. By itself the kernel would ask for attributes with the
/// first 32 KiB of a listing only.
const FLAGS: u64 = init::ASYNC_READ
    | init::ASYNC_DIO
    | init::BIG_WRITES
    | init::CACHE_SYMLINKS
    | init::DONT_MASK
    | init::DO_READDIRPLUS
    | init::EXPLICIT_INVAL_DATA
    | init::EXPORT_SUPPORT
    | init::HANDLE_KILLPRIV_V2
    | init::MAX_PAGES
    | init::PARALLEL_DIROPS
    | init::POSIX_ACL;
/// What a mount of the local form asks besides.
const FLAGS_LOCAL: u64 = init::NO_OPEN_SUPPORT | init::NO_OPENDIR_SUPPORT;
/// What a mount of the shared form asks besides.
const FLAGS_SHARED: u64 = init::POSIX_LOCKS | init::FLOCK_LOCKS;

/// What a mount of `form` asks of the kernel: flags of `FUSE_INIT`.
#[must_use]
pub fn wanted(form: Form) -> u64 {
    FLAGS
        | match form {
            Form::Local => FLAGS_LOCAL,
            Form::Shared => FLAGS_SHARED,
        }
}

/// Answers the kernel's first request, INIT. What the kernel does not offer is left out.
///
/// # Errors
/// Where the kernel speaks another protocol, or the file system is gone already.
pub fn shake_hands(device: &Arc<Device>, form: Form) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(REQUEST_BYTES_MAX);
    loop {
        match device.receive(&mut buffer)? {
            Received::Nothing => device.wait()?,
            Received::Unmounted => return Err(io::ErrorKind::NotConnected.into()),
            Received::Request => {
                let (header, _) = InHeader::read_from_prefix(&buffer)
                    .map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
                let mut call = Call::new(device, header, &buffer);
                if call.opcode() != op::INIT {
                    return Err(io::Error::other("the kernel's first request is not INIT"));
                }
                let asked = call.arg::<InitIn>().map_err(io::Error::other)?;
                if answer(&mut call, &asked, form)? {
                    return Ok(());
                }
            }
        }
    }
}

/// Answers INIT; false where the kernel speaks a newer protocol and asks again in ours.
fn answer(call: &mut Call<'_>, asked: &InitIn, form: Form) -> io::Result<bool> {
    let (major, minor) = (abi::MAJOR, abi::MINOR);
    if asked.major > major {
        call.reply().body(&InitOut { major, minor, ..InitOut::default() });
        return Ok(false);
    }
    if asked.major < major || asked.minor < abi::MINOR_MIN {
        call.fail(libc::EPROTO);
        let (spoken, least) = ((asked.major, asked.minor), abi::MINOR_MIN);
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            format!(
                "the kernel speaks FUSE {}.{}; {major}.{least} is needed (Linux 4.20)",
                spoken.0, spoken.1,
            ),
        ));
    }
    let wanted = wanted(form);
    let missing = wanted & !u64::from(asked.flags);
    if missing != 0 {
        tracing::debug!(missing = format!("{missing:#x}"), "the kernel does not offer all");
    }
    call.reply().body(&InitOut {
        major,
        minor,
        max_readahead: asked.max_readahead,
        flags: u32::try_from(wanted & u64::from(asked.flags)).expect("of 32 bits"),
        max_background: BACKGROUND_MAX,
        congestion_threshold: CONGESTION_THRESHOLD,
        max_write: WRITE_BYTES_MAX,
        time_gran: 1,
        max_pages: u16::try_from(WRITE_BYTES_MAX / PAGE_BYTES).expect("256 of them"),
        ..InitOut::default()
    });
    Ok(true)
}
