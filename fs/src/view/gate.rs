//! Bounds on what waits for one home, so that a home whose store hangs holds neither memory nor
//! tasks that the others need.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::home::{Error, Result};

/// Requests of one home that may wait for the store at once. Each can hold a result of 1 MiB.
const RUNNING_MAX: usize = 128;

/// Data of write requests of one home that wait. Threads that write wait for their answer, so
/// this is met only by thousands of them, or by asynchronous direct writes.
const WAITING_BYTES_MAX: u64 = 512 << 20;

/// While requests of all homes that wait hold more than this, a write that joins them keeps its
/// beginning only. It is acknowledged as the short write that it is, and its program goes on
/// from there.
const CROWDED_BYTES: u64 = 32 << 20;
/// What it keeps: a page, as the kernel counts.
pub const CROWDED_WRITE_BYTES: usize = 4096;

/// Bytes of requests that wait, over all homes of the process.
static WAITING_BYTES: AtomicU64 = AtomicU64::new(0);

/// Whether requests that wait hold much, with one of `bytes` more.
#[must_use]
pub fn is_crowded(bytes: u64) -> bool {
    bytes > 0 && WAITING_BYTES.load(Ordering::Relaxed) + bytes > CROWDED_BYTES
}

/// The gate of one home.
#[derive(Debug)]
pub struct Gate {
    running: Arc<Semaphore>,
    waiting_bytes: Arc<AtomicU64>,
}

impl Default for Gate {
    fn default() -> Self {
        Self { running: Arc::new(Semaphore::new(RUNNING_MAX)), waiting_bytes: Arc::default() }
    }
}

/// Bytes of a request that waits; given back when it is dropped.
#[derive(Debug)]
pub struct WaitingBytes {
    total: Arc<AtomicU64>,
    bytes: u64,
}

impl Drop for WaitingBytes {
    fn drop(&mut self) {
        self.total.fetch_sub(self.bytes, Ordering::Relaxed);
        WAITING_BYTES.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Gate {
    /// A place among those that wait for the store, if one is free now.
    #[must_use]
    pub fn try_enter(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.running).try_acquire_owned().ok()
    }

    /// Waits for a place, first come first served. The wait does not borrow the gate.
    pub fn enter(&self) -> impl Future<Output = OwnedSemaphorePermit> + Send + 'static {
        let running = Arc::clone(&self.running);
        async move { running.acquire_owned().await.expect("the semaphore is never closed") }
    }

    /// Counts `bytes` of a request that is about to wait.
    ///
    /// # Errors
    /// `Unavailable` where too much waits already.
    pub fn hold(&self, bytes: u64) -> Result<WaitingBytes> {
        let before = self.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        WAITING_BYTES.fetch_add(bytes, Ordering::Relaxed);
        let held = WaitingBytes { total: Arc::clone(&self.waiting_bytes), bytes };
        if bytes > 0 && before + bytes > WAITING_BYTES_MAX {
            return Err(Error::unavailable("too many writes wait for this home"));
        }
        Ok(held)
    }

    /// Requests that wait for the store now.
    #[must_use]
    pub fn running(&self) -> usize {
        RUNNING_MAX - self.running.available_permits()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_gate_lets_nobody_in_until_one_leaves() {
        let gate = Gate::default();
        let mut inside: Vec<_> = (0..RUNNING_MAX).map(|_| gate.try_enter().unwrap()).collect();
        assert!(gate.try_enter().is_none());
        assert_eq!(gate.running(), RUNNING_MAX);
        inside.pop();
        assert!(gate.try_enter().is_some());
    }

    #[test]
    fn writes_beyond_the_bound_are_refused_and_what_left_counts_no_more() {
        let gate = Gate::default();
        let held = gate.hold(WAITING_BYTES_MAX).unwrap();
        assert!(gate.hold(1).is_err());
        assert!(gate.hold(0).is_ok());
        drop(held);
        assert!(gate.hold(WAITING_BYTES_MAX).is_ok());
    }
}
