//! The seam through which leases see time pass.

use std::fmt;
use std::time::Duration;

/// A clock that only goes forward, at the speed of real time. Where it starts means nothing.
pub trait Monotonic: fmt::Debug + Send + Sync + 'static {
    /// Time since the clock's own start.
    fn now(&self) -> Duration;
}

/// The kernel's `CLOCK_BOOTTIME`: unlike `CLOCK_MONOTONIC` (and `std::time::Instant`) it counts
/// the time that the machine was suspended, in which a lease does run out.
#[derive(Clone, Copy, Debug, Default)]
pub struct BootClock;

impl Monotonic for BootClock {
    fn now(&self) -> Duration {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
        let nanoseconds = u32::try_from(now.tv_nsec).unwrap_or(0);
        Duration::new(seconds, nanoseconds)
    }
}
