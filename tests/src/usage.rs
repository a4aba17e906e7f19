//! What a process uses, as `/proc` tells: memory, threads, open handles; and what a home's
//! quota says beside a count of the tree.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::instance::{Instance, is_plain};

/// What an administrator is promised: a daemon with default settings is never larger.
pub const RESIDENT_MIB_MAX: u64 = 300;

/// The largest resident memory of a process since it started or since [`forget_peak`], in MiB.
///
/// # Errors
/// When the process is gone.
pub fn peak_mib(pid: u32) -> Result<u64> {
    Ok(status(pid, "VmHWM:")? >> 10)
}

/// Resident memory at this moment, in MiB.
///
/// # Errors
/// When the process is gone.
pub fn resident_mib(pid: u32) -> Result<u64> {
    Ok(status(pid, "VmRSS:")? >> 10)
}

/// Threads at this moment.
///
/// # Errors
/// When the process is gone.
pub fn threads(pid: u32) -> Result<u64> {
    status(pid, "Threads:")
}

/// Open handles at this moment.
///
/// # Errors
/// When the process is gone.
pub fn handles(pid: u32) -> Result<usize> {
    let dir = format!("/proc/{pid}/fd");
    Ok(std::fs::read_dir(&dir).with_context(|| dir.clone())?.count())
}

/// Forgets the largest resident memory so far.
///
/// # Errors
/// When the process is gone.
pub fn forget_peak(pid: u32) -> Result<()> {
    let file = format!("/proc/{pid}/clear_refs");
    std::fs::write(&file, "5").context(file)
}

/// The daemon's memory must have stayed within what is promised; says how much it was.
///
/// # Errors
/// When it was more.
pub fn stays_within_bounds(instance: &Instance, when: &str) -> Result<()> {
    let Some(pid) = instance.pid() else { return Ok(()) };
    let (peak, now) = (peak_mib(pid)?, resident_mib(pid)?);
    eprintln!("{when}: {peak} MiB at most, {now} MiB now");
    ensure!(peak < RESIDENT_MIB_MAX, "{when}: {peak} MiB were resident");
    Ok(())
}

fn status(pid: u32, field: &str) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)).context("the field")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// What the quota says of a home must be what a walk over it counts: bytes as the file system
/// says they are allocated, every inode once.
///
/// # Errors
/// When they differ.
pub fn quota_is_exact(instance: &Instance, home: &str, dir: &Path) -> Result<()> {
    if is_plain() {
        return Ok(());
    }
    let facts = instance.json(&["quota", home])?;
    let (mut bytes, mut seen) = (0, std::collections::HashSet::new());
    let mut todo = vec![dir.to_owned()];
    while let Some(path) = todo.pop() {
        let meta = path.symlink_metadata()?;
        if !seen.insert(meta.ino()) {
            continue;
        }
        bytes += meta.blocks() * 512;
        if meta.is_dir() {
            for entry in std::fs::read_dir(&path)? {
                todo.push(entry?.path());
            }
        }
    }
    let inodes = seen.len();
    ensure!(facts["inodes"] == inodes, "{inodes} inodes counted, quota says {facts}");
    // Blocks are rounded up to 512 bytes, per file.
    let charged = facts["bytes"].as_u64().context("bytes")?;
    let most = charged + 512 * inodes as u64;
    ensure!((charged..=most).contains(&bytes), "{bytes} bytes counted, quota says {facts}");
    Ok(())
}
