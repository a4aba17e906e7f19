//! Attributes and times between a home and the kernel.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, FileType, Generation, INodeNo, TimeOrNow};

use crate::home::{Kind, SetTime, Time};
use crate::view::Node;

/// Inode numbers are never used again, so that every number has one generation.
pub const GENERATION: Generation = Generation(0);

/// The unit of `st_blocks`.
const BLOCK_BYTES: u64 = 512;

/// What `stat` recommends for reads and writes.
const IO_BYTES: u32 = 4096;

/// The kernel's word for a kind.
pub fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::File => FileType::RegularFile,
        Kind::Dir => FileType::Directory,
        Kind::Symlink => FileType::Symlink,
        Kind::Fifo => FileType::NamedPipe,
        Kind::Socket => FileType::Socket,
        Kind::CharDevice => FileType::CharDevice,
        Kind::BlockDevice => FileType::BlockDevice,
    }
}

/// The kind that a `mode` asks for; 0 means a file, as for `mknod(2)`.
pub fn kind(mode: u32) -> Option<Kind> {
    Some(match mode & libc::S_IFMT {
        0 | libc::S_IFREG => Kind::File,
        libc::S_IFDIR => Kind::Dir,
        libc::S_IFLNK => Kind::Symlink,
        libc::S_IFIFO => Kind::Fifo,
        libc::S_IFSOCK => Kind::Socket,
        libc::S_IFCHR => Kind::CharDevice,
        libc::S_IFBLK => Kind::BlockDevice,
        _ => return None,
    })
}

/// The permission bits of a `mode`.
pub fn perm(mode: u32) -> u16 {
    (mode & 0o7777) as u16
}

/// The attributes of an inode of the mount.
pub fn file_attr(node: &Node) -> FileAttr {
    let attr = &node.attr;
    FileAttr {
        ino: INodeNo(node.number),
        size: attr.size,
        blocks: attr.charged.div_ceil(BLOCK_BYTES),
        atime: system_time(attr.atime),
        mtime: system_time(attr.mtime),
        ctime: system_time(attr.ctime),
        crtime: system_time(attr.btime),
        kind: file_type(attr.kind),
        perm: attr.perm,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: attr.rdev,
        blksize: IO_BYTES,
        flags: 0,
    }
}

/// Attributes that say no more than number and kind: a name that is not there (number 0), or
/// `.` and `..` of a listing, whose attributes the kernel ignores.
pub fn bare_attr(number: u64, kind: Kind) -> FileAttr {
    FileAttr {
        ino: INodeNo(number),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: file_type(kind),
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: IO_BYTES,
        flags: 0,
    }
}

fn system_time(time: Time) -> SystemTime {
    let nsec = Duration::from_nanos(u64::from(time.nsec));
    let seconds = Duration::from_secs(time.sec.unsigned_abs());
    let whole = match time.sec {
        0.. => UNIX_EPOCH.checked_add(seconds),
        _ => UNIX_EPOCH.checked_sub(seconds),
    };
    whole.and_then(|whole| whole.checked_add(nsec)).unwrap_or(UNIX_EPOCH)
}

/// A time that `setattr` sets.
///
/// For times before 1970 the transport subtracts the nanoseconds from the epoch together with
/// the seconds instead of adding them; both are still there, so that it can be undone.
pub fn set_time(time: TimeOrNow) -> SetTime {
    let TimeOrNow::SpecificTime(time) = time else {
        return SetTime::Now;
    };
    let (sec, nsec) = match time.duration_since(UNIX_EPOCH) {
        Ok(after) => (i64::try_from(after.as_secs()).unwrap_or(i64::MAX), after.subsec_nanos()),
        Err(before) => {
            let before = before.duration();
            (0i64.saturating_sub_unsigned(before.as_secs()), before.subsec_nanos())
        }
    };
    SetTime::At(Time { sec, nsec })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_survive_the_way_to_the_kernel() {
        for time in [
            Time { sec: 0, nsec: 0 },
            Time { sec: 1, nsec: 999_999_999 },
            Time { sec: -2, nsec: 800_000_000 },
            Time { sec: -2, nsec: 0 },
        ] {
            let whole = system_time(time);
            let since = match whole.duration_since(UNIX_EPOCH) {
                Ok(after) => i128::try_from(after.as_nanos()).unwrap(),
                Err(before) => -i128::try_from(before.duration().as_nanos()).unwrap(),
            };
            let expected = i128::from(time.sec) * 1_000_000_000 + i128::from(time.nsec);
            assert_eq!(since, expected);
        }
    }

    #[test]
    fn a_time_before_1970_is_set_as_the_caller_gave_it() {
        // What the transport makes of -2 s + 0.8 s.
        let garbled = UNIX_EPOCH - Duration::new(2, 800_000_000);
        let expected = SetTime::At(Time { sec: -2, nsec: 800_000_000 });
        assert_eq!(set_time(TimeOrNow::SpecificTime(garbled)), expected);
    }

    #[test]
    fn a_mode_without_a_type_makes_a_file() {
        assert_eq!(kind(0o644), Some(Kind::File));
        assert_eq!(kind(libc::S_IFCHR), Some(Kind::CharDevice));
        assert_eq!(kind(libc::S_IFMT), None);
    }
}
