//! What processes use, as `/proc` says, and the kernel's caches.

use anyhow::{Context, Result};

/// What `/proc` counts in, on every kernel of Linux for years (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

/// Seconds of CPU, of user and system together, that processes have used so far.
pub fn cpu_seconds(pids: &[u32]) -> f64 {
    let ticks: u64 = pids
        .iter()
        .filter_map(|pid| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            // Behind the name, which is in parentheses and may hold any.
            let (_, rest) = stat.rsplit_once(") ")?;
            let mut fields = rest.split(' ').skip(11).map(str::parse::<u64>);
            Some(fields.next()?.ok()? + fields.next()?.ok()?)
        })
        .sum();
    ticks as f64 / TICKS_PER_SECOND
}

/// The largest resident memory since [`reset_peaks`], summed over processes.
pub fn peak_mib(pids: &[u32]) -> f64 {
    let kib: u64 = pids
        .iter()
        .filter_map(|pid| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
            line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
        })
        .sum();
    kib as f64 / 1024.0
}

/// Forgets the largest resident memory so far.
pub fn reset_peaks(pids: &[u32]) {
    for pid in pids {
        let _ = std::fs::write(format!("/proc/{pid}/clear_refs"), "5");
    }
}

/// Empties the kernel's caches of what is on disk already.
///
/// # Errors
/// Where root is needed.
pub fn drop_caches() -> Result<()> {
    rustix::fs::sync();
    std::fs::write("/proc/sys/vm/drop_caches", "3").context("emptying the kernel's caches")
}
