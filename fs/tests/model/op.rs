//! Operations as they are generated: numbers that are resolved against the tree when they run, so
//! that any part of a sequence is a sequence.

/// Numbers behind one operation.
pub type Raw = [u16; 7];

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Wait,
    Make,
    Write,
    Read,
    Lookup,
    Forget,
    Unlink,
    Rename,
    Link,
    Rmdir,
    List,
    Setattr,
    Truncate,
    Fallocate,
    Seek,
    Copy,
    Setxattr,
    Getxattr,
    Removexattr,
    Snapshot,
    RemoveSnapshot,
    Schedule,
    Fsync,
    Sync,
    SetQuota,
    Check,
    Reopen,
    Crash,
    CrashLater,
    ForgetAll,
}

const WEIGHTS: [(What, u16); 30] = [
    (What::Wait, 8),
    (What::Make, 14),
    (What::Write, 26),
    (What::Read, 8),
    (What::Lookup, 6),
    (What::Forget, 6),
    (What::Unlink, 8),
    (What::Rename, 14),
    (What::Link, 4),
    (What::Rmdir, 3),
    (What::List, 5),
    (What::Setattr, 6),
    (What::Truncate, 7),
    (What::Fallocate, 8),
    (What::Seek, 4),
    (What::Copy, 12),
    (What::Setxattr, 6),
    (What::Getxattr, 2),
    (What::Removexattr, 3),
    (What::Snapshot, 3),
    (What::RemoveSnapshot, 2),
    (What::Schedule, 2),
    (What::Fsync, 9),
    (What::Sync, 1),
    (What::SetQuota, 2),
    (What::Check, 2),
    (What::Reopen, 2),
    (What::Crash, 2),
    (What::CrashLater, 2),
    (What::ForgetAll, 2),
];

impl What {
    /// Which operation the first number means.
    pub fn of(raw: &Raw) -> What {
        let total: u16 = WEIGHTS.iter().map(|(_, weight)| weight).sum();
        let mut n = raw[0] % total;
        for (what, weight) in WEIGHTS {
            if n < weight {
                return what;
            }
            n -= weight;
        }
        unreachable!("the weights add up")
    }
}

/// Offsets at which something changes: pages, chunks, windows, and the end of what there is.
pub const OFFSETS: [u64; 16] = [
    0,
    0,
    0,
    100,
    4096,
    5000,
    8192,
    131_072,
    131_072,
    200_000,
    262_144,
    393_216,
    (64 << 20) - 5000,
    64 << 20,
    1 << 40,
    (i64::MAX as u64) - 100_000,
];

/// Lengths likewise.
pub const LENGTHS: [u64; 16] = [
    1, 10, 100, 500, 4096, 5000, 8192, 8193, 16_384, 65_536, 70_000, 131_072, 131_073, 200_000,
    262_144, 300_000,
];

/// Pauses in milliseconds.
pub const PAUSES: [u64; 8] = [1, 60, 500, 1_100, 2_500, 4_000, 20_000, 70_000];

pub fn pick<T: Copy>(from: &[T], n: u16) -> T {
    from[usize::from(n) % from.len()]
}

/// Bytes of which many are equal between calls, so that chunks meet each other.
pub fn content(seed: u16, len: u64) -> Vec<u8> {
    let seed = seed % 12;
    if seed < 3 {
        return vec![seed as u8 + 1; len as usize];
    }
    let mut x = u64::from(seed).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut bytes = Vec::with_capacity(len as usize + 8);
    while bytes.len() < len as usize {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        bytes.extend_from_slice(&x.to_le_bytes());
    }
    bytes.truncate(len as usize);
    bytes
}
