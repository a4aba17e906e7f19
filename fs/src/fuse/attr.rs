//! Attributes and times between a home and the kernel.

use super::abi::{Attr, SetattrIn, fattr};
use crate::home::{Kind, SetTime, Time};
use crate::view::Node;

/// The unit of `st_blocks`.
const BLOCK_BYTES: u64 = 512;

/// What `stat` recommends for reads and writes.
const IO_BYTES: u32 = 4096;

/// The kind in a `st_mode`.
pub fn mode_of(kind: Kind) -> u32 {
    match kind {
        Kind::File => libc::S_IFREG,
        Kind::Dir => libc::S_IFDIR,
        Kind::Symlink => libc::S_IFLNK,
        Kind::Fifo => libc::S_IFIFO,
        Kind::Socket => libc::S_IFSOCK,
        Kind::CharDevice => libc::S_IFCHR,
        Kind::BlockDevice => libc::S_IFBLK,
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
pub fn attr(node: &Node) -> Attr {
    let attr = &node.attr;
    Attr {
        ino: node.number,
        size: attr.size,
        blocks: attr.charged.div_ceil(BLOCK_BYTES),
        atime: attr.atime.sec,
        mtime: attr.mtime.sec,
        ctime: attr.ctime.sec,
        atimensec: attr.atime.nsec,
        mtimensec: attr.mtime.nsec,
        ctimensec: attr.ctime.nsec,
        mode: mode_of(attr.kind) | u32::from(attr.perm),
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: attr.rdev,
        blksize: IO_BYTES,
        flags: 0,
    }
}

/// The access and the modification time that a SETATTR sets.
pub fn set_times(arg: &SetattrIn) -> [Option<SetTime>; 2] {
    let time = |set: u32, now: u32, sec: i64, nsec: u32| match arg.valid & set != 0 {
        false => None,
        true if arg.valid & now != 0 => Some(SetTime::Now),
        true => Some(SetTime::At(Time { sec, nsec })),
    };
    [
        time(fattr::ATIME, fattr::ATIME_NOW, arg.atime, arg.atimensec),
        time(fattr::MTIME, fattr::MTIME_NOW, arg.mtime, arg.mtimensec),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromZeros;

    #[test]
    fn a_time_before_1970_is_set_as_the_caller_gave_it_and_one_of_now_by_the_home() {
        let mut arg = SetattrIn::new_zeroed();
        arg.valid = fattr::ATIME | fattr::MTIME | fattr::MTIME_NOW;
        (arg.atime, arg.atimensec, arg.mtime) = (-2, 800_000_000, 7);
        let before = SetTime::At(Time { sec: -2, nsec: 800_000_000 });
        assert_eq!(set_times(&arg), [Some(before), Some(SetTime::Now)]);
        arg.valid = fattr::MTIME;
        assert_eq!(set_times(&arg), [None, Some(SetTime::At(Time { sec: 7, nsec: 0 }))]);
    }

    #[test]
    fn a_mode_without_a_type_makes_a_file() {
        assert_eq!(kind(0o644), Some(Kind::File));
        assert_eq!(kind(libc::S_IFCHR), Some(Kind::CharDevice));
        assert_eq!(kind(libc::S_IFMT), None);
    }

    #[test]
    fn every_kind_survives_the_way_to_the_kernel() {
        for bits in 1..=0o17u32 {
            if let Some(kind) = kind(bits << 12) {
                assert_eq!(mode_of(kind), bits << 12);
            }
        }
    }
}
