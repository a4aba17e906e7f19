//! From what went wrong in a home to what a system call gives.

use crate::home::{Error, ErrorKind};

/// The `errno` of an error.
pub fn errno(error: &Error) -> i32 {
    match error.kind() {
        ErrorKind::NotFound => libc::ENOENT,
        ErrorKind::Stale | ErrorKind::Fenced | ErrorKind::OwnedElsewhere(_) => libc::ESTALE,
        ErrorKind::Exists => libc::EEXIST,
        ErrorKind::NotDir => libc::ENOTDIR,
        ErrorKind::IsDir => libc::EISDIR,
        ErrorKind::NotEmpty => libc::ENOTEMPTY,
        ErrorKind::NameTooLong => libc::ENAMETOOLONG,
        ErrorKind::Invalid => libc::EINVAL,
        ErrorKind::NotSupported => libc::EOPNOTSUPP,
        ErrorKind::NotPermitted => libc::EPERM,
        ErrorKind::ReadOnly => libc::EROFS,
        ErrorKind::TooManyLinks => libc::EMLINK,
        ErrorKind::FileTooLarge => libc::EFBIG,
        ErrorKind::NoData => libc::ENXIO,
        ErrorKind::NoAttribute => libc::ENODATA,
        ErrorKind::AttributeTooBig => libc::E2BIG,
        ErrorKind::OverQuota => libc::EDQUOT,
        ErrorKind::NoSpace | ErrorKind::TooManySnapshots(_) => libc::ENOSPC,
        ErrorKind::WouldBlock => libc::EAGAIN,
        ErrorKind::Deadlock => libc::EDEADLK,
        ErrorKind::Closed
        | ErrorKind::Unavailable(_)
        | ErrorKind::Newer(_)
        | ErrorKind::Corrupt(_) => libc::EIO,
    }
}

/// Whether an operator must hear of it; everything else is normal work, or was told already.
pub fn is_fault(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Unavailable(_)
            | ErrorKind::Newer(_)
            | ErrorKind::Corrupt(_)
            | ErrorKind::Fenced
            | ErrorKind::Closed
    )
}
