//! Live counters of one home, as `stats` shows them.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

/// Counters that requests add to.
#[derive(Debug, Default)]
pub struct Counters {
    /// Requests of the kernel.
    pub requests: AtomicU64,
    /// Requests that could not be answered from memory.
    pub waited: AtomicU64,
    /// Requests that failed for want of the store.
    pub failed: AtomicU64,
    /// Bytes read.
    pub read_bytes: AtomicU64,
    /// Bytes written.
    pub written_bytes: AtomicU64,
}

/// The counters at one moment; they only grow while a daemon runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountersNow {
    /// Requests of the kernel.
    pub requests: u64,
    /// Requests that could not be answered from memory.
    pub waited: u64,
    /// Requests that failed for want of the store.
    pub failed: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
}

/// Adds to a counter that nothing is ordered by.
pub fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

impl Counters {
    /// Reads all counters.
    #[must_use]
    pub fn now(&self) -> CountersNow {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CountersNow {
            requests: read(&self.requests),
            waited: read(&self.waited),
            failed: read(&self.failed),
            read_bytes: read(&self.read_bytes),
            written_bytes: read(&self.written_bytes),
        }
    }
}
