//! What the kernel's request does not say about the thread that waits for its answer, read from
//! `/proc`: supplementary groups, capabilities, which system call it is in.
//!
//! A thread that waits for an answer stays in that system call until it gets it, so what is read
//! here belongs to the request. Only the daemon of root can read it of other users' threads.

use std::fs;

/// The system calls that are told apart, by number, of the native and the 32-bit tables of each
/// machine. The numbers of the two tables do not meet among the calls that can send a request to
/// change attributes that changes none.
#[cfg(target_arch = "x86_64")]
mod calls {
    pub const CHOWN: &[u64] = &[92, 93, 94, 260, 95, 182, 198, 207, 212, 298];
}
#[cfg(target_arch = "aarch64")]
mod calls {
    pub const CHOWN: &[u64] = &[54, 55, 95, 182, 198, 207, 212, 325];
}
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod calls {
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

/// Supplementary groups of a thread; none where they cannot be read.
#[must_use]
pub fn groups_of(tid: u32) -> Vec<u32> {
    let status = fs::read_to_string(format!("/proc/{tid}/status")).unwrap_or_default();
    let groups = field(&status, "Groups:").unwrap_or_default();
    groups.split_whitespace().filter_map(|group| group.parse().ok()).collect()
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

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_belongs_to_a_namespace_whose_map_has_it() {
        let map = "         0       1000          1\n         1     100000      65536\n";
        assert!(maps(map, 1000) && maps(map, 100_000) && maps(map, 165_535));
        assert!(!maps(map, 0) && !maps(map, 1001) && !maps(map, 165_536) && !maps("", 0));
        assert!(maps("0 0 4294967295\n", 0));
    }
}
