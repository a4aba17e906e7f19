//! What the kernel's request does not say about the thread that waits for its answer, read from
//! `/proc`: supplementary groups, which system call it is in, whether a signal waits for it.
//!
//! A thread that waits for an answer stays in that system call until it gets it, so what is read
//! here belongs to the request. Only the daemon of root can read it of other users' threads.

use std::fs;

/// The system calls that are told apart, by number, of the native and the 32-bit tables of each
/// machine. The numbers of the two tables do not meet among the calls that can ask for a lock, nor
/// among those that can send a request to change attributes that changes none.
#[cfg(target_arch = "x86_64")]
mod calls {
    pub const FLOCK: &[u64] = &[73, 143];
    pub const FCNTL: &[u64] = &[72, 55, 221];
    pub const CHOWN: &[u64] = &[92, 93, 94, 260, 95, 182, 198, 207, 212, 298];
}
#[cfg(target_arch = "aarch64")]
mod calls {
    pub const FLOCK: &[u64] = &[32, 143];
    pub const FCNTL: &[u64] = &[25, 55, 221];
    pub const CHOWN: &[u64] = &[54, 55, 95, 182, 198, 207, 212, 325];
}
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod calls {
    pub const FLOCK: &[u64] = &[];
    pub const FCNTL: &[u64] = &[];
    pub const CHOWN: &[u64] = &[];
}

/// A capability, by its number in `capability.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    /// To do what only an owner may.
    Fowner = 3,
    /// To keep the set-gid bit of a file whose group one is not in.
    Fsetid = 4,
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

/// Whether a waiting thread is in a `chown(2)` of any kind; `None` where it cannot be told.
#[must_use]
pub fn is_chown(tid: u32) -> Option<bool> {
    let number = number(&fs::read_to_string(format!("/proc/{tid}/syscall")).ok()?)?;
    (!calls::CHOWN.is_empty()).then(|| calls::CHOWN.contains(&number))
}

/// Whether a thread has a capability in a user namespace to which both ids belong, as the root of
/// a rootless container has it over the files of that container.
#[must_use]
pub fn stands_above(tid: u32, with: Capability, uid: u32, gid: u32) -> bool {
    let read = |name| fs::read_to_string(format!("/proc/{tid}/{name}")).unwrap_or_default();
    let status = read("status");
    let effective = field(&status, "CapEff:").and_then(|s| u64::from_str_radix(s.trim(), 16).ok());
    effective.unwrap_or(0) & (1 << with as u32) != 0
        && maps(&read("uid_map"), uid)
        && maps(&read("gid_map"), gid)
}

/// Whether a signal waits that the thread would be interrupted for. A thread that is gone is
/// interrupted.
#[must_use]
pub fn is_interrupted(tid: u32) -> bool {
    fs::read_to_string(format!("/proc/{tid}/status")).map_or(true, |status| pending(&status))
}

fn parse_lock_call(syscall: &str) -> Option<LockCall> {
    match number(syscall)? {
        n if calls::FLOCK.contains(&n) => Some(LockCall::Flock),
        n if calls::FCNTL.contains(&n) => Some(LockCall::Fcntl),
        _ => None,
    }
}

/// Whether an id is in one of the ranges of a map: first id inside, first outside, how many.
fn maps(map: &str, id: u32) -> bool {
    map.lines().any(|line| {
        let mut numbers = line.split_whitespace().skip(1).map(str::parse::<u64>);
        let (Some(Ok(first)), Some(Ok(count))) = (numbers.next(), numbers.next()) else {
            return false;
        };
        (first..first + count).contains(&u64::from(id))
    })
}

fn number(syscall: &str) -> Option<u64> {
    syscall.split_whitespace().next()?.parse().ok()
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
    fn an_id_belongs_to_a_namespace_whose_map_has_it() {
        let map = "         0       1000          1\n         1     100000      65536\n";
        assert!(maps(map, 1000) && maps(map, 100_000) && maps(map, 165_535));
        assert!(!maps(map, 0) && !maps(map, 1001) && !maps(map, 165_536) && !maps("", 0));
        assert!(maps("0 0 4294967295\n", 0));
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
