//! What the kernel's request does not say about the thread that waits for its answer, read from
//! `/proc`: supplementary groups, which system call it is in, whether a signal waits for it.
//!
//! A thread that waits for an answer stays in that system call until it gets it, so what is read
//! here belongs to the request. Only the daemon of root can read it of other users' threads.

use std::fs;

/// The system calls of locks, by number, of the native and the 32-bit tables of each machine.
/// The numbers of the two tables do not meet among the calls that can ask for a lock.
#[cfg(target_arch = "x86_64")]
mod calls {
    pub const FLOCK: &[u64] = &[73, 143];
    pub const FCNTL: &[u64] = &[72, 55, 221];
}
#[cfg(target_arch = "aarch64")]
mod calls {
    pub const FLOCK: &[u64] = &[32, 143];
    pub const FCNTL: &[u64] = &[25, 55, 221];
}
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod calls {
    pub const FLOCK: &[u64] = &[];
    pub const FCNTL: &[u64] = &[];
}

/// Which family of locks a thread asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockCall {
    /// `flock(2)`.
    Flock,
    /// `fcntl(2)`: locks of a process or of an open file.
    Fcntl,
}

/// Supplementary groups of a thread; none where they cannot be read.
#[must_use]
pub fn groups_of(tid: u32) -> Vec<u32> {
    let status = fs::read_to_string(format!("/proc/{tid}/status")).unwrap_or_default();
    let groups = field(&status, "Groups:").unwrap_or_default();
    groups.split_whitespace().filter_map(|group| group.parse().ok()).collect()
}

/// The family of locks that a waiting thread asks for; `None` where it cannot be told (yet).
#[must_use]
pub fn lock_call(tid: u32) -> Option<LockCall> {
    parse_lock_call(&fs::read_to_string(format!("/proc/{tid}/syscall")).ok()?)
}

/// Whether a signal waits that the thread would be interrupted for. A thread that is gone is
/// interrupted.
#[must_use]
pub fn is_interrupted(tid: u32) -> bool {
    fs::read_to_string(format!("/proc/{tid}/status")).map_or(true, |status| pending(&status))
}

fn parse_lock_call(syscall: &str) -> Option<LockCall> {
    let number = syscall.split_whitespace().next()?.parse().ok()?;
    match number {
        n if calls::FLOCK.contains(&n) => Some(LockCall::Flock),
        n if calls::FCNTL.contains(&n) => Some(LockCall::Fcntl),
        _ => None,
    }
}

fn pending(status: &str) -> bool {
    let set = |name| field(status, name).and_then(|s| u64::from_str_radix(s.trim(), 16).ok());
    let set = |name| set(name).unwrap_or(0);
    (set("SigPnd:") | set("ShdPnd:")) & !set("SigBlk:") & !set("SigIgn:") != 0
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn flock_and_fcntl_are_told_apart_by_the_system_call() {
        assert_eq!(parse_lock_call("73 0x3 0x6 0x0 0x0 0x0 0x0 0x7f 0x7e"), Some(LockCall::Flock));
        assert_eq!(parse_lock_call("72 0x3 0x7 0x0 0x0 0x0 0x0 0x7f 0x7e"), Some(LockCall::Fcntl));
        assert_eq!(parse_lock_call("running\n"), None);
        assert_eq!(parse_lock_call("0 0x3"), None);
    }

    #[test]
    fn a_signal_interrupts_unless_it_is_blocked_or_ignored() {
        let status = |pnd, blk, ign| {
            format!("Name:\tx\nSigPnd:\t{pnd}\nShdPnd:\t0\nSigBlk:\t{blk}\nSigIgn:\t{ign}\n")
        };
        assert!(pending(&status("0000000000002000", "0", "0")));
        assert!(!pending(&status("0000000000002000", "0000000000002000", "0")));
        assert!(!pending(&status("0000000000002000", "0", "0000000000002000")));
        assert!(!pending(&status("0", "0", "0")));
    }
}
