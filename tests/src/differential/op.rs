//! The operations and where they come from: few names, so that they meet each other often.

use rand::RngExt;
use rand::rngs::StdRng;

/// Directories and files draw from these.
const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
/// Names of what is no directory, mostly.
const LEAVES: [&str; 4] = ["c", "d", "e", "f"];
/// What stands in the middle of a path; they are made first, and may become anything later.
const DIRECTORIES: [&str; 2] = ["a", "b"];
/// Directories above the last name of a path.
const ABOVE: [usize; 5] = [0, 0, 1, 1, 2];
/// Files stay below this.
const FILE_BYTES_MAX: u64 = 3 << 20;
/// One write or copy is at most this.
const IO_BYTES_MAX: u64 = 300_000;
/// Descriptors that stay open across operations.
pub const SLOTS: usize = 6;

/// A path relative to the root of the run.
pub type Path = String;

/// On whose behalf: 0 is root, others are plain users, each in a group of the same number.
pub type Who = u32;

/// One operation with all its arguments.
#[derive(Debug, Clone)]
pub enum Op {
    /// `open`, kept in a slot.
    Open { who: Who, slot: usize, path: Path, flags: i32, mode: u32, umask: u32 },
    /// `close`.
    Close { slot: usize },
    /// `pread`.
    Read { slot: usize, offset: u64, length: u64 },
    /// `pwrite` (or an append, when opened so) of bytes from a seed.
    Write { who: Who, slot: usize, offset: u64, length: u64, seed: u8 },
    /// A store through a shared mapping, and msync.
    MapWrite { slot: usize, offset: u64, length: u64, seed: u8 },
    /// `ftruncate`.
    Ftruncate { slot: usize, length: u64 },
    /// `truncate`.
    Truncate { who: Who, path: Path, length: u64 },
    /// `fallocate` with a mode.
    Fallocate { slot: usize, mode: i32, offset: u64, length: u64 },
    /// `lseek` for data (or a hole).
    Seek { slot: usize, hole: bool, offset: u64 },
    /// `copy_file_range`.
    Copy { from: usize, to: usize, offset: u64, target: u64, length: u64 },
    /// `fstat`.
    Fstat { slot: usize },
    /// `fsync`.
    Fsync { slot: usize },
    /// OFD lock: 0 read, 1 write, 2 unlock.
    Lock { slot: usize, kind: i16, offset: u64, length: u64 },
    /// `flock`, not waiting: shared, exclusive or unlock.
    Flock { slot: usize, kind: i32 },
    /// `lstat`, or `stat`.
    Stat { who: Who, path: Path, follow: bool },
    /// `mkdir`.
    Mkdir { who: Who, path: Path, mode: u32, umask: u32 },
    /// `mknod`.
    Mknod { who: Who, path: Path, mode: u32, device: (u32, u32), umask: u32 },
    /// `symlink`.
    Symlink { who: Who, path: Path, target: Path },
    /// `readlink`.
    Readlink { path: Path },
    /// `link`.
    Link { who: Who, from: Path, to: Path },
    /// `unlink`, or `rmdir`.
    Remove { who: Who, path: Path, directory: bool },
    /// `renameat2`.
    Rename { who: Who, from: Path, to: Path, flags: u32 },
    /// `chmod`.
    Chmod { who: Who, path: Path, mode: u32 },
    /// `lchown`.
    Chown { who: Who, path: Path, uid: Option<u32>, gid: Option<u32> },
    /// `utimensat` with given times.
    Times { who: Who, path: Path, mtime: (i64, i64) },
    /// `lsetxattr`.
    SetXattr { who: Who, path: Path, name: String, value: Vec<u8>, flags: u32 },
    /// `lgetxattr`.
    GetXattr { who: Who, path: Path, name: String },
    /// `lremovexattr`.
    RemoveXattr { who: Who, path: Path, name: String },
    /// `llistxattr`.
    ListXattr { path: Path },
    /// A listing with types.
    List { who: Who, path: Path },
    /// `access` on the effective ids.
    Access { who: Who, path: Path, mode: u32 },
}

/// What a round begins with.
pub fn first(index: usize) -> Option<Op> {
    const FIRST: [&str; 6] = ["a", "b", "a/a", "a/b", "b/a", "b/b"];
    let path = (*FIRST.get(index)?).to_owned();
    Some(Op::Mkdir { who: 0, path, mode: 0o777, umask: 0 })
}

/// The next operation.
pub fn random(r: &mut StdRng) -> Op {
    // Data operations come in the numbers that real programs make of them.
    match r.random_range(0..100) {
        0..14 => Op::Open {
            who: who(r),
            slot: slot(r),
            path: leaf(r),
            flags: flags(r),
            mode: mode(r),
            umask: umask(r),
        },
        14..17 => Op::Close { slot: slot(r) },
        17..21 => Op::Read { slot: slot(r), offset: offset(r), length: length(r) },
        21..32 => Op::Write {
            who: who(r),
            slot: slot(r),
            offset: offset(r),
            length: length(r),
            seed: r.random(),
        },
        32..34 => {
            Op::MapWrite { slot: slot(r), offset: offset(r), length: length(r), seed: r.random() }
        }
        34..36 => Op::Ftruncate { slot: slot(r), length: offset(r) },
        36..37 => Op::Truncate { who: who(r), path: leaf(r), length: offset(r) },
        37..42 => {
            Op::Fallocate { slot: slot(r), mode: falloc(r), offset: offset(r), length: length(r) }
        }
        42..44 => Op::Seek { slot: slot(r), hole: r.random(), offset: offset(r) },
        44..47 => Op::Copy {
            from: slot(r),
            to: slot(r),
            offset: offset(r),
            target: offset(r),
            length: length(r),
        },
        47..49 => Op::Fstat { slot: slot(r) },
        49..50 => Op::Fsync { slot: slot(r) },
        50..52 => Op::Lock {
            slot: slot(r),
            kind: r.random_range(0..3),
            offset: r.random_range(0..64),
            length: r.random_range(0..32),
        },
        52..53 => Op::Flock {
            slot: slot(r),
            kind: *pick(r, &[libc::LOCK_SH, libc::LOCK_EX, libc::LOCK_UN]),
        },
        53..57 => Op::Stat { who: who(r), path: path(r), follow: r.random() },
        57..63 => Op::Mkdir { who: who(r), path: path(r), mode: mode(r), umask: umask(r) },
        63..66 => mknod(r),
        66..69 => Op::Symlink { who: who(r), path: leaf(r), target: leaf(r) },
        69..70 => Op::Readlink { path: leaf(r) },
        70..74 => Op::Link { who: who(r), from: leaf(r), to: leaf(r) },
        74..79 => Op::Remove { who: who(r), path: leaf(r), directory: r.random_ratio(1, 3) },
        79..86 => Op::Rename {
            who: who(r),
            from: leaf(r),
            to: leaf(r),
            flags: *pick(r, &[0, 0, 0, 1, 2, 4, 5, 3, 6]),
        },
        86..88 => Op::Chmod { who: who(r), path: path(r), mode: mode(r) },
        88..90 => Op::Chown { who: who(r), path: path(r), uid: id(r), gid: id(r) },
        90..91 => Op::Times {
            who: who(r),
            path: path(r),
            mtime: (r.random_range(0..2_000_000_000), r.random_range(0..1_000_000_000)),
        },
        91..94 => set_xattr(r),
        94..95 => Op::GetXattr { who: who(r), path: path(r), name: xattr_name(r) },
        95..96 => Op::RemoveXattr { who: who(r), path: path(r), name: xattr_name(r) },
        96..97 => Op::ListXattr { path: path(r) },
        97..99 => Op::List { who: who(r), path: path(r) },
        _ => Op::Access { who: who(r), path: path(r), mode: r.random_range(0..8) },
    }
}

fn pick<'a, T>(r: &mut StdRng, from: &'a [T]) -> &'a T {
    &from[r.random_range(0..from.len())]
}

fn who(r: &mut StdRng) -> Who {
    *pick(r, &[0, 0, 0, 0, 1001, 1002])
}

fn slot(r: &mut StdRng) -> usize {
    r.random_range(0..SLOTS)
}

fn path(r: &mut StdRng) -> Path {
    // At and over NAME_MAX, an empty path, the root and a trailing slash: rare, but they happen.
    match r.random_range(0..400) {
        0 => return "n".repeat(255),
        1 => return "n".repeat(256),
        2 => return String::new(),
        3 => return ".".to_owned(),
        4 => return format!("{}/", pick(r, &NAMES)),
        _ => {}
    }
    below(r, &NAMES)
}

/// For what turns directories into something else: those in the middle of paths mostly stay.
fn leaf(r: &mut StdRng) -> Path {
    if r.random_ratio(1, 12) { path(r) } else { below(r, &LEAVES) }
}

fn below(r: &mut StdRng, names: &[&str]) -> Path {
    let above = *pick(r, &ABOVE);
    let mut parts: Vec<&str> = (0..above).map(|_| *pick(r, &DIRECTORIES)).collect();
    parts.push(*pick(r, names));
    parts.join("/")
}

fn offset(r: &mut StdRng) -> u64 {
    // Ends of blocks and chunks are where mistakes are made.
    let any = r.random_range(0..FILE_BYTES_MAX);
    match r.random_range(0..4) {
        0 => any,
        1 => any & !4095,
        2 => r.random_range(0..10_000),
        _ => 0,
    }
}

fn length(r: &mut StdRng) -> u64 {
    let any = r.random_range(0..IO_BYTES_MAX);
    match r.random_range(0..5) {
        0 => any,
        1 => any & !4095,
        2 => r.random_range(0..100),
        _ => r.random_range(0..10_000),
    }
}

fn mode(r: &mut StdRng) -> u32 {
    const MODES: [u32; 14] = [
        0o644, 0o666, 0o755, 0o777, 0o777, 0o777, 0o700, 0o4755, 0o2755, 0o2775, 0o1777, 0o6711,
        0o000, 0o2644,
    ];
    *pick(r, &MODES)
}

fn umask(r: &mut StdRng) -> u32 {
    *pick(r, &[0o022, 0o022, 0o000, 0o077, 0o027])
}

fn flags(r: &mut StdRng) -> i32 {
    let access =
        *pick(r, &[libc::O_RDWR, libc::O_RDWR, libc::O_RDWR, libc::O_RDONLY, libc::O_WRONLY]);
    let mut flags = access;
    for (flag, times, of) in [
        (libc::O_CREAT, 3, 4),
        (libc::O_EXCL, 1, 8),
        (libc::O_TRUNC, 1, 8),
        (libc::O_APPEND, 1, 6),
        (libc::O_NOFOLLOW, 1, 8),
        (libc::O_SYNC, 1, 30),
        (libc::O_DIRECTORY, 1, 30),
    ] {
        if r.random_ratio(times, of) {
            flags |= flag;
        }
    }
    // Linux made O_CREAT with O_DIRECTORY an error only lately, before that a mess.
    if flags & libc::O_DIRECTORY != 0 { flags & !libc::O_CREAT } else { flags }
}

fn falloc(r: &mut StdRng) -> i32 {
    let (keep, punch, zero) =
        (libc::FALLOC_FL_KEEP_SIZE, libc::FALLOC_FL_PUNCH_HOLE, libc::FALLOC_FL_ZERO_RANGE);
    *pick(r, &[0, keep, keep | punch, keep | punch, zero, zero | keep, punch])
}

fn id(r: &mut StdRng) -> Option<u32> {
    *pick(r, &[None, Some(0), Some(1001), Some(1002), Some(165_535)])
}

fn mknod(r: &mut StdRng) -> Op {
    let kind =
        *pick(r, &[libc::S_IFIFO, libc::S_IFSOCK, libc::S_IFCHR, libc::S_IFBLK, libc::S_IFREG]);
    let device = if kind == libc::S_IFCHR && r.random() { (0, 0) } else { (1, 3) };
    Op::Mknod {
        who: who(r),
        path: leaf(r),
        mode: kind | (mode(r) & 0o777),
        device,
        umask: umask(r),
    }
}

fn xattr_name(r: &mut StdRng) -> String {
    const NAMES: [&str; 9] = [
        "user.a",
        "user.b",
        "trusted.a",
        "trusted.overlay.opaque",
        "security.capability",
        "system.posix_acl_access",
        "system.posix_acl_default",
        "system.posix_acl_access",
        "nonsense",
    ];
    (*pick(r, &NAMES)).to_owned()
}

fn set_xattr(r: &mut StdRng) -> Op {
    let name = xattr_name(r);
    let value = match name.as_str() {
        "security.capability" => capability(),
        acl if acl.starts_with("system.") => self::acl(r),
        // ext4 keeps all of an inode's attributes in one block: stay well below it.
        _ => (0..r.random_range(0..200)).map(|_| r.random()).collect(),
    };
    Op::SetXattr { who: who(r), path: path(r), name, value, flags: *pick(r, &[0, 0, 0, 1, 2]) }
}

/// cap_net_raw+ep, version 2 of the kernel's `struct vfs_cap_data`.
fn capability() -> Vec<u8> {
    let words: [u32; 5] = [0x0200_0001, 1 << 13, 0, 0, 0];
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// A POSIX ACL in the kernel's xattr form; one in six is invalid.
fn acl(r: &mut StdRng) -> Vec<u8> {
    const USER_OBJ: u16 = 1;
    const USER: u16 = 2;
    const GROUP_OBJ: u16 = 4;
    const GROUP: u16 = 8;
    const MASK: u16 = 16;
    const OTHER: u16 = 32;
    const NOBODY: u32 = u32::MAX;
    let mut perm = || r.random_range(0..8_u16);
    let mut entries = vec![(USER_OBJ, perm(), NOBODY)];
    let (user, group_obj, group, mask, other) = (perm(), perm(), perm(), perm(), perm());
    let (with_user, with_group) = (user & 1 == 1, group & 1 == 1);
    if with_user {
        entries.push((USER, user, 1001));
    }
    entries.push((GROUP_OBJ, group_obj, NOBODY));
    if with_group {
        entries.push((GROUP, group, 1002));
    }
    if (with_user || with_group) != r.random_ratio(1, 6) {
        entries.push((MASK, mask, NOBODY));
    }
    entries.push((OTHER, other, NOBODY));
    let mut value = 2_u32.to_le_bytes().to_vec();
    for (tag, perm, id) in entries {
        value.extend(tag.to_le_bytes());
        value.extend(perm.to_le_bytes());
        value.extend(id.to_le_bytes());
    }
    value
}
