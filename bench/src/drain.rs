//! What a contender has deleted on Ceph leaves the cluster later. The next one shall neither pay
//! for that nor find the store full: the cluster keeps everything in memory.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::Value;
use yadokari_tests::ceph::Ceph;

/// The cluster is asked this often; what it says is about a second old.
const PAUSE: Duration = Duration::from_secs(2);
/// It has settled when it keeps no less than this long ago.
const STILL: Duration = Duration::from_secs(20);
/// Nobody waits longer.
const TIME_MAX: Duration = Duration::from_secs(180);
/// Less is not waited for.
const SLACK_BYTES: u64 = 64 << 20;

/// Bytes of all objects.
///
/// # Errors
/// What `ceph df` said.
pub fn stored_bytes(ceph: &Ceph) -> Result<u64> {
    let said: Value = serde_json::from_str(&ceph.ceph(&["df", "--format", "json"])?)?;
    let pools = said["pools"].as_array().context("`ceph df` names no pools")?;
    Ok(pools.iter().filter_map(|pool| pool["stats"]["stored"].as_u64()).sum())
}

/// Waits until the cluster keeps about `before` bytes again, or no less than a while ago.
///
/// # Errors
/// As [`stored_bytes`].
pub fn wait(ceph: &Ceph, before: u64) -> Result<()> {
    let started = Instant::now();
    let mut least = (u64::MAX, started);
    // What was just removed counts for a moment more.
    std::thread::sleep(PAUSE);
    while started.elapsed() < TIME_MAX && least.1.elapsed() < STILL {
        let stored = stored_bytes(ceph)?;
        if stored <= before + SLACK_BYTES {
            return Ok(());
        }
        if stored < least.0 {
            least = (stored, Instant::now());
        }
        std::thread::sleep(PAUSE);
    }
    Ok(())
}
